//! What the detector takes over from SSD (the paper's reference 25): anchors and box code, decoding and
//! suppression, matching and loss.

pub mod anchors;
pub mod loss;
pub mod postprocess;
