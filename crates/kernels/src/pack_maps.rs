//! Maps of several sizes side by side in one plane, so that one pass of a convolution goes over all of them.
//!
//! Channels last, a row of a map is one run of memory, and so is its place in a row of the plane: packing is one copy of
//! such runs, with zeros between them.

use std::mem::MaybeUninit;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::memory::filled_chunks;
use crate::operation::{Operation, compute, contiguous_nhwc, map_sizes};
use crate::packed::from_nhwc;
use crate::tape::apply;
use crate::threads::items_per_task;
use crate::transpose::channels_last;

const NAME: &str = "packing";

/// A map's place in a plane, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapBox {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl MapBox {
    /// Whether a cell lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.left < other.left + other.width
            && other.left < self.left + self.width
            && self.top < other.top + other.height
            && other.top < self.top + self.height
    }
}

/// Writes maps `[B, C, h_i, w_i]` into a plane `[B, C, H, W]`, each at its box, zeros elsewhere. Up to eight maps;
/// channels last in memory on the CPU. Has gradients.
///
/// # Errors
/// If a map is not as large as its box, a box leaves the plane, two overlap, or the maps differ in batch, channels or
/// type.
pub fn pack_maps(maps: &[&Tensor], boxes: &[MapBox], (height, width): (usize, usize)) -> Result<Tensor> {
    let Some(first) = maps.first() else { bail!("{NAME}: expected at least one map, got none") };
    let (batch, channels, _, _) = map_sizes(NAME, first)?;
    if maps.len() != boxes.len() {
        bail!("{NAME}: expected a box for each of {} maps, got {}", maps.len(), boxes.len())
    }
    for (i, (map, at)) in maps.iter().zip(boxes).enumerate() {
        let expected = [batch, channels, at.height, at.width];
        if map.dims() != expected || map.dtype() != first.dtype() {
            bail!(
                "{NAME}: expected map {i} as {expected:?} in {:?}, got {:?} in {:?}",
                first.dtype(),
                map.dims(),
                map.dtype()
            )
        }
        if at.left + at.width > width || at.top + at.height > height {
            bail!("{NAME}: {at:?} of map {i} leaves the plane of {height}×{width}")
        }
        if let Some(other) = boxes.iter().take(i).position(|other| other.overlaps(at)) {
            bail!("{NAME}: the boxes of maps {other} and {i} overlap")
        }
    }
    if !matches!(first.device(), Device::Cpu) || !matches!(first.dtype(), DType::F32 | DType::F64) {
        return by_index(maps, boxes, (height, width));
    }
    let plane = Plane { batch, channels, height, width };
    let lasts = maps.iter().map(|map| channels_last(map)).collect::<Result<Vec<_>>>()?;
    let lasts: Vec<&Tensor> = lasts.iter().collect();
    from_nhwc(&match lasts[..] {
        [a] => packed(plane, boxes, [a]),
        [a, b] => packed(plane, boxes, [a, b]),
        [a, b, c] => packed(plane, boxes, [a, b, c]),
        [a, b, c, d] => packed(plane, boxes, [a, b, c, d]),
        [a, b, c, d, e] => packed(plane, boxes, [a, b, c, d, e]),
        [a, b, c, d, e, f] => packed(plane, boxes, [a, b, c, d, e, f]),
        [a, b, c, d, e, f, g] => packed(plane, boxes, [a, b, c, d, e, f, g]),
        [a, b, c, d, e, f, g, h] => packed(plane, boxes, [a, b, c, d, e, f, g, h]),
        _ => bail!("{NAME}: expected at most 8 maps, got {}", maps.len()),
    }?)
}

/// In candle's own operations: the maps' cells and a zero behind one another, and for each cell of the plane one of them.
fn by_index(maps: &[&Tensor], boxes: &[MapBox], (height, width): (usize, usize)) -> Result<Tensor> {
    let mut flat = maps.iter().map(|map| map.flatten_from(2)).collect::<Result<Vec<_>>>()?;
    let cells = boxes.iter().map(|at| at.width * at.height).sum::<usize>();
    let mut from = vec![cells as u32; height * width];
    let mut next = 0;
    for at in boxes {
        for y in at.top..at.top + at.height {
            for cell in &mut from[y * width + at.left..][..at.width] {
                *cell = next;
                next += 1;
            }
        }
    }
    let (batch, channels, _) = flat[0].dims3()?;
    flat.push(Tensor::zeros((batch, channels, 1), flat[0].dtype(), flat[0].device())?);
    let from = Tensor::from_vec(from, height * width, flat[0].device())?;
    Tensor::cat(&flat, 2)?.index_select(&from, 2)?.reshape((batch, channels, height, width))
}

