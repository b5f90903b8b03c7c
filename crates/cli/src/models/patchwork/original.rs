//! The COCO weights against the outputs of the graph that they come from, on the shipped photographs.

use candle_core::{Device, Tensor};
use candle_nn::ops::sigmoid;
use patchwork_det::detector::RawDetections;
use patchwork_det::{
    DetectorConfig, DetectorWeights, LoadOptions, PatchworkDet, Pretrained, WindowedNet as _, anchors,
};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use super::measure::preprocess;
use crate::scene;

/// The published weights are f16, the graph is f32.
const HALF: Tolerance = Tolerance::Golden { max_rel_absmax: 0.02, mean_rel_absmax: 0.002 };

/// The case for the files that `scripts/goldens/coco_ssdlite.mjs` makes.
pub fn case() -> Case {
    Case::new(["patchwork-det/coco"], HALF, outputs)
}

fn outputs(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let photo = golden.meta().other.get("photo").and_then(|name| name.as_str());
    let photo = scene::photo(photo.ok_or("the file's metadata names no photo")?)?;
    let options = LoadOptions::default().with_device(device.clone());
    let model = PatchworkDet::from_pretrained(DetectorWeights::CocoSsdLite, &options)?;
    let cfg = model.config();
    let (xs, _) = preprocess(cfg, cfg.frame).tensor(&photo, device)?;
    let raw = model.net().single_frame(&xs)?;
    let mut outputs = Outputs::new();
    outputs.push("input", &xs)?;
    outputs.push("logits", &raw.logits)?;
    outputs.push("boxes", &raw.boxes)?;
    outputs.push("scores", &sigmoid(&raw.logits)?)?;
    outputs.push("decoded", &decoded(&raw, cfg)?)?;
    Ok(outputs)
}

/// Corners as fractions of the frame, `[1, anchors, 4]`.
fn decoded(raw: &RawDetections, cfg: &DetectorConfig) -> Result<Tensor, BoxError> {
    let priors = anchors::anchors(&raw.levels, cfg.frame, &cfg.anchors, cfg.backbone.padding);
    let codes = raw.boxes.get(0)?.to_vec2::<f32>()?;
    let mut corners = Vec::with_capacity(4 * priors.len());
    for (prior, code) in priors.iter().zip(&codes) {
        corners.extend(prior.decode(code.as_slice().try_into()?));
    }
    Ok(Tensor::from_vec(corners, (1, priors.len(), 4), &Device::Cpu)?)
}
