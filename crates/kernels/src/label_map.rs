//! The best class of each pixel, at another size than the scores have.

use candle_core::{CpuStorage, DType, Device, Result, Tensor, bail};

use crate::operation::{map_sizes, on_cpu};
use crate::resize::{Interpolation, resize2d};
use crate::taps::{Tap, Taps};
use crate::threads::{items_per_task, share_chunks};
use crate::transpose::channels_last;

/// Labels are bytes.
const MAX_CLASSES: usize = 256;

/// The class with the largest score at each pixel, once the scores `xs`, `[B, C, H, W]`, are resized: u8
/// `[B, height, width]`. Of equal scores the first wins; one that is not a number never does.
///
/// On the CPU the resized scores are never held: where all four neighbours of a pixel have the same best class, so has
/// every mixture of them, and elsewhere one pixel's scores are made at a time. Labels are those of [`resize2d`] and an
/// argmax, except where rounding alone makes two scores equal.
///
/// # Errors
/// If `xs` is not a map, has more than 256 classes, or a size is 0.
pub fn resize_argmax(
    xs: &Tensor,
    (height, width): (usize, usize),
    interpolation: Interpolation,
) -> Result<Tensor> {
    let (b, classes, h, w) = map_sizes("resize_argmax", xs)?;
    if classes > MAX_CLASSES {
        bail!("resize_argmax: expected at most {MAX_CLASSES} classes, got {classes}: labels are bytes")
    }
    if height * width == 0 {
        bail!("resize_argmax: expected a size of at least 1×1, got {height}×{width}")
    }
    let xs = xs.detach();
    // What is done on the CPU takes scores for no larger than the largest that they are made of.
    if !matches!(xs.device(), Device::Cpu) || interpolation.steps_over() {
        return resize2d(&xs, (height, width), interpolation)?.argmax(1)?.to_dtype(DType::U8);
    }
    let scores = channels_last(&xs.to_dtype(DType::F32)?)?;
    let labels = on_cpu("resize_argmax", [&scores], |[storage], [layout]| {
        let (CpuStorage::F32(values), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            bail!("resize_argmax: expected contiguous scores of f32")
        };
        let scores = Scores { values: &values[from..to], classes, height: h, width: w };
        let (rows, columns) = (interpolation.taps(h, height), interpolation.taps(w, width));
        Ok(scores.labels(b, &rows, &columns))
    })?;
    Tensor::from_vec(labels, (b, height, width), &Device::Cpu)
}

/// `[B, height, width, classes]`
#[derive(Clone, Copy)]
struct Scores<'a> {
    values: &'a [f32],
    classes: usize,
    height: usize,
    width: usize,
}

impl<'a> Scores<'a> {
    fn labels(self, batch: usize, rows: &Taps, columns: &Taps) -> Vec<u8> {
        let mut own = vec![0; batch * self.height * self.width];
        let pixels = items_per_task(own.len(), self.classes);
        share_chunks(&mut own, pixels, |task, own| {
            let scores = self.values.chunks_exact(self.classes).skip(task * pixels);
            own.iter_mut().zip(scores).for_each(|(own, scores)| *own = best(scores));
        });

        let mut labels = vec![0; batch * rows.outputs() * columns.outputs()];
        let lines = items_per_task(batch * rows.outputs(), columns.outputs() * self.classes);
        share_chunks(&mut labels, lines * columns.outputs(), |task, labels| {
            let mut mixed = vec![0.0; self.classes];
            for (i, labels) in labels.chunks_exact_mut(columns.outputs()).enumerate() {
                let line = task * lines + i;
                let (image, output) = (line / rows.outputs(), line % rows.outputs());
                self.line(image, rows.of(output), columns, &own, &mut mixed, labels);
            }
        });
        labels
    }

    /// One line of labels. A row or column of scores is one tap, or two with their weights.
    fn line(
        &self,
        image: usize,
        rows: &[Tap],
        columns: &Taps,
        own: &[u8],
        mixed: &mut [f32],
        labels: &mut [u8],
    ) {
        let start = |&(row, _): &Tap| (image * self.height + row) * self.width;
        let (upper, lower) = (start(&rows[0]), start(&rows[rows.len() - 1]));
        for (x, label) in labels.iter_mut().enumerate() {
            let taps = columns.of(x);
            let (left, right) = (taps[0].0, taps[taps.len() - 1].0);
            let first = own[upper + left];
            let all = [own[upper + right], own[lower + left], own[lower + right]];
            *label = if all == [first; 3] { first } else { self.mixed(image, rows, taps, mixed) };
        }
    }

    /// The best class where the neighbours disagree: rows are mixed first, as [`resize2d`] does.
    fn mixed(&self, image: usize, rows: &[Tap], columns: &[Tap], scores: &mut [f32]) -> u8 {
        let at = |row: usize, column: usize| {
            let pixel = (image * self.height + row) * self.width + column;
            &self.values[pixel * self.classes..][..self.classes]
        };
        let down = |column: usize| {
            let (upper, lower) = (rows[0], rows[rows.len() - 1]);
            let (a, b) = (at(upper.0, column), at(lower.0, column));
            let (wa, wb) = (upper.1 as f32, lower.1 as f32);
            let two = rows.len() == 2;
            move |class: usize| if two { wa * a[class] + wb * b[class] } else { a[class] }
        };
        let (left, right) = (columns[0], columns[columns.len() - 1]);
        let (wl, wr) = (left.1 as f32, right.1 as f32);
        let (a, b) = (down(left.0), down(right.0));
        for (class, score) in scores.iter_mut().enumerate() {
            *score = if columns.len() == 2 { wl * a(class) + wr * b(class) } else { a(class) };
        }
        best(scores)
    }
}

/// The first of the largest scores.
fn best(scores: &[f32]) -> u8 {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, &score) in scores.iter().enumerate() {
        if score > best.1 {
            best = (class, score);
        }
    }
    best.0 as u8
}
