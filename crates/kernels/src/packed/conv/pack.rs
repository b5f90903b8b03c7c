//! How the weights of a convolution are laid out: panel by panel, in the order in which tiles read them.

use std::sync::Arc;

use super::PackedConv;
use super::few_outputs::FewOutputs;
use crate::aligned::Weights;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::Shared;
use crate::packed::geometry::Filter;
use crate::packed::tile::panels as widths;
use crate::simd::{Kernel, Simd, TileShapes, dispatch};
use crate::threads::share;

/// What is packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvShape {
    /// For which instruction set.
    pub(crate) isa: Isa,
    pub(crate) filter: Filter,
    pub(crate) groups: usize,
    /// Inputs of a group.
    pub(crate) per_group: usize,
    pub(crate) outputs: usize,
    /// Whether Winograd's filtering may be used.
    pub(crate) winograd: bool,
    pub(crate) act: Activation,
}

/// Neighbouring output channels that are computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) vectors: usize,
    /// First input channel that they read, and how many.
    pub(crate) input: usize,
    pub(crate) depth: usize,
    /// First output channel, and how many.
    pub(crate) output: usize,
    pub(crate) channels: usize,
    /// Offsets into the packed weights and biases.
    pub(crate) weights: usize,
    pub(crate) bias: usize,
}

impl PackedConv {
    /// Lays out filters and biases for the tiles of the instruction set.
    pub(crate) fn pack(
        shape: ConvShape,
        filters: Filters<impl Fn(usize, usize) -> usize + Sync>,
        bias: Option<&[f32]>,
    ) -> Self {
        let ConvShape { isa, filter, groups, per_group, outputs, winograd, act } = shape;
        let (lanes, shapes) = dispatch(isa, TileShape);
        let taps = filter.taps();
        let group_outputs = outputs / groups;
        // Groups narrower than a vector are computed side by side, with zeros where they don't meet.
        let merged =
            (1..=groups).rev().find(|&n| groups.is_multiple_of(n) && group_outputs * n <= lanes).unwrap_or(1);
        let (wide_inputs, wide_outputs) = (per_group * merged, group_outputs * merged);
        let (mut panels, mut weights, mut biases) = (vec![], 0, vec![]);
        for group in 0..groups / merged {
            let mut first = 0;
            for vectors in widths(wide_outputs.div_ceil(lanes), widest(shapes)) {
                let columns = vectors * lanes;
                let panel = Panel {
                    vectors,
                    input: group * wide_inputs,
                    depth: wide_inputs,
                    output: group * wide_outputs + first,
                    channels: columns.min(wide_outputs - first),
                    weights,
                    bias: biases.len(),
                };
                biases.resize(panel.bias + columns, 0.0);
                if let Some(bias) = bias {
                    biases[panel.bias..][..panel.channels]
                        .copy_from_slice(&bias[panel.output..][..panel.channels]);
                }
                weights += taps * wide_inputs * columns;
                panels.push(panel);
                first += panel.channels;
            }
        }
        let weights = Weights::written(weights, |packed| {
            let packed = Shared(packed.as_mut_ptr());
            share(panels.len(), |i| {
                let panel: &Panel = &panels[i];
                let columns = panel.vectors * lanes;
                in_blocks(per_group, panel.channels, |input, column| {
                    let output = panel.output + column;
                    let from = (output / group_outputs) * per_group - panel.input;
                    let values = &filters.values[(filters.at)(output, input)..];
                    for (tap, &value) in filters.taps.iter().enumerate() {
                        let at = (tap * wide_inputs + from + input) * columns + column;
                        // SAFETY: the place belongs to this panel, which is this task's.
                        unsafe { *packed.at(panel.weights + at) = values[value] };
                    }
                });
            });
        });
        Self {
            few_outputs: FewOutputs::pack(&shape, &filters),
            isa,
            filter,
            inputs: per_group * groups,
            outputs,
            act,
            transformed: winograd.then(Arc::default),
            panels,
            weights,
            bias: biases.as_slice().into(),
            zeros: vec![0.0; per_group * groups].as_slice().into(),
        }
    }
}

/// The filters of a convolution.
pub(crate) struct Filters<'a, F> {
    pub(crate) values: &'a [f32],
    /// Where the filter from an input of a group to an output begins.
    pub(crate) at: F,
    /// Where each tap of it lies from there.
    pub(crate) taps: Vec<usize>,
}

impl<'a> Filters<'a, ()> {
    /// `values`: `[outputs, per_group, height, width]`.
    pub(crate) fn in_order(
        values: &'a [f32],
        filter: Filter,
        per_group: usize,
    ) -> Filters<'a, impl Fn(usize, usize) -> usize + Sync> {
        let taps = filter.taps();
        let at = move |output: usize, input: usize| (output * per_group + input) * taps;
        Filters { values, at, taps: (0..taps).collect() }
    }
}

/// Calls `f(input, output)` for all pairs, block by block: what a block reads and writes, on either side
/// of a transposition, stays in the nearest cache.
pub(crate) fn in_blocks(inputs: usize, outputs: usize, mut f: impl FnMut(usize, usize)) {
    const INPUTS: usize = 8;
    const OUTPUTS: usize = 16;
    for first_input in (0..inputs).step_by(INPUTS) {
        for first_output in (0..outputs).step_by(OUTPUTS) {
            for output in first_output..(first_output + OUTPUTS).min(outputs) {
                for input in first_input..(first_input + INPUTS).min(inputs) {
                    f(input, output);
                }
            }
        }
    }
}

/// Lanes and tiles of an instruction set.
pub(crate) struct TileShape;

impl Kernel for TileShape {
    type Output = (usize, TileShapes);

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        (S::LANES, S::TILES)
    }
}

pub(crate) fn widest(shapes: TileShapes) -> usize {
    shapes.iter().map(|&(vectors, _)| vectors).max().unwrap_or(1)
}
