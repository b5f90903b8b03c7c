//! Patch-wise dynamic convolution: a map is cut into a grid of patches, and each has weights of its own.

mod forward;
mod gradient;
mod level;
mod pack;

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::epilogue::{Activation, Float};
use crate::isa::Isa;
use crate::operation::{Custom, contiguous_nhwc, kernel_dtype, map_sizes};
use crate::packed::from_nhwc;
use crate::transpose::channels_last;
use gradient::{ToMap, ToWeights};

pub use level::{LevelConvs, LevelStage, PatchwiseLevel, patchwise_level, position_map};

/// How a patch's weights lie in its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightOrder {
    /// `[outputs, inputs / groups, k, k]`, as a convolution's weight.
    #[default]
    OutputFirst,
    /// `[k, k, inputs / groups, outputs]`: the kernel reads it as it is.
    OutputLast,
}

/// What a filter larger than a pixel reads around a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Halo {
    /// The neighbouring patches' pixels; around the whole map, its reflection (the edge is not repeated).
    #[default]
    Map,
    /// The patch brings its own: it is k − 1 rows and columns larger than what comes out of it.
    Own,
}

/// Sizes of a patch-wise convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patchwise {
    /// Output channels.
    pub outputs: usize,
    /// Rows and columns of a filter; odd.
    pub kernel: usize,
    /// The channels are split into so many parts that do not see each other.
    pub groups: usize,
    /// Order of the weights.
    pub order: WeightOrder,
    /// Surroundings of a patch.
    pub halo: Halo,
}

impl Patchwise {
    /// 1×1, dense.
    pub const fn pointwise(outputs: usize) -> Self {
        Self { outputs, kernel: 1, groups: 1, order: WeightOrder::OutputFirst, halo: Halo::Map }
    }

    /// 3×3, each channel alone.
    pub const fn depthwise(channels: usize) -> Self {
        Self { kernel: 3, groups: channels, ..Self::pointwise(channels) }
    }
}

/// Convolves each patch of a map with its own weights, stride 1:
/// `ys[b, o, y, x] = act(bias[o] + Σ weights[b, (o, c, i, j), m, n] · xs[b, c, y + i − k/2, x + j − k/2])`
/// where (m, n) is the patch of (y, x) in a grid of the size of `weights`.
///
/// `xs`: `[B, C, H, W]`; `weights`: `[B, outputs · C / groups · k², fh, fw]`, one vector for each patch of
/// H / fh × W / fw pixels; `bias`: `[outputs]`, the same for all patches. Result: `[B, outputs, H, W]`, or
/// with [`Halo::Own`] `[B, outputs, H − fh · (k − 1), W − fw · (k − 1)]`. (The dynamic convolution of HyperSeg.)
///
/// Has gradients for all three.
///
/// # Errors
/// If the grid does not divide the map, a shape does not fit, or the operands are not of one float type
/// on the CPU.
pub fn patchwise_conv2d(
    xs: &Tensor,
    weights: &Tensor,
    options: Patchwise,
    bias: Option<&Tensor>,
    act: Activation,
) -> Result<Tensor> {
    let grid = Grid::new(xs, weights, options)?;
    if let Some(bias) = bias
        && bias.dims() != [options.outputs]
    {
        bail!("patchwise: expected a bias of [{}], got {:?}", options.outputs, bias.dims())
    }
    let operands: Vec<&Tensor> = [xs, weights].into_iter().chain(bias).collect();
    let dtype = kernel_dtype("patchwise", &operands)?;
    let map = channels_last(&xs.to_dtype(dtype)?)?;
    let weights = rows_of(&weights.to_dtype(dtype)?)?;
    let fused = dtype == DType::F32 && !operands.iter().any(|operand| operand.track_op());
    let ys = if fused {
        let bias = bias.map(|bias| bias.to_dtype(dtype)?.to_vec1()).transpose()?;
        let op = PatchwiseConv { grid, bias: bias.unwrap_or_else(|| vec![0.0; options.outputs]), act };
        map.apply_op2_no_bwd(&weights, &op)?
    } else {
        let op = PatchwiseConv { grid, bias: vec![0.0; options.outputs], act: Activation::None };
        let mut ys = map.apply_op2(&weights, op)?;
        if let Some(bias) = bias {
            ys = ys.broadcast_add(&bias.to_dtype(dtype)?)?;
        }
        act.apply(&ys)?
    };
    from_nhwc(&ys)?.to_dtype(xs.dtype())
}

