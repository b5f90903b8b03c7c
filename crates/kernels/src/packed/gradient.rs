//! Dense and grouped convolution with gradients.
//!
//! Forward, a gradient to the input and one to the weights are three convolutions of the same
//! multiply–adds, and all three run on the tiles of [`super::tile`]: the weights are packed at each
//! call, which is little beside a batch of images. The input's gradient at stride s is s² convolutions
//! of the result's gradient, one for each phase of the input's rows and columns, so that nothing is
//! multiplied by zeros.

use candle_core::{CpuStorage, DType, Device, Result, Shape, Tensor, bail};

use super::conv::{ConvOptions, ConvShape, Filters, PackedConv, TileShape, in_blocks, widest};
use super::geometry::{Filter, Geometry, Phase};
use super::tile::{Piece, Tile, compute, panels};
use super::{from_nhwc, values, winograd};
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, SharedRead};
use crate::operation::on_cpu;
use crate::region::{Pads, Region};
use crate::simd::{Kernel, MAX_LANES, Simd, dispatch};
use crate::tape::{Differentiable, apply};
use crate::threads::{gather, items_per_task, share_chunks, threads};
use crate::transpose::channels_last;

const NAME: &str = "convolution";
/// Bytes of input and gradient that a task goes over at a time: they should stay in the second cache.
const CHUNK_BYTES: usize = 384 << 10;
/// Places with fewer values are taken together, a row of the filter at a time.
const FEW_CHANNELS: usize = 5;

/// `ys[b, o, y, x] = Σ weight[o, i, ky, kx] · xs[b, i, y·stride + ky·dilation − top, …]`, where `xs` reads
/// the region's plane and is zero outside it, with gradients to plane and weight.
///
/// `weight`: `[O, I / groups, kh, kw]`. Result: `[B, O, h', w']`, channels last in memory on the CPU.
///
/// # Errors
/// If a shape does not fit. Going backward, if stride and dilation are both over 1.
pub fn conv2d(region: &Region, weight: &Tensor, pads: Pads, options: ConvOptions) -> Result<Tensor> {
    let (outputs, per_group, height, width) = weight.dims4()?;
    let ConvOptions { stride, dilation, groups, .. } = options;
    if stride == 0 || dilation == 0 || groups == 0 || !outputs.is_multiple_of(groups) || height * width == 0 {
        bail!(
            "{NAME}: a weight of {:?} with {options:?}: stride, dilation and groups must be at least 1, and groups must divide the outputs",
            weight.dims()
        )
    }
    let filter = Filter { height, width, stride, dilation };
    let geometry = Geometry::new(NAME, region, filter, pads, per_group * groups)?;
    let f32_on_cpu = |t: &Tensor| matches!(t.device(), Device::Cpu) && t.dtype() == DType::F32;
    if !f32_on_cpu(&region.plane) || !f32_on_cpu(weight) {
        let xs = region.bordered(pads)?;
        if (filter.taps(), stride, groups) == (1, 1, 1) {
            return pointwise(&xs, weight);
        }
        return xs.conv2d(weight, 0, stride, dilation, groups);
    }
    let op = Conv2d { geometry, options, per_group, outputs };
    from_nhwc(&apply(op, [&channels_last(&region.plane)?, &weight.contiguous()?])?)
}

/// A 1×1 convolution as one matrix product on the planes as they lie.
fn pointwise(xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let outputs = weight.dim(0)?;
    let weight = weight.reshape((outputs, c))?.broadcast_left(b)?;
    weight.matmul(&xs.reshape((b, c, h * w))?)?.reshape((b, outputs, h, w))
}

#[derive(Clone, Copy)]
struct Conv2d {
    geometry: Geometry,
    options: ConvOptions,
    /// Inputs of a group.
    per_group: usize,
    outputs: usize,
}

impl Conv2d {
    fn inputs(&self) -> usize {
        self.per_group * self.options.groups
    }

    /// A convolution of `per_group` inputs a group, packed without bias and activation.
    fn pack(
        &self,
        filter: Filter,
        per_group: usize,
        outputs: usize,
        weight: Filters<impl Fn(usize, usize) -> usize + Sync>,
    ) -> Result<PackedConv> {
        let ConvOptions { groups, winograd, .. } = self.options;
        let winograd = winograd && groups == 1 && winograd::suits(filter, per_group, outputs)?;
        let act = Activation::None;
        let shape = ConvShape { isa: Isa::current()?, filter, groups, per_group, outputs, winograd, act };
        Ok(PackedConv::pack(shape, weight, None))
    }