fn packed<const N: usize>(plane: Plane, boxes: &[MapBox], maps: [&Tensor; N]) -> Result<Tensor> {
    let rows = (0..plane.height).map(|y| plane.runs(boxes, y)).collect();
    let Ok(boxes) = boxes.try_into() else { bail!("{NAME}: expected {N} boxes") };
    apply(Pack { plane, boxes, rows }, maps)
}

#[derive(Debug, Clone, Copy)]
struct Plane {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
}

/// Cells of a row of the plane that follow each other.
struct Run {
    cells: usize,
    /// A map and its cell that the first is; zeros without.
    from: Option<(usize, usize)>,
}

impl Plane {
    /// What makes up row `y`.
    fn runs(&self, boxes: &[MapBox], y: usize) -> Vec<Run> {
        let mut here: Vec<(usize, &MapBox)> =
            boxes.iter().enumerate().filter(|(_, at)| (at.top..at.top + at.height).contains(&y)).collect();
        here.sort_by_key(|(_, at)| at.left);
        let (mut runs, mut x) = (Vec::with_capacity(2 * here.len() + 1), 0);
        for (map, at) in here {
            if at.left > x {
                runs.push(Run { cells: at.left - x, from: None });
            }
            runs.push(Run { cells: at.width, from: Some((map, (y - at.top) * at.width)) });
            x = at.left + at.width;
        }
        if self.width > x {
            runs.push(Run { cells: self.width - x, from: None });
        }
        runs
    }
}

/// `[B, h_i, w_i, C]`, … → `[B, H, W, C]`
struct Pack<const N: usize> {
    plane: Plane,
    boxes: [MapBox; N],
    /// Row by row of the plane.
    rows: Vec<Vec<Run>>,
}

impl<const N: usize> Operation<N> for Pack<N> {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        let Plane { batch, channels, height, width } = self.plane;
        (batch, height, width, channels).into()
    }

    fn run<T: Float>(&self, _: Isa, maps: [&[T]; N]) -> Vec<T> {
        let Plane { batch, channels: c, height, width } = self.plane;
        let row = width * c;
        let per_task = items_per_task(batch * height, row);
        // SAFETY: the runs of each row make up the row, and all of each is written.
        unsafe {
            filled_chunks(batch * height * row, per_task * row, |task, ys| {
                for (i, mut ys) in ys.chunks_exact_mut(row).enumerate() {
                    let (image, y) = ((task * per_task + i) / height, (task * per_task + i) % height);
                    for run in &self.rows[y] {
                        let (own, others) = ys.split_at_mut(run.cells * c);
                        match run.from {
                            Some((map, cell)) => {
                                let MapBox { width, height, .. } = self.boxes[map];
                                let first = (image * width * height + cell) * c;
                                write(own, &maps[map][first..][..run.cells * c]);
                            }
                            None => own.iter_mut().for_each(|y| {
                                y.write(T::ZERO);
                            }),
                        }
                        ys = others;
                    }
                }
            })
        }
    }

    fn gradients(&self, _: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let grad = contiguous_nhwc(grad)?;
        let mut gradients = [const { None }; N];
        for (gradient, &at) in gradients.iter_mut().zip(&self.boxes) {
            *gradient = Some(compute(&Crop { plane: self.plane, at }, [&grad])?);
        }
        Ok(gradients)
    }
}

/// `[B, H, W, C]` → `[B, h, w, C]`: what a box covers.
struct Crop {
    plane: Plane,
    at: MapBox,
}

impl Operation<1> for Crop {
    const NAME: &'static str = "cropping";

    fn shape(&self) -> Shape {
        (self.plane.batch, self.at.height, self.at.width, self.plane.channels).into()
    }

    fn run<T: Float>(&self, _: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let (Plane { batch, channels: c, height, width }, at) = (self.plane, self.at);
        let row = at.width * c;
        let per_task = items_per_task(batch * at.height, row);
        // SAFETY: each row is written from as many values.
        unsafe {
            filled_chunks(batch * at.height * row, per_task * row, |task, ys| {
                for (i, ys) in ys.chunks_exact_mut(row).enumerate() {
                    let (image, y) = ((task * per_task + i) / at.height, (task * per_task + i) % at.height);
                    let first = ((image * height + at.top + y) * width + at.left) * c;
                    write(ys, &xs[first..][..row]);
                }
            })
        }
    }
}

fn write<T: Copy>(to: &mut [MaybeUninit<T>], from: &[T]) {
    for (to, &from) in to.iter_mut().zip(from) {
        to.write(from);
    }
}
