//! GSVNet: semantic segmentation of video. A net labels key frames; between them its scores are moved along light
//! optical flow and filtered by kernels that a small net chooses for each pixel.
//!
//! S. Lee, S. Chen, W. Peng, "GSVNet: Guided Spatially-Varying Convolution for Fast Semantic Segmentation on
//! Video", ICME 2021.
//!
//! # Where the paper is
//!
//! | in the paper | here |
//! |---|---|
//! | key frames, Section 3.1: SwiftNet and BiSeNet | [`keyframe`] |

pub mod keyframe;

pub use zoo_core::ScoreNet;
