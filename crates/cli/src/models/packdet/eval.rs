//! `zoo eval packdet`: COCO's average precision.

use anyhow::Result;
use packdet::{Detector as _, Preset};

use super::NAME;
use super::run::loaded;
use crate::commands::eval::EvalArgs;
use crate::exit::Usage;
use crate::models::detection::{self, Data};
use crate::view_args::refuse;

/// Average precision on annotated pictures, of all boxes that the model gives.
pub fn eval(preset: Option<Preset>, args: &EvalArgs) -> Result<()> {
    args.refuse_videos(NAME)?;
    args.segment.refuse_for(NAME)?;
    let others = [
        ("CLIP", args.clip.is_some()),
        ("--davis", args.davis.is_some()),
        ("--layout", args.layout.is_some()),
        ("--modes", !args.modes.is_empty()),
        ("--skip", args.skip > 0),
    ];
    refuse(NAME, &others)?;
    if args.weights.random {
        return Err(Usage::error(
            "boxes of random weights mean nothing, there is nothing to measure: give --weights",
        ));
    }
    let data = Data::open(args)?;
    let model = loaded(preset, &args.weights, &args.compute.start()?)?;
    let model = args.packdet.looking(model, &args.view)?;
    let classes = model.pictures().classes.clone();
    let class_of = |_: usize, name: &str| {
        let name = common_name(name);
        classes.iter().flatten().find(|class| class.name == name).map(|class| class.id)
    };
    detection::eval(data, args, class_of, |images| Ok(model.detect(images)?))
}

/// What COCO calls a class of PASCAL VOC.
fn common_name(voc: &str) -> &str {
    match voc {
        "aeroplane" => "airplane",
        "diningtable" => "dining table",
        "motorbike" => "motorcycle",
        "pottedplant" => "potted plant",
        "sofa" => "couch",
        "tvmonitor" => "tv",
        other => other,
    }
}
