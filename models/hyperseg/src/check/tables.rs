//! Table S3: what the paper prints beside the counts of the nets built here, and the two ways of counting.
//!
//! Multiply–accumulates of every convolution are one number ([`Counts::macs`]). The paper's GFLOPs are
//! another ([`Counts::repository`]): those of the authors' profiler, which adds two operations a value
//! that a batch norm puts out, five a swish and one a bias, and knows dynamic convolutions only as
//! modules: in the later versions they are none and go uncounted, in the oldest they are two inside one
//! another and count twice.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Serialize;
use zoo_core::{FrameSize, LayerCost};

use crate::config::{Config, FEATURES, Preset, Version};
use crate::{Error, HyperSegNet, Result};

/// Layers of the backbone that end in a swish.
const SWISH: [&str; 5] = ["_conv_stem", "_expand_conv", "_depthwise_conv", "_se_reduce", "_conv_head"];
/// The profiler's operations for each value out of a batch norm and a swish.
const NORM_OPERATIONS: u64 = 2;
const SWISH_OPERATIONS: u64 = 5;

/// Parameters and operations of a net for images of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Stored values, norms' statistics not among them.
    pub params: u64,
    /// Those of the weight mappings: θ^w.
    pub map_params: u64,
    /// Multiply–accumulates of all convolutions, the dynamic ones with their halo.
    pub macs: u64,
    /// Those of dynamic convolutions.
    pub dynamic_macs: u64,
    /// Operations as the authors' profiler counts them.
    pub repository: u64,
}

impl Counts {
    /// Counts a net's layers.
    pub fn of(net: &HyperSegNet, size: FrameSize) -> Self {
        let parts = net.costs(size);
        let all = [&parts.backbone, &parts.head, &parts.maps, &parts.decoder].map(|part| part.total());
        let total = all.into_iter().sum::<zoo_core::Cost>();
        let dynamic_macs = parts.decoder.total().macs;
        let counted = match net.config().version {
            Version::V0_1 => 2 * dynamic_macs,
            Version::V0_2 | Version::V1_0 | Version::V1_0Unify => 0,
        };
        let outputs = |layers: &[LayerCost], which: &dyn Fn(&LayerCost) -> bool| -> u64 {
            layers.iter().filter(|layer| which(layer)).map(|layer| layer.outputs).sum()
        };
        // A layer has a bias or a norm; additions of residuals are no layers.
        let has_norm = |layer: &LayerCost| layer.params > 0 && layer.bias_adds == 0;
        let has_swish = |layer: &LayerCost| SWISH.iter().any(|name| layer.name.ends_with(name));
        let normed = [&parts.backbone, &parts.head, &parts.decoder]
            .map(|part| outputs(part.layers(), &has_norm))
            .into_iter()
            .sum::<u64>();
        let swish = if net.config().backbone.config().lite {
            0
        } else {
            outputs(parts.backbone.layers(), &has_swish)
        };
        let repository = total.macs - dynamic_macs
            + counted
            + total.bias_adds
            + NORM_OPERATIONS * normed
            + SWISH_OPERATIONS * swish;
        Self {
            params: total.params,
            map_params: parts.maps.total().params,
            macs: total.macs,
            dynamic_macs,
            repository,
        }
    }
}

/// A row of Table S3.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// g_w1 … g_w5, as the paper orders them: from fine to coarse.
    pub groups: [usize; FEATURES],
    /// mIoU on Cityscapes' validation set, in percent.
    pub miou: f64,
    /// The paper's GFLOPs, θ^w in millions, and parameters in millions.
    pub paper: [f64; 3],
    /// Ours, by Algorithm 1.
    pub v1_0: Counts,
    /// Ours, by the division that drops what is left over, which fits the paper's first row better.
    pub v0_2: Counts,
}

impl Row {
    /// Which of the paper's numbers ours print as, in the order of [`Row::paper`]: GFLOPs cut, the others
    /// rounded to one decimal.
    pub fn met(&self, ours: &Counts) -> [bool; 3] {
        let millions = |count: u64| (count as f64 / 1e5).round() / 10.0;
        let ours =
            [(ours.repository as f64 / 1e8).floor() / 10.0, millions(ours.map_params), millions(ours.params)];
        std::array::from_fn(|i| {
            ours.iter().zip(&self.paper).nth(i).is_some_and(|(a, b)| (a - b).abs() < 1e-9)
        })
    }
}

/// Table S3: HyperSeg-M at 768×1536 with different numbers of groups.
///
/// The net is the published configuration's with r_1 = ¼ instead of 1: with that, all cells of v0_2 fit,
/// and of v1_0 all but the first θ^w.
///
/// # Errors
/// If a net cannot be built.
pub fn s3() -> Result<Vec<Row>> {
    const ROWS: [([usize; FEATURES], f64, [f64; 3]); 5] = [
        ([1, 2, 4, 4, 8], 77.1, [18.0, 1.2, 11.1]),
        ([2, 4, 8, 8, 16], 77.5, [17.3, 0.6, 10.4]),
        ([4, 8, 16, 16, 32], 78.0, [16.9, 0.3, 10.1]),
        ([8, 16, 32, 32, 64], 77.8, [16.7, 0.1, 10.0]),
        ([16, 32, 64, 64, 128], 77.2, [16.6, 0.1, 9.9]),
    ];
    let rows = ROWS.map(|(groups, miou, paper)| {
        let counts = |version| {
            let cfg = Config {
                version,
                out_feat_scale: [0.25; FEATURES],
                weight_groups: groups.iter().rev().copied().collect(),
                ..Preset::CityscapesM.config()
            };
            counts(&cfg, Preset::CityscapesS.size())
        };
        Ok(Row { groups, miou, paper, v1_0: counts(Version::V1_0)?, v0_2: counts(Version::V0_2)? })
    });
    rows.into_iter().collect()
}

/// Counts a net of this configuration, which is built for the purpose: counting looks at shapes only.
///
/// # Errors
/// If it cannot be built.
pub fn counts(cfg: &Config, size: FrameSize) -> Result<Counts> {
    let net = HyperSegNet::new(cfg, VarBuilder::zeros(DType::F32, &Device::Cpu))
        .map_err(|source| Error::Candle { context: "building a net to count it", source })?;
    Ok(Counts::of(&net, size))
}
