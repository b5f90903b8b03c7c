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
/// On the CPU the resized scores are never held. Between four neighbours only the classes can win that no other beats at
/// all four of them: one, most often, and else two or three, whose mixtures alone are computed. Labels are those of
/// [`resize2d`] and an argmax, except where rounding alone makes two scores equal.
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
        let runs = runs(columns);
        share_chunks(&mut labels, lines * columns.outputs(), |task, labels| {
            let mut band = Band::default();
            for (i, labels) in labels.chunks_exact_mut(columns.outputs()).enumerate() {
                let line = task * lines + i;
                let (image, output) = (line / rows.outputs(), line % rows.outputs());
                let rows = rows.of(output);
                let start = |&(row, _): &Tap| (image * self.height + row) * self.width;
                let between = (start(&rows[0]), start(&rows[rows.len() - 1]));
                if band.between != Some(between) {
                    self.fill(&mut band, between, &runs, &own);
                }
                self.line(&band, rows, columns, &runs, labels);
            }
        });
        labels
    }

    fn at(&self, pixel: usize) -> &'a [f32] {
        &self.values[pixel * self.classes..][..self.classes]
    }

    /// Finds the classes that can win between two rows of scores.
    fn fill(&self, band: &mut Band, (upper, lower): (usize, usize), runs: &[Run], own: &[u8]) {
        band.between = Some((upper, lower));
        band.classes.clear();
        band.ends.clear();
        for run in runs {
            let corners = [upper + run.left, upper + run.right, lower + run.left, lower + run.right];
            let best = corners.map(|corner| own[corner]);
            if best == [best[0]; 4] {
                band.classes.push(best[0]);
            } else {
                let corners = corners.map(|corner| self.at(corner));
                let beaten = |class: usize| {
                    best.iter().map(|&other| usize::from(other)).any(|other| {
                        let mut pairs = corners.iter().map(|scores| (scores[other], scores[class]));
                        if other < class { pairs.all(|(a, b)| a >= b) } else { pairs.all(|(a, b)| a > b) }
                    })
                };
                let all = (0..self.classes).filter(|&class| !beaten(class));
                band.classes.extend(all.map(|class| class as u8));
            }
            band.ends.push(band.classes.len());
        }
    }

    /// One line of labels.
    fn line(&self, band: &Band, rows: &[Tap], columns: &Taps, runs: &[Run], labels: &mut [u8]) {
        let Some((upper, lower)) = band.between else { return };
        let (wa, wb) = (rows[0].1 as f32, rows[rows.len() - 1].1 as f32);
        // Rows are mixed first, as `resize2d` does.
        let down = |column: usize, class: u8| {
            let at = |row: usize| self.values[(row + column) * self.classes + usize::from(class)];
            if rows.len() == 2 { wa * at(upper) + wb * at(lower) } else { at(upper) }
        };
        let mut from = 0;
        for (run, &end) in runs.iter().zip(&band.ends) {
            let classes = &band.classes[from..end];
            from = end;
            let labels = &mut labels[run.first..run.end];
            if let [class] = *classes {
                labels.fill(class);
                continue;
            }
            let mut best = [f32::NEG_INFINITY; LONGEST];
            for (i, labels) in labels.chunks_mut(LONGEST).enumerate() {
                let first = run.first + i * LONGEST;
                best.fill(f32::NEG_INFINITY);
                labels.fill(0);
                for &class in classes {
                    let (left, right) = (down(run.left, class), down(run.right, class));
                    for ((label, best), x) in labels.iter_mut().zip(&mut best).zip(first..) {
                        let taps = columns.of(x);
                        let score = match *taps {
                            [(_, wl), (_, wr)] => wl as f32 * left + wr as f32 * right,
                            _ => left,
                        };
                        if score > *best {
                            (*best, *label) = (score, class);
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of a run that are compared at a time.
const LONGEST: usize = 16;

/// Outputs of a line between the same two columns.
struct Run {
    first: usize,
    end: usize,
    left: usize,
    right: usize,
}

fn runs(columns: &Taps) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for x in 0..columns.outputs() {
        let taps = columns.of(x);
        let (left, right) = (taps[0].0, taps[taps.len() - 1].0);
        match runs.last_mut() {
            Some(run) if (run.left, run.right) == (left, right) => run.end = x + 1,
            _ => runs.push(Run { first: x, end: x + 1, left, right }),
        }
    }
    runs
}

/// The classes that can win between two rows of scores.
#[derive(Default)]
struct Band {
    /// The rows' first pixels.
    between: Option<(usize, usize)>,
    /// Run by run.
    classes: Vec<u8>,
    /// Where each run's end.
    ends: Vec<usize>,
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
