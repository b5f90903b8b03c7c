use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Region};

use crate::{ConvNormAct, ConvSpec, DeformableConv, Statistics};

/// What a residual block is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResNetBlock {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1, which widens to four times the stage's width.
    Bottleneck,
}

/// Shape and options of a [`Residual`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResidualSpec {
    /// What it is made of.
    pub block: ResNetBlock,
    /// Channels in.
    pub inputs: usize,
    /// Of the inner convolutions.
    pub width: usize,
    /// Channels out.
    pub outputs: usize,
    /// Step between outputs.
    pub stride: usize,
    /// The stride sits on a bottleneck's first 1×1 convolution instead of the 3×3.
    pub stride_in_1x1: bool,
    /// Groups of a bottleneck's 3×3 convolution.
    pub groups: usize,
    /// A bottleneck's 3×3 convolution is a [`DeformableConv`].
    pub deformable: bool,
    /// Batch norm's epsilon.
    pub eps: f64,
    /// Applied to the sum.
    pub act: Activation,
}

/// Convolutions, and a shortcut around them: `act(convolutions(x) + shortcut(x))`.
#[derive(Debug, Clone)]
pub struct Residual {
    inner: Vec<ConvNormAct>,
    /// Behind these.
    deformable: Option<Box<DeformableConv>>,
    /// Adds the shortcut before its activation.
    last: ConvNormAct,
    /// The input itself where there is none.
    shortcut: Option<ConvNormAct>,
}

impl Residual {
    /// `vb` holds `conv1`, `bn1` and so on, and `downsample` where the shape changes.
    ///
    /// # Errors
    /// If the groups do not fit the widths, a basic block is to be deformable, or a tensor is missing or has another
    /// shape.
    pub fn new(spec: &ResidualSpec, vb: VarBuilder) -> Result<Self> {
        let &ResidualSpec { inputs, width, outputs, stride, eps, act, .. } = spec;
        let relu = Activation::Relu;
        let names = |i: usize| (vb.pp(format!("conv{i}")), vb.pp(format!("bn{i}")));
        let conv = |i: usize, spec| {
            let (conv, norm) = names(i);
            ConvNormAct::new(spec, conv, norm)
        };
        let mut deformable = None;
        let (inner, last) = match spec.block {
            ResNetBlock::Basic if spec.deformable => {
                bail!("{}: only bottlenecks have deformable convolutions", vb.prefix())
            }
            ResNetBlock::Basic => (
                vec![conv(1, ConvSpec::dense3(inputs, width, stride, eps, relu))?],
                conv(2, ConvSpec::dense3(width, outputs, 1, eps, act))?,
            ),
            ResNetBlock::Bottleneck => {
                let (first, second) = if spec.stride_in_1x1 { (stride, 1) } else { (1, stride) };
                let mut inner = vec![conv(1, ConvSpec::dense(inputs, width, 1, first, eps, relu))?];
                let middle = ConvSpec::dense3(width, width, second, eps, relu).grouped(spec.groups);
                if spec.deformable {
                    let (conv, norm) = names(2);
                    deformable = Some(Box::new(DeformableConv::new(middle, conv, norm)?));
                } else {
                    inner.push(conv(2, middle)?);
                }
                (inner, conv(3, ConvSpec::pointwise(width, outputs, eps, act))?)
            }
        };
        let shortcut = (stride != 1 || inputs != outputs)
            .then(|| {
                let spec = ConvSpec::dense(inputs, outputs, 1, stride, eps, Activation::None);
                let vb = vb.pp("downsample");
                ConvNormAct::new(spec, vb.pp(0), vb.pp(1))
            })
            .transpose()?;
        Ok(Self { inner, deformable, last, shortcut })
    }

    /// Folds batch norm for inference.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.inner.iter_mut().chain(&mut self.shortcut).try_for_each(ConvNormAct::prepare)?;
        self.deformable.iter_mut().try_for_each(|conv| conv.prepare())?;
        self.last.prepare()
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        for conv in self.inner.iter_mut().chain(&mut self.shortcut).chain([&mut self.last]) {
            conv.set_statistics(statistics);
        }
        if let Some(conv) = &mut self.deformable {
            conv.set_statistics(statistics);
        }
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the input's shape does not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let ys = self.inner.iter().try_fold(xs.clone(), |ys, conv| conv.forward(&ys))?;
        let ys = match &self.deformable {
            Some(conv) => conv.forward(&ys)?,
            None => ys,
        };
        let ys = Region::whole(&ys)?;
        match &self.shortcut {
            Some(shortcut) => self.last.forward_region_add(&ys, &shortcut.forward(xs)?),
            None => self.last.forward_region_add(&ys, xs),
        }
    }

    /// Counts every layer for an input of `input`; returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let size = self.inner.iter().fold(input, |size, conv| conv.cost(size, tally));
        let size = self.deformable.as_ref().map_or(size, |conv| conv.cost(size, tally));
        let output = self.last.cost(size, tally);
        if let Some(shortcut) = &self.shortcut {
            shortcut.cost(input, tally);
        }
        self.last.cost_residual(output, tally);
        output
    }
}
