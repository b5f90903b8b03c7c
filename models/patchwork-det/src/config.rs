//! What can be chosen, and the presets of the paper's tables.

use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, Labels, labels};
use zoo_layers::{MobileNetV2Config, SamePadding};
use zoo_vision::{Normalization, Resize};

use crate::anchors::AnchorConfig;
use crate::postprocess::PostProcess;
use crate::{Error, Grid, PolicyKind, Result};

/// Channels of the segmenter's laterals; chosen to meet Table 5's FLOP counts.
const LATERAL_CHANNELS: usize = 232;
/// The frame of Tables 3 to 5: Table 3's windows of 96² pixels are a quarter of its side.
pub const PAPER_FRAME: FrameSize = FrameSize::new(384, 384);
/// Frames beyond this would need tens of gigabytes of feature maps.
const MAX_FRAME_PIXELS: usize = 1 << 26;
/// The input of the COCO weights.
const COCO_FRAME: FrameSize = FrameSize::new(300, 300);

/// The data set whose classes a detector knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelSet {
    /// ImageNet VID: background and 30 classes.
    ImagenetVid,
    /// COCO: background and category ids up to 90, 80 of them used.
    Coco,
}

impl LabelSet {
    /// The names.
    pub fn labels(self) -> Labels {
        match self {
            Self::ImagenetVid => labels::IMAGENET_VID,
            Self::Coco => labels::COCO,
        }
    }
}

/// A detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    /// The backbone; its padding and epsilon hold for the heads too.
    pub backbone: MobileNetV2Config,
    /// Outputs a class predictor has per anchor, background included: K.
    pub classes: usize,
    /// Names of the classes.
    pub labels: LabelSet,
    /// The size that frames are resized to.
    pub frame: FrameSize,
    /// How frames are resized.
    pub resize: Resize,
    /// How pixels are normalised.
    pub normalization: Normalization,
    /// Anchor layout.
    pub anchors: AnchorConfig,
    /// Thresholds.
    pub post: PostProcess,
    /// The grid of the attention network; `None` builds none.
    pub attention: Option<Grid>,
}

impl DetectorConfig {
    /// Whether the fields fit each other.
    ///
    /// # Errors
    /// If not.
    pub fn validate(&self) -> Result<()> {
        check_depth(&self.backbone)?;
        check_frame(self.frame)?;
        if self.classes != self.labels.labels().len() {
            return Err(Error::Config(format!(
                "classes = {}, but {:?} has {} with the background",
                self.classes,
                self.labels,
                self.labels.labels().len()
            )));
        }
        self.attention.map_or(Ok(()), |grid| grid.check_frame(self.frame))
    }

    /// The same at `share` of the frame's area, both sides times √share: the "resolution" of Tables 4
    /// and 5, since 0.25 costs a quarter there.
    pub fn with_resolution(self, share: f64) -> Self {
        Self { frame: scaled(self.frame, share), ..self }
    }
}

/// A segmenter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmenterConfig {
    /// The backbone; its padding and epsilon hold for the head too.
    pub backbone: MobileNetV2Config,
    /// Channels of the laterals.
    pub width: usize,
    /// Score maps; 1 for object against background.
    pub outputs: usize,
    /// The size that frames are resized to.
    pub frame: FrameSize,
    /// How frames are resized.
    pub resize: Resize,
    /// How pixels are normalised.
    pub normalization: Normalization,
    /// The grid of the attention network; `None` builds none.
    pub attention: Option<Grid>,
}

impl SegmenterConfig {
    /// Whether the fields fit each other.
    ///
    /// # Errors
    /// If not.
    pub fn validate(&self) -> Result<()> {
        check_depth(&self.backbone)?;
        check_frame(self.frame)?;
        if self.outputs == 0 || self.width == 0 {
            return Err(Error::Config("width and outputs of a segmenter must be at least 1".to_owned()));
        }
        // Nearest doubling between levels is exact only where every stride divides.
        Grid::new(1, 1)?.check_frame(self.frame)?;
        self.attention.map_or(Ok(()), |grid| grid.check_frame(self.frame))
    }

