//! The nets of the comparison, with seeded weights under the names that the peers' checkpoints use.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use gsvnet_seg::{
    FlowKind, FlowNet, KeyframeConfig, KeyframeKind, KeyframeNet, Propagation, PropagationConfig, ScoreNet,
    warp_scores,
};
use hyperseg::{HyperSegNet, Preset};
use packdet::{BackboneConfig, PackDetNet};
use zoo_kernels::{
    Activation, ConvOptions, PackedConv, PackedDepthwise, Pads, Patchwise, Region, channels_last,
    patchwise_conv2d,
};
use zoo_layers::{
    Architecture, Classifier, EfficientNetConfig, EfficientNetNames, MobileNetV2Config, ResNetConfig,
    Statistics, TransformerBlock, TransformerConfig,
};
use zoo_parity::{Gain, seeded};

/// Classes of the backbones' heads.
const CLASSES: usize = 1000;

const IMAGE_CHANNELS: usize = 3;

/// Classes of GSVNet's nets: Cityscapes'.
const SCORES: usize = 19;

/// The peers' seeded scores have one value in squares of so many pixels.
const BLOCK: usize = 16;

/// One run of a net on its inputs.
type Run = Box<dyn Fn() -> candle_core::Result<Vec<Tensor>> + Send + Sync>;

/// A net on its inputs.
pub struct Net {
    pub run: Run,
    /// What of a result is compared with other engines'.
    pub compared: fn(&Tensor) -> candle_core::Result<Tensor>,
}

