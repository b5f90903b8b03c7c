//! Maps behind one another.

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

/// Maps `[B, C_i, H, W]` behind one another, `[B, ΣC_i, H, W]`, channels last in memory. Has gradients.
///
/// # Errors
/// If there is none, or their sizes or types differ.
pub fn concat_channels(maps: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = maps.first() else { bail!("concatenation: expected at least one map, got none") };
    let (batch, _, height, width) = map_sizes("concatenation", first)?;
    for map in maps {
        let (b, _, h, w) = map_sizes("concatenation", map)?;
        if (b, h, w) != (batch, height, width) || map.dtype() != first.dtype() {
            bail!(
                "concatenation: expected maps of [{batch}, C, {height}, {width}] in {:?}, got {:?} in {:?}",
                first.dtype(),
                map.dims(),
                map.dtype()
            )
        }
    }
    let lasts = maps.iter().map(|map| channels_last(map)).collect::<Result<Vec<_>>>()?;
    if !matches!(first.device(), Device::Cpu) || !matches!(first.dtype(), DType::F32 | DType::F64) {
        return from_nhwc(&Tensor::cat(&lasts, 3)?);
    }
    let size = (batch, height, width);
    from_nhwc(&match lasts.iter().collect::<Vec<_>>()[..] {
        [a] => a.clone(),
        [a, b] => joined(size, [a, b])?,
        [a, b, c] => joined(size, [a, b, c])?,
        [a, b, c, d] => joined(size, [a, b, c, d])?,
        // The rest is copied once more for every three of them.
        [a, b, c, d, ..] => {
            let start = from_nhwc(&joined(size, [a, b, c, d])?)?;
            let rest = maps.iter().skip(4).copied();
            return concat_channels(&[&start].into_iter().chain(rest).collect::<Vec<_>>());
        }
        [] => bail!("concatenation: expected at least one map, got none"),
    })
}

fn joined<const N: usize>(
    (batch, height, width): (usize, usize, usize),
    maps: [&Tensor; N],
) -> Result<Tensor> {
    let mut channels = [0; N];
    for (channels, map) in channels.iter_mut().zip(maps) {
        *channels = map.dim(3)?;
    }
    apply(Concat { batch, height, width, channels }, maps)
}

/// `[B, H, W, C_i]`, … → `[B, H, W, ΣC_i]`
struct Concat<const N: usize> {
    batch: usize,
    height: usize,
    width: usize,
    channels: [usize; N],
}

impl<const N: usize> Concat<N> {
    fn all(&self) -> usize {
        self.channels.iter().sum()
    }
}

impl<const N: usize> Operation<N> for Concat<N> {
    const NAME: &'static str = "concatenation";

    fn shape(&self) -> Shape {
        (self.batch, self.height, self.width, self.all()).into()
    }

    fn run<T: Float>(&self, _: Isa, maps: [&[T]; N]) -> Vec<T> {
        let (pixels, all) = (self.batch * self.height * self.width, self.all());
        let per_task = items_per_task(pixels, all);
        // SAFETY: the maps' channels make up those of each pixel, all of which are written.
        unsafe {
            filled_chunks(pixels * all, per_task * all, |task, ys| {
                for (i, mut ys) in ys.chunks_exact_mut(all).enumerate() {
                    let pixel = task * per_task + i;
                    for (map, &c) in maps.iter().zip(&self.channels) {
                        let (own, others) = ys.split_at_mut(c);
                        write(own, &map[pixel * c..][..c]);
                        ys = others;
                    }
                }
            })
        }
    }

    fn gradients(&self, _: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let grad = contiguous_nhwc(grad)?;
        let mut gradients = [const { None }; N];
        let mut from = 0;
        for (gradient, &channels) in gradients.iter_mut().zip(&self.channels) {
            let part = Part { map: (self.batch, self.height, self.width), all: self.all(), from, channels };
            *gradient = Some(compute(&part, [&grad])?);
            from += channels;
        }
        Ok(gradients)
    }
}

/// `[B, H, W, C]` → `[B, H, W, c]`: some channels that follow each other.
struct Part {
    map: (usize, usize, usize),
    all: usize,
    from: usize,
    channels: usize,
}

impl Operation<1> for Part {
    const NAME: &'static str = "part of a map";

    fn shape(&self) -> Shape {
        let (batch, height, width) = self.map;
        (batch, height, width, self.channels).into()
    }

    fn run<T: Float>(&self, _: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let Self { map: (batch, height, width), all, from, channels } = *self;
        let pixels = batch * height * width;
        let per_task = items_per_task(pixels, channels);
        // SAFETY: the channels of each pixel are written.
        unsafe {
            filled_chunks(pixels * channels, per_task * channels, |task, ys| {
                for (i, ys) in ys.chunks_exact_mut(channels).enumerate() {
                    write(ys, &xs[(task * per_task + i) * all + from..][..channels]);
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
