use candle_core::{DType, Result, Tensor, bail};

/// Drop connect: each sample of `ys`, `[B, C, H, W]`, is 0 with probability `rate`, and else 1 / (1 − `rate`) times
/// itself, so that the expected values stay. For training; at a rate of 0 nothing happens.
///
/// # Errors
/// If `rate` is not from 0 to below 1, or `ys` is not a map.
pub fn drop_connect(ys: &Tensor, rate: f64) -> Result<Tensor> {
    if rate == 0.0 {
        return Ok(ys.clone());
    }
    if !(0.0..1.0).contains(&rate) {
        bail!("drop connect: expected a rate from 0 to below 1, got {rate}")
    }
    let (samples, ..) = ys.dims4()?;
    let drawn = Tensor::rand(0f32, 1f32, (samples, 1, 1, 1), ys.device())?;
    let kept = (drawn.ge(rate)?.to_dtype(DType::F32)? / (1.0 - rate))?;
    ys.broadcast_mul(&kept.to_dtype(ys.dtype())?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn whole_samples_are_left_out_and_the_mean_stays() {
        let (samples, rate) = (20_000, 0.2);
        let xs = Tensor::ones((samples, 2, 1, 2), DType::F32, &Device::Cpu).unwrap();
        let ys = drop_connect(&xs, rate).unwrap();
        for sample in ys.flatten_from(1).unwrap().to_vec2::<f32>().unwrap() {
            assert!(sample == [0.0; 4] || sample == [1.25; 4], "{sample:?}");
        }
        // Eight standard deviations of the mean of so many draws.
        let deviation = (rate / (1.0 - rate) / samples as f64).sqrt();
        let mean = f64::from(ys.mean_all().unwrap().to_scalar::<f32>().unwrap());
        assert!((mean - 1.0).abs() < 8.0 * deviation, "{mean}");
    }

    #[test]
    fn nothing_is_left_out_at_a_rate_of_0_and_other_rates_are_refused() {
        let xs = Tensor::ones((64, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(drop_connect(&xs, 0.0).unwrap().id(), xs.id());
        for rate in [1.0, -0.1, f64::NAN] {
            let error = drop_connect(&xs, rate).unwrap_err().to_string();
            assert!(error.contains("from 0 to below 1"), "{error}");
        }
        assert!(drop_connect(&xs.flatten_all().unwrap(), 0.5).is_err());
    }

    #[test]
    fn gradients_are_scaled_alike() {
        let xs = Var::ones((256, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let ys = drop_connect(xs.as_tensor(), 0.5).unwrap();
        let grads = ys.sum_all().unwrap().backward().unwrap();
        let grad = grads.get(xs.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(grad, ys.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
}