/// Cuts a map into the patches of a `grid`, each with `halo` rows and columns of its neighbours around
/// it (at the map's border: of the map's reflection), and puts them side by side: what
/// [`Halo::Own`] takes. `[B, C, H, W]` → `[B, C, H + 2 · halo · fh, W + 2 · halo · fw]`.
///
/// # Errors
/// If the grid does not divide the map, or the map is too small to be reflected.
pub fn patches_with_halo(xs: &Tensor, grid: (usize, usize), halo: usize) -> Result<Tensor> {
    let (_, _, height, width) = map_sizes("patches-with-halo", xs)?;
    let places = |size: usize, patches: usize| {
        let patch = whole(size, patches)?;
        let indices = (0..patches).flat_map(|p| (0..patch + 2 * halo).map(move |i| p * patch + i));
        let indices: Option<Vec<u32>> = indices.map(|at| Some(reflect(at, halo, size)? as u32)).collect();
        indices
    };
    let (Some(rows), Some(columns)) = (places(height, grid.0), places(width, grid.1)) else {
        bail!(
            "patches-with-halo: expected a map that {}×{} patches divide, of more than {halo} rows and columns, got {height}×{width}",
            grid.0,
            grid.1
        )
    };
    let rows = Tensor::new(rows, xs.device())?;
    let columns = Tensor::new(columns, xs.device())?;
    from_nhwc(&channels_last(xs)?.index_select(&rows, 1)?.index_select(&columns, 2)?)
}

/// A patch's size, where so many make up the whole.
fn whole(size: usize, patches: usize) -> Option<usize> {
    (patches > 0 && size.is_multiple_of(patches)).then(|| size / patches)
}

/// Where `at`, counted from `halo` before the start, lies in a line of `size` that is reflected at
/// both ends without repeating them.
fn reflect(at: usize, halo: usize, size: usize) -> Option<usize> {
    let inside = at.abs_diff(halo);
    if inside < size { Some(inside) } else { (2 * (size - 1)).checked_sub(inside) }.filter(|_| halo < size)
}

/// `[B, P, fh, fw]` as rows of P values, `[B, fh, fw, P]`, at equal distances in memory: a part of the
/// channels of a channels-last map is that already.
fn rows_of(weights: &Tensor) -> Result<Tensor> {
    let rows = weights.permute((0, 2, 3, 1))?;
    if row_stride(rows.layout()).is_some() { Ok(rows) } else { channels_last(weights) }
}

/// Values from one row of `[B, fh, fw, P]` to the next, where that is always the same.
fn row_stride(layout: &Layout) -> Option<usize> {
    let (&[images, rows, columns, values], &[image, row, column, value]) = (layout.dims(), layout.stride())
    else {
        return None;
    };
    // The stride along a dimension of one says nothing.
    let along = [(columns, column, 1), (rows, row, columns), (images, image, rows * columns)];
    let mut along = along.into_iter().filter(|&(count, _, _)| count > 1);
    let step = along.clone().next().map_or(values, |(_, stride, _)| stride);
    ((values == 1 || value == 1) && along.all(|(_, stride, steps)| stride == steps * step)).then_some(step)
}

/// What each output reads.
#[derive(Debug, Clone)]
struct Grid {
    options: Patchwise,
    batch: usize,
    inputs: usize,
    height: usize,
    width: usize,
    /// Patches.
    rows: usize,
    columns: usize,
    /// Output rows and columns of a patch.
    patch_h: usize,
    patch_w: usize,
    /// The map's row for (output row, row of the filter), and the same of columns.
    row_places: Vec<usize>,
    column_places: Vec<usize>,
}

/// A pixel of the batch's outputs.
#[derive(Clone, Copy)]
struct Pixel {
    image: usize,
    y: usize,
    x: usize,
}

