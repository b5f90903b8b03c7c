//! Feature pyramid network: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017; its
//! two further levels: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
//!
//! Each map of a backbone goes through a 1×1 convolution, the coarser result is added at twice its size
//! (the nearest pixel), and a 3×3 convolution makes the level's output. All convolutions have biases;
//! there are no norms and no activations.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{FeatureInfo, FrameSize, Tally};
use zoo_kernels::{Activation, Interpolation, Pool, Region, max_pool2d};

use crate::{ConvNormAct, ConvSpec, resize_like};

/// The epsilon of convolutions without a norm.
const NO_EPS: f64 = 0.0;
/// What makes the pooled level of a map.
const EVERY_SECOND: Pool = Pool::square(1, 2, 0);

/// Levels beyond the backbone's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraLevels {
    /// As many levels as the backbone has.
    #[default]
    None,
    /// One: every second pixel of the coarsest level.
    Pool,
    /// P6 by a 3×3 convolution of stride 2 on the coarsest level, and P7 likewise on relu(P6).
    FromP5,
    /// The same, P6 from the backbone's coarsest map.
    FromC5,
}

/// Whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FpnNames {
    /// `inner_blocks.0.0`, `layer_blocks.0.0`, `extra_blocks.p6`: torchvision from 0.13 on.
    #[default]
    Torchvision,
    /// `inner_blocks.0`, `layer_blocks.0`, `extra_blocks.p6`: torchvision before that, and its files.
    TorchvisionFlat,
    /// `fpn_inner2`, `fpn_layer2`, `top_blocks.p6`, where 2 is the level of stride 8:
    /// maskrcnn-benchmark and its descendants.
    MaskrcnnBenchmark,
}

impl FpnNames {
    /// The names under which `vb` holds a pyramid.
    pub fn of(vb: &VarBuilder) -> Option<Self> {
        let has = |path: &str| vb.contains_tensor(&format!("{path}.weight"));
        if has("inner_blocks.0.0") {
            Some(Self::Torchvision)
        } else if has("inner_blocks.0") {
            Some(Self::TorchvisionFlat)
        } else {
            (1..=4).any(|level| has(&format!("fpn_inner{level}"))).then_some(Self::MaskrcnnBenchmark)
        }
    }

    /// Where level `i`'s two convolutions lie, of a map with so many input pixels a cell.
    fn level(self, i: usize, reduction: usize) -> (String, String) {
        match self {
            Self::Torchvision => (format!("inner_blocks.{i}.0"), format!("layer_blocks.{i}.0")),
            Self::TorchvisionFlat => (format!("inner_blocks.{i}"), format!("layer_blocks.{i}")),
            Self::MaskrcnnBenchmark => {
                let stage = reduction.max(1).ilog2().saturating_sub(1);
                (format!("fpn_inner{stage}"), format!("fpn_layer{stage}"))
            }
        }
    }

    fn extra(self) -> &'static str {
        match self {
            Self::Torchvision | Self::TorchvisionFlat => "extra_blocks",
            Self::MaskrcnnBenchmark => "top_blocks",
        }
    }
}

/// Options of an [`Fpn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FpnConfig {
    /// Channels of every level.
    pub channels: usize,
    /// Levels beyond the backbone's.
    pub extra: ExtraLevels,
    /// Whose names the tensors have.
    pub names: FpnNames,
}

impl Default for FpnConfig {
    /// 256 channels, no levels beyond the backbone's.
    fn default() -> Self {
        Self { channels: 256, extra: ExtraLevels::default(), names: FpnNames::default() }
    }
}

/// One map of the backbone to one level.
#[derive(Debug, Clone)]
struct Level {
    inner: ConvNormAct,
    layer: ConvNormAct,
}

/// P6 and P7.
#[derive(Debug, Clone)]
struct TopBlocks {
    p6: ConvNormAct,
    p7: ConvNormAct,
}

/// A feature pyramid over a backbone's maps.
#[derive(Debug, Clone)]
pub struct Fpn {
    name: String,
    extra: ExtraLevels,
    /// Finest first.
    levels: Vec<Level>,
    top: Option<TopBlocks>,
    info: Vec<FeatureInfo>,
}