    /// The gradient to the input, `[B, H, W, I]`, from the result's, `[B, h', w', O]`.
    fn input_gradient(&self, weight: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let (g, inputs) = (&self.geometry, self.inputs());
        let Filter { stride, dilation, .. } = g.filter;
        if stride > 1 && dilation > 1 {
            bail!("{NAME}: there is no gradient for stride {stride} with dilation {dilation}")
        }
        // What no phase reaches is zero; at stride 1 the only phase is the whole input.
        let values = if stride == 1 { 0 } else { g.batch * g.plane_h * g.plane_w * inputs };
        let mut to_input = vec![0.0; values];
        for (y, x) in (0..stride).flat_map(|y| (0..stride).map(move |x| (y, x))) {
            let rows = Phase::new(y, g.filter.height, -g.origin.0, g.plane_h, stride, dilation);
            let columns = Phase::new(x, g.filter.width, -g.origin.1, g.plane_w, stride, dilation);
            if rows.taps.is_empty() || columns.taps.is_empty() || rows.len == 0 || columns.len == 0 {
                continue;
            }
            // The filter's taps of this phase, last first, with inputs and outputs exchanged.
            let per_output = self.outputs / self.options.groups;
            let taps = g.filter.taps();
            let turned = Filters {
                values: weight,
                at: |input: usize, output: usize| {
                    let (group, input) = (input / self.per_group, input % self.per_group);
                    ((group * per_output + output) * self.per_group + input) * taps
                },
                taps: rows
                    .taps
                    .iter()
                    .flat_map(|ky| columns.taps.iter().map(move |kx| ky * g.filter.width + kx))
                    .collect(),
            };
            let filter = Filter { height: rows.taps.len(), width: columns.taps.len(), stride: 1, dilation };
            let geometry = Geometry {
                batch: g.batch,
                plane_h: g.out_h,
                plane_w: g.out_w,
                out_h: rows.len,
                out_w: columns.len,
                filter,
                origin: (rows.origin, columns.origin),
            };
            let phase = self.pack(filter, per_output, inputs, turned)?.run(geometry, grad);
            if stride == 1 {
                return Ok(phase);
            }
            let row = g.plane_w * inputs;
            let per_task = items_per_task(g.batch * g.plane_h, row / stride);
            share_chunks(&mut to_input, per_task * row, |task, to| {
                for (i, to) in (task * per_task..).zip(to.chunks_exact_mut(row)) {
                    let (image, plane_row) = (i / g.plane_h, i % g.plane_h);
                    if plane_row % stride == y {
                        let from = &phase[(image * rows.len + plane_row / stride) * columns.len * inputs..];
                        let to = to.chunks_exact_mut(inputs).skip(x).step_by(stride);
                        for (to, from) in to.zip(from.chunks_exact(inputs)) {
                            to.copy_from_slice(from);
                        }
                    }
                }
            });
        }
        Ok(to_input)
    }

    /// The gradient to the weights, `[O, I / groups, kh, kw]`.
    fn weight_gradient(&self, xs: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let (g, channels) = (self.geometry, self.inputs());
        if channels >= FEW_CHANNELS || self.options.groups > 1 || g.filter.dilation > 1 {
            return self.weight_sums(&g, self.per_group, channels, xs, grad);
        }
        // The places that a row of the filter reads follow each other, as long as none lies outside
        // the plane: they are taken as the channels of one place.
        let Filter { height, width, stride, .. } = g.filter;
        let (rows, columns) = ((g.out_h - 1) * stride + height, (g.out_w - 1) * stride + width);
        let mut bordered = vec![0.0; g.batch * rows * columns * channels];
        let inside = |origin: isize, size: usize, plane: usize| {
            let from = (-origin).clamp(0, size as isize) as usize;
            from..(plane as isize - origin).clamp(from as isize, size as isize) as usize
        };
        let (inside_rows, inside) =
            (inside(g.origin.0, rows, g.plane_h), inside(g.origin.1, columns, g.plane_w));
        for (i, to) in bordered.chunks_exact_mut(columns * channels).enumerate() {
            let (image, row) = (i / rows, i % rows);
            if inside_rows.contains(&row) && !inside.is_empty() {
                let y = (row as isize + g.origin.0) as usize;
                let x = (inside.start as isize + g.origin.1) as usize;
                let from = ((image * g.plane_h + y) * g.plane_w + x) * channels;
                let len = inside.len() * channels;
                to[inside.start * channels..][..len].copy_from_slice(&xs[from..][..len]);
            }
        }
        let filter = Filter { height, width: 1, stride, dilation: 1 };
        let tall = Geometry { plane_h: rows, plane_w: columns, filter, origin: (0, 0), ..g };
        let sums = self.weight_sums(&tall, width * channels, channels, &bordered, grad)?;
        let mut to_weight = Vec::with_capacity(sums.len());
        for sums in sums.chunks_exact(width * channels * height) {
            for channel in 0..channels {
                for ky in 0..height {
                    to_weight.extend((0..width).map(|kx| sums[(kx * channels + channel) * height + ky]));
                }
            }
        }
        Ok(to_weight)
    }

