//! Modulated deformable convolution: each tap of each output reads where an offset says.
//!
//! The samples of some outputs are laid out as the rows of a matrix, and the rest is a product with the
//! weights: our packed one, some rows at a time, or candle's, which has a gradient.

use candle_core::{DType, Result, Shape, Tensor, bail};

use crate::bilinear::{Corners, share_bands};
use crate::epilogue::{Activation, Float};
use crate::isa::Isa;
use crate::operation::{Custom, Operation, kernel_dtype, map_sizes};
use crate::packed::{ConvOptions, PackedConv, from_nhwc};
use crate::region::{Pads, Region};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_chunks};
use crate::transpose::channels_last;

/// Bytes of samples that are laid out at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// `ys[b, o, y, x] = bias[o] + Σ weight[o, c, i, j] · mask[b, k, y, x] · xs[b, c, y', x']` over the channels
/// c of o's group and the taps k = (i, j), bilinearly at
/// `y' = y · stride − top + i · dilation + offset[b, 2k, y, x]`, `x'` likewise with `offset[b, 2k + 1, y, x]`:
/// `torchvision.ops.deform_conv2d`.
///
/// `xs`: `[B, C, H, W]`; `offset`: `[B, 2 · D · kh · kw, h, w]`, for D equal parts of the channels; `mask`,
/// ones where there is none: `[B, D · kh · kw, h, w]`; `weight`: `[O, C / groups, kh, kw]`; `bias`: `[O]`.
/// Result: `[B, O, h, w]`. What lies outside the map is zero, also where an offset is not finite.
///
/// Has gradients for all five.
///
/// # Errors
/// If a shape does not fit, or the operands are not of one float type on the CPU.
pub fn deform_conv2d(
    xs: &Tensor,
    offset: &Tensor,
    mask: Option<&Tensor>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: ConvOptions,
    pads: Pads,
) -> Result<Tensor> {
    let filter = weight.dims4()?;
    let operands: Vec<&Tensor> = [xs, offset, weight].into_iter().chain(mask).chain(bias).collect();
    let dtype = kernel_dtype("deform-conv", &operands)?;
    if xs.dtype() == DType::F32 && !operands.iter().any(|operand| operand.track_op()) {
        let packed = PackedDeformConv::new(weight, bias, options, pads, Activation::None)?;
        return packed.forward(xs, offset, mask);
    }
    let geometry = Geometry::new(xs, offset, mask, filter, options, pads)?;
    let (outputs, depth, _, _) = filter;
    let (groups, depth) = (options.groups, depth * geometry.taps());
    let places = geometry.places(offset, mask, dtype)?;
    let (batch, out_h, out_w) = (geometry.batch, geometry.out_h, geometry.out_w);
    let columns = channels_last(&xs.to_dtype(dtype)?)?.apply_op2(&places, Custom(Columns::all(geometry)))?;
    // [pixels, groups, depth] · [groups, depth, outputs of a group]
    let columns = columns.reshape(((), groups, depth))?.transpose(0, 1)?.contiguous()?;
    let weight = weight.to_dtype(dtype)?.permute((0, 2, 3, 1))?;
    let weight = weight.reshape((groups, outputs / groups, depth))?.transpose(1, 2)?.contiguous()?;
    let ys = columns.matmul(&weight)?.transpose(0, 1)?.reshape((batch, out_h, out_w, outputs))?;
    let ys = match bias {
        Some(bias) => ys.broadcast_add(&bias.to_dtype(dtype)?)?,
        None => ys,
    };
    from_nhwc(&ys)?.to_dtype(xs.dtype())
}

/// A deformable convolution with its weights packed for the instruction set at hand.
#[derive(Debug, Clone)]
pub struct PackedDeformConv {
    /// The product with the samples.
    product: PackedConv,
    filter: (usize, usize, usize, usize),
    options: ConvOptions,
    pads: Pads,
}