/// The net of a case, prepared unless it is trained, or none if it is none of ours.
///
/// | case | net |
/// |---|---|
/// | `mobilenet_v2:BxCxHxW`, `resnet18`, `resnet50`, `efficientnet_b1`, `efficientnet_lite0` | a classifier, on images of that shape |
/// | `tower:N/CxHxW/CxHxW/..` | N convolutions 3×3 with bias and ReLU, shared by maps of these shapes |
/// | `vit:H/BxNxC` | a pre-norm transformer block with H heads |
/// | `patchwise:O/K/RxC/BxCxHxW` | a dynamic convolution of R×C patches: 1×1 to O channels, or 3×3 depthwise |
/// | `hyperseg:PRESET/BxCxHxW` | a whole HyperSeg, to its logits |
/// | `packdet:PRESET/BxCxHxW` | a detector, to its raw maps |
/// | `gsvnet:NET/BxCxHxW` | GSVNet's key frame's net or flow net, or `between`, all that a frame between key frames takes, on eighths of frames |
/// | `conv:O/K/S/BxCxHxW` | one K×K convolution to O channels of stride S with bias and ReLU |
/// | `dw:K/S/BxCxHxW` | the same, depthwise |
/// | `train:NET/BxCxHxW` | forward and backward of `resnet18` or `mobilenet_v2`, norms by the batch; gives the gradients of all filters and matrices |
///
/// # Errors
/// If the net cannot be built.
pub fn build(case: &str) -> Result<Option<Net>> {
    let (kind, arguments) = case.split_once(':').context("expected KIND:ARGUMENTS")?;
    if kind == "train" {
        let (net, shape) = arguments.split_once('/').context("expected train:NET/SHAPE")?;
        let Some(shape) = numbers(shape) else { return Ok(None) };
        return match net {
            "resnet18" => training(&ResNetConfig::resnet18(), &shape.concat()).map(Some),
            "mobilenet_v2" => training(&MobileNetV2Config::default(), &shape.concat()).map(Some),
            _ => Ok(None),
        };
    }
    if kind == "hyperseg" {
        let (preset, shape) = arguments.split_once('/').context("expected hyperseg:PRESET/SHAPE")?;
        let Some(shape) = numbers(shape) else { return Ok(None) };
        return hyperseg(Preset::parse(preset)?, &shape.concat()).map(Some);
    }
    if kind == "gsvnet" {
        let (net, shape) = arguments.split_once('/').context("expected gsvnet:NET/SHAPE")?;
        let Some(shape) = numbers(shape) else { return Ok(None) };
        let run = gsvnet(net, &shape.concat())?;
        return Ok(run.map(|run| Net { run, compared: whole }));
    }
    if kind == "packdet" {
        let (preset, shape) = arguments.split_once('/').context("expected packdet:PRESET/SHAPE")?;
        let Some(shape) = numbers(shape) else { return Ok(None) };
        return packdet(packdet::Preset::parse(preset)?, &shape.concat()).map(Some);
    }
    let Some(arguments) = numbers(arguments) else { return Ok(None) };
    let arguments: Vec<&[usize]> = arguments.iter().map(Vec::as_slice).collect();
    let vb = seeded::var_builder(None, DType::F32, &Device::Cpu);
    let run = match (kind, arguments.as_slice()) {
        ("mobilenet_v2", [shape]) => classifier(&MobileNetV2Config::default(), shape, vb)?,
        ("resnet18", [shape]) => classifier(&ResNetConfig::resnet18(), shape, vb)?,
        ("resnet50", [shape]) => classifier(&ResNetConfig::resnet50(), shape, vb)?,
        ("efficientnet_b1", [shape]) => classifier(&EfficientNetConfig::b1(), shape, vb)?,
        ("efficientnet_lite0", [shape]) => {
            // timm's `efficientnet_lite0`, which pads as PyTorch does.
            let names = EfficientNetNames::Timm;
            classifier(&EfficientNetConfig { lite: true, names, ..EfficientNetConfig::b0() }, shape, vb)?
        }
        ("tower", [[blocks], shapes @ ..]) => tower(*blocks, shapes, vb)?,
        ("vit", [[heads], shape]) => {
            let channels = *shape.last().context("expected a shape")?;
            // The epsilon of timm's `Block` by itself.
            let cfg = TransformerConfig { eps: 1e-5, ..TransformerConfig::vit(channels, *heads) };
            let mut block = TransformerBlock::new(&cfg, vb)?;
            block.prepare()?;
            single(shape, move |xs| block.forward(xs, &[]))?
        }
        ("conv", [[outputs], [kernel], [stride], shape @ [_, inputs, _, _]]) => {
            let conv = conv(*inputs, *outputs, *kernel, *stride, vb)?;
            let pads = Pads::all(kernel / 2);
            layer(shape, move |xs| conv.forward(&Region::whole(xs)?, pads, None))?
        }
        ("dw", [[kernel], [stride], shape @ [_, channels, _, _]]) => {
            let weight = vb.get((*channels, 1, *kernel, *kernel), "weight")?;
            let bias = vb.get(*channels, "bias")?;
            let conv = PackedDepthwise::new(&weight, Some(&bias), *stride, Activation::Relu)?;
            let pads = Pads::all(kernel / 2);
            layer(shape, move |xs| conv.forward(&Region::whole(xs)?, pads))?
        }
        ("patchwise", [[outputs], [kernel], [rows, columns], shape @ [batch, channels, _, _]]) => {
            let (options, weights) = match kernel {
                1 => (Patchwise::pointwise(*outputs), channels * outputs),
                3 if channels == outputs => (Patchwise::depthwise(*channels), channels * 9),
                _ => return Ok(None),
            };
            let weights = input("weights", &[*batch, weights, *rows, *columns])?;
            layer(shape, move |xs| patchwise_conv2d(xs, &weights, options, None, Activation::None))?
        }
        _ => return Ok(None),
    };
    Ok(Some(Net { run, compared: whole }))
}

/// Compares all of a result.
fn whole(ys: &Tensor) -> candle_core::Result<Tensor> {
    Ok(ys.clone())
}

fn classifier(architecture: impl Into<Architecture>, shape: &[usize], vb: VarBuilder) -> Result<Run> {
    let mut net = Classifier::new(architecture, CLASSES, vb)?;
    net.prepare()?;
    single(shape, move |xs| net.forward(xs))
}

