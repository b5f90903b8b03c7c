//! The golden cases that `zoo parity` runs for this crate.

mod boxes;
mod layers;
#[cfg(feature = "train")]
mod losses;
mod nets;
mod packing;
mod preprocessing;

use candle_core::{Device, Tensor};
use zoo_core::FrameSize;
use zoo_parity::{BoxError, Case, Golden, Tolerance};

/// Single operations.
const OPERATIONS: Tolerance = Tolerance::Approx;
/// Heads and whole nets: a thousandth of a typical value, by the specification of the golden files.
const NETS: Tolerance = Tolerance::Golden { max_rel_absmax: 1e-3, mean_rel_absmax: 1e-4 };

/// The cases of this crate. Nets run as the loaders leave them, norms folded and weights packed, if `prepared`; otherwise as
/// they are built. Those of losses need the feature `train`.
pub fn cases(prepared: bool) -> Vec<Case> {
    let mut cases = vec![
        packing::case(),
        layers::norms(),
        layers::deformable(prepared),
        layers::stages(prepared),
        preprocessing::case(),
    ];
    cases.extend(nets::cases(prepared));
    cases.extend(boxes::cases());
    #[cfg(feature = "train")]
    cases.extend(losses::cases());
    cases
}

/// The inputs `NAME.0`, `NAME.1`, … that a file has.
fn inputs(golden: &Golden, name: &str, device: &Device) -> Result<Vec<Tensor>, BoxError> {
    let names =
        (0..).map(|i| format!("{name}.{i}")).take_while(|name| golden.meta().inputs.contains_key(name));
    names.map(|name| Ok(golden.input(&name, device)?)).collect()
}

/// The input that P3 is an eighth of.
fn frame_of(p3: &Tensor) -> candle_core::Result<FrameSize> {
    let (_, _, h, w) = p3.dims4()?;
    Ok(FrameSize::new(8 * h, 8 * w))
}