impl PackedDeformConv {
    /// Operands as for [`deform_conv2d`]; `act` comes last.
    ///
    /// # Errors
    /// If a shape does not fit, the weights are not f32 on the CPU, or `ZOO_ISA` is wrong.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: ConvOptions,
        pads: Pads,
        act: Activation,
    ) -> Result<Self> {
        let filter = weight.dims4()?;
        let (outputs, inputs, height, width) = filter;
        let samples = weight.permute((0, 2, 3, 1))?.reshape((outputs, height * width * inputs, 1, 1))?;
        let product = ConvOptions { groups: options.groups, ..ConvOptions::default() };
        Ok(Self { product: PackedConv::new(&samples, bias, product, act)?, filter, options, pads })
    }

    /// As [`deform_conv2d`], channels last in memory. There is no gradient.
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not f32 on the CPU.
    pub fn forward(&self, xs: &Tensor, offset: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let operands: Vec<&Tensor> = [xs, offset].into_iter().chain(mask).collect();
        let _ = kernel_dtype("deform-conv", &operands)?;
        let geometry = Geometry::new(xs, offset, mask, self.filter, self.options, self.pads)?;
        let (outputs, per_pixel) = (self.filter.0, geometry.per_pixel());
        let map = channels_last(xs)?;
        let places = geometry.places(offset, mask, DType::F32)?;
        let (pixels, chunk) = (geometry.pixels(), (CHUNK_BYTES / (4 * per_pixel)).max(64));
        let products = (0..pixels).step_by(chunk).map(|first| {
            let count = chunk.min(pixels - first);
            let op = Columns { geometry, first, count };
            let columns = map.apply_op2_no_bwd(&places, &Custom(op))?;
            let columns = from_nhwc(&columns.reshape((1, count, 1, per_pixel))?)?;
            let ys = self.product.forward(&Region::whole(&columns)?, Pads::default(), None)?;
            channels_last(&ys)?.reshape((count, outputs))
        });
        let products = products.collect::<Result<Vec<_>>>()?;
        let shape = (geometry.batch, geometry.out_h, geometry.out_w, outputs);
        from_nhwc(&Tensor::cat(&products, 0)?.reshape(shape)?)
    }
}

#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    out_h: usize,
    out_w: usize,
    kernel: (usize, usize),
    options: ConvOptions,
    pads: Pads,
    /// Parts of the channels with offsets of their own.
    parts: usize,
}

impl Geometry {
    fn new(
        xs: &Tensor,
        offset: &Tensor,
        mask: Option<&Tensor>,
        (outputs, inputs, kh, kw): (usize, usize, usize, usize),
        options: ConvOptions,
        pads: Pads,
    ) -> Result<Self> {
        let (batch, channels, height, width) = map_sizes("deform-conv", xs)?;
        let ConvOptions { stride, dilation, groups, .. } = options;
        if stride == 0 || dilation == 0 || groups == 0 || kh * kw == 0 || !outputs.is_multiple_of(groups) {
            bail!(
                "deform-conv: a {kh}×{kw} filter with {options:?} on {outputs} outputs: sizes must be at least 1, and groups must divide the outputs"
            )
        }
        if inputs * groups != channels {
            bail!("deform-conv: expected {} channels, got {channels}", inputs * groups)
        }
        let out = |size: usize, pads: usize, kernel: usize| {
            Some((size + pads).checked_sub((kernel - 1) * dilation + 1)? / stride + 1)
        };
        let (Some(out_h), Some(out_w)) =
            (out(height, pads.top + pads.bottom, kh), out(width, pads.left + pads.right, kw))
        else {
            bail!(
                "deform-conv: a {kh}×{kw} filter of dilation {dilation} does not fit a padded map of {height}×{width}"
            )
        };
        let parts = offset.dim(1)? / (2 * kh * kw);
        let expected = [batch, 2 * parts * kh * kw, out_h, out_w];
        if parts == 0 || !channels.is_multiple_of(parts) || offset.dims() != expected {
            bail!(
                "deform-conv: expected an offset of [{batch}, {} · D, {out_h}, {out_w}] where D divides {channels}, got {:?}",
                2 * kh * kw,
                offset.dims()
            )
        }
        let expected = [batch, parts * kh * kw, out_h, out_w];
        if let Some(mask) = mask
            && mask.dims() != expected
        {
            bail!("deform-conv: expected a mask of {expected:?}, got {:?}", mask.dims())
        }
        Ok(Self { batch, channels, height, width, out_h, out_w, kernel: (kh, kw), options, pads, parts })
    }

