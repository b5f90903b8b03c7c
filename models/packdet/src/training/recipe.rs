//! Numbers of the training, and what weights begin with.

use candle_nn::Init;
use serde::{Deserialize, Serialize};
use zoo_train::{Decay, Schedule, SgdConfig};

use crate::config::{BackboneConfig, Preset};

/// Steps of the flat warm-up, and the rate's share in it.
const WARM_UP: (usize, f64) = (500, 1.0 / 3.0);
/// A class is taken to be there with this probability before anything is learned.
const PRIOR: f64 = 0.01;

/// How a preset is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Images of a step; rates go with their number.
    pub batch: usize,
    /// Rate of the weights.
    pub rate: f64,
    /// Rate of everything that is called a bias, group norms' too.
    pub bias_rate: f64,
    /// Descent of the weights.
    pub weights: SgdConfig,
    /// Descent of the biases: nothing decays.
    pub biases: SgdConfig,
    /// Steps of the whole training.
    pub steps: usize,
    /// The rates' course.
    pub schedule: Schedule,
    /// Short sides that images are resized to, drawn evenly from first to last.
    pub short_sides: [usize; 2],
    /// The longest long side.
    pub long_side: usize,
    /// How often an image is mirrored.
    pub mirrored: f64,
}

impl Recipe {
    /// The authors' of a preset: 90,000 steps of 16 images, twice as many where its name ends in `2x`.
    pub fn of(preset: Preset) -> Self {
        let descent = |weight_decay| SgdConfig { momentum: 0.9, nesterov: false, weight_decay };
        let is_long = preset.name().ends_with("-2x");
        let (steps, at, first) =
            if is_long { (180_000, [120_000, 160_000], 640) } else { (90_000, [60_000, 80_000], 800) };
        Self {
            batch: 16,
            rate: 0.01,
            bias_rate: 0.02,
            weights: descent(1e-4),
            biases: descent(0.0),
            steps,
            schedule: Schedule::new(Decay::Falls { at, factor: 0.1 }).with_flat_warmup(WARM_UP.0, WARM_UP.1),
            short_sides: [first, 800],
            long_side: 1333,
            mirrored: 0.5,
        }
    }
}

/// Whether a tensor of a checkpoint is trained: not statistics, and of ResNets neither norms nor the stem and the first
/// stage.
pub fn is_trained(backbone: &BackboneConfig, name: &str) -> bool {
    if name.contains("running_") || name.ends_with("num_batches_tracked") {
        return false;
    }
    let Some(body) = name.strip_prefix("backbone.body.") else { return true };
    match backbone {
        BackboneConfig::MobilenetV2(_) => true,
        BackboneConfig::Resnet(_) => {
            let frozen = ["stem.", "layer1.", "conv1.", "bn1."].iter().any(|part| body.starts_with(part));
            let norm = body.contains(".bn") || body.contains("downsample.1.");
            !frozen && !norm
        }
    }
}

/// What a tensor of the pyramid or of a head begins with; `None` for the body's, which come from ImageNet weights. `dims` is
/// its shape, `name` its name in a checkpoint of the authors' code.
///
/// The authors' code draws the offsets of deformable convolutions like a pyramid's, and not as 0.
pub fn initial(name: &str, dims: &[usize]) -> Option<Init> {
    if name.starts_with("backbone.body.") {
        return None;
    }
    let fan_in: usize = dims.iter().skip(1).product();
    let uniform = |bound: f64| Init::Uniform { lo: -bound, up: bound };
    let kaiming = uniform((3.0 / fan_in.max(1) as f64).sqrt());
    let weight = name.ends_with("weight");
    Some(if name.ends_with("cls_logits.bias") {
        Init::Const(-((1.0 - PRIOR) / PRIOR).ln())
    } else if weight && dims.len() < 2 || name.ends_with("scale") || name.ends_with("scales") {
        Init::Const(1.0)
    } else if !weight {
        Init::Const(0.0)
    } else if name.contains(".fpn.") || name.ends_with(".offset.weight") {
        kaiming
    // The filter of a deformable convolution, inside of which the heads' rule does not reach.
    } else if name.ends_with(".conv.conv.weight") {
        uniform((1.0 / fan_in.max(1) as f64).sqrt())
    } else {
        Init::Randn { mean: 0.0, stdev: 0.01 }
    })
}
