//! `zoo run gsvnet-seg`: pictures one by one, clips as streams.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use gsvnet_seg::weights::{GsvWeights, config_of};
use gsvnet_seg::{
    FrameSize, GsvNetSeg, Image, KeyReason, ModelConfig, Preset, Pretrained as _, SegMap, Segmented,
    Segmenter as _, Streaming as _, Way,
};
use zoo_metrics::latency::Timings;
use zoo_vision::draw::{self, Style};

use super::stream_args::{GsvArgs, Show};
use super::{NAME, usage};
use crate::args::{RunArgs, WeightArgs};
use crate::exit::{Outcome, note};
use crate::models::{random_weights, without_weights};
use crate::output::{Answer, Circumstances, Fields};
use crate::progress::Progress;
use crate::session::{Input, Session, first_frame, print_timings, still_timings};
use crate::table::{Table, number};
/// Motion of so many pixels of an eighth has a full colour.
const LONGEST: f32 = 4.0;
/// Frames of a kind whose time does not count.
const WARM_UP: usize = 2;

/// Runs all inputs.
pub fn run(preset: Option<Preset>, args: &RunArgs) -> Result<Outcome> {
    args.patchwork.refuse_for(NAME)?;
    args.packdet.refuse_for(NAME)?;
    args.segment.refuse_for(NAME)?;
    args.view.refuse_for(NAME)?;
    let device = args.compute.start()?;
    let model = loaded(preset, &args.weights, &device)?;
    let model = model.with_schedule(args.gsvnet.schedule()).map_err(usage)?;
    let caveat = args.weights.random.then_some("random weights");
    let mut timings = still_timings();
    let outcome = Session::run(args, caveat, |session, input| match input.is_clip {
        true => clip(session, input, &model, args),
        false => {
            args.gsvnet.refuse_for_stills(&input.name)?;
            session.stills(input, args.batch, &mut timings, |images| Ok(model.segment(images)?))
        }
    })?;
    if args.output.timings {
        print_timings(&timings);
    }
    Ok(outcome)
}

/// The model with the weights that were asked for, prepared.
pub fn loaded(preset: Option<Preset>, weights: &WeightArgs, device: &Device) -> Result<GsvNetSeg> {
    let options = weights.options(device)?;
    if weights.random {
        let config = ModelConfig::from(preset.unwrap_or_default());
        let mut model = GsvNetSeg::new(&config, random_weights(weights.seed, device)).map_err(usage)?;
        model.prepare()?;
        return Ok(model);
    }
    if let Some(path) = &weights.weights {
        let config = config_of(path, preset).map_err(usage)?;
        return Ok(GsvNetSeg::from_file(&config, path, &options)?);
    }
    let preset = preset.unwrap_or_default();
    GsvNetSeg::from_pretrained(GsvWeights(preset), &options)
        .map_err(|error| without_weights(error, &format!("{NAME}/{}", preset.name())))
}

/// A frame's class map, and pictures of what led to it.
struct Shown {
    map: SegMap,
    beside: Vec<(Image, &'static str)>,
}

impl Answer for Shown {
    fn fields(&self) -> Fields<'_> {
        self.map.fields()
    }

    fn draw(&self, image: &mut Image, style: &Style, how: &Circumstances) -> Result<()> {
        let size = image.size();
        if self.beside.is_empty() {
            return self.map.draw(image, style, how);
        }
        draw::mask(image, &self.map, style)?;
        let enlarged = self.beside.iter().map(|(picture, name)| {
            Ok((zoo_vision::resize(picture, size, zoo_vision::Resize::Nearest)?, *name))
        });
        let enlarged = enlarged.collect::<Result<Vec<_>>>()?;
        let mut pictures = vec![(&*image, "labels")];
        pictures.extend(enlarged.iter().map(|(picture, name)| (picture, *name)));
        *image = draw::legend(&draw::montage(&pictures, 2)?, &self.map.legend)?;
        Ok(())
    }

    fn mask(&self) -> Option<&SegMap> {
        Some(&self.map)
    }

    fn above(self, _: f32) -> Self {
        self
    }
}

