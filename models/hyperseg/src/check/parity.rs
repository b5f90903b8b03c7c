//! The golden cases that `zoo parity` runs for this crate.

mod layers;
mod nets;
mod preprocessing;

use serde::Deserialize;
use serde_json::json;
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use crate::config::{Version, divide_channels};

/// Maps on the way: random deep nets amplify rounding.
const INNER: Tolerance = Tolerance::Golden { max_rel_absmax: 1e-3, mean_rel_absmax: 1e-4 };

/// The cases of this crate. Nets run as the loaders leave them, batch norm folded, if `prepared`;
/// otherwise as they are built.
pub fn cases(prepared: bool) -> Vec<Case> {
    vec![
        nets::net(prepared),
        nets::backbone(prepared),
        layers::case(prepared),
        division(),
        preprocessing::case(),
    ]
}

/// Lists of channels to divide, and the five models' sizes.
fn division() -> Case {
    Case::new(["hyperseg_divide_channels"], Tolerance::Exact, |golden, _| division_outputs(golden))
}

fn division_outputs(golden: &Golden) -> Result<Outputs, BoxError> {
    #[derive(Deserialize)]
    struct Division {
        channels: usize,
        unit: usize,
        weights: Vec<usize>,
    }
    #[derive(Deserialize)]
    struct Divisions {
        cases: Vec<Division>,
        models: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        model: String,
    }
    let file = golden.cases().ok_or("expected a case file")?;
    let Divisions { cases, models } = Divisions::deserialize(file)?;
    let mut outputs = Outputs::new();
    for (i, Division { channels, unit, weights }) in cases.iter().enumerate() {
        for argument in ["channels", "unit", "weights"] {
            outputs.given(format!("/cases/{i}/{argument}"));
        }
        // The supplement's pseudo-code read literally, which is nobody's code.
        outputs.given(format!("/cases/{i}/result/paper_algorithm_1"));
        for version in [Version::V1_0, Version::V0_2, Version::V0_1] {
            let shares = divide_channels(version, *channels, *unit, weights).ok();
            outputs.push_value(format!("/cases/{i}/result/{version}"), json!(shares))?;
        }
    }
    for (i, Model { model }) in models.iter().enumerate() {
        let layout = nets::preset(model)?.config().layout()?;
        let maps = || layout.maps.iter();
        let entry = json!({
            "model": model,
            "param_groups": maps().map(|map| map.params).collect::<Vec<_>>(),
            "rounded_up": maps().map(|map| map.rows()).collect::<Vec<_>>(),
            "split": maps().map(|map| map.split).collect::<Vec<_>>(),
            "offset": maps().map(|map| map.offset).collect::<Vec<_>>(),
            "groups": maps().map(|map| map.groups).collect::<Vec<_>>(),
            "total_hyper_params": maps().map(|map| map.params).sum::<usize>(),
        });
        outputs.push_value(format!("/models/{i}"), entry)?;
    }
    Ok(outputs)
}