    /// Offsets (row, column) and mask side by side: `[B, h, w, parts · taps, 3]`.
    fn places(&self, offset: &Tensor, mask: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
        let of = |values: usize| (self.batch, self.out_h, self.out_w, self.parts * self.taps(), values);
        let offset = channels_last(&offset.to_dtype(dtype)?)?.reshape(of(2))?;
        let mask = match mask {
            Some(mask) => channels_last(&mask.to_dtype(dtype)?)?.reshape(of(1))?,
            None => Tensor::ones(of(1), dtype, offset.device())?,
        };
        Tensor::cat(&[offset, mask], 4)
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    fn pixels(&self) -> usize {
        self.batch * self.out_h * self.out_w
    }

    /// Samples of an output pixel.
    fn per_pixel(&self) -> usize {
        self.taps() * self.channels
    }

    /// Values of one image's map.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Calls `f(index of the place, corners, mask)` for each place of an output pixel of the batch that
    /// touches the map.
    #[inline(always)]
    fn each_place<T: Float>(&self, pixel: usize, places: &[T], mut f: impl FnMut(usize, Corners, T)) {
        let (y, x) = (pixel / self.out_w % self.out_h, pixel % self.out_w);
        let count = self.parts * self.taps();
        for (i, place) in places[3 * pixel * count..][..3 * count].chunks_exact(3).enumerate() {
            let tap = i % self.taps();
            let at = |index: usize, tap: usize, pad: usize, moved: T| {
                (index * self.options.stride + tap * self.options.dilation) as f64 - pad as f64
                    + moved.to_f64()
            };
            let row = at(y, tap / self.kernel.1, self.pads.top, place[0]);
            let column = at(x, tap % self.kernel.1, self.pads.left, place[1]);
            if let Some(corners) = Corners::new(row, column, self.height, self.width) {
                f(i, corners, place[2]);
            }
        }
    }

    /// Calls `f(first channel, how many, where their samples lie among the pixel's)` for the channels
    /// that one place serves: samples lie as `[group][tap][channel of the group]`.
    #[inline(always)]
    fn each_run(&self, place: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (part, tap) = (place / self.taps(), place % self.taps());
        let of_part = self.channels / self.parts;
        let of_group = self.channels / self.options.groups;
        let mut channel = part * of_part;
        while channel < (part + 1) * of_part {
            let (group, inside) = (channel / of_group, channel % of_group);
            let count = (of_group - inside).min((part + 1) * of_part - channel);
            f(channel, count, (group * self.taps() + tap) * of_group + inside);
            channel += count;
        }
    }
}

/// (map `[B, H, W, C]`, places) → samples of some output pixels, `[count, taps · C]`
struct Columns {
    geometry: Geometry,
    first: usize,
    count: usize,
}

impl Columns {
    fn all(geometry: Geometry) -> Self {
        Self { geometry, first: 0, count: geometry.pixels() }
    }
}

impl Operation<2> for Columns {
    const NAME: &'static str = "deform-columns";

    fn shape(&self) -> Shape {
        (self.count, self.geometry.per_pixel()).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, places]: [&[T]; 2]) -> Vec<T> {
        let per_pixel = self.geometry.per_pixel();
        let per_task = items_per_task(self.count, 4 * per_pixel);
        let mut columns = vec![T::ZERO; self.count * per_pixel];
        share_chunks(&mut columns, per_task * per_pixel, |task, columns| {
            let first = self.first + task * per_task;
            dispatch(isa, Gather { geometry: &self.geometry, first, xs, places, columns });
        });
        columns
    }

    fn gradients(&self, [xs, places]: [&Tensor; 2], grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let grad = grad.contiguous()?;
        let to_xs = places.apply_op2_no_bwd(&grad, &Custom(ToMap(self.geometry)))?;
        let to_places = xs.apply_op3_no_bwd(places, &grad, &Custom(ToPlaces(self.geometry)))?;
        Ok([Some(to_xs), Some(to_places)])
    }
}

/// The samples of some pixels.
struct Gather<'a, T> {
    geometry: &'a Geometry,
    first: usize,
    xs: &'a [T],
    places: &'a [T],
    /// Zeros before.
    columns: &'a mut [T],
}

