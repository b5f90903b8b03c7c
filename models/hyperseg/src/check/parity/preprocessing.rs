//! From a picture to the net's input.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use zoo_core::{FrameSize, Image};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};
use zoo_vision::{Fit, Normalization, Preprocess, Resize, resize};

#[derive(Deserialize)]
struct PreprocessConfig {
    resize_to: (usize, usize),
    mean: [f32; 3],
    std: [f32; 3],
    pad_to: usize,
}

/// Pillow's resizes to the value; what is normalised, closely.
pub(super) fn case() -> Case {
    Case::new(["hyperseg-preprocess"], Tolerance::Close, preprocessed)
        .with_exceptions(|_, name| name.ends_with("_u8").then_some(Tolerance::Exact))
}

fn preprocessed(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let config: PreprocessConfig = golden.config()?;
    let stored = golden.tensor("image_u8", device)?;
    let (height, width, _) = stored.dims3()?;
    let pixels = stored.flatten_all()?.to_dtype(DType::U8)?.to_vec1()?;
    let image = Image::new(FrameSize::new(height, width), pixels)?;
    let size = FrameSize::new(config.resize_to.0, config.resize_to.1);
    let mut outputs = Outputs::new();
    outputs.given("image_u8");
    for (name, convention) in [("bilinear_u8", Resize::Pil), ("bicubic_u8", Resize::PilBicubic)] {
        let resized = resize(&image, size, convention)?;
        outputs.push_values(name, &[size.height, size.width, 3], resized.pixels().iter().copied())?;
    }
    let tensor = |fit, mean, std| -> Result<Tensor, BoxError> {
        let normalization = Normalization::MeanStd { mean, std };
        Ok(Preprocess { fit, resize: Resize::Pil, normalization }.tensor(&image, device)?.0)
    };
    outputs.push("normalized", &tensor(Fit::Stretch { size }, config.mean, config.std)?)?;
    let pad = Fit::Pad { size: FrameSize::new(config.pad_to, config.pad_to), fill: [0; 3] };
    outputs.push("padded_normalized", &tensor(pad, [0.5; 3], [0.5; 3])?)?;
    Ok(outputs)
}