fn hyperseg(preset: Preset, shape: &[usize]) -> Result<Net> {
    // Of the oldest version's weight mappings, which have that name. With more, its dynamic weights multiply rounding
    // until no two ways of computing the same agree.
    let gain = Gain::Prefix("weight_mapper.out_conv.".to_owned(), 0.25);
    let vb = seeded::var_builder_with_gain(vec![gain], DType::F32, &Device::Cpu);
    let mut net = HyperSegNet::new(&preset.config(), vb)?;
    net.prepare()?;
    Ok(Net { run: single(shape, move |xs| net.forward(xs))?, compared: whole })
}

fn packdet(preset: packdet::Preset, shape: &[usize]) -> Result<Net> {
    // As in the golden files: deep nets of frozen norms explode without it.
    let gain = match preset.config().backbone {
        BackboneConfig::Resnet(_) => vec![Gain::MinDims(2, 0.75)],
        BackboneConfig::MobilenetV2(_) => vec![],
    };
    let mut net =
        PackDetNet::new(&preset.config(), seeded::var_builder_with_gain(gain, DType::F32, &Device::Cpu))?;
    net.prepare()?;
    let xs = input("input", shape)?;
    let run = move || {
        let maps = net.forward(&xs)?.maps;
        Ok(maps
            .into_iter()
            .flat_map(|map| [Some(map.scores), Some(map.boxes), map.centerness])
            .flatten()
            .collect())
    };
    Ok(Net { run: Box::new(run), compared: whole })
}

fn gsvnet(net: &str, shape: &[usize]) -> Result<Option<Run>> {
    let vb = seeded::var_builder(None, DType::F32, &Device::Cpu);
    Ok(Some(match net {
        "light-flow" => flow(FlowKind::Light, shape, vb)?,
        "flownet-s" => flow(FlowKind::FlownetS, shape, vb)?,
        "between" => between(shape)?,
        net => {
            let Some(kind) = KeyframeKind::ALL.into_iter().find(|kind| kind.name() == net) else {
                return Ok(None);
            };
            let mut net = KeyframeNet::new(&KeyframeConfig::new(kind, SCORES), vb)?;
            net.prepare()?;
            single(shape, move |xs| net.scores(xs))?
        }
    }))
}

fn flow(kind: FlowKind, shape: &[usize], vb: VarBuilder) -> Result<Run> {
    let mut net = FlowNet::new(kind, vb)?;
    net.prepare()?;
    let (now, before) = (input("now", shape)?, input("before", shape)?);
    Ok(Box::new(move || Ok(vec![net.forward(&now, &before)?])))
}

/// What `GsvNet::propagate` does, which would need a net for key frames.
fn between(shape: &[usize]) -> Result<Run> {
    let &[batch, _, height, width] = shape else { bail!("expected BxCxHxW, got {shape:?}") };
    // Things move by up to four pixels of the eighth.
    let gain = Gain::Prefix("ofnet.toflow.".to_owned(), 2.0);
    let vb = seeded::var_builder_with_gain(vec![gain], DType::F32, &Device::Cpu);
    let cfg = PropagationConfig::default();
    let mut flow = FlowNet::new(cfg.flow, vb.pp("ofnet"))?;
    let mut propagation = Propagation::new(&cfg, SCORES, vb.pp("grm"))?;
    flow.prepare()?;
    propagation.prepare()?;
    let (now, before) = (input("now", shape)?, input("before", shape)?);
    let scores = input("scores.205", &[batch, SCORES, height / BLOCK, width / BLOCK])?;
    // Channels last, as the frame before gave them.
    let scores = channels_last(&scores.upsample_nearest2d(height, width)?)?.permute((0, 3, 1, 2))?;
    Ok(Box::new(move || {
        let warped = warp_scores(&scores, &flow.forward(&now, &before)?)?;
        Ok(vec![propagation.forward(&now, &warped)?.scores])
    }))
}

