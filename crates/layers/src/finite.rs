use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

/// Values that are looked at before any is judged.
const AT_A_TIME: usize = 4096;
/// The bits of an infinity; those of a NaN are larger.
const INFINITY: u32 = f32::INFINITY.to_bits();

/// Whether all values are numbers: not NaN, not infinite. An argmax would pass over those that are not.
///
/// # Errors
/// If the device cannot be read.
pub fn all_finite(xs: &Tensor) -> Result<bool> {
    let xs = xs.detach().to_dtype(DType::F32)?;
    // Maps whose channels lie last are read where they lie.
    let xs = if xs.rank() == 4 && !xs.is_contiguous() { xs.permute((0, 2, 3, 1))? } else { xs };
    let (storage, layout) = xs.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) =
        (&*storage, layout.contiguous_offsets())
    {
        let size = |value: &f32| value.abs().to_bits();
        let mut groups = values.get(from..to).unwrap_or_default().chunks(AT_A_TIME);
        return Ok(groups.all(|group| group.iter().map(size).fold(0, u32::max) < INFINITY));
    }
    drop(storage);
    // A sum is a number only if all values are.
    Ok(xs.sum_all()?.to_scalar::<f32>()?.is_finite())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn one_value_that_is_no_number_is_found_wherever_it_is() {
        let n = 2 * AT_A_TIME + 5;
        for (at, value, expected) in [
            (0, f32::MAX, true),
            (7, -f32::MAX, true),
            (0, f32::NAN, false),
            (AT_A_TIME, f32::INFINITY, false),
            (n - 1, f32::NEG_INFINITY, false),
            (n - 1, -f32::NAN, false),
        ] {
            let mut values = vec![1.0f32; n];
            values[at] = value;
            let xs = Tensor::from_vec(values, n, &Device::Cpu).unwrap();
            assert_eq!(all_finite(&xs).unwrap(), expected, "{value} at {at}");
            let part = xs.narrow(0, 1, n - 1).unwrap();
            assert_eq!(all_finite(&part).unwrap(), expected || at == 0, "{value} at {at}, without the first");
        }
    }

    #[test]
    fn views_that_are_not_contiguous_are_looked_at_too() {
        let xs = Tensor::new(&[[1.0f32, 2.0, 3.0], [4.0, f32::NAN, 6.0]], &Device::Cpu).unwrap();
        assert!(!all_finite(&xs.t().unwrap()).unwrap());
        assert!(all_finite(&xs.t().unwrap().narrow(0, 0, 1).unwrap()).unwrap());
        assert!(!all_finite(&xs.to_dtype(DType::F16).unwrap()).unwrap());
        let last = xs.reshape((1, 1, 2, 3)).unwrap().permute((0, 3, 1, 2)).unwrap();
        assert!(!all_finite(&last).unwrap());
        assert!(all_finite(&last.narrow(3, 0, 1).unwrap()).unwrap());
    }
}
