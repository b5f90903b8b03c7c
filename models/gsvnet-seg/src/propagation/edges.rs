//! The edge map E: where the warped labels change.

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};
use zoo_kernels::{ConvOptions, Interpolation, Pads, Region, conv2d, resize_argmax};
use zoo_layers::layer_span;

/// Eight neighbours against the centre.
const LAPLACIAN: [f32; 9] = [1.0, 1.0, 1.0, 1.0, -8.0, 1.0, 1.0, 1.0, 1.0];

/// What becomes of the Laplacian of the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeMode {
    /// 1 where it is not 0, as in the authors' code, which the weights follow.
    #[default]
    Binary,
    /// Its sigmoid, as in the paper.
    Sigmoid,
}

/// The edges of the labels of `scores`, `[B, C, h, w]`: result `[B, 1, h, w]`. No gradient.
///
/// Labels are taken as numbers and are 0 outside, so that the frame's border is an edge where its label is not 0, and
/// rarely neighbours cancel out. Of equal scores the first class wins: 0 where the warp left the frame.
///
/// # Errors
/// If `scores` is not a map, or has more than 256 classes.
pub fn edge_map(scores: &Tensor, mode: EdgeMode) -> Result<Tensor> {
    let _span = layer_span("edges");
    let (_, _, h, w) = scores.dims4()?;
    let labels =
        resize_argmax(scores, (h, w), Interpolation::Bilinear)?.unsqueeze(1)?.to_dtype(DType::F32)?;
    let laplacian = Tensor::from_slice(&LAPLACIAN, (1, 1, 3, 3), scores.device())?;
    let response = conv2d(&Region::whole(&labels)?, &laplacian, Pads::all(1), ConvOptions::default())?;
    let edges = match mode {
        EdgeMode::Binary => response.ne(0.0)?.to_dtype(scores.dtype())?,
        EdgeMode::Sigmoid => candle_nn::ops::sigmoid(&response)?.to_dtype(scores.dtype())?,
    };
    Ok(edges.detach())
}