/// One step of training without the optimiser's: the gradients of the mean cross entropy of the first class.
fn training(architecture: impl Into<Architecture>, shape: &[usize]) -> Result<Net> {
    /// PyTorch's.
    const MOMENTUM: f64 = 0.1;
    let weights = Trained::default();
    let vb = VarBuilder::from_backend(Box::new(weights.clone()), DType::F32, Device::Cpu);
    let mut net = Classifier::new(architecture, CLASSES, vb)?;
    net.set_statistics(Statistics::Batch { momentum: MOMENTUM });
    let weights = weights.0.lock().unwrap_or_else(PoisonError::into_inner);
    let weights: Vec<Var> = weights.iter().filter(|weight| weight.rank() > 1).cloned().collect();
    let xs = input("input", shape)?;
    let labels = Tensor::zeros(xs.dim(0)?, DType::U32, &Device::Cpu)?;
    let run = Box::new(move || {
        let loss = candle_nn::loss::cross_entropy(&net.forward(&xs)?, &labels)?;
        let mut grads = loss.backward()?;
        Ok(weights.iter().filter_map(|weight| grads.remove(weight)).collect())
    });
    // The norms, since a value that rounding moves across the corner of a ReLU moves every gradient before it.
    Ok(Net { run, compared: |grad| grad.sqr()?.sum_all()?.sqrt() })
}

/// Seeded weights as variables, in the order in which they are asked for.
#[derive(Clone, Default)]
struct Trained(Arc<Mutex<Vec<Var>>>);

impl SimpleBackend for Trained {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let values = seeded::value(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(var.clone());
        Ok(var.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: a seeded tensor needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Numbers and shapes: `3/64x49x96`.
fn numbers(arguments: &str) -> Option<Vec<Vec<usize>>> {
    arguments.split('/').map(|argument| argument.split('x').map(|n| n.parse().ok()).collect()).collect()
}

/// A net of one input and one result.
fn single(
    shape: &[usize],
    forward: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
) -> Result<Run> {
    let xs = input("input", shape)?;
    Ok(Box::new(move || Ok(vec![forward(&xs)?])))
}

/// A layer by itself: what it gets from the layer before it is channels last already, but not an image.
fn layer(
    shape: &[usize],
    forward: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
) -> Result<Run> {
    let mut xs = input("input", shape)?;
    if xs.dim(1)? > IMAGE_CHANNELS {
        xs = channels_last(&xs)?.permute((0, 3, 1, 2))?;
    }
    Ok(Box::new(move || Ok(vec![forward(&xs)?])))
}

fn input(name: &str, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(seeded::input(name, shape)?, shape, &Device::Cpu)?)
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, vb: VarBuilder) -> Result<PackedConv> {
    let weight = vb.get((outputs, inputs, kernel, kernel), "weight")?;
    let bias = vb.get(outputs, "bias")?;
    let options = ConvOptions { stride, ..ConvOptions::default() };
    Ok(PackedConv::new(&weight, Some(&bias), options, Activation::Relu)?)
}

fn tower(blocks: usize, shapes: &[&[usize]], vb: VarBuilder) -> Result<Run> {
    let channels = shapes.first().and_then(|shape| shape.first()).context("expected shapes")?;
    ensure!(shapes.iter().all(|shape| shape[0] == *channels), "a tower keeps its channels");
    let convs =
        (0..blocks).map(|i| conv(*channels, *channels, 3, 1, vb.pp(i))).collect::<Result<Vec<_>>>()?;
    let inputs = (0..)
        .zip(shapes)
        .map(|(i, shape)| input(&format!("input.{i}"), &[&[1], *shape].concat()))
        .collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move || {
        let through = |xs: &Tensor| {
            convs
                .iter()
                .try_fold(xs.clone(), |xs, conv| conv.forward(&Region::whole(&xs)?, Pads::all(1), None))
        };
        inputs.iter().map(through).collect()
    }))
}