    /// The same at `share` of the area.
    pub fn with_resolution(self, share: f64) -> Self {
        Self { frame: scaled(self.frame, share), ..self }
    }
}

fn scaled(frame: FrameSize, share: f64) -> FrameSize {
    let side = |n: usize| (n as f64 * share.sqrt()).round() as usize;
    FrameSize::new(side(frame.height), side(frame.width))
}

fn check_frame(frame: FrameSize) -> Result<()> {
    match frame.area() {
        0 => Err(Error::Config(format!("a frame of {frame} has no pixels"))),
        1..=MAX_FRAME_PIXELS => Ok(()),
        _ => Err(Error::Config(format!(
            "a frame of {frame} has more than {MAX_FRAME_PIXELS} pixels: choose a smaller one"
        ))),
    }
}

fn check_depth(backbone: &MobileNetV2Config) -> Result<()> {
    if !(backbone.depth > 0.0 && backbone.depth <= 4.0) {
        return Err(Error::Config(format!(
            "depth = {}, expected a multiplier above 0, at most 4",
            backbone.depth
        )));
    }
    Ok(())
}

/// The configurations that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// The detector of the COCO SSDLite-MobileNetV2 weights.
    Coco,
    /// Table 4's detector.
    Vid,
    /// … at depth 0.5.
    #[serde(rename = "vid-depth0.5")]
    VidDepth05,
    /// … at depth 1.4.
    #[serde(rename = "vid-depth1.4")]
    VidDepth14,
    /// Table 5's segmenter.
    Davis,
    /// … at depth 0.5.
    #[serde(rename = "davis-depth0.5")]
    DavisDepth05,
}

/// What a preset builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Config {
    /// Boxes.
    Detector(DetectorConfig),
    /// A mask.
    Segmenter(SegmenterConfig),
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 6] =
        [Self::Coco, Self::Vid, Self::VidDepth05, Self::VidDepth14, Self::Davis, Self::DavisDepth05];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::Vid => "vid",
            Self::VidDepth05 => "vid-depth0.5",
            Self::VidDepth14 => "vid-depth1.4",
            Self::Davis => "davis",
            Self::DavisDepth05 => "davis-depth0.5",
        }
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| Error::Unknown {
            what: "preset",
            got: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// What it builds. Depths are rounded down to whole channels, as the tables' FLOP counts ask.
    pub fn config(self) -> Config {
        match self {
            Self::Coco => Config::Detector(DetectorConfig::coco()),
            Self::Vid => Config::Detector(DetectorConfig::vid(1.0)),
            Self::VidDepth05 => Config::Detector(DetectorConfig::vid(0.5)),
            Self::VidDepth14 => Config::Detector(DetectorConfig::vid(1.4)),
            Self::Davis => Config::Segmenter(SegmenterConfig::davis(1.0)),
            Self::DavisDepth05 => Config::Segmenter(SegmenterConfig::davis(0.5)),
        }
    }
}

impl DetectorConfig {
    /// The COCO weights' own net: TensorFlow's padding, epsilon, resizing and anchors, 300×300.
    pub fn coco() -> Self {
        Self {
            backbone: MobileNetV2Config { bn_eps: 1e-3, padding: SamePadding::Tf, ..Default::default() },
            classes: 91,
            labels: LabelSet::Coco,
            frame: COCO_FRAME,
            resize: Resize::TensorFlow1,
            normalization: Normalization::Tf,
            anchors: AnchorConfig { third: 0.3333, base: Some(COCO_FRAME) },
            post: PostProcess::default(),
            attention: None,
        }
    }

    /// Table 4's detector of ImageNet VID at a depth multiplier.
    pub fn vid(depth: f64) -> Self {
        Self {
            backbone: MobileNetV2Config { depth, divisor: 1, ..Default::default() },
            classes: 31,
            labels: LabelSet::ImagenetVid,
            frame: PAPER_FRAME,
            resize: Resize::HalfPixel,
            normalization: Normalization::IMAGENET,
            anchors: AnchorConfig::default(),
            post: PostProcess::default(),
            attention: None,
        }
    }
}

