//! The gradients of map and weights.

use candle_core::Shape;

use super::{Grid, WeightOrder};
use crate::bilinear::dot;
use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::Operation;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_chunks};

/// (weights, gradient of the result) → gradient of the map
pub(super) struct ToMap(pub(super) Grid);

impl Operation<2> for ToMap {
    const NAME: &'static str = "patchwise-map-grad";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.height, self.0.width, self.0.inputs).into()
    }

    fn run<T: Float>(&self, isa: Isa, [weights, grad]: [&[T]; 2]) -> Vec<T> {
        let grid = &self.0;
        let image = grid.height * grid.width * grid.inputs;
        let mut to_map = vec![T::ZERO; grid.batch * image];
        // Patches write into their neighbours, so images are the smallest parts that are apart.
        share_chunks(&mut to_map, image, |image, to_map| {
            dispatch(isa, Image { grid, weights, grad, image, to_map });
        });
        to_map
    }
}

/// One image.
struct Image<'a, T> {
    grid: &'a Grid,
    weights: &'a [T],
    grad: &'a [T],
    image: usize,
    to_map: &'a mut [T],
}

impl<T: Float> Kernel for Image<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let grid = self.grid;
        let (outputs, per_group) = (grid.options.outputs, grid.group_outputs());
        let start = self.image * self.to_map.len();
        let mut ordered = vec![T::ZERO; grid.weights()];
        let patches = grid.rows * grid.columns;
        for patch in self.image * patches..(self.image + 1) * patches {
            grid.ordered(&self.weights[patch * grid.weights()..][..grid.weights()], &mut ordered);
            grid.each_pixel(patch, 0, grid.patch_h * grid.patch_w, |_, pixel| {
                let grad = &self.grad[grid.output(pixel)..][..outputs];
                grid.each_input(pixel, |x, tap, input, group| {
                    let channels = group * per_group..(group + 1) * per_group;
                    let weights = &ordered[(tap * grid.group_inputs() + input) * outputs..][..outputs];
                    self.to_map[x - start] += dot(&grad[channels.clone()], &weights[channels]);
                });
            });
        }
    }
}

/// (map, gradient of the result) → gradient of the weights
pub(super) struct ToWeights(pub(super) Grid);

impl Operation<2> for ToWeights {
    const NAME: &'static str = "patchwise-weight-grad";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.rows, self.0.columns, self.0.weights()).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, grad]: [&[T]; 2]) -> Vec<T> {
        let grid = &self.0;
        let mut to_weights = vec![T::ZERO; grid.patches() * grid.weights()];
        let per_task = items_per_task(grid.patches(), grid.macs());
        share_chunks(&mut to_weights, per_task * grid.weights(), |task, to_weights| {
            for (i, to_weights) in to_weights.chunks_exact_mut(grid.weights()).enumerate() {
                dispatch(isa, Patch { grid, xs, grad, patch: task * per_task + i, to_weights });
            }
        });
        to_weights
    }
}

/// One patch.
struct Patch<'a, T> {
    grid: &'a Grid,
    xs: &'a [T],
    grad: &'a [T],
    patch: usize,
    to_weights: &'a mut [T],
}

impl<T: Float> Kernel for Patch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let grid = self.grid;
        let (outputs, per_group) = (grid.options.outputs, grid.group_outputs());
        let mut ordered = vec![T::ZERO; grid.weights()];
        grid.each_pixel(self.patch, 0, grid.patch_h * grid.patch_w, |_, pixel| {
            let grad = &self.grad[grid.output(pixel)..][..outputs];
            grid.each_input(pixel, |x, tap, input, group| {
                let channels = group * per_group..(group + 1) * per_group;
                let to = &mut ordered[(tap * grid.group_inputs() + input) * outputs..][..outputs];
                for (to, &grad) in to[channels.clone()].iter_mut().zip(&grad[channels]) {
                    *to += self.xs[x] * grad;
                }
            });
        });
        match grid.options.order {
            WeightOrder::OutputLast => self.to_weights.copy_from_slice(&ordered),
            WeightOrder::OutputFirst => grid.each_weight(|at, to| self.to_weights[to] = ordered[at]),
        }
    }
}