/// One clip, with the table of times if it is wanted.
fn clip(session: &mut Session, input: Input, model: &GsvNetSeg, args: &RunArgs) -> Result<()> {
    let progress = Progress::new(session.expected(&input.frames), &input.name);
    let mut frames = session.frames(input.frames);
    let Some(first) = first_frame(session, &mut frames, &input.name) else { return Ok(()) };
    let size = first.image.size();
    let mut stream = model.start(size).map_err(usage)?;
    let (mut key, mut between) = (Vec::new(), Vec::new());
    for (index, item) in std::iter::once(Ok(first)).chain(frames).enumerate() {
        progress.step();
        let stepped = item.map_err(anyhow::Error::from).and_then(|item| {
            let started = Instant::now();
            let segmented =
                model.step(&item.image, &mut stream).with_context(|| match item.image.size() == size {
                    true => format!("frame {}", item.name),
                    false => format!("frame {} (--stills takes pictures one by one)", item.name),
                })?;
            Ok((item, segmented, started.elapsed()))
        });
        let (item, segmented, spent) = match stepped {
            Ok(stepped) => stepped,
            Err(error) => {
                session.fail(error);
                continue;
            }
        };
        if segmented.key().is_some() { &mut key } else { &mut between }.push(spent);
        let how = Circumstances {
            caption: Some(format!("{} · frame {index}", kind(&segmented))),
            in_clip: true,
            key: segmented.key(),
            milliseconds: Some(1e3 * spent.as_secs_f64()),
            ..Circumstances::default()
        };
        let beside = pictures(&segmented, &args.gsvnet, model, &item.image)?;
        progress.pause(|| session.done(&item, Shown { map: segmented.map, beside }, &how))?;
    }
    drop(progress);
    if args.output.timings {
        report(size, &key, &between);
    }
    Ok(())
}

/// What stands below a frame: a mark on key frames.
fn kind(segmented: &Segmented) -> &'static str {
    match segmented.key() {
        Some(KeyReason::SceneChange) => "■ KEY (scene change)",
        Some(_) => "■ KEY",
        None => "□ propagated",
    }
}

/// What was asked for of the way to a frame's labels; nothing of a key frame, whose place stays black.
fn pictures(
    segmented: &Segmented,
    args: &GsvArgs,
    model: &GsvNetSeg,
    image: &Image,
) -> Result<Vec<(Image, &'static str)>> {
    let (_, _, h, w) = segmented.step.scores.dims4()?;
    let low = FrameSize::new(h, w);
    let mut pictures = Vec::new();
    let Way::Propagated { flow, steps, .. } = &segmented.step.way else {
        let places = [
            (Show::Flow, ["flow (a key frame has none)"].as_slice()),
            (Show::Edges, ["edges (a key frame has none)", "this is the key frames' net"].as_slice()),
            (Show::Guide, ["weights (a key frame has none)", "", ""].as_slice()),
        ];
        for (_, names) in places.into_iter().filter(|(what, _)| args.shows(*what)) {
            for name in names {
                pictures.push((Image::filled(low, [0; 3])?, *name));
            }
        }
        return Ok(pictures);
    };
    let plane = |map: &Tensor, channel: usize| -> Result<Vec<f32>> {
        Ok(map.narrow(1, channel, 1)?.flatten_all()?.to_vec1()?)
    };
    if args.shows(Show::Flow) {
        let (right, down) = (plane(flow, 0)?, plane(flow, 1)?);
        let vectors = right
            .into_iter()
            .zip(down)
            .map(|(right, down)| [right, down].map(|units| units / gsvnet_seg::flow::FLOW_DIVISOR as f32));
        pictures.push((draw::flow(low, vectors, LONGEST)?, "flow"));
    }
    if args.shows(Show::Edges) {
        pictures.push((draw::levels(low, plane(&steps.edges, 0)?)?, "edges"));
        let own = model.segment(std::slice::from_ref(image))?;
        let differs = own.iter().flat_map(|own| &own.classes).zip(&segmented.map.classes);
        let differs = differs.map(|(a, b)| f32::from(u8::from(a != b)));
        pictures.push((draw::levels(image.size(), differs)?, "unlike the key frames' net"));
    }
    if args.shows(Show::Guide) {
        let last = steps.weights.dims()[1] - 1;
        let moved = steps.weights.narrow(1, 1, last - 1)?.sum_keepdim(1)?;
        for (map, channel, name) in [
            (&steps.weights, 0, "weight: stays"),
            (&moved, 0, "weight: moves"),
            (&steps.weights, last, "weight: own"),
        ] {
            pictures.push((draw::levels(low, plane(map, channel)?)?, name));
        }
    }
    Ok(pictures)
}

fn report(size: FrameSize, key: &[Duration], between: &[Duration]) {
    let mut table = Table::new(["frames", "n", "median ms", "p95 ms", "mean ± std ms"]);
    for (name, times) in [("key", key), ("between", between)] {
        let mut timings = Timings::new(WARM_UP.min(times.len() / 3));
        times.iter().for_each(|&time| timings.push(time));
        let Some(d) = timings.distribution() else { continue };
        table.row([
            name.to_owned(),
            d.n.to_string(),
            number(Some(d.median), 1),
            number(Some(d.p95), 1),
            format!("{:.1} ± {:.1}", d.mean, d.std),
        ]);
    }
    note(format_args!("{table}\nframes of {size:#}, labels of all pixels included"));
}