impl SegmenterConfig {
    /// Table 5's segmenter of DAVIS at a depth multiplier.
    pub fn davis(depth: f64) -> Self {
        Self {
            backbone: MobileNetV2Config { depth, divisor: 1, ..Default::default() },
            width: LATERAL_CHANNELS,
            outputs: 1,
            frame: PAPER_FRAME,
            resize: Resize::HalfPixel,
            normalization: Normalization::IMAGENET,
            attention: None,
        }
    }
}

/// What a stream does with its first frames in windowed mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The first frame is seen whole, at the cost of a single frame; all memories are right after it.
    #[default]
    Full,
    /// The first (M/N)² frames are seen tile by tile.
    Tiles,
    /// No special start: memories are zeros, as the tables' equal maximum and average suggest.
    Zeros,
}

/// How a stream spends its computation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mode {
    /// The whole frame, every frame.
    SingleFrame,
    /// The whole frame at every `every`th frame; its output is held, and appears `delay` frames later.
    Interval {
        /// K of Tables 4 and 5.
        every: usize,
        /// D: with the key frame's work spread over K frames, K − 1.
        delay: usize,
    },
    /// One window of each frame: Patchwork.
    Windows {
        /// The windows.
        grid: Grid,
        /// Which one is next.
        policy: PolicyKind,
        /// The first frames.
        start: Start,
        /// A second, mirrored stream, its results merged in: twice the cost.
        flip: bool,
    },
}

impl Mode {
    /// Patchwork with M cells a side and windows of N, the policy that needs no training, and a
    /// whole first frame.
    ///
    /// # Errors
    /// Unless 1 ≤ N ≤ M.
    pub fn windows(m: usize, n: usize, policy: PolicyKind) -> Result<Self> {
        Ok(Self::Windows { grid: Grid::new(m, n)?, policy, start: Start::default(), flip: false })
    }

    /// A name such as `M=4 N=2 motion`.
    pub fn name(&self) -> String {
        match self {
            Self::SingleFrame => "single frame".to_owned(),
            Self::Interval { every, delay: 0 } => format!("interval={every}"),
            Self::Interval { every, delay } => format!("interval={every} delay={delay}"),
            Self::Windows { grid, policy, flip, .. } => {
                let flip = if *flip { " flip" } else { "" };
                format!("M={} N={} {}{flip}", grid.m(), grid.n(), policy.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_json() {
        for preset in Preset::ALL {
            assert_eq!(Preset::parse(preset.name()).unwrap(), preset);
            let config = preset.config();
            match &config {
                Config::Detector(cfg) => cfg.validate().unwrap(),
                Config::Segmenter(cfg) => cfg.validate().unwrap(),
            }
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config, "{json}");
        }
        let error = Preset::parse("cocoa").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown preset 'cocoa': expected one of coco, vid, vid-depth0.5, vid-depth1.4, davis, davis-depth0.5"
        );
    }

    #[test]
    fn contradictions_are_named() {
        let fault = |cfg: DetectorConfig| cfg.validate().unwrap_err().to_string();
        assert!(fault(DetectorConfig { classes: 90, ..DetectorConfig::coco() }).contains("has 91"));
        assert!(fault(DetectorConfig::vid(0.0)).contains("depth = 0"));
        let grid = Grid::new(4, 2).unwrap();
        let cfg = DetectorConfig { attention: Some(grid), ..DetectorConfig::coco() };
        assert!(fault(cfg).contains("the nearest size is 256×256"));
        let odd = SegmenterConfig { frame: FrameSize::new(380, 384), ..SegmenterConfig::davis(1.0) };
        assert!(odd.validate().unwrap_err().to_string().contains("384×384"));
    }

    #[test]
    fn resolution_scales_the_area() {
        assert_eq!(DetectorConfig::vid(1.0).with_resolution(0.25).frame, FrameSize::new(192, 192));
    }
}
