//! RoIAlign: the part of a map under each box, as a small map.

use candle_core::{Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Custom, Operation, contiguous_nhwc, kernel_dtype, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::taps::{Taps, mix};
use crate::threads::{items_per_task, share_chunks};
use crate::transpose::channels_last;

/// How [`roi_align`] samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlign {
    /// Rows and columns of a box's map.
    pub size: (usize, usize),
    /// The map's pixels for one unit of the boxes' coordinates.
    pub scale: f64,
    /// Samples for each cell along each axis; `None`: as many as the cell has pixels, rounded up.
    pub samples: Option<usize>,
    /// Coordinates are of pixels' edges: boxes are moved by half a pixel before they are sampled.
    /// Otherwise (the older rule) they are not, and boxes are at least one pixel large.
    pub aligned: bool,
}

/// The mean of bilinear samples in each cell of each box, by the rules of `torchvision.ops.roi_align`.
///
/// `xs`: `[B, C, H, W]`; `boxes`: `[K, 5]` of (image, x0, y0, x1, y1). Result: `[K, C, h, w]`. A sample
/// more than a pixel outside the map counts 0, one less far outside is moved to the border. A box with
/// a coordinate that is not finite gives zeros.
///
/// Has a gradient for `xs`; boxes have none.
///
/// # Errors
/// If a shape does not fit, a box names no image, or the operands are not of one float type on the CPU.
pub fn roi_align(xs: &Tensor, boxes: &Tensor, options: RoiAlign) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes("roi-align", xs)?;
    let RoiAlign { size, samples, .. } = options;
    if size.0 * size.1 == 0 || samples == Some(0) {
        bail!("roi-align: expected at least one cell and one sample, got {options:?}")
    }
    let count = match *boxes.dims() {
        [count, 5] => count,
        _ => bail!("roi-align: expected boxes of [K, 5], got {:?}", boxes.dims()),
    };
    let dtype = kernel_dtype("roi-align", &[xs, boxes])?;
    if count == 0 {
        return Tensor::zeros((0, channels, size.0, size.1), xs.dtype(), xs.device());
    }
    let images = boxes.narrow(1, 0, 1)?.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
    if let Some(image) = images.iter().find(|&&i| !(i >= 0.0 && i < batch as f64 && i.fract() == 0.0)) {
        bail!("roi-align: a box of image {image}, but there are {batch} images")
    }
    let op = Pooled { batch, channels, height, width, count, options };
    // Coordinates stay outside the graph, as they have no gradient.
    let boxes = boxes.detach().to_dtype(dtype)?.contiguous()?;
    let ys = channels_last(&xs.to_dtype(dtype)?)?.apply_op2(&boxes, Custom(op))?;
    from_nhwc(&ys)?.to_dtype(xs.dtype())
}

/// (map `[B, H, W, C]`, boxes `[K, 5]`) → `[K, h, w, C]`
#[derive(Clone, Copy)]
struct Pooled {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    count: usize,
    options: RoiAlign,
}

impl Pooled {
    /// What each cell of a box takes from the map's rows and columns: the samples' weights factor.
    fn taps<T: Float>(&self, roi: &[T]) -> (Taps, Taps) {
        let [x0, y0, x1, y1] = [1, 2, 3, 4].map(|i| roi.get(i).map_or(f64::NAN, |v| v.to_f64()));
        let finite = [x0, y0, x1, y1].iter().all(|v| v.is_finite());
        let axis = |from: f64, to: f64, inputs: usize, cells: usize| {
            if finite { self.axis(from, to, inputs, cells) } else { Taps::new(inputs, cells, |_, _| {}) }
        };
        (axis(y0, y1, self.height, self.options.size.0), axis(x0, x1, self.width, self.options.size.1))
    }

