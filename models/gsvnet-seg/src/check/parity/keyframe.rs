use candle_core::{DType, Device};
use serde::Deserialize;
use zoo_core::ScoreNet as _;
use zoo_parity::{BoxError, Case, Golden, Outputs};

use super::MAPS;
use crate::keyframe::{Joins, KeyframeConfig, KeyframeKind, KeyframeNet, PyramidSwiftNet};

/// What the golden files call the nets.
const NETS: [(&str, KeyframeKind); 4] = [
    ("swiftnet_r18", KeyframeKind::SwiftnetR18),
    ("swiftnet_r18_pyramid", KeyframeKind::SwiftnetR18Pyramid),
    ("bisenet_r18", KeyframeKind::BisenetR18),
    ("bisenet_x39", KeyframeKind::BisenetX39),
];

/// The nets for key frames.
pub(super) fn case(prepared: bool) -> Case {
    Case::new(NETS.map(|(name, _)| name), MAPS, move |golden, device| outputs(golden, device, prepared))
}

/// What this crate reads of a net's entry; sizes are the nets' own.
#[derive(Deserialize)]
struct NetConfig {
    num_classes: usize,
}

fn outputs(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let model = &golden.meta().model;
    let (_, kind) = NETS
        .into_iter()
        .find(|(name, _)| name == model)
        .ok_or_else(|| format!("no net for key frames is called {model}"))?;
    let NetConfig { num_classes } = golden.config()?;
    let cfg = KeyframeConfig::new(kind, num_classes);
    let mut net = KeyframeNet::new(&cfg, golden.var_builder(DType::F32, device)?)?;
    let mut xs = golden.input("input", device)?;
    if kind == KeyframeKind::SwiftnetR18Pyramid {
        // As the file says: values from 0 to 255, which the net normalises itself.
        xs = PyramidSwiftNet::normalize(&((xs + 1.0)? * 127.5)?)?;
    }

    // Stages are shown by layers that stay by themselves; logits are those of the net in use.
    let mut in_use = net.clone();
    if prepared {
        net.prepare_with(Joins::Separate)?;
        in_use.prepare()?;
    }
    let mut outputs = Outputs::new();
    outputs.push_probed(golden, |probe| net.forward_probed(&xs, probe))?;
    outputs.push("logits", &in_use.scores(&xs)?)?;
    Ok(outputs)
}
