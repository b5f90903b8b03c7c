use candle_core::{DType, Device};
use serde::Deserialize;
use zoo_kernels::Activation;
use zoo_layers::{
    ConvSpec, DeformableConv, GroupNorm, Padding, ResNetBlock, Residual, ResidualSpec, SamePadding,
};
use zoo_parity::{BoxError, Case, Golden, Outputs};

use super::{OPERATIONS, inputs};

/// Group norm of several maps, together and each by itself.
pub(super) fn norms() -> Case {
    Case::new(["packdet.cross_head_gn"], OPERATIONS, |golden, device| {
        let NormConfig { num_groups, channels, eps } = golden.config()?;
        let vb = golden.var_builder(DType::F32, device)?.pp("gn");
        let norm = GroupNorm::new(num_groups, channels, eps, Activation::None, vb)?;
        let maps = inputs(golden, "input", device)?;
        let mut outputs = Outputs::new();
        for (i, ys) in norm.forward_jointly(&maps, &[])?.iter().enumerate() {
            outputs.push(format!("out.{i}"), ys)?;
        }
        for (i, map) in maps.iter().enumerate() {
            outputs.push(format!("separate.{i}"), &norm.forward(map, None)?)?;
        }
        Ok(outputs)
    })
}

#[derive(Deserialize)]
struct NormConfig {
    num_groups: usize,
    channels: usize,
    eps: f64,
}

/// A deformable convolution, with the offsets that it computes.
pub(super) fn deformable(prepared: bool) -> Case {
    Case::new(["packdet.dfconv2d"], OPERATIONS, move |golden, device| deform(golden, device, prepared))
}

#[derive(Deserialize)]
struct DeformConfig {
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    groups: usize,
    bias: bool,
}

fn deform(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let config: DeformConfig = golden.config()?;
    let spec = ConvSpec {
        in_channels: config.in_channels,
        out_channels: config.out_channels,
        kernel: config.kernel_size,
        stride: config.stride,
        dilation: config.dilation,
        groups: config.groups,
        padding: Padding::Same(SamePadding::Torch),
        eps: 0.0,
        act: Activation::None,
    };
    if config.padding != config.kernel_size / 2 * config.dilation {
        return Err(format!("a padding of {} keeps no size", config.padding).into());
    }
    let vb = golden.var_builder(DType::F32, device)?;
    let mut conv =
        if config.bias { DeformableConv::biased(spec, vb)? } else { DeformableConv::bare(spec, vb)? };
    if prepared {
        conv.prepare()?;
    }
    let xs = golden.input("input", device)?;
    let offsets = conv.offsets(&xs)?;
    let mut outputs = Outputs::new();
    outputs.push("offset_mask", &offsets)?;
    outputs.push("output", &conv.forward_with(&xs, &offsets)?)?;
    Ok(outputs)
}

/// Stages of ResNets, block by block.
pub(super) fn stages(prepared: bool) -> Case {
    Case::new(["packdet.resnet_stage"], OPERATIONS, move |golden, device| stage(golden, device, prepared))
}

#[derive(Deserialize)]
struct StageConfig {
    cin: usize,
    mid: usize,
    out: usize,
    groups: usize,
    stride_in_1x1: bool,
    stride: usize,
    blocks: usize,
    stage_with_dcn: bool,
}

fn stage(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let config: StageConfig = golden.config()?;
    let vb = golden.var_builder(DType::F32, device)?.pp("layer");
    let mut xs = golden.input("input", device)?;
    let mut outputs = Outputs::new();
    for i in 0..config.blocks {
        let spec = ResidualSpec {
            block: ResNetBlock::Bottleneck,
            inputs: if i == 0 { config.cin } else { config.out },
            width: config.mid,
            outputs: config.out,
            stride: if i == 0 { config.stride } else { 1 },
            stride_in_1x1: config.stride_in_1x1,
            groups: config.groups,
            deformable: config.stage_with_dcn,
            eps: 0.0,
            act: Activation::Relu,
        };
        let mut block = Residual::new(&spec, vb.pp(i))?;
        if prepared {
            block.prepare()?;
        }
        xs = block.forward(&xs)?;
        outputs.push(format!("block.{i}"), &xs)?;
    }
    Ok(outputs)
}