    /// `sums[o][i][tap] = Σ xs[place under the tap][i] · grad[pixel][o]`, places `step` values apart and of
    /// `per_group` values in each group.
    fn weight_sums(
        &self,
        g: &Geometry,
        per_group: usize,
        step: usize,
        xs: &[f32],
        grad: &[f32],
    ) -> Result<Vec<f32>> {
        let isa = Isa::current()?;
        let (lanes, shapes) = dispatch(isa, TileShape);
        let (groups, pixels) = (self.options.groups, g.pixels());
        let per_output = self.outputs / groups;
        // The result's gradient as the tiles read weights: panel by panel, `[pixel][output]`.
        let mut gradients = vec![];
        for group in 0..groups {
            let mut first = 0;
            for vectors in panels(per_output.div_ceil(lanes), widest(shapes)) {
                let columns = vectors * lanes;
                let outputs = columns.min(per_output - first);
                let mut packed = vec![0.0; pixels * columns];
                let from = group * per_output + first;
                let per_task = items_per_task(pixels, outputs);
                share_chunks(&mut packed, per_task * columns, |task, packed| {
                    let grad = grad.chunks_exact(self.outputs).skip(task * per_task);
                    for (to, grad) in packed.chunks_exact_mut(columns).zip(grad) {
                        to[..outputs].copy_from_slice(&grad[from..from + outputs]);
                    }
                });
                gradients.push(GradientPanel { vectors, group, outputs, packed });
                first += outputs;
            }
        }
        // A task is a panel, a tap, and some of the inputs: enough tasks for all threads.
        let taps = g.filter.taps();
        let tall = shapes.iter().map(|shape| shape.1).max().unwrap_or(1);
        let wanted = 4 * threads();
        let splits = wanted.div_ceil(gradients.len() * taps).clamp(1, per_group.div_ceil(tall));
        let per_task = per_group.div_ceil(splits);
        let splits = per_group.div_ceil(per_task);
        let parts = gather(gradients.len() * taps * splits, |task| {
            let first = task % splits * per_task;
            let part = WeightPart {
                g,
                per_group,
                step,
                xs: SharedRead(xs.as_ptr()),
                panel: &gradients[task / splits / taps],
                tap: task / splits % taps,
                inputs: (first, per_task.min(per_group - first)),
            };
            dispatch(isa, part)
        });
        // The panels' outputs follow each other, so each panel fills a part of its own.
        let mut sums = vec![0.0; self.outputs * per_group * taps];
        let mut rest = sums.as_mut_slice();
        let mut shares = vec![];
        for (i, panel) in gradients.iter().enumerate() {
            let (of_panel, others) = rest.split_at_mut(panel.outputs * per_group * taps);
            shares.push((panel, &parts[i * taps * splits..][..taps * splits], of_panel));
            rest = others;
        }
        share_chunks(&mut shares, 1, |_, shares| {
            for (panel, parts, sums) in shares {
                let columns = panel.vectors * lanes;
                in_blocks(per_group, panel.outputs, |input, output| {
                    let (split, row) = (input / per_task, input % per_task);
                    let at = (output * per_group + input) * taps;
                    for (tap, to) in sums[at..at + taps].iter_mut().enumerate() {
                        *to = parts[tap * splits + split][row * columns + output];
                    }
                });
            }
        });
        Ok(sums)
    }
}

/// Neighbouring outputs of a group: their gradients, packed.
struct GradientPanel {
    vectors: usize,
    group: usize,
    outputs: usize,
    packed: Vec<f32>,
}

/// `sums[i][o] = Σ xs[pixel under the tap][i] · grad[pixel][o]` for some inputs, one tap, one panel.
struct WeightPart<'a> {
    g: &'a Geometry,
    /// Inputs of a group.
    per_group: usize,
    /// Values between two places of `xs`.
    step: usize,
    xs: SharedRead,
    panel: &'a GradientPanel,
    tap: usize,
    /// First input of the group, and how many.
    inputs: (usize, usize),
}

