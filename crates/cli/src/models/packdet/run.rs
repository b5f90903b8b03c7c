//! `zoo run packdet`.

use anyhow::Result;
use candle_core::Device;
use packdet::weights::{PackDetWeights, config_of};
use packdet::{Detector as _, ModelConfig, PackDet, Preset, Pretrained as _};
use zoo_core::{Detections, Image};
use zoo_vision::draw::{self, Style};

use super::{NAME, plane, usage};
use crate::args::{RunArgs, WeightArgs};
use crate::exit::{Outcome, note};
use crate::models::{random_weights, without_weights};
use crate::output::{Answer, Circumstances, Fields};
use crate::session::{Session, print_timings, still_timings};

/// Runs all inputs, clips frame by frame.
pub fn run(preset: Option<Preset>, args: &RunArgs) -> Result<Outcome> {
    args.patchwork.refuse_for(NAME)?;
    args.gsvnet.refuse_for(NAME)?;
    args.segment.refuse_for(NAME)?;
    let device = args.compute.start()?;
    let model = loaded(preset, &args.weights, &device)?;
    let model = args.packdet.detect.looking(model, &args.view)?;
    let shows_plane = args.packdet.show_plane;
    if shows_plane {
        plane::check(&model)?;
    }
    if !args.output.json {
        let sides = model.pictures().resizing;
        note(format_args!(
            "pictures are resized to a short side of {}, or a long one of {}; --size takes others",
            sides.short, sides.long
        ));
    }
    let caveat = args.weights.random.then_some("random weights");
    let mut timings = still_timings();
    let outcome = Session::run(args, caveat, |session, input| {
        session.stills(input, args.batch, &mut timings, |images| {
            let shown = |(found, image): (Detections, &Image)| {
                let beside = if shows_plane { plane::pictures(&model, image)? } else { Vec::new() };
                Ok(Shown { found, beside })
            };
            model.detect(images)?.into_iter().zip(images).map(shown).collect()
        })
    })?;
    if args.output.timings {
        print_timings(&timings);
    }
    Ok(outcome)
}

/// The model with the weights that were asked for, prepared.
pub fn loaded(preset: Option<Preset>, weights: &WeightArgs, device: &Device) -> Result<PackDet> {
    let options = weights.options(device)?;
    if weights.random {
        let config = ModelConfig::from(preset.unwrap_or_default());
        let mut model = PackDet::new(&config, random_weights(weights.seed, device)).map_err(usage)?;
        model.prepare()?;
        return Ok(model);
    }
    if let Some(path) = &weights.weights {
        let config = config_of(path, preset).map_err(usage)?;
        return Ok(PackDet::from_file(&config, path, &options)?);
    }
    let preset = preset.unwrap_or_default();
    PackDet::from_pretrained(PackDetWeights(preset), &options)
        .map_err(|error| without_weights(error, &format!("{NAME}/{}", preset.name())))
}

/// A picture's boxes, and pictures of what led to them.
struct Shown {
    found: Detections,
    beside: Vec<(Image, &'static str)>,
}

impl Answer for Shown {
    fn fields(&self) -> Fields<'_> {
        self.found.fields()
    }

    fn draw(&self, image: &mut Image, style: &Style, how: &Circumstances) -> Result<()> {
        self.found.draw(image, style, how)?;
        if !self.beside.is_empty() {
            let enlarged = self.beside.iter().map(|(picture, name)| {
                let times = (image.height() / picture.height().max(1)).max(1);
                let size = zoo_core::FrameSize::new(picture.height() * times, picture.width() * times);
                Ok((zoo_vision::resize(picture, size, zoo_vision::Resize::Nearest)?, *name))
            });
            let enlarged = enlarged.collect::<Result<Vec<_>>>()?;
            let mut pictures = vec![(&*image, "boxes")];
            pictures.extend(enlarged.iter().map(|(picture, name)| (picture, *name)));
            *image = draw::montage(&pictures, 3)?;
        }
        Ok(())
    }

    fn boxes(&self) -> Option<&Detections> {
        Some(&self.found)
    }

    fn above(self, score: f32) -> Self {
        Self { found: Answer::above(self.found, score), beside: self.beside }
    }
}
