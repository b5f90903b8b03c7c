//! What the presets cost.

use std::io::Write;

use anyhow::Result;
use packdet::plane::Layout;
use packdet::{BackboneConfig, Config, HeadConfig, PackDetNet, Packing, PartCosts, Preset};

use crate::models::no_weights;
use crate::table::{Table, number};

/// A net in a few words.
pub fn title(config: &Config) -> String {
    let backbone = match config.backbone {
        BackboneConfig::MobilenetV2(_) => "MobileNetV2".to_owned(),
        BackboneConfig::Resnet(resnet) => {
            let kind = if resnet.groups > 1 { "ResNeXt" } else { "ResNet" };
            // Three convolutions a bottleneck, the stem and the classifier.
            let depth = 3 * resnet.blocks.iter().sum::<usize>() + 2;
            let width = match resnet.groups {
                1 => String::new(),
                groups => format!(" {groups}×{}d", resnet.group_width),
            };
            let deformable = if resnet.deformable.contains(&true) { ", deformable" } else { "" };
            format!("{kind}-{depth}{width}{deformable}")
        }
    };
    let head = match config.head {
        HeadConfig::PackDet { .. } => "PackDet",
        HeadConfig::Fcos(_) => "FCOS",
        HeadConfig::RetinaNet => "RetinaNet",
        HeadConfig::RetinaPack(_) => "RetinaPack",
    };
    let how = config.head.long().map_or_else(String::new, |long| {
        let layout = match long.layout {
            Layout::Type1 => 1,
            Layout::Type2 => 2,
            Layout::Type3 => 3,
            Layout::Type4 => 4,
        };
        let packing = match long.packing {
            Packing::Packed => "",
            Packing::Separate => ", not packed",
            Packing::CrossHead => ", not packed, norms over all maps",
        };
        format!(", layout {layout}, {} × {} channels{packing}", long.blocks, long.channels)
    });
    format!("{head} on {backbone}{how}")
}

/// Parameters and multiply–accumulates of each part, at 800×1344.
pub fn print(out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new([
        "preset",
        "input",
        "params",
        "frozen norms",
        "body G",
        "FPN G",
        "head G",
        "GMACs",
        "GFLOPs",
    ])
    .with_text_columns(2);
    for preset in Preset::ALL {
        let config = preset.config();
        let costs = PackDetNet::new(&config, no_weights())?.part_costs(preset.size())?;
        let PartCosts { body, norms, fpn, head } = costs;
        // Those of MobileNetV2 are trained.
        let frozen = if matches!(config.backbone, BackboneConfig::Resnet(_)) { norms } else { 0 };
        let all = body.macs + fpn.macs + head.macs;
        table.row([
            preset.name().to_owned(),
            preset.size().to_string(),
            (body.params + fpn.params + head.params - frozen).to_string(),
            if frozen > 0 { frozen.to_string() } else { "–".to_owned() },
            billions(body.macs),
            billions(fpn.macs),
            billions(head.macs),
            billions(all),
            number(Some(2.0 * all as f64 / 1e9), 1),
        ]);
    }
    writeln!(
        out,
        "\nCosts at 800×1344, an image of 800×1333 filled up:\n{table}\n\nG: 10⁹ multiply-accumulates of convolutions, \
         deformable ones too; norms, sampling and suppression are not counted."
    )?;
    Ok(())
}

fn billions(count: u64) -> String {
    number(Some(count as f64 / 1e9), 3)
}
