//! The nets for key frames (Section 3.1). Any [`ScoreNet`] can be one; these are the authors' two with their variants.
//!
//! Tensor names are those of the authors' checkpoints, without the prefix `segnet.` that the video model puts before
//! them.

pub mod bisenet;
mod config;
pub mod swiftnet;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{Cost, FrameSize, ScoreNet, Tally};
use zoo_layers::Statistics;

use crate::Probe;

pub use bisenet::BiSeNet;
pub use config::{KeyframeConfig, KeyframeKind};
pub use swiftnet::{PyramidSwiftNet, SwiftNet};

/// Sides of the smallest image: below, the last stages have no pixel of their own.
pub const MIN_SIDE: usize = 32;

/// What [`KeyframeNet::prepare_with`] may do across layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Joins {
    /// A norm goes into the layer that makes its input, where nothing else reads that. What a probe sees between the
    /// two is then not a plain net's map.
    #[default]
    Joined,
    /// Each layer stays by itself.
    Separate,
}

/// What the parts of a net cost, by the parts' names.
pub type PartCosts = Vec<(&'static str, Tally)>;

/// A net for key frames.
#[derive(Debug, Clone)]
pub enum KeyframeNet {
    /// SwiftNet for one image size.
    SwiftNet(Box<SwiftNet>),
    /// SwiftNet for three.
    Pyramid(Box<PyramidSwiftNet>),
    /// BiSeNet.
    BiSeNet(Box<BiSeNet>),
}

impl KeyframeNet {
    /// `vb` holds the tensors by their names in the checkpoint of the net alone.
    ///
    /// # Errors
    /// If there is no class, auxiliary heads are asked of a net that has none, or a tensor is missing or has another
    /// shape.
    pub fn new(cfg: &KeyframeConfig, vb: VarBuilder) -> Result<Self> {
        let KeyframeConfig { net, classes, auxiliary_heads } = *cfg;
        if classes == 0 {
            bail!("{}: expected at least one class, got 0", net.name())
        }
        if auxiliary_heads && net != KeyframeKind::BisenetR18 {
            bail!(
                "{}: only {} has auxiliary heads: leave auxiliary_heads out",
                net.name(),
                KeyframeKind::BisenetR18.name()
            )
        }
        Ok(match net {
            KeyframeKind::SwiftnetR18 | KeyframeKind::SwiftnetR34 | KeyframeKind::SwiftnetMobilenetV2 => {
                Self::SwiftNet(Box::new(SwiftNet::new(cfg, vb)?))
            }
            KeyframeKind::SwiftnetR18Pyramid => Self::Pyramid(Box::new(PyramidSwiftNet::new(classes, vb)?)),
            KeyframeKind::BisenetR18 | KeyframeKind::BisenetX39 => {
                Self::BiSeNet(Box::new(BiSeNet::new(cfg, vb)?))
            }
        })
    }

    /// Folds batch norm and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.prepare_with(Joins::default())
    }

    /// [`KeyframeNet::prepare`], within layers only or across them. A second call does nothing.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_with(&mut self, joins: Joins) -> Result<()> {
        match self {
            Self::SwiftNet(net) => net.prepare(joins),
            Self::Pyramid(net) => net.prepare(joins),
            Self::BiSeNet(net) => net.prepare(),
        }
    }

    /// What the norms normalise by, as long as they are not folded: the batch's statistics in training.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        match self {
            Self::SwiftNet(net) => net.set_statistics(statistics),
            Self::Pyramid(net) => net.set_statistics(statistics),
            Self::BiSeNet(net) => net.set_statistics(statistics),
        }
    }

    /// [`ScoreNet::scores`], showing maps on the way by the names that each net lists.
    ///
    /// # Errors
    /// As there, and what the probe returns.
    pub fn forward_probed(&self, xs: &Tensor, probe: Probe) -> Result<Tensor> {
        self.run(xs, Some(probe))
    }

    fn run(&self, xs: &Tensor, probe: Option<Probe>) -> Result<Tensor> {
        check_image(xs)?;
        let mut nobody = |_: &str, _: &Tensor| Ok(());
        match (self, probe) {
            (Self::BiSeNet(net), probe) => net.forward(xs, probe),
            (Self::SwiftNet(net), probe) => net.forward(xs, probe.unwrap_or(&mut nobody)),
            (Self::Pyramid(net), probe) => net.forward(xs, probe.unwrap_or(&mut nobody)),
        }
    }

    /// Parameters and operations of each part for images of `input`, layer by layer.
    pub fn costs(&self, input: FrameSize) -> PartCosts {
        match self {
            Self::SwiftNet(net) => net.costs(input),
            Self::Pyramid(net) => net.costs(input),
            Self::BiSeNet(net) => net.costs(input),
        }
    }

    /// The sum of [`KeyframeNet::costs`].
    pub fn cost(&self, input: FrameSize) -> Cost {
        self.costs(input).iter().map(|(_, tally)| tally.total()).sum()
    }
}

impl ScoreNet for KeyframeNet {
    fn classes(&self) -> usize {
        match self {
            Self::SwiftNet(net) => net.classes(),
            Self::Pyramid(net) => net.classes(),
            Self::BiSeNet(net) => net.classes(),
        }
    }

    fn check_input(&self, size: FrameSize) -> Result<()> {
        check_side(size)
    }

    /// A quarter of the image's size from SwiftNets, an eighth from BiSeNets, rounded up.
    fn scores(&self, xs: &Tensor) -> Result<Tensor> {
        self.run(xs, None)
    }

    fn tally(&self, input: FrameSize, tally: &mut Tally) {
        for (_, part) in self.costs(input) {
            tally.append(part);
        }
    }
}

/// Whether the nets take images of `size`.
fn check_side(size: FrameSize) -> Result<()> {
    if size.height < MIN_SIDE || size.width < MIN_SIDE {
        bail!("key frame: images of {size} are too small: both sides must be at least {MIN_SIDE} pixels")
    }
    Ok(())
}

/// Whether the nets take `xs`.
fn check_image(xs: &Tensor) -> Result<()> {
    let (_, channels, height, width) = xs.dims4()?;
    if channels != 3 {
        bail!("key frame: expected images of 3 channels, [B, 3, H, W], got {:?}", xs.dims())
    }
    check_side(FrameSize::new(height, width))
}
