use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use zoo_layers::{MobileNetV2Config, MobileNetV2Names, ResNetConfig};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use super::{NETS, frame_of, inputs};
use crate::boxes::{BoxForm, anchors_of};
use crate::config::{
    ANCHORS, BackboneConfig, BoxRule, Config, Flavour, HeadConfig, LongHeadConfig, Packing, PointsConfig,
    Preset, Tower,
};
use crate::head::{Frame, Head};
use crate::net::PackDetNet;
use crate::plane::{Layout, Places};
use crate::raw::BoxUnits;

/// What the files call the nets whose pixels they take.
const WHOLE: [&str; 2] = ["packdet", "retinanet"];
/// And the heads, whose pyramids are given.
const HEADS: [&str; 2] = ["packdet.head", "packdet.fcos_head"];

/// What torchvision calls its nets.
const TORCHVISION: [(&str, Preset); 2] = [
    ("fcos_resnet50_fpn", Preset::FcosR50Torchvision),
    ("retinanet_resnet50_fpn", Preset::RetinaNetR50Torchvision),
];
/// Of these, closer than of the nets that the golden files are of.
const CLOSE: Tolerance = Tolerance::Golden { max_rel_absmax: 1e-4, mean_rel_absmax: 1e-5 };

pub(super) fn cases(prepared: bool) -> [Case; 3] {
    [
        Case::new(WHOLE, NETS, move |golden, device| whole(golden, device, prepared)),
        Case::new(HEADS, NETS, move |golden, device| head(golden, device, prepared)),
        Case::new(TORCHVISION.map(|(name, _)| name), CLOSE, move |golden, device| {
            torchvision(golden, device, prepared)
        }),
    ]
}

/// What this crate reads of a file's configuration; the rest are facts of the nets.
#[derive(Deserialize)]
struct NetConfig {
    conv_body: Option<String>,
    layout: Option<Layout>,
    #[serde(default)]
    fe_type: String,
    #[serde(default)]
    fe_channels: usize,
    #[serde(default)]
    fe_num_convs: usize,
    #[serde(default)]
    tower_convs: usize,
    num_classes: usize,
    #[serde(default)]
    norm_reg_targets: bool,
    #[serde(default)]
    centerness_on_reg: bool,
    #[serde(default)]
    use_dcn_in_tower: bool,
    #[serde(default)]
    pack: bool,
    #[serde(default = "pyramid")]
    in_channels: usize,
}

fn pyramid() -> usize {
    256
}

impl NetConfig {
    fn config(&self, model: &str) -> Result<Config, BoxError> {
        let points = PointsConfig {
            boxes: if self.norm_reg_targets { BoxRule::Relu } else { BoxRule::Exp },
            centerness: if self.centerness_on_reg { Tower::Boxes } else { Tower::Classes },
            deformable: self.use_dcn_in_tower,
        };
        let head = match (model, self.layout) {
            ("retinanet", _) => HeadConfig::RetinaNet,
            ("packdet.fcos_head", _) => HeadConfig::Fcos(points),
            (_, Some(layout)) => {
                let packing = match (self.pack, self.fe_type.as_str()) {
                    (true, _) => Packing::Packed,
                    (false, "CGN_FE") => Packing::CrossHead,
                    (false, _) => Packing::Separate,
                };
                let &Self { fe_channels: channels, fe_num_convs: blocks, tower_convs: tower, .. } = self;
                HeadConfig::PackDet {
                    long: LongHeadConfig { layout, packing, channels, blocks, tower },
                    points,
                }
            }
            (_, None) => return Err("the file names no layout".into()),
        };
        let backbone = match self.conv_body.as_deref() {
            Some("MNV2-FPN-RETINANET") => BackboneConfig::MobilenetV2(MobileNetV2Config {
                names: MobileNetV2Names::Flat,
                ..MobileNetV2Config::torchvision()
            }),
            Some("R-50-FPN-RETINANET") | None => BackboneConfig::Resnet(ResNetConfig::resnet50().caffe()),
            Some(other) => return Err(format!("no backbone is called {other}").into()),
        };
        let (pyramid, classes) = (self.in_channels, self.num_classes);
        Ok(Config { backbone, pyramid, head, classes, flavour: Flavour::MaskrcnnBenchmark })
    }
}

fn whole(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let config = golden.config::<NetConfig>()?.config(&golden.meta().model)?;
    let mut net = PackDetNet::new(&config, golden.var_builder(DType::F32, device)?)?;
    if prepared {
        net.prepare()?;
    }
    let xs = golden.input("input", device)?;
    let mut outputs = Outputs::new();
    let raw = outputs.push_probed(golden, |probe| net.forward_probed(&xs, BoxUnits::Pixels, probe))?;
    if config.head.has_anchors() {
        push_anchors(&mut outputs, BoxForm::DetectronAnchors, &raw.places)?;
    }
    Ok(outputs)
}

/// The anchors of each map.
fn push_anchors(outputs: &mut Outputs, form: BoxForm, places: &Places) -> Result<(), BoxError> {
    let anchors = anchors_of(form, places);
    let mut rest = &anchors[..];
    for (i, grid) in places.grids.iter().enumerate() {
        let (own, others) = rest.split_at(grid.cells.len() * ANCHORS);
        outputs.push_values(format!("anchors.{i}"), &[own.len(), 4], own.concat())?;
        rest = others;
    }
    Ok(())
}

fn torchvision(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let model = &golden.meta().model;
    let (_, preset) = TORCHVISION
        .into_iter()
        .find(|(name, _)| name == model)
        .ok_or_else(|| format!("torchvision has no {model}"))?;
    let mut net = PackDetNet::new(&preset.config(), golden.var_builder(DType::F32, device)?)?;
    if prepared {
        net.prepare()?;
    }
    let xs = golden.input("input", device)?;
    let mut outputs = Outputs::new();
    let raw = outputs.push_probed(golden, |probe| net.forward_probed(&xs, BoxUnits::Strides, probe))?;
    if preset.config().head.has_anchors() {
        push_anchors(&mut outputs, BoxForm::TorchvisionAnchors, &raw.places)?;
        return Ok(outputs);
    }
    for (i, grid) in raw.places.grids.iter().enumerate() {
        let points = grid.cells.iter().flat_map(|cell| [cell.x, cell.y]);
        outputs.push_values(format!("points.{i}"), &[grid.cells.len(), 2], points)?;
    }
    Ok(outputs)
}

fn head(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let config = golden.config::<NetConfig>()?.config(&golden.meta().model)?;
    let levels = inputs(golden, "input", device)?;
    let finest = levels.first().ok_or("the file has no levels")?;
    let frame = Frame::new(config.places(frame_of(finest)?)?, DType::F32, device)?;
    let mut head = Head::new(&config, golden.var_builder(DType::F32, device)?)?;
    if prepared {
        head.prepare()?;
    }
    let (mut outputs, mut reduced) = (Outputs::new(), None);
    let mut see = |name: &str, ys: &Tensor| {
        match (name, &reduced) {
            ("fe_reduction", _) => reduced = Some(ys.clone()),
            // The file has the block without what is added to it.
            ("fe_block0", Some(reduced)) => {
                let branch = (ys - reduced)?;
                outputs.push_stored(golden, "fe_block0_branch", &branch).map_err(candle_core::Error::wrap)?;
            }
            _ => {}
        }
        outputs.push_stored(golden, name, ys).map_err(candle_core::Error::wrap)
    };
    head.forward(levels, &frame, BoxUnits::Pixels, &mut see)?;
    Ok(outputs)
}
