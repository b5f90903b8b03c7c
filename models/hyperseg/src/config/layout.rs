//! The sizes that follow from a configuration: Table S1's channels, and Section 3.2's dynamic parameters.

use std::ops::Range;

use super::{Config, FEATURES, POSITIONS, Version, divide_channels};
use crate::{Error, Result};

/// Channels of the image, which is the finest feature.
const IMAGE: usize = 3;
/// The unit of channels in the oldest code, at least.
const OLDEST_UNIT: usize = 8;

/// All sizes of a net.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Channels of F_1 … F_5 as the backbone makes them, finest first.
    pub raw_features: [usize; FEATURES],
    /// Channels of F_1 … F_5 after their reductions.
    pub features: [usize; FEATURES],
    /// C: channels of the backbone's last map, and of the signal.
    pub signal: usize,
    /// The decoder's levels, coarsest first.
    pub levels: Vec<LevelShape>,
    /// The weight mappings.
    pub maps: Vec<MapShape>,
}

/// A level of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelShape {
    /// Channels of its feature map.
    pub feature: usize,
    /// Channels in: positions, feature, the level before.
    pub inputs: usize,
    /// Channels between the convolutions of a block; `None` for a single 1×1 convolution.
    pub hidden: Option<usize>,
    /// Channels out.
    pub outputs: usize,
    /// Rows and columns of the block's depthwise filter, or 1.
    pub kernel: usize,
    /// Whether a block widens its input before the depthwise convolution.
    pub widens: bool,
}

impl LevelShape {
    /// P: dynamic parameters, a patch.
    pub fn params(&self) -> usize {
        match self.hidden {
            None => self.inputs * self.outputs,
            Some(hidden) => {
                let widening = if self.widens { self.inputs * hidden } else { 0 };
                widening + hidden * self.kernel * self.kernel + hidden * self.outputs
            }
        }
    }
}

/// A grouped 1×1 convolution from channels of the signal to the parameters of some levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapShape {
    /// The levels, all of them one after the other in its result.
    pub levels: Range<usize>,
    /// P, of all of them together.
    pub params: usize,
    /// g_w.
    pub groups: usize,
    /// Channels of the signal that it reads.
    pub split: usize,
    /// The first of them.
    pub offset: usize,
}

impl MapShape {
    /// P as a multiple of the groups: rows of the convolution, of which only the first P are used.
    pub fn rows(&self) -> usize {
        self.params.next_multiple_of(self.groups)
    }
}

impl Layout {
    /// The sizes of a configuration whose lists are long enough.
    pub(crate) fn resolve(cfg: &Config) -> Result<Self> {
        let net = cfg.backbone.config();
        let raw_features = net.level_channels();
        let mut features = raw_features;
        for (channels, scale) in features.iter_mut().zip(cfg.out_feat_scale) {
            // Python's rounding: halves to even.
            *channels = (*channels as f64 * scale).round_ties_even() as usize;
            if *channels == 0 {
                return Err(Error::Config(format!("out_feat_scale has {scale}, which leaves no channels")));
            }
        }
        let signal = net.last_channels();
        let levels = levels(cfg, &features);
        let maps = maps(cfg, signal, &levels)?;
        Ok(Self { raw_features, features, signal, levels, maps })
    }
}

fn levels(cfg: &Config, features: &[usize; FEATURES]) -> Vec<LevelShape> {
    let mut before = 0;
    let features = features.iter().rev().copied().chain([IMAGE]);
    let levels = cfg.kernel_sizes.iter().zip(features).enumerate().map(|(k, (&kernel, feature))| {
        let own = cfg.level_channels.as_ref().map_or(Some(feature), |channels| channels.get(k).copied());
        let is_last = k + 1 == cfg.levels();
        let outputs = own.filter(|_| !is_last).unwrap_or(cfg.num_classes);
        let inputs = if cfg.positions { POSITIONS } else { 0 } + feature + before;
        let hidden = (inputs as f64 * cfg.expand_ratio).round_ties_even() as usize;
        let widens = cfg.version != Version::V0_1 || cfg.expand_ratio != 1.0;
        before = outputs;
        LevelShape { feature, inputs, hidden: (kernel > 1).then_some(hidden), outputs, kernel, widens }
    });
    levels.collect()
}

fn maps(cfg: &Config, signal: usize, levels: &[LevelShape]) -> Result<Vec<MapShape>> {
    let count = cfg.maps();
    let params = |range: &Range<usize>| -> usize {
        levels.get(range.clone()).unwrap_or_default().iter().map(LevelShape::params).sum()
    };
    let mut maps: Vec<MapShape> = (0..count)
        .zip(&cfg.weight_groups)
        .map(|(map, &groups)| {
            let end = if map + 1 == count { levels.len() } else { map + 1 };
            let levels = map..end;
            MapShape { params: params(&levels), levels, groups, split: 0, offset: 0 }
        })
        .collect();
    let largest = cfg.weight_groups.iter().copied().max().unwrap_or(1);
    let (unit, weights): (usize, Vec<usize>) = match cfg.version {
        Version::V0_1 => (largest.max(OLDEST_UNIT), maps.iter().map(MapShape::rows).collect()),
        _ => (largest, maps.iter().map(|map| map.params).collect()),
    };
    let mut offset = 0;
    for (map, split) in maps.iter_mut().zip(divide_channels(cfg.version, signal, unit, &weights)?) {
        if split == 0 || !split.is_multiple_of(map.groups) {
            return Err(Error::Config(format!(
                "levels {:?} get {split} of the signal's {signal} channels, which {} groups do not divide: change weight_groups",
                map.levels, map.groups
            )));
        }
        map.split = split;
        map.offset = offset;
        if cfg.version.offsets_run() {
            offset += split;
        }
    }
    Ok(maps)
}
