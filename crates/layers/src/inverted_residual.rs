//! The block of MobileNetV2 and EfficientNet.

use candle_core::{Result, Tensor};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Region;

use crate::{ConvNormAct, SqueezeExcite, Surroundings};

/// An inverted residual: 1×1 expansion, depthwise convolution, gates, linear 1×1 projection, and the
/// input added where the shapes agree.
#[derive(Debug, Clone)]
pub struct InvertedResidual {
    /// What its [`Surroundings`] know it by.
    pub name: String,
    /// Not in blocks that do not widen their input.
    pub expand: Option<ConvNormAct>,
    /// One filter a channel; its border comes from the block's surroundings.
    pub depthwise: ConvNormAct,
    /// EfficientNet's blocks have it.
    pub squeeze_excite: Option<SqueezeExcite>,
    /// To the block's channels, without an activation.
    pub project: ConvNormAct,
}

impl InvertedResidual {
    /// Whether the input is added to the output.
    pub fn is_residual(&self) -> bool {
        let inputs = self.expand.as_ref().unwrap_or(&self.depthwise).spec().in_channels;
        self.depthwise.spec().stride == 1 && inputs == self.project.spec().out_channels
    }

    /// Folds batch norm for inference.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.expand.iter_mut().try_for_each(ConvNormAct::prepare)?;
        self.depthwise.prepare()?;
        self.squeeze_excite.iter_mut().try_for_each(SqueezeExcite::prepare)?;
        self.project.prepare()
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`. Shows what comes
    /// out of the expansion, if there is one, to `expanded`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(
        &self,
        xs: &Tensor,
        around: &mut dyn Surroundings,
        expanded: &mut dyn FnMut(&Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let ys = match &self.expand {
            Some(expand) => {
                let ys = expand.forward(xs)?;
                expanded(&ys)?;
                ys
            }
            None => xs.clone(),
        };
        let mut ys = self.depthwise.forward_region(&around.place(&self.name, &ys)?)?;
        if let Some(squeeze_excite) = &self.squeeze_excite {
            ys = squeeze_excite.forward(&ys)?;
        }
        if self.is_residual() {
            self.project.forward_region_add(&Region::whole(&ys)?, xs)
        } else {
            self.project.forward(&ys)
        }
    }

    /// Counts the block for an input of `input` and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        if let Some(expand) = &self.expand {
            expand.cost(input, tally);
        }
        let output = self.depthwise.cost(input, tally);
        if let Some(squeeze_excite) = &self.squeeze_excite {
            squeeze_excite.cost(tally);
        }
        self.project.cost(output, tally);
        if self.is_residual() {
            self.project.cost_residual(output, tally);
        }
        output
    }
}
