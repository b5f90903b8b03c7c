use candle_core::{DType, Device, Tensor};

/// Fails unless `|got - want| <= abs + rel * |want|` everywhere, and says where it is worst. NaN is close
/// to nothing.
///
/// # Panics
/// If shapes or values differ.
#[track_caller]
pub fn assert_close(name: &str, got: &Tensor, want: &Tensor, rel: f64, abs: f64) {
    assert_eq!(got.dims(), want.dims(), "{name}: shape");
    let (got_values, want_values) = (values(got), values(want));
    let mut failures = 0;
    let mut worst = (0.0, 0);
    let (mut max_abs, mut max_rel) = (0f64, 0f64);
    for (index, (g, w)) in got_values.iter().zip(&want_values).enumerate() {
        let difference = (g - w).abs();
        let excess = difference - (abs + rel * w.abs());
        let excess = if excess.is_nan() { f64::INFINITY } else { excess };
        if excess > 0.0 {
            failures += 1;
        }
        if excess > worst.0 {
            worst = (excess, index);
        }
        max_abs = max_abs.max(difference);
        max_rel = max_rel.max(difference / w.abs().max(f64::MIN_POSITIVE));
    }
    let (got_worst, want_worst) = (got_values.get(worst.1), want_values.get(worst.1));
    assert!(
        failures == 0,
        "{name} {:?}: {failures} of {} values are off, max abs {max_abs:.3e}, max rel {max_rel:.3e} (allowed rel \
         {rel:.0e} + abs {abs:.0e}); worst at flat index {}: got {got_worst:?}, want {want_worst:?}",
        got.dims(),
        got_values.len(),
        worst.1,
    );
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor
        .to_device(&Device::Cpu)
        .and_then(|t| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1())
        .expect("a tensor of numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn close_passes() {
        assert_close("x", &tensor(&[1.0, 2.00001]), &tensor(&[1.0, 2.0]), 1e-4, 0.0);
    }

    #[test]
    #[should_panic(expected = "x [2]: 1 of 2 values are off, max abs 1.000e0")]
    fn far_fails_with_the_numbers() {
        assert_close("x", &tensor(&[1.0, 3.0]), &tensor(&[1.0, 2.0]), 1e-4, 0.0);
    }

    #[test]
    #[should_panic(expected = "1 of 1 values are off")]
    fn nan_is_not_close() {
        assert_close("x", &tensor(&[f32::NAN]), &tensor(&[1.0]), 1.0, 1.0);
    }
}
