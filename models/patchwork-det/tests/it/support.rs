//! Seeded nets and frames.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use patchwork_det::{DetectorConfig, DetectorNet, Grid, SegmenterConfig, SegmenterNet};
use zoo_core::{FrameSize, Image};
use zoo_layers::MobileNetV2Config;
use zoo_parity::seeded;

/// Weights that follow from their names, as the golden files' do.
pub fn seeded_weights(dtype: DType) -> VarBuilder<'static> {
    seeded::var_builder(None, dtype, &Device::Cpu)
}

/// A small detector: 5 classes would not name anything, so VID's 31 at half depth.
pub fn small_detector_config(frame: FrameSize, attention: Option<Grid>) -> DetectorConfig {
    DetectorConfig {
        backbone: MobileNetV2Config { depth: 0.5, divisor: 8, ..Default::default() },
        frame,
        attention,
        ..DetectorConfig::vid(0.5)
    }
}

pub fn small_detector(frame: FrameSize, attention: Option<Grid>, dtype: DType) -> DetectorNet {
    DetectorNet::new(&small_detector_config(frame, attention), seeded_weights(dtype)).unwrap()
}

pub fn small_segmenter(frame: FrameSize) -> SegmenterNet {
    let cfg = SegmenterConfig {
        backbone: MobileNetV2Config { depth: 0.5, divisor: 8, ..Default::default() },
        width: 24,
        frame,
        ..SegmenterConfig::davis(0.5)
    };
    SegmenterNet::new(&cfg, seeded_weights(DType::F32)).unwrap()
}

/// A frame of seeded noise, `[1, 3, H, W]`.
pub fn noise(name: &str, frame: FrameSize, dtype: DType) -> Tensor {
    let shape = [1, 3, frame.height, frame.width];
    let values = seeded::input(name, &shape).unwrap();
    Tensor::from_vec(values, &shape[..], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// A picture of seeded noise.
pub fn picture(name: &str, size: FrameSize) -> Image {
    let values = seeded::input(name, &[size.height, size.width, 3]).unwrap();
    Image::new(size, values.iter().map(|v| (v * 127.0 + 128.0) as u8).collect()).unwrap()
}

pub fn crop(frame: &Tensor, window: patchwork_det::Window) -> Tensor {
    let rows = frame.narrow(2, window.top, window.height).unwrap();
    rows.narrow(3, window.left, window.width).unwrap().contiguous().unwrap()
}

/// ‖a − b‖ / ‖b‖ in f64.
pub fn relative_l2(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    norm(&(&a - &b).unwrap()) / norm(&b)
}

pub fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let d = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    d.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}
