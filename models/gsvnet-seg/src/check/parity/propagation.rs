//! Flow nets, the warp, and guided filtering.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use zoo_kernels::channel_shares;
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use super::{MAPS, WARPED};
use crate::config::PropagationConfig;
use crate::flow::{FlowKind, FlowNet};
use crate::propagation::{KernelSize, Propagation, warp_scores};

/// The slope of the flow nets' activation, which is undone where a file stores what was before it.
const SLOPE: f64 = 0.1;

pub(super) fn light_flow(prepared: bool) -> Case {
    Case::new(["gsvnet_flow_light"], MAPS, move |golden, device| {
        flow_outputs(FlowKind::Light, golden, device, prepared)
    })
}

pub(super) fn flownet_s(prepared: bool) -> Case {
    Case::new(["gsvnet_flownet_s"], MAPS, move |golden, device| {
        flow_outputs(FlowKind::FlownetS, golden, device, prepared)
    })
}

fn flow_outputs(
    kind: FlowKind,
    golden: &Golden,
    device: &Device,
    prepared: bool,
) -> Result<Outputs, BoxError> {
    let mut net = FlowNet::new(kind, golden.var_builder(DType::F32, device)?)?;
    if prepared {
        net.prepare()?;
    }
    let frames = golden.input("input", device)?;
    let mut outputs = Outputs::new();
    let flow = outputs.push_probed(golden, |probe| match &net {
        FlowNet::Light(net) => net.forward_probed(&frames, probe),
        FlowNet::FlowNetS(net) => net.forward_probed(&frames, &mut |name, map| match name {
            "deconv5" => probe(name, &(map.relu()? - (map.neg()?.relu()? * (1.0 / SLOPE))?)?),
            _ => probe(name, map),
        }),
    })?;
    outputs.push("flow", &flow)?;
    Ok(outputs)
}

/// Maps along given flows.
pub(super) fn warp() -> Case {
    Case::new(["gsvnet_warp"], WARPED, |golden, device| {
        let xs = golden.input("input", device)?;
        let mut outputs = Outputs::new();
        for name in golden.meta().output_shapes.keys() {
            let Some(flow) = name.strip_prefix("flow.") else { continue };
            outputs.given(name);
            let warped = warp_scores(&xs, &golden.tensor(name, device)?)?;
            outputs.push(format!("warped.{flow}"), &warped)?;
        }
        Ok(outputs)
    })
}

#[derive(Deserialize)]
struct FilterConfig {
    num_classes: usize,
    kernel_size: usize,
}

/// From given warped scores to the filtered ones.
pub(super) fn guided_filter(prepared: bool) -> Case {
    Case::new(["gsvnet_guided_filter"], MAPS, move |golden, device| filter_outputs(golden, device, prepared))
        .with_exceptions(|_, name| match name {
            "edge" | "argmax" | "kernels" | "kernels_5x5_17" => Some(Tolerance::Exact),
            _ => None,
        })
}

fn filter_outputs(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let file: FilterConfig = golden.config()?;
    let cfg =
        PropagationConfig { kernel_size: kernel_size(file.kernel_size)?, ..PropagationConfig::default() };
    let vb = golden.var_builder(DType::F32, device)?;
    let mut net = Propagation::new(&cfg, file.num_classes, vb.pp("grm"))?;
    if prepared {
        net.prepare()?;
    }
    let mut outputs = Outputs::new();
    for (name, size) in [("kernels", KernelSize::Three), ("kernels_5x5_17", KernelSize::Five)] {
        let shape = (size.count(), 1, 1, size.side(), size.side());
        outputs.push(name, &Tensor::from_vec(size.ideal(), shape, device)?)?;
    }
    let low = golden.input("input.1", device)?;
    outputs.given("given_seg");
    let warped = golden.tensor("given_seg", device)?;
    let steps = net.forward(&low, &warped)?;
    let raw = outputs
        .push_probed(golden, |probe| net.guiding_net().forward_probed(&steps.intra, &steps.edges, probe))?;
    outputs.push("argmax", &warped.argmax_keepdim(1)?)?;
    outputs.push("intra", &steps.intra)?;
    outputs.push("edge", &steps.edges)?;
    outputs.push("guide_raw", &raw)?;
    outputs.push("weights", &steps.weights)?;
    outputs.push("out", &steps.scores)?;
    outputs.push("stack", &stack(&net, &raw, &warped, &steps.intra)?)?;
    Ok(outputs)
}

pub(super) fn kernel_size(side: usize) -> Result<KernelSize, BoxError> {
    match side {
        3 => Ok(KernelSize::Three),
        5 => Ok(KernelSize::Five),
        other => Err(format!("no bank has kernels of {other}×{other}").into()),
    }
}

/// All candidates behind one another, `[B, (kernels + 2) · C, h, w]`: what a filter gives that is one for one of them
/// and zero for the others.
fn stack(net: &Propagation, raw: &Tensor, warped: &Tensor, intra: &Tensor) -> Result<Tensor, BoxError> {
    let (b, candidates, h, w) = raw.dims4()?;
    let one = channel_shares(&Tensor::ones((b, 1, h, w), DType::F32, raw.device())?, 0.0)?;
    let zero = one.zeros_like()?;
    let maps = (0..candidates).map(|candidate| {
        let shares: Vec<_> = (0..candidates).map(|i| if i == candidate { &one } else { &zero }).collect();
        net.filter(warped, &Tensor::cat(&shares, 1)?, intra)?.contiguous()
    });
    Ok(Tensor::stack(&maps.collect::<candle_core::Result<Vec<_>>>()?, 1)?)
}