impl<T: Float> Kernel for Gather<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let g = self.geometry;
        for (i, columns) in self.columns.chunks_exact_mut(g.per_pixel()).enumerate() {
            let pixel = self.first + i;
            let xs = &self.xs[pixel / (g.out_h * g.out_w) * g.image()..][..g.image()];
            g.each_place(pixel, self.places, |place, corners, mask| {
                g.each_run(place, |channel, count, at| {
                    corners.sample(&xs[channel..], g.channels, mask, &mut columns[at..at + count]);
                });
            });
        }
    }
}

/// (places, gradient of the samples) → gradient of the map
struct ToMap(Geometry);

impl Operation<2> for ToMap {
    const NAME: &'static str = "deform-map-grad";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.height, self.0.width, self.0.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [places, grad]: [&[T]; 2]) -> Vec<T> {
        let geometry = &self.0;
        let mut to_map = vec![T::ZERO; geometry.batch * geometry.image()];
        let size = (geometry.height, geometry.width, geometry.channels);
        share_bands(&mut to_map, size, |image, first, to_map| {
            dispatch(isa, Scatter { geometry, image, first, places, grad, to_map });
        });
        to_map
    }
}

/// The gradient of some rows of one image's map.
struct Scatter<'a, T> {
    geometry: &'a Geometry,
    image: usize,
    /// The rows' first pixel.
    first: usize,
    places: &'a [T],
    grad: &'a [T],
    to_map: &'a mut [T],
}

impl<T: Float> Kernel for Scatter<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let g = self.geometry;
        let pixels = g.out_h * g.out_w;
        let own = self.first..self.first + self.to_map.len() / g.channels;
        for pixel in self.image * pixels..(self.image + 1) * pixels {
            let grad = &self.grad[pixel * g.per_pixel()..][..g.per_pixel()];
            g.each_place(pixel, self.places, |place, corners, mask| {
                corners.each(|corner, weight, _| {
                    if !own.contains(&corner) {
                        return;
                    }
                    let weight = mask * T::from_f64(weight);
                    g.each_run(place, |channel, count, at| {
                        let to = &mut self.to_map[(corner - self.first) * g.channels + channel..][..count];
                        for (to, &grad) in to.iter_mut().zip(&grad[at..at + count]) {
                            *to += weight * grad;
                        }
                    });
                });
            });
        }
    }
}

/// (map, places, gradient of the samples) → gradient of the places
struct ToPlaces(Geometry);

impl Operation<3> for ToPlaces {
    const NAME: &'static str = "deform-place-grad";

    fn shape(&self) -> Shape {
        let g = &self.0;
        (g.batch, g.out_h, g.out_w, g.parts * g.taps(), 3).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, places, grad]: [&[T]; 3]) -> Vec<T> {
        let geometry = &self.0;
        let per_pixel = 3 * geometry.parts * geometry.taps();
        let per_task = items_per_task(geometry.pixels(), 8 * geometry.per_pixel());
        let mut to_places = vec![T::ZERO; geometry.pixels() * per_pixel];
        share_chunks(&mut to_places, per_task * per_pixel, |task, to| {
            dispatch(isa, Slopes { geometry, first: task * per_task, xs, places, grad, to });
        });
        to_places
    }
}

/// The gradient of some pixels' places.
struct Slopes<'a, T> {
    geometry: &'a Geometry,
    first: usize,
    xs: &'a [T],
    places: &'a [T],
    grad: &'a [T],
    /// Zeros before.
    to: &'a mut [T],
}

impl<T: Float> Kernel for Slopes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let g = self.geometry;
        for (i, to) in self.to.chunks_exact_mut(3 * g.parts * g.taps()).enumerate() {
            let pixel = self.first + i;
            let xs = &self.xs[pixel / (g.out_h * g.out_w) * g.image()..][..g.image()];
            let grad = &self.grad[pixel * g.per_pixel()..][..g.per_pixel()];
            g.each_place(pixel, self.places, |place, corners, mask| {
                g.each_run(place, |channel, count, at| {
                    let (down, right, sample) =
                        corners.slopes(&xs[channel..], g.channels, &grad[at..at + count]);
                    to[3 * place] += mask * down;
                    to[3 * place + 1] += mask * right;
                    to[3 * place + 2] += sample;
                });
            });
        }
    }
}
