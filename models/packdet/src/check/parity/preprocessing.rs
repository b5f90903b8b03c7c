//! From a picture to the net's input.

use candle_core::Device;
use serde::Deserialize;
use zoo_core::{FrameSize, Image};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};
use zoo_vision::{Normalization, resize};

use crate::config::{PictureConfig, Preset, ResizeRule, Resizing, filled_up};

/// Sizes and Pillow's resize to the unit; what is normalised, closely.
pub(super) fn case() -> Case {
    Case::new(["packdet.preprocess"], Tolerance::Close, preprocessed)
        .with_exceptions(|_, name| (name != "batch").then_some(Tolerance::Exact))
}

#[derive(Deserialize)]
struct Config {
    min_size: usize,
    max_size: usize,
    pixel_mean_bgr: [f32; 3],
}

fn preprocessed(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let Config { min_size, max_size, pixel_mean_bgr } = golden.config()?;
    let drawn = golden.input("input", device)?;
    let (height, width, _) = drawn.dims3()?;
    let pixels = drawn.flatten_all()?.to_vec1::<f32>()?;
    let pixels = pixels.iter().map(|x| ((x + 1.0) * 128.0).floor().clamp(0.0, 255.0) as u8).collect();
    let image = Image::new(FrameSize::new(height, width), pixels)?;

    let net = Preset::R50M4.config();
    let resizing = Resizing { short: min_size, long: max_size, rule: ResizeRule::MaskrcnnBenchmark };
    let normalization = Normalization::Caffe { mean: pixel_mean_bgr };
    let pictures = PictureConfig { resizing, normalization, ..PictureConfig::for_net(&net) };
    let mut outputs = Outputs::new();
    let size = resizing.of(image.size());
    let resized = resize(&image, size, resizing.convention())?;
    outputs.push_values("resized", &[size.height, size.width, 3], resized.pixels().iter().copied())?;
    let (xs, shown) = pictures.tensor(&image, resizing, device)?;
    outputs.push("batch", &filled_up(&xs, net.padded(shown))?)?;
    outputs.push_values("image_size_hw", &[2], [shown.height as f64, shown.width as f64])?;

    let table = golden.tensor("size_table", device)?.to_vec2::<f32>()?;
    let rule = Resizing::paper(ResizeRule::MaskrcnnBenchmark);
    let rows = table.iter().flat_map(|row| {
        let side = |i: usize| row.get(i).map_or(0, |&side| side as usize);
        let image = FrameSize::new(side(0), side(1));
        let resized = rule.of(image);
        [image.height, image.width, resized.height, resized.width].map(|side| side as f64)
    });
    outputs.push_values("size_table", &[table.len(), 4], rows)?;
    Ok(outputs)
}
