//! A key frame and the frames after it.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use super::MAPS;
use super::propagation::kernel_size;
use crate::FrameSize;
use crate::config::{ChannelOrder, Channels, KeyframeScale, PropagationConfig, Schedule};
use crate::flow::FlowKind;
use crate::keyframe::{KeyframeConfig, KeyframeKind, KeyframeNet};
use crate::net::{GsvNet, Way};

/// Class maps may differ where two classes nearly tie: a pixel in a thousand, by a class or two.
const LABELS: Tolerance = Tolerance::Golden { max_rel_absmax: 1.0, mean_rel_absmax: 5e-4 };

#[derive(Deserialize)]
struct RunConfig {
    segnet: String,
    flow: String,
    num_classes: usize,
    interval: usize,
    keyframe_scale: f64,
    kernel_size: usize,
}

/// Whole runs.
pub(super) fn case(prepared: bool) -> Case {
    Case::new(["gsvnet"], MAPS, move |golden, device| outputs(golden, device, prepared)).with_exceptions(
        |_, name| match name.rsplit('.').next() {
            Some("edge") => Some(Tolerance::Exact),
            Some("labels") => Some(LABELS),
            _ => None,
        },
    )
}

fn outputs(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let file: RunConfig = golden.config()?;
    let kind = match file.segnet.as_str() {
        "swiftnet" => KeyframeKind::SwiftnetR18,
        "bisenet" => KeyframeKind::BisenetR18,
        other => return Err(format!("no net for key frames is called {other}").into()),
    };
    let scale = KeyframeScale::ALL.into_iter().find(|scale| scale.name().parse() == Ok(file.keyframe_scale));
    let cfg = PropagationConfig {
        flow: if file.flow == "light" { FlowKind::Light } else { FlowKind::FlownetS },
        kernel_size: kernel_size(file.kernel_size)?,
        // Frames of the file are blue first.
        channels: Channels { keyframe: ChannelOrder::Bgr, propagation: ChannelOrder::Rgb },
        ..PropagationConfig::default()
    };
    let schedule = Schedule {
        interval: file.interval,
        scale: scale.ok_or_else(|| format!("no scale of {}", file.keyframe_scale))?,
        scene_change: None,
    };
    // Each part has the names of its own checkpoint.
    let part = |group: &str| golden.group_var_builder(group, DType::F32, device);
    let keyframe = KeyframeNet::new(&KeyframeConfig::new(kind, file.num_classes), part("segnet")?)?;
    let mut net = GsvNet::of_parts(keyframe, &cfg, schedule, part("ofnet")?, part("gsv")?.pp("grm"))?;
    if prepared {
        net.prepare()?;
    }
    let mut outputs = Outputs::new();
    let frames = golden.meta().inputs.len();
    let first = golden.input("input.0", device)?;
    let (_, _, h, w) = first.dims4()?;
    let size = FrameSize::new(h, w);
    let mut state = net.start(size)?;
    for i in 0..frames {
        let frame = golden.input(&format!("input.{i}"), device)?;
        let mut put = |name: &str, map: &Tensor| outputs.push_stored(golden, format!("frame{i}.{name}"), map);
        let step = net.push(&frame, &mut state)?;
        match &step.way {
            Way::Key(_) => put("key_logits", &net.key_logits(&frame)?)?,
            Way::Propagated { flow, warped, steps } => {
                put("flow", flow)?;
                put("warped", warped)?;
                put("intra", &steps.intra)?;
                put("edge", &steps.edges)?;
                put("weights", &steps.weights)?;
            }
        }
        put("out", &step.scores)?;
        put("full", &step.full_scores(size)?)?;
        put("labels", &step.labels(size)?.to_dtype(DType::F32)?)?;
    }
    Ok(outputs)
}