impl Kernel for WeightPart<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f32> {
        let (g, panel, channels) = (self.g, self.panel, self.step);
        let columns = panel.vectors * S::LANES;
        let (first, count) = self.inputs;
        let mut sums = vec![0.0; count * columns];
        let out = Shared(sums.as_mut_ptr());
        let (ky, kx) = (self.tap / g.filter.width, self.tap % g.filter.width);
        let valid = |n: usize, at: &dyn Fn(usize) -> Option<usize>| {
            let from = (0..n).find(|&i| at(i).is_some())?;
            let end = (from..n).find(|&i| at(i).is_none()).unwrap_or(n);
            Some((from, end))
        };
        // Outputs whose tap lies inside the plane.
        let Some((y0, y1)) = valid(g.out_h, &|y| g.row(y, ky)) else { return sums };
        let Some((x0, x1)) = valid(g.out_w, &|x| g.column(x, kx)) else { return sums };
        let Some(column) = g.column(x0, kx) else { return sums };
        let tall = S::TILES.iter().find(|t| t.0 == panel.vectors).map_or(1, |t| t.1);
        let tiles = count.div_ceil(tall);
        let none = [0.0; 4 * MAX_LANES];
        let row_bytes = 4 * (g.filter.stride * g.plane_w * channels + g.out_w * columns);
        let rows = (CHUNK_BYTES / row_bytes).clamp(1, y1 - y0);
        let mut pointers = vec![std::ptr::null(); rows * tall];
        let mut started = false;
        for image in 0..g.batch {
            for from in (y0..y1).step_by(rows) {
                let rows = rows.min(y1 - from);
                for (y, pointers) in (from..).zip(pointers.chunks_exact_mut(tall)).take(rows) {
                    let Some(row) = g.row(y, ky) else { continue };
                    let pixel = (image * g.plane_h + row) * g.plane_w + column;
                    let input = pixel * channels + panel.group * self.per_group + first;
                    for (m, pointer) in pointers.iter_mut().enumerate() {
                        // Only the tile's own rows are read; the others may lie beyond the input.
                        *pointer = self.xs.get().wrapping_add(input + m);
                    }
                }
                let mut done = 0;
                for tile in 0..tiles {
                    let height = count / tiles + usize::from(tile < count % tiles);
                    // SAFETY: the pointers lie inside the input for the tile's inputs and columns
                    // x0..x1, the gradients inside their panel; the sums are this task's own. `run`
                    // is called by `S::enter`.
                    unsafe {
                        let at = out.at(done * columns);
                        let tile = Tile {
                            rows: pointers.as_ptr(),
                            row_step: tall,
                            offset: done,
                            value_step: g.filter.stride * channels,
                            taps: rows,
                            depth: x1 - x0,
                            weights: panel
                                .packed
                                .as_ptr()
                                .add(((image * g.out_h + from) * g.out_w + x0) * columns),
                            weight_step: g.out_w * columns,
                            bias: none.as_ptr(),
                            out: at,
                            residual: if started { at.cast_const() } else { std::ptr::null() },
                            stride: columns,
                            last: S::LANES,
                            act: Activation::None,
                            piece: Piece::WHOLE,
                        };
                        compute::<S>(&tile, panel.vectors, height);
                    }
                    done += height;
                }
                started = true;
            }
        }
        sums
    }
}

impl Differentiable<2> for Conv2d {
    fn evaluate(&self, operands: [&Tensor; 2]) -> Result<(CpuStorage, Shape)> {
        let g = self.geometry;
        let ys = on_cpu(NAME, operands, |[s1, s2], [l1, l2]| {
            let (xs, weight) = (values(NAME, s1, l1)?, values(NAME, s2, l2)?);
            let weight = Filters::in_order(weight, g.filter, self.per_group);
            Ok(self.pack(g.filter, self.per_group, self.outputs, weight)?.run(g, xs))
        })?;
        Ok((CpuStorage::F32(ys), (g.batch, g.out_h, g.out_w, self.outputs).into()))
    }

    fn gradients(
        &self,
        [xs, weight]: [&Tensor; 2],
        [to_xs, to_weight]: [bool; 2],
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        on_cpu(NAME, [xs, weight, grad], |[s1, s2, s3], [l1, l2, l3]| {
            let grad = values(NAME, s3, l3)?;
            let to_xs = to_xs.then(|| {
                let to_xs = self.input_gradient(values(NAME, s2, l2)?, grad)?;
                Tensor::from_vec(to_xs, xs.shape(), &Device::Cpu)
            });
            let to_weight = to_weight.then(|| {
                let to_weight = self.weight_gradient(values(NAME, s1, l1)?, grad)?;
                Tensor::from_vec(to_weight, weight.shape(), &Device::Cpu)
            });
            Ok([to_xs.transpose()?, to_weight.transpose()?])
        })
    }
}