impl Grid {
    fn new(xs: &Tensor, weights: &Tensor, options: Patchwise) -> Result<Self> {
        let (batch, inputs, height, width) = map_sizes("patchwise", xs)?;
        let (b, count, rows, columns) = map_sizes("patchwise", weights)?;
        let Patchwise { outputs, kernel, groups, halo, .. } = options;
        let divides = |n: usize| n > 0 && groups > 0 && n.is_multiple_of(groups);
        if kernel.is_multiple_of(2) || !divides(inputs) || !divides(outputs) {
            bail!(
                "patchwise: {options:?} on {inputs} channels: the kernel must be odd, and groups must divide inputs and outputs"
            )
        }
        let expected = outputs * (inputs / groups) * kernel * kernel;
        if (b, count) != (batch, expected) {
            bail!("patchwise: expected weights of [{batch}, {expected}, fh, fw], got {:?}", weights.dims())
        }
        let places = |size: usize, patches: usize| {
            let patch = whole(size, patches)?;
            let inner = match halo {
                Halo::Map => patch,
                Halo::Own => patch.checked_sub(kernel - 1).filter(|&n| n > 0)?,
            };
            let starts = (0..patches).flat_map(|p| (0..inner).map(move |i| p * patch + i));
            let places = starts.flat_map(|at| (0..kernel).map(move |k| at + k));
            let places: Option<Vec<usize>> = match halo {
                Halo::Map => places.map(|at| reflect(at, kernel / 2, size)).collect(),
                Halo::Own => Some(places.collect()),
            };
            Some((places?, inner))
        };
        let (Some((row_places, patch_h)), Some((column_places, patch_w))) =
            (places(height, rows), places(width, columns))
        else {
            bail!(
                "patchwise: {rows}×{columns} patches with filters of {kernel}×{kernel} do not fit a map of {height}×{width}: the grid must divide it, and it must be large enough for the halo"
            )
        };
        Ok(Self {
            options,
            batch,
            inputs,
            height,
            width,
            rows,
            columns,
            patch_h,
            patch_w,
            row_places,
            column_places,
        })
    }

    fn taps(&self) -> usize {
        self.options.kernel * self.options.kernel
    }

    fn out_h(&self) -> usize {
        self.rows * self.patch_h
    }

    fn out_w(&self) -> usize {
        self.columns * self.patch_w
    }

    fn patches(&self) -> usize {
        self.batch * self.rows * self.columns
    }

    /// Values of a patch's weights.
    fn weights(&self) -> usize {
        self.options.outputs * self.group_inputs() * self.taps()
    }

    /// Multiply–adds of a patch.
    fn macs(&self) -> usize {
        self.weights() * self.patch_h * self.patch_w
    }

    fn group_inputs(&self) -> usize {
        self.inputs / self.options.groups
    }

    fn group_outputs(&self) -> usize {
        self.options.outputs / self.options.groups
    }

    fn is_depthwise(&self) -> bool {
        (self.group_inputs(), self.group_outputs()) == (1, 1)
    }

    /// Calls `f(index, pixel)` for the output pixels from `first` on, `count` of them, of a patch of the
    /// batch, row by row.
    #[inline(always)]
    fn each_pixel(&self, patch: usize, first: usize, count: usize, mut f: impl FnMut(usize, Pixel)) {
        let (m, n) = (patch / self.columns % self.rows, patch % self.columns);
        let image = patch / (self.rows * self.columns);
        let (mut i, mut j) = (first / self.patch_w, first % self.patch_w);
        for index in 0..count {
            f(index, Pixel { image, y: m * self.patch_h + i, x: n * self.patch_w + j });
            j += 1;
            if j == self.patch_w {
                (i, j) = (i + 1, 0);
            }
        }
    }

    /// Where an output pixel's values start.
    #[inline(always)]
    fn output(&self, Pixel { image, y, x }: Pixel) -> usize {
        ((image * self.out_h() + y) * self.out_w() + x) * self.options.outputs
    }

    /// Calls `f(tap, where the values start that it reads)` for an output pixel.
    #[inline(always)]
    fn each_place(&self, Pixel { image, y, x }: Pixel, mut f: impl FnMut(usize, usize)) {
        let k = self.options.kernel;
        for (i, &row) in self.row_places[y * k..][..k].iter().enumerate() {
            for (j, &column) in self.column_places[x * k..][..k].iter().enumerate() {
                f(i * k + j, ((image * self.height + row) * self.width + column) * self.inputs);
            }
        }
    }

