//! SwiftNet's variant that looks at an image in three sizes (Section 3.5 of SwiftNet's paper, as the authors of GSVNet
//! have it).
//!
//! One ResNet-18 runs on the image, its half and its quarter, each with batch norms of its own but for those of the
//! shortcuts. Maps of equal stride are added, and a ladder of five steps climbs from stride 128 to stride 4. Unlike in
//! [`SwiftNet`](super::SwiftNet), the maps are those before the ReLU, and there is no pyramid of pools.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{Backbone as _, FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, Interpolation, Region, channel_affine, resize2d};
use zoo_layers::{
    ConvNormAct, ConvSpec, NormActConv, ResNet, ResNetConfig, Statistics, Trunk as _, resize_like,
};

use super::{FEATURES, LADDER_KERNEL, PartCosts, head, norm_relu_conv};
use crate::Probe;
use crate::keyframe::Joins;

/// Mean of red, green and blue, for values from 0 to 255.
const MEAN: [f32; 3] = [73.15, 82.9, 72.3];
/// Their deviations.
const DEVIATION: [f32; 3] = [47.67, 48.49, 47.73];
/// Sizes of the image: 1, ½ and ¼ along each side.
const SCALES: usize = 3;
/// Maps of a scale.
const STAGES: usize = 4;
/// Strides 4 to 128.
const STRIDES: usize = SCALES + STAGES - 1;

/// SwiftNet for three sizes of an image.
///
/// Its probes see `pyr1` and `pyr2` (the smaller images), `stem.{k}` and `layer1.{k}` … `layer4.{k}` of scale k, and
/// `blend0` … `blend4` from coarse to fine. Once it is prepared, each scale has filters of its own, with its norms in
/// them.
#[derive(Debug, Clone)]
pub struct PyramidSwiftNet {
    /// Of the image, its half and its quarter. Before they are prepared they share their filters.
    encoders: Vec<ResNet>,
    /// To the ladder's channels, by stage, fine to coarse; all scales share them.
    bottlenecks: Vec<ConvNormAct>,
    /// Coarse to fine.
    blends: Vec<NormActConv>,
    head: NormActConv,
    classes: usize,
    is_prepared: bool,
}

/// Where scale `k` finds a tensor that a plain ResNet asks for: the norms of the stem and of the blocks have a copy for
/// each scale, `bn1.weight` is `bn1.{k}.weight`.
fn of_scale(name: &str, scale: usize) -> String {
    let steps = name.split('.').map(|step| match step {
        "bn1" | "bn2" => format!("{step}.{scale}"),
        _ => step.to_owned(),
    });
    steps.collect::<Vec<_>>().join(".")
}

/// The tensors of one scale. A plain ResNet's file has one norm for all.
fn scale_weights<'a>(vb: &VarBuilder<'a>, scale: usize) -> VarBuilder<'a> {
    let is_plain = vb.contains_tensor("bn1.weight") && !vb.contains_tensor("bn1.0.weight");
    if is_plain {
        return vb.clone();
    }
    // What renames must start at the root, or the prefix would count twice.
    let renamed = vb.root().rename_f(move |name| of_scale(name, scale));
    vb.prefix().split('.').filter(|step| !step.is_empty()).fold(renamed, |vb, step| vb.pp(step))
}