    fn axis(&self, from: f64, to: f64, inputs: usize, cells: usize) -> Taps {
        let RoiAlign { scale, samples, aligned, .. } = self.options;
        let start = from * scale - if aligned { 0.5 } else { 0.0 };
        let length = (to - from) * scale;
        let length = if aligned { length } else { length.max(1.0) };
        let cell = length / cells as f64;
        // Of a box turned inside out there are no samples.
        let count = samples.map_or(cell.ceil().max(0.0), |n| n as f64);
        let step = cell / count;
        let last = (inputs - 1) as f64;
        Taps::new(inputs, cells, |i, taps| {
            let first = start + i as f64 * cell + 0.5 * step;
            // Only those that touch the map, however large the box is.
            let index = |at: f64| ((at - first) / step).clamp(0.0, count);
            let (low, high) = (index(-1.0), index(inputs as f64));
            let (low, high) = (low.min(high).floor() as usize, low.max(high).ceil() as usize);
            let known =
                if step == 0.0 { 0..count as usize } else { low..high.saturating_add(1).min(count as usize) };
            for sample in known {
                let at = first + sample as f64 * step;
                if !(-1.0..=inputs as f64).contains(&at) {
                    continue;
                }
                let at = at.clamp(0.0, last);
                let (pixel, part) = (at as usize, at.fract());
                taps.push((pixel, (1.0 - part) / count));
                if part > 0.0 {
                    taps.push((pixel + 1, part / count));
                }
            }
        })
    }

    /// Values of one image's map, and of one box's.
    fn sizes(&self) -> (usize, usize) {
        let (h, w) = self.options.size;
        (self.height * self.width * self.channels, h * w * self.channels)
    }
}

impl Operation<2> for Pooled {
    const NAME: &'static str = "roi-align";

    fn shape(&self) -> Shape {
        (self.count, self.options.size.0, self.options.size.1, self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, boxes]: [&[T]; 2]) -> Vec<T> {
        let (image, one) = self.sizes();
        let per_task = items_per_task(self.count, 16 * one);
        let mut ys = vec![T::ZERO; self.count * one];
        share_chunks(&mut ys, per_task * one, |task, ys| {
            let boxes = boxes.chunks_exact(5).skip(task * per_task);
            for (ys, roi) in ys.chunks_exact_mut(one).zip(boxes) {
                let xs = &xs[roi[0].to_f64() as usize * image..][..image];
                dispatch(isa, Forward { op: self, taps: &self.taps(roi), xs, ys });
            }
        });
        ys
    }

    fn gradients(&self, [_, boxes]: [&Tensor; 2], grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
        Ok([Some(boxes.apply_op2_no_bwd(&contiguous_nhwc(grad)?, &Custom(ToMap(*self)))?), None])
    }
}

/// One box.
struct Forward<'a, T> {
    op: &'a Pooled,
    taps: &'a (Taps, Taps),
    xs: &'a [T],
    ys: &'a mut [T],
}

impl<T: Float> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (c, (rows, columns)) = (self.op.channels, self.taps);
        let width = self.op.width * c;
        let Some((left, right)) = columns.span() else { return };
        let mut mixed = vec![T::ZERO; (right - left) * c];
        for (i, ys) in self.ys.chunks_exact_mut(columns.outputs() * c).enumerate() {
            mix(&mut mixed, rows.of(i), |row| &self.xs[row * width + left * c..][..(right - left) * c]);
            for (j, ys) in ys.chunks_exact_mut(c).enumerate() {
                mix(ys, columns.of(j), |column| &mixed[(column - left) * c..][..c]);
            }
        }
    }
}

/// (boxes, gradient of their maps) → gradient of the map
struct ToMap(Pooled);

impl Operation<2> for ToMap {
    const NAME: &'static str = "roi-align-grad";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.height, self.0.width, self.0.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [boxes, grad]: [&[T]; 2]) -> Vec<T> {
        let op = &self.0;
        let (image, one) = op.sizes();
        let mut to_map = vec![T::ZERO; op.batch * image];
        share_chunks(&mut to_map, image, |image, to_map| {
            for (roi, grad) in boxes.chunks_exact(5).zip(grad.chunks_exact(one)) {
                if roi[0].to_f64() as usize == image {
                    dispatch(isa, Scatter { op, taps: &op.taps(roi), grad, to_map });
                }
            }
        });
        to_map
    }
}

/// One box's part in the gradient of its image.
struct Scatter<'a, T> {
    op: &'a Pooled,
    taps: &'a (Taps, Taps),
    grad: &'a [T],
    to_map: &'a mut [T],
}

impl<T: Float> Kernel for Scatter<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (c, (rows, columns)) = (self.op.channels, self.taps);
        for (cell, grad) in self.grad.chunks_exact(c).enumerate() {
            for &(row, down) in rows.of(cell / columns.outputs()) {
                for &(column, right) in columns.of(cell % columns.outputs()) {
                    let weight = T::from_f64(down * right);
                    let to = &mut self.to_map[(row * self.op.width + column) * c..][..c];
                    for (to, &grad) in to.iter_mut().zip(grad) {
                        *to += weight * grad;
                    }
                }
            }
        }
    }
}
