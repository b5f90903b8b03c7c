//! The block of MobileNetV2 and EfficientNet.

use candle_core::{Result, Tensor};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{PackedBlock, Region, inverted_residual};

use crate::span::layer_span;
use crate::{ConvNormAct, SqueezeExcite, Statistics, Surroundings, drop_connect};

/// Looks at a map on the way.
pub type See<'a> = &'a mut dyn FnMut(&Tensor) -> Result<()>;

/// An expanded map of fewer values (1 MiB) stays in a core's cache as a whole.
pub(crate) const CACHED_VALUES: usize = 1 << 18;

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
    /// In training, how often a sample only passes by a block that its input is added to
    /// ([`drop_connect`]); 0 for never. A prepared block does not train.
    pub drop_rate: f64,
}

impl InvertedResidual {
    /// Whether the input is added to the output.
    pub fn is_residual(&self) -> bool {
        let inputs = self.expand.as_ref().unwrap_or(&self.depthwise).spec().in_channels;
        self.depthwise.spec().stride == 1 && inputs == self.project.spec().out_channels
    }

    /// Folds batch norm for inference, in which no sample is dropped.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.drop_rate = 0.0;
        self.expand.iter_mut().try_for_each(ConvNormAct::prepare)?;
        self.depthwise.prepare()?;
        self.squeeze_excite.iter_mut().try_for_each(SqueezeExcite::prepare)?;
        self.project.prepare()
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        for conv in self.expand.iter_mut().chain([&mut self.depthwise, &mut self.project]) {
            conv.set_statistics(statistics);
        }
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
        expanded: Option<See>,
    ) -> Result<Tensor> {
        let residual = self.is_residual().then_some(xs);
        let (_, _, h, w) = xs.dims4()?;
        let is_large = h * w * self.depthwise.spec().in_channels >= CACHED_VALUES;
        let packed = self.packed();
        let ys = match &self.expand {
            Some(expand) if is_large && expanded.is_none() && around.is_zero_border() => match packed {
                Some(block) => return self.in_one_pass(&Region::whole(xs)?, block, residual),
                None => expand.forward(xs)?,
            },
            Some(expand) => {
                let ys = expand.forward(xs)?;
                if let Some(expanded) = expanded {
                    expanded(&ys)?;
                }
                ys
            }
            None => xs.clone(),
        };
        let region = around.place(&self.name, &ys)?;
        if let Some(block) = packed
            && (is_large || self.squeeze_excite.is_some())
        {
            return self.in_one_pass(&region, PackedBlock { expand: None, ..block }, residual);
        }
        let mut ys = self.depthwise.forward_region(&region)?;
        if let Some(squeeze_excite) = &self.squeeze_excite {
            ys = squeeze_excite.forward(&ys)?;
        }
        match residual {
            Some(residual) if self.drop_rate != 0.0 => {
                drop_connect(&self.project.forward(&ys)?, self.drop_rate)? + residual
            }
            Some(residual) => self.project.forward_region_add(&Region::whole(&ys)?, residual),
            None => self.project.forward(&ys),
        }
    }

    /// The packed layers, once all are.
    fn packed(&self) -> Option<PackedBlock<'_>> {
        // What is there must be packed.
        let expand = match &self.expand {
            Some(expand) => Some(expand.packed_dense()?),
            None => None,
        };
        let squeeze_excite = match &self.squeeze_excite {
            Some(squeeze_excite) => Some(squeeze_excite.packed()?),
            None => None,
        };
        let (depthwise, project) = (self.depthwise.packed_depthwise()?, self.project.packed_dense()?);
        Some(PackedBlock { expand, depthwise, squeeze_excite, project })
    }

    fn in_one_pass(&self, region: &Region, block: PackedBlock, residual: Option<&Tensor>) -> Result<Tensor> {
        let _span = layer_span(common_path(self.depthwise.name(), self.project.name()));
        let pads = self.depthwise.spec().pads(FrameSize::new(region.height, region.width));
        inverted_residual(region, block, pads, residual)
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

/// The part of two names of the checkpoint, in whole steps, that they begin with.
pub(crate) fn common_path<'a>(a: &'a str, b: &str) -> &'a str {
    let steps = a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b);
    let len: usize = steps.map(|(step, _)| step.len() + 1).sum();
    a.get(..len.saturating_sub(1)).unwrap_or_default()
}
