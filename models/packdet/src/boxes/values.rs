//! A map's values where they lie.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};

/// The values of one image of a map, cells row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// Those of the image alone.
    values: &'a [f32],
    channels: usize,
    cells: usize,
    order: Order,
}

/// What lies side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The values of a cell.
    Cells,
    /// The values of a channel.
    Channels,
}

/// A tensor `[B, C, h, w]` on the CPU in f32, its channels or its cells side by side. Copied only where they are not.
pub(super) fn readable(xs: &Tensor) -> Result<Tensor> {
    let xs = xs.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    if xs.is_contiguous() || xs.permute((0, 2, 3, 1))?.is_contiguous() { Ok(xs) } else { xs.contiguous() }
}

/// Hands the values of image `b` of a [`readable`] tensor to `work`.
pub(super) fn with_values<R>(xs: &Tensor, b: usize, work: impl FnOnce(Values) -> Result<R>) -> Result<R> {
    let (_, channels, height, width) = xs.dims4()?;
    let order = if xs.is_contiguous() { Order::Channels } else { Order::Cells };
    let flat = match order {
        Order::Channels => xs.clone(),
        Order::Cells => xs.permute((0, 2, 3, 1))?,
    };
    let image = flat.narrow(0, b, 1)?;
    let (storage, layout) = image.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) = (&*storage, layout.contiguous_offsets())
    else {
        bail!("decoding a map: expected contiguous values of f32 on the CPU, got {:?}", image.layout())
    };
    let Some(values) = values.get(from..to) else {
        bail!("decoding a map: its layout {layout:?} leaves its memory")
    };
    work(Values { values, channels, cells: height * width, order })
}

impl Values<'_> {
    pub fn channels(&self) -> usize {
        self.channels
    }

    pub fn cells(&self) -> usize {
        self.cells
    }

    /// The value of a channel at a cell; NaN outside of the map.
    pub fn at(&self, channel: usize, cell: usize) -> f32 {
        let index = match self.order {
            Order::Cells => cell * self.channels + channel,
            Order::Channels => channel * self.cells + cell,
        };
        self.values.get(index).copied().unwrap_or(f32::NAN)
    }

    /// All of them, in the order of memory.
    pub fn all(&self) -> &[f32] {
        self.values
    }

    /// Calls `found` with channel, cell and value of all that are not below `least`, NaN among them.
    pub fn not_below(&self, least: f32, mut found: impl FnMut(usize, usize, f32)) {
        /// Looked at together; nearly always none is found.
        const AT_A_TIME: usize = 64;
        let side = match self.order {
            Order::Cells => self.channels,
            Order::Channels => self.cells,
        };
        for (chunk, values) in self.values.chunks(AT_A_TIME).enumerate() {
            // A NaN is not below anything; all are compared, so that the processor does several at once.
            if values.iter().fold(0u32, |any, &value| any | u32::from(!is_below(value, least))) == 0 {
                continue;
            }
            for (i, &value) in values.iter().enumerate().filter(|&(_, &value)| !is_below(value, least)) {
                let index = chunk * AT_A_TIME + i;
                let (outer, inner) = (index / side, index % side);
                match self.order {
                    Order::Cells => found(inner, outer, value),
                    Order::Channels => found(outer, inner, value),
                }
            }
        }
    }
}

fn is_below(value: f32, least: f32) -> bool {
    value < least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(xs: &Tensor, b: usize, least: f32) -> Vec<(usize, usize, u32)> {
        let mut all = Vec::new();
        let xs = readable(xs).unwrap();
        with_values(&xs, b, |values| {
            values.not_below(least, |channel, cell, value| {
                assert_eq!(values.at(channel, cell).to_bits(), value.to_bits());
                all.push((cell, channel, value.to_bits()));
            });
            Ok(())
        })
        .unwrap();
        all.sort_unstable();
        all
    }

    #[test]
    fn every_order_of_memory_gives_the_same() {
        let (b, c, h, w) = (2, 7, 5, 9);
        let mut values: Vec<f32> = (0..b * c * h * w).map(|i| ((i * 37) % 101) as f32).collect();
        values[c * h * w + 100] = f32::NAN;
        let plain = Tensor::from_vec(values, (b, c, h, w), &Device::Cpu).unwrap();
        let last = plain.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap();
        let strided = Tensor::cat(&[&plain, &plain], 3).unwrap().narrow(3, w, w).unwrap();
        for image in 0..b {
            let expected = sorted(&plain, image, 90.0);
            assert!(expected.len() > 20, "{}", expected.len());
            assert_eq!(sorted(&last, image, 90.0), expected);
            assert_eq!(sorted(&strided, image, 90.0), expected);
            let nan = expected.iter().filter(|(_, _, bits)| f32::from_bits(*bits).is_nan()).count();
            assert_eq!(nan, image, "only the second image has one");
        }
        assert_eq!(sorted(&plain, 0, f32::NEG_INFINITY).len(), c * h * w);
        assert!(sorted(&plain, 0, 200.0).is_empty());
    }
}