impl Fpn {
    /// Over maps that are as `maps` says, finest first, each half as large as the one before: a
    /// backbone's [`info`](zoo_core::Backbone::info), or the end of it.
    ///
    /// # Errors
    /// If there are no maps, or a tensor is missing or has another shape.
    pub fn new(cfg: &FpnConfig, maps: &[FeatureInfo], vb: VarBuilder) -> Result<Self> {
        let &FpnConfig { channels, extra, names } = cfg;
        let name = vb.prefix();
        let Some(coarsest) = maps.last() else { bail!("{name}: a pyramid needs at least one map") };
        let (mut levels, mut info) = (Vec::new(), Vec::new());
        for (i, map) in maps.iter().enumerate() {
            let (inner, layer) = names.level(i, map.reduction);
            let lateral = ConvSpec::pointwise(map.channels, channels, NO_EPS, Activation::None);
            let output = ConvSpec::dense3(channels, channels, 1, NO_EPS, Activation::None);
            levels.push(Level {
                inner: ConvNormAct::biased(lateral, vb.pp(inner))?,
                layer: ConvNormAct::biased(output, vb.pp(&layer))?,
            });
            info.push(FeatureInfo { channels, reduction: map.reduction, name: layer });
        }
        let block = |i: usize, inputs: usize| {
            let spec = ConvSpec::dense3(inputs, channels, 2, NO_EPS, Activation::None);
            ConvNormAct::biased(spec, vb.pp(names.extra()).pp(format!("p{i}")))
        };
        let top = match extra {
            ExtraLevels::None | ExtraLevels::Pool => None,
            ExtraLevels::FromP5 => Some(TopBlocks { p6: block(6, channels)?, p7: block(7, channels)? }),
            ExtraLevels::FromC5 => {
                Some(TopBlocks { p6: block(6, coarsest.channels)?, p7: block(7, channels)? })
            }
        };
        let further = match extra {
            ExtraLevels::None => vec![],
            ExtraLevels::Pool => vec!["pool".to_owned()],
            _ => ["p6", "p7"].map(|level| format!("{}.{level}", names.extra())).to_vec(),
        };
        for (name, reduction) in further.into_iter().zip([2, 4]) {
            info.push(FeatureInfo { channels, reduction: coarsest.reduction * reduction, name });
        }
        Ok(Self { name, extra, levels, top, info })
    }

    /// What [`Fpn::forward`] gives, level by level.
    pub fn info(&self) -> &[FeatureInfo] {
        &self.info
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        for Level { inner, layer } in &mut self.levels {
            inner.prepare()?;
            layer.prepare()?;
        }
        if let Some(TopBlocks { p6, p7 }) = &mut self.top {
            p6.prepare()?;
            p7.prepare()?;
        }
        Ok(())
    }

    /// `maps`: `[B, C, H, W]` each, finest first, as many as the pyramid was built over. Result: finest
    /// first, each as large as its map; the extra levels are half the size of the one before, rounded up.
    ///
    /// # Errors
    /// If there are more or fewer maps, or a shape does not fit.
    pub fn forward(&self, maps: &[Tensor]) -> Result<Vec<Tensor>> {
        if maps.len() != self.levels.len() {
            bail!("{}: expected {} maps, got {}", self.name, self.levels.len(), maps.len())
        }
        let mut outputs = Vec::with_capacity(self.info.len());
        let mut coarser: Option<Tensor> = None;
        for (level, map) in self.levels.iter().zip(maps).rev() {
            let merged = match &coarser {
                Some(coarser) => {
                    let coarser = resize_like(coarser, map, Interpolation::Nearest)?;
                    level.inner.forward_region_add(&Region::whole(map)?, &coarser)?
                }
                None => level.inner.forward(map)?,
            };
            outputs.push(level.layer.forward(&merged)?);
            coarser = Some(merged);
        }
        outputs.reverse();
        if let (Some(level), Some(map)) = (outputs.last(), maps.last()) {
            let further = self.further(level, map)?;
            outputs.extend(further);
        }
        Ok(outputs)
    }

    /// The extra levels, from the coarsest level and the coarsest map.
    fn further(&self, level: &Tensor, map: &Tensor) -> Result<Vec<Tensor>> {
        let Some(TopBlocks { p6, p7 }) = &self.top else {
            return match self.extra {
                ExtraLevels::Pool => Ok(vec![max_pool2d(level, EVERY_SECOND)?]),
                _ => Ok(vec![]),
            };
        };
        let from = if self.extra == ExtraLevels::FromC5 { map } else { level };
        let sixth = p6.forward(from)?;
        let seventh = p7.forward(&sixth.relu()?)?;
        Ok(vec![sixth, seventh])
    }

    /// Counts every layer for maps of `sizes`, finest first; returns the sizes of the levels.
    pub fn cost(&self, sizes: &[FrameSize], tally: &mut Tally) -> Vec<FrameSize> {
        let mut outputs = sizes.to_vec();
        for (i, (level, &size)) in self.levels.iter().zip(sizes).enumerate().rev() {
            level.inner.cost(size, tally);
            if i + 1 < self.levels.len() {
                level.inner.cost_residual(size, tally);
            }
            level.layer.cost(size, tally);
        }
        let Some(&coarsest) = sizes.last() else { return outputs };
        match &self.top {
            Some(TopBlocks { p6, p7 }) => {
                let sixth = p6.cost(coarsest, tally);
                outputs.extend([sixth, p7.cost(sixth, tally)]);
            }
            None if self.extra == ExtraLevels::Pool => {
                let half = |n: usize| n.div_ceil(2);
                outputs.push(FrameSize::new(half(coarsest.height), half(coarsest.width)));
            }
            None => {}
        }
        outputs
    }
}
