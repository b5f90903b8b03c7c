//! The weight files that fit this crate's models, and how the loaders build them.

use candle_nn::VarBuilder;
use zoo_core::{Status, WeightSpec, Weights as _};
use zoo_hub::Pretrained;

use crate::config::{DetectorConfig, SegmenterConfig};
use crate::{PatchworkDet, PatchworkSeg};

/// Weights of the detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DetectorWeights {
    /// SSDLite-MobileNetV2 trained on COCO by the TensorFlow Object Detection API: the single-frame
    /// detector, never trained with windows, without an attention network.
    #[default]
    CocoSsdLite,
    /// Table 4's detector. Nobody has published such weights.
    ImagenetVid,
}

impl zoo_core::Weights for DetectorWeights {
    fn spec(&self) -> WeightSpec {
        match self {
            Self::CocoSsdLite => WeightSpec {
                name: "patchwork-det/coco-ssdlite".to_owned(),
                file: "coco-ssdlite-mobilenet-v2.safetensors".to_owned(),
                status: Status::Bundled,
                size: Some(9_350_492),
                sha256: Some("74cf3acc9dd12da9a7a97b517ca3e843f4b5350a640eb4dc2e9e63ecfaa9e0f0".to_owned()),
                license: "Apache-2.0".to_owned(),
                trained_on: "COCO (its photographs are under licences of their own, many non-commercial)"
                    .to_owned(),
                metrics: vec![],
            },
            Self::ImagenetVid => unpublished("patchwork-det/vid", "vid.safetensors", "ImageNet VID and DET"),
        }
    }

    #[cfg(feature = "bundled")]
    fn bundled(&self) -> Option<&'static [u8]> {
        match self {
            Self::CocoSsdLite => {
                Some(include_bytes!("../weights/coco-ssdlite-mobilenet-v2.safetensors").as_slice())
            }
            Self::ImagenetVid => None,
        }
    }
}

/// Weights of the segmenter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SegmenterWeights {
    /// Table 5's segmenter. Nobody has published such weights.
    #[default]
    Davis,
}

impl zoo_core::Weights for SegmenterWeights {
    fn spec(&self) -> WeightSpec {
        unpublished("patchwork-det/davis", "davis.safetensors", "DAVIS 2016")
    }
}

fn unpublished(name: &str, file: &str, paper_data: &str) -> WeightSpec {
    WeightSpec {
        name: name.to_owned(),
        file: file.to_owned(),
        status: Status::Random,
        size: None,
        sha256: None,
        license: "none".to_owned(),
        trained_on: format!("nothing yet (the paper: {paper_data})"),
        metrics: vec![],
    }
}

impl Pretrained for PatchworkDet {
    type Config = DetectorConfig;
    type Weights = DetectorWeights;

    fn config(weights: &DetectorWeights) -> DetectorConfig {
        match weights {
            DetectorWeights::CocoSsdLite => DetectorConfig::coco(),
            DetectorWeights::ImagenetVid => DetectorConfig::vid(1.0),
        }
    }

    fn new(config: &DetectorConfig, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        Self::new(config, vb).map_err(candle_core::Error::wrap)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

impl Pretrained for PatchworkSeg {
    type Config = SegmenterConfig;
    type Weights = SegmenterWeights;

    fn config(_: &SegmenterWeights) -> SegmenterConfig {
        SegmenterConfig::davis(1.0)
    }

    fn new(config: &SegmenterConfig, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        Self::new(config, vb).map_err(candle_core::Error::wrap)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

/// Everything that `zoo info` lists of this crate's weights.
pub fn all() -> Vec<WeightSpec> {
    vec![
        DetectorWeights::CocoSsdLite.spec(),
        DetectorWeights::ImagenetVid.spec(),
        SegmenterWeights::Davis.spec(),
    ]
}