impl PyramidSwiftNet {
    /// `vb` holds `backbone` and `logits`. Where `backbone` is a plain ResNet-18's, its norms serve all scales.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(classes: usize, vb: VarBuilder) -> Result<Self> {
        let backbone = vb.pp("backbone");
        let cfg = ResNetConfig { linear_features: true, ..ResNetConfig::resnet18() };
        let encoders = (0..SCALES).map(|scale| ResNet::new(&cfg, scale_weights(&backbone, scale)));
        let encoders = encoders.collect::<Result<Vec<_>>>()?;
        let bottleneck = |(stage, level): (usize, &zoo_core::FeatureInfo)| {
            let spec = ConvSpec::pointwise(level.channels, FEATURES, 0.0, Activation::None);
            ConvNormAct::bare(spec, backbone.pp("upsample_bottlenecks").pp(STAGES - 1 - stage))
        };
        let levels = encoders.iter().take(1).flat_map(|encoder| encoder.info()).enumerate();
        let blend = |i| {
            let vb = backbone.pp("upsample_blends").pp(i).pp("blend_conv");
            norm_relu_conv(FEATURES, FEATURES, LADDER_KERNEL, vb)
        };
        Ok(Self {
            bottlenecks: levels.map(bottleneck).collect::<Result<_>>()?,
            blends: (0..STRIDES - 1).map(blend).collect::<Result<_>>()?,
            head: head(classes, vb.pp("logits"))?,
            encoders,
            classes,
            is_prepared: false,
        })
    }

    /// Classes that it scores.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Folds batch norm and packs the weights. Inference only: gradients end here. A second call does nothing.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self, joins: Joins) -> Result<()> {
        if self.is_prepared {
            return Ok(());
        }
        if let (Joins::Joined, Some(last)) = (joins, self.blends.last_mut()) {
            last.take_in(&self.head.hand_over()?)?;
        }
        self.encoders.iter_mut().try_for_each(|encoder| encoder.prepare())?;
        self.bottlenecks.iter_mut().try_for_each(ConvNormAct::prepare)?;
        self.blends.iter_mut().try_for_each(NormActConv::prepare)?;
        self.head.prepare()?;
        self.is_prepared = true;
        Ok(())
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.encoders.iter_mut().for_each(|encoder| encoder.set_statistics(statistics));
        self.blends.iter_mut().for_each(|blend| blend.set_statistics(statistics));
        self.head.set_statistics(statistics);
    }

    /// `pixels`: `[B, 3, H, W]`, RGB from 0 to 255. Result: the same, normalised as the net was trained.
    ///
    /// # Errors
    /// If there are not three channels.
    pub fn normalize(pixels: &Tensor) -> Result<Tensor> {
        let vector = |values: [f32; 3]| Tensor::new(&values, pixels.device())?.to_dtype(pixels.dtype());
        let scale = vector(DEVIATION.map(|deviation| 1.0 / deviation))?;
        let shift = (vector(MEAN)?.neg()? * &scale)?;
        channel_affine(pixels, Some(&scale), &shift, None, Activation::None)
    }

    /// `xs`: `[B, 3, H, W]`, RGB, normalised. Result: logits, `[B, classes, ceil(H / 4), ceil(W / 4)]`.
    ///
    /// # Errors
    /// If the input's shape does not fit, and what the probe returns.
    pub fn forward(&self, xs: &Tensor, probe: Probe) -> Result<Tensor> {
        let (_, _, height, width) = xs.dims4()?;
        // By stride, fine to coarse: each map with its stage.
        let mut maps = [const { Vec::<(usize, Tensor)>::new() }; STRIDES];
        for (scale, encoder) in self.encoders.iter().enumerate() {
            // Odd sides are rounded up, as strides do, so that maps of equal stride are of equal size.
            let size = (height.div_ceil(1 << scale), width.div_ceil(1 << scale));
            let image = resize2d(xs, size, Interpolation::Bicubic)?;
            if scale > 0 {
                probe(&format!("pyr{scale}"), &image)?;
            }
            let mut stages = 0;
            encoder.forward(&image, &mut |name, map| {
                if name != "stem" {
                    if let Some(maps) = maps.get_mut(stages + scale) {
                        maps.push((stages, map.clone()));
                    }
                    stages += 1;
                }
                probe(&format!("{name}.{scale}"), map)
            })?;
        }
        let [finer @ .., coarsest] = &maps;
        let mut xs = self.sum(None, coarsest)?;
        for (i, (blend, maps)) in self.blends.iter().zip(finer.iter().rev()).enumerate() {
            xs = blend.forward(&self.sum(Some(&xs), maps)?)?;
            probe(&format!("blend{i}"), &xs)?;
        }
        self.head.forward(&xs)
    }

    /// The projections of all maps of a stride, and the coarser result at their size.
    fn sum(&self, coarse: Option<&Tensor>, maps: &[(usize, Tensor)]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (stage, map) in maps {
            let Some(bottleneck) = self.bottlenecks.get(*stage) else { continue };
            let others = match (sum, coarse) {
                (None, Some(coarse)) => Some(resize_like(coarse, map, Interpolation::Bilinear)?),
                (sum, _) => sum,
            };
            sum = Some(match others {
                Some(others) => bottleneck.forward_region_add(&Region::whole(map)?, &others)?,
                None => bottleneck.forward(map)?,
            });
        }
        sum.ok_or_else(|| candle_core::Error::msg("swiftnet: the encoders gave no map of a stride"))
    }

    /// Parameters and operations for images of `input`: `encoder`, `bottlenecks`, `ladder`, `head`. What scales share
    /// counts once as parameters.
    pub fn costs(&self, input: FrameSize) -> PartCosts {
        let size =
            |stride: usize| FrameSize::new(input.height.div_ceil(stride), input.width.div_ceil(stride));
        let [mut encoder, mut bottlenecks, mut ladder, mut head] = [const { Tally::new() }; 4];
        for (scale, net) in self.encoders.iter().enumerate() {
            let mut of_scale = Tally::new();
            net.cost(size(1 << scale), &mut of_scale);
            let mut of_projections = Tally::new();
            for (stage, bottleneck) in self.bottlenecks.iter().enumerate() {
                bottleneck.cost(size(4 << (stage + scale)), &mut of_projections);
            }
            for layer in of_scale.layers() {
                let params = if scale == 0 { layer.params } else { own_params(layer) };
                encoder.push(LayerCost { params, ..layer.clone() });
            }
            for layer in of_projections.layers() {
                let params = if scale == 0 { layer.params } else { 0 };
                bottlenecks.push(LayerCost { params, ..layer.clone() });
            }
        }
        for (i, blend) in self.blends.iter().enumerate() {
            blend.cost(size(4 << (STRIDES - 2 - i)), &mut ladder);
        }
        self.head.cost(size(4), &mut head);
        vec![("encoder", encoder), ("bottlenecks", bottlenecks), ("ladder", ladder), ("head", head)]
    }
}

/// Parameters that a layer of a further scale does not share: its norm's, unless it is a shortcut's.
fn own_params(layer: &LayerCost) -> u64 {
    if layer.outputs == 0 || layer.name.contains("downsample") {
        return 0;
    }
    // weights = channels · MACs a value, and a norm has two parameters a channel.
    let of_norm = 2;
    let per_channel = layer.macs / layer.outputs + of_norm;
    layer.params / per_channel * of_norm
}
