use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Halo, LevelConvs, patches_with_halo};
use zoo_layers::{Statistics, layer_span};

use super::{DynamicConv, LevelInput};
use crate::config::{LevelShape, Version};

/// What the depthwise convolution of a block sees around a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// The oldest version: the neighbours' hidden values, made with the neighbours' weights.
    Neighbours,
    /// The neighbours' inputs, widened with the patch's own weights: the block's input is cut into
    /// patches that overlap.
    Own,
}

/// The meta block (Section 3.2, Equations 1 to 3 of the supplement): an inverted residual of three
/// dynamic convolutions. pw_1 and dw end in ReLU6, pw_2 in nothing.
#[derive(Debug, Clone)]
pub struct MetaBlock {
    name: String,
    style: Style,
    halo: usize,
    /// The oldest version has none where it would not widen.
    pw1: Option<DynamicConv>,
    dw: DynamicConv,
    pw2: DynamicConv,
    is_residual: bool,
}

impl MetaBlock {
    /// `vb` holds the norms: `conv.{0, 1, 2}.1` in the oldest version, `bn{1, 2, 3}` in the others.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(version: Version, shape: &LevelShape, hidden: usize, vb: VarBuilder) -> Result<Self> {
        let &LevelShape { inputs, outputs, kernel, widens, .. } = shape;
        let is_oldest = version == Version::V0_1;
        let (style, halo) = if is_oldest { (Style::Neighbours, Halo::Map) } else { (Style::Own, Halo::Own) };
        let norm = |stage: usize| match is_oldest {
            true => vb.pp("conv").pp(stage - usize::from(!widens)).pp(1),
            false => vb.pp(format!("bn{}", stage + 1)),
        };
        let pw1 =
            widens.then(|| DynamicConv::pointwise(inputs, hidden, Activation::Relu6, norm(0))).transpose()?;
        Ok(Self {
            name: vb.prefix(),
            style,
            halo: kernel / 2,
            pw1,
            dw: DynamicConv::depthwise(hidden, kernel, halo, Activation::Relu6, norm(1))?,
            pw2: DynamicConv::pointwise(hidden, outputs, Activation::None, norm(2))?,
            is_residual: inputs == outputs,
        })
    }

    /// P: dynamic weights of a patch.
    pub(super) fn params(&self) -> usize {
        self.pw1.iter().chain([&self.dw, &self.pw2]).map(DynamicConv::params).sum()
    }

    pub(super) fn convs_mut(&mut self) -> impl Iterator<Item = &mut DynamicConv> {
        self.pw1.iter_mut().chain([&mut self.dw, &mut self.pw2])
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.convs_mut().for_each(|conv| conv.set_statistics(statistics));
    }

    /// `weights`: `[B, P, fh, fw]`, those of pw_1, dw and pw_2 one after the other. Result: `[B, C', H, W]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, input: &LevelInput, weights: &Tensor) -> Result<Tensor> {
        let ys = match self.in_one_pass() {
            Some(convs) => {
                let _span = layer_span(&self.name);
                input.convolve(convs, weights)?
            }
            None => self.by_parts(input, weights)?,
        };
        if self.is_residual { ys + input.concat()? } else { Ok(ys) }
    }

    /// The block as the kernels know it: folded, and with halos of its own.
    fn in_one_pass(&self) -> Option<LevelConvs<'_>> {
        match (self.style, &self.pw1) {
            (Style::Own, Some(pw1)) if self.halo == 1 => {
                Some(LevelConvs::Block([pw1.stage()?, self.dw.stage()?, self.pw2.stage()?]))
            }
            _ => None,
        }
    }

    fn by_parts(&self, input: &LevelInput, weights: &Tensor) -> Result<Tensor> {
        let mut from = 0;
        let mut next = |conv: &DynamicConv| {
            let part = weights.narrow(1, from, conv.params())?;
            from += conv.params();
            Ok::<_, candle_core::Error>(part)
        };
        let ys = match (self.style, &self.pw1) {
            (Style::Neighbours, pw1) => {
                let ys = match pw1 {
                    Some(pw1) => pw1.forward_first(input, &next(pw1)?)?,
                    None => input.concat()?,
                };
                if let (Some(dw), Some(pw2), 1) = (self.dw.stage(), self.pw2.stage(), self.halo) {
                    let _span = layer_span(&self.name);
                    let weights = weights.narrow(1, from, self.dw.params() + self.pw2.params())?;
                    return LevelInput::single(&ys).convolve(LevelConvs::Rest([dw, pw2]), &weights);
                }
                ys
            }
            (Style::Own, pw1) => {
                let (_, _, fh, fw) = weights.dims4()?;
                let xs = patches_with_halo(&input.concat()?, (fh, fw), self.halo)?;
                match pw1 {
                    Some(pw1) => pw1.forward(&xs, &next(pw1)?)?,
                    None => xs,
                }
            }
        };
        let ys = self.dw.forward(&ys, &next(&self.dw)?)?;
        self.pw2.forward(&ys, &next(&self.pw2)?)
    }

    /// Counts it for a map of `size` in a grid of patches.
    pub(super) fn cost(&self, size: FrameSize, grid: FrameSize, tally: &mut Tally) {
        let widened = match self.style {
            Style::Neighbours => size,
            Style::Own => FrameSize::new(
                size.height + 2 * self.halo * grid.height,
                size.width + 2 * self.halo * grid.width,
            ),
        };
        if let Some(pw1) = &self.pw1 {
            pw1.cost(widened, tally);
        }
        self.dw.cost(size, tally);
        self.pw2.cost(size, tally);
    }
}