    /// Where a weight lies in its patch's vector, given its place in `[tap][input][output]`.
    #[inline(always)]
    fn stored(&self, tap: usize, input: usize, output: usize) -> usize {
        match self.options.order {
            WeightOrder::OutputLast => (tap * self.group_inputs() + input) * self.options.outputs + output,
            WeightOrder::OutputFirst => (output * self.group_inputs() + input) * self.taps() + tap,
        }
    }

    /// Calls `f(place in [tap][input][output], stored place)` for each weight of a patch.
    #[inline(always)]
    fn each_weight(&self, mut f: impl FnMut(usize, usize)) {
        for output in 0..self.options.outputs {
            for input in 0..self.group_inputs() {
                for tap in 0..self.taps() {
                    let at = (tap * self.group_inputs() + input) * self.options.outputs + output;
                    f(at, self.stored(tap, input, output));
                }
            }
        }
    }

    /// A patch's weights as `[tap][input][output]`.
    #[inline(always)]
    fn ordered<T: Float>(&self, stored: &[T], ordered: &mut [T]) {
        match self.options.order {
            WeightOrder::OutputLast => ordered.copy_from_slice(stored),
            WeightOrder::OutputFirst => self.each_weight(|at, from| ordered[at] = stored[from]),
        }
    }
}

/// (map `[B, H, W, C]`, weights `[B, fh, fw, P]`) → `[B, h, w, outputs]`
struct PatchwiseConv {
    grid: Grid,
    bias: Vec<f32>,
    act: Activation,
}

/// All rows of weights that a layout covers, and the distance between two.
fn weight_rows<'a, T>(values: &'a [T], layout: &Layout) -> Result<(&'a [T], usize)> {
    match row_stride(layout) {
        Some(stride) => Ok((&values[layout.start_offset()..], stride)),
        None => bail!("patchwise: weights do not lie in rows"),
    }
}

impl CustomOp2 for PatchwiseConv {
    fn name(&self) -> &'static str {
        "patchwise"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Some((from, to)) = l1.contiguous_offsets() else { bail!("patchwise: map is not contiguous") };
        let g = &self.grid;
        let isa = Isa::current()?;
        let ys = match (s1, s2) {
            (CpuStorage::F32(xs), CpuStorage::F32(weights)) => CpuStorage::F32(forward::packed(
                g,
                isa,
                &xs[from..to],
                weight_rows(weights, l2)?,
                &self.bias,
                self.act,
            )),
            (CpuStorage::F64(xs), CpuStorage::F64(weights)) => {
                CpuStorage::F64(forward::plain(g, isa, &xs[from..to], weight_rows(weights, l2)?))
            }
            _ => bail!("patchwise: expected a map and weights of one type, f32 or f64"),
        };
        Ok((ys, (g.batch, g.out_h(), g.out_w(), g.options.outputs).into()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weights: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = contiguous_nhwc(grad)?;
        let to_map = weights.contiguous()?.apply_op2_no_bwd(&grad, &Custom(ToMap(self.grid.clone())))?;
        let to_weights = xs.apply_op2_no_bwd(&grad, &Custom(ToWeights(self.grid.clone())))?;
        Ok((Some(to_map), Some(to_weights)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_line_is_reflected_without_its_ends() {
        let line =
            |halo, size| (0..size + 2 * halo).map(|at| reflect(at, halo, size)).collect::<Option<Vec<_>>>();
        assert_eq!(line(1, 3), Some(vec![1, 0, 1, 2, 1]));
        assert_eq!(line(2, 3), Some(vec![2, 1, 0, 1, 2, 1, 0]));
        assert_eq!(line(0, 1), Some(vec![0]));
        assert_eq!(line(1, 1), None);
    }

    #[test]
    fn part_of_a_channels_last_map_is_rows_already() -> Result<()> {
        let map = Tensor::zeros((2, 3, 4, 10), DType::F32, &Device::Cpu)?.permute((0, 3, 1, 2))?;
        assert_eq!(row_stride(rows_of(&map.narrow(1, 2, 5)?)?.layout()), Some(10));
        assert_eq!(row_stride(rows_of(&map.contiguous()?.narrow(1, 2, 5)?)?.layout()), Some(5));
        Ok(())
    }
}
