use candle_core::{DType, Device};
use serde::Deserialize;
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, Padding, SamePadding};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use super::INNER;
use crate::config::{BackboneName, Config, FEATURES, Preset, Version};
use crate::net::backbone::Backbone;
use crate::{DeadHead, HyperSegNet};

/// Logits: the references themselves are up to 3e-6 from an f64 run.
const LOGITS: Tolerance = Tolerance::Golden { max_rel_absmax: 4e-5, mean_rel_absmax: 4e-6 };

/// Class maps flip where two classes tie: of a pixel in a thousand, by a third of the classes.
const CLASSES: Tolerance = Tolerance::Golden { max_rel_absmax: 1.0, mean_rel_absmax: 3e-4 };

/// What the golden files call the presets.
const PRESETS: [(&str, Preset); 5] = [
    ("hyperseg-voc-l", Preset::VocL),
    ("hyperseg-city-s", Preset::CityscapesS),
    ("hyperseg-city-m", Preset::CityscapesM),
    ("hyperseg-camvid-s", Preset::CamvidS),
    ("hyperseg-camvid-l", Preset::CamvidL),
];

pub(super) fn preset(model: &str) -> Result<Preset, BoxError> {
    let found = PRESETS.iter().find(|(name, _)| *name == model);
    Ok(found.ok_or_else(|| format!("no preset is called {model}"))?.1)
}

/// Whole nets.
pub(super) fn net(prepared: bool) -> Case {
    Case::new(PRESETS.map(|(name, _)| name), INNER, move |golden, device| {
        net_outputs(golden, device, prepared)
    })
    .with_exceptions(|_, name| match name {
        "output" | "fused_output" => Some(LOGITS),
        "argmax" => Some(CLASSES),
        _ => None,
    })
}

/// The configuration of a net's golden file.
#[derive(Deserialize)]
struct NetConfig {
    version: Version,
    backbone: BackboneName,
    num_classes: usize,
    out_feat_scale: [f64; FEATURES],
    head_levels: usize,
    kernel_sizes: Vec<usize>,
    level_channels: Option<Vec<usize>>,
    expand_ratio: f64,
    weight_groups: OneOrMany,
    #[serde(default)]
    unify_level: Option<usize>,
    /// The folded net is asked for, beside the plain one.
    #[serde(default)]
    fuse_bn: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(usize),
    Many(Vec<usize>),
}

impl NetConfig {
    fn config(self) -> Config {
        let weight_groups = match self.weight_groups {
            OneOrMany::One(groups) => vec![groups; self.kernel_sizes.len()],
            OneOrMany::Many(groups) => groups,
        };
        Config {
            version: self.version,
            backbone: self.backbone,
            num_classes: self.num_classes,
            out_feat_scale: self.out_feat_scale,
            head_levels: self.head_levels,
            kernel_sizes: self.kernel_sizes,
            level_channels: self.level_channels,
            expand_ratio: self.expand_ratio,
            weight_groups,
            unify_level: self.unify_level,
            signal_grid: None,
            positions: true,
        }
    }
}

fn net_outputs(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let file: NetConfig = golden.config()?;
    let fuse = file.fuse_bn;
    let cfg = file.config();
    let mut net = HyperSegNet::new(&cfg, golden.var_builder(DType::F32, device)?)?;
    let xs = golden.input("input", device)?;
    let mut outputs = Outputs::new();
    if fuse {
        let mut folded = net.clone();
        folded.prepare()?;
        outputs.push("fused_output", &folded.forward(&xs)?)?;
    }
    // A prepared net's weights are times its norms' scales, which are divided out again.
    let scales = if prepared { Some(net.prepare_with(DeadHead::Keep)?) } else { None };
    let logits = outputs.push_probed(golden, |probe| {
        net.forward_probed(&xs, &mut |name, map| {
            let scales = scales.as_ref().zip(name.strip_prefix("weights."));
            let scale = scales.and_then(|(scales, map)| scales.get(map.parse::<usize>().ok()?));
            match scale {
                Some(scale) => probe(name, &map.broadcast_div(&scale.reshape((1, (), 1, 1))?)?),
                None => probe(name, map),
            }
        })
    })?;
    outputs.push("output", &logits)?;
    outputs.push("argmax", &logits.argmax(1)?)?;
    Ok(outputs)
}

/// The backbone alone.
pub(super) fn backbone(prepared: bool) -> Case {
    Case::new(
        BackboneName::ALL.map(|name| format!("hyperseg-{}", name.name())),
        INNER,
        move |golden, device| backbone_outputs(golden, device, prepared),
    )
}

fn backbone_outputs(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    #[derive(Deserialize)]
    struct BackboneConfig {
        backbone: BackboneName,
        out_feat_scale: [f64; FEATURES],
        image_size_for_static_padding: usize,
    }
    let file: BackboneConfig = golden.config()?;
    let cfg =
        Config { backbone: file.backbone, out_feat_scale: file.out_feat_scale, ..Preset::CamvidS.config() };
    let vb = golden.var_builder(DType::F32, device)?;
    let xs = golden.input("input", device)?;
    let mut outputs = Outputs::new();

    // The net joins the stem with its activation: here it is without.
    let size = file.image_size_for_static_padding;
    let (before, after) = SamePadding::Tf.axis(size, 3, 2);
    let net = cfg.backbone.config();
    let stem = ConvSpec::dense3(3, net.stem_channels(), 2, net.bn_eps, Activation::None);
    let mut stem =
        ConvNormAct::new(stem.padded(Padding::Fixed { before, after }), vb.pp("_conv_stem"), vb.pp("_bn0"))?;
    let mut net = Backbone::new(&cfg, &cfg.layout()?, vb)?;
    if prepared {
        stem.prepare()?;
        net.prepare()?;
    }
    outputs.push("stem_bn", &stem.forward(&xs)?)?;
    outputs.push_probed(golden, |probe| net.forward(&xs, probe))?;
    Ok(outputs)
}
