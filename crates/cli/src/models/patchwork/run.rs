//! `zoo run patchwork-det`: pictures one by one, clips as streams.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Context, Result};
use candle_core::Device;
use patchwork_det::config::{Config, DetectorConfig, Mode, SegmenterConfig};
use patchwork_det::flops::{StepCost, StepFlops};
use patchwork_det::{
    Detector as _, DetectorWeights, Error, FrameSize, PatchworkDet, PatchworkSeg, PolicyKind, Preset,
    Pretrained, Segmenter as _, SegmenterWeights, Step, Stream, Streaming,
};
use zoo_metrics::latency::Timings;

use super::stream_args::Task;
use super::{NAME, clip_size, picture_area, usage};
use crate::args::{RunArgs, WeightArgs};
use crate::exit::{Outcome, Usage, note};
use crate::models::random_weights;
use crate::output::{Answer, Circumstances};
use crate::progress::Progress;
use crate::session::{Input, Session, first_frame, print_timings, still_timings};
use crate::table::{Table, number};

/// Frames of a stream whose time does not count.
const WARM_UP: usize = 10;

/// Either model, weights loaded.
enum Net {
    Detector(Box<PatchworkDet>),
    Segmenter(Box<PatchworkSeg>),
}

/// Runs all inputs.
pub fn run(preset: Option<Preset>, args: &RunArgs) -> Result<Outcome> {
    args.segment.refuse_for(NAME)?;
    args.gsvnet.refuse_for(NAME)?;
    args.packdet.refuse_for(NAME)?;
    let options = &args.patchwork;
    let preset = choose(preset, options.task)?;
    let mode = options.clip_mode(&args.view, args.weights.seed)?;
    let config = configured(preset, &mode, args)?;
    let device = args.compute.start()?;
    let net = match config {
        Config::Detector(cfg) => Net::Detector(Box::new(detector(preset, &cfg, &args.weights, &device)?)),
        Config::Segmenter(cfg) => Net::Segmenter(Box::new(segmenter(preset, &cfg, &args.weights, &device)?)),
    };
    let caveat = args.weights.random.then_some("random weights");
    let mut timings = still_timings();
    let mut size_is_said = args.output.json;
    let mut still_size = |preset: FrameSize, input: &Input| -> Result<FrameSize> {
        options.refuse_for_stills(&args.view, &input.name)?;
        let frame = args.view.size.unwrap_or(preset);
        if !std::mem::replace(&mut size_is_said, true) {
            note(format_args!("pictures are resized to {frame:#}; --size takes another"));
        }
        Ok(frame)
    };
    let outcome = Session::run(args, caveat, |session, input| match (&net, input.is_clip) {
        (Net::Detector(model), false) => {
            let frame = still_size(model.config().frame, &input)?;
            let model = model.clone().with_frame(frame).map_err(usage)?;
            session.stills(input, args.batch, &mut timings, |images| Ok(model.detect(images)?))
        }
        (Net::Segmenter(model), false) => {
            let frame = still_size(model.config().frame, &input)?;
            let model = model.clone().with_frame(frame).map_err(usage)?;
            session.stills(input, args.batch, &mut timings, |images| Ok(model.segment(images)?))
        }
        (Net::Detector(model), true) => clip(session, input, args.output.timings, |source| {
            let frame = clip_size(args.view.size, source, from_ref(&mode))?;
            let flops = flops(model.net(), frame, &mode)?;
            let model = model.clone().with_frame(frame).map_err(usage)?;
            Ok(Prepared { model: model.with_mode(mode.clone()), flops })
        }),
        (Net::Segmenter(model), true) => clip(session, input, args.output.timings, |source| {
            let frame = clip_size(args.view.size, source, from_ref(&mode))?;
            let flops = flops(model.net(), frame, &mode)?;
            let model = model.clone().with_frame(frame).map_err(usage)?;
            Ok(Prepared { model: model.with_mode(mode.clone()), flops })
        }),
    })?;
    if args.output.timings {
        print_timings(&timings);
    }
    Ok(outcome)
}

fn choose(preset: Option<Preset>, task: Option<Task>) -> Result<Preset> {
    let preset = match (preset, task) {
        (Some(preset), _) => preset,
        (None, Some(Task::Segment)) => Preset::Davis,
        (None, _) => Preset::Coco,
    };
    let segments = matches!(preset.config(), Config::Segmenter(_));
    match task {
        Some(Task::Segment) if !segments => Err(Usage::error(format_args!(
            "preset {} detects: --task segment goes with davis or davis-depth0.5",
            preset.name()
        ))),
        Some(Task::Detect) if segments => Err(Usage::error(format_args!(
            "preset {} segments: --task detect goes with coco or vid",
            preset.name()
        ))),
        _ => Ok(preset),
    }
}

/// The preset's configuration with what the command line changes in the net itself.
fn configured(preset: Preset, mode: &Mode, args: &RunArgs) -> Result<Config> {
    let own_weights = args.weights.random || args.weights.weights.is_some();
    if args.patchwork.depth.is_some() && !own_weights {
        return Err(Usage::error("--depth changes the net: give weights for it (--weights), or --random"));
    }
    // An attention network is only there for whoever brings or invents its weights.
    let attention = match mode {
        Mode::Windows { grid, policy: PolicyKind::Learned, .. } if own_weights => Some(*grid),
        _ => None,
    };
    Ok(match preset.config() {
        Config::Detector(mut cfg) => {
            cfg.backbone.depth = args.patchwork.depth.unwrap_or(cfg.backbone.depth);
            if attention.is_some() {
                cfg.frame = args.view.size.unwrap_or(cfg.frame);
                cfg.attention = attention;
            }
            cfg.validate().map_err(usage)?;
            Config::Detector(cfg)
        }
        Config::Segmenter(mut cfg) => {
            cfg.backbone.depth = args.patchwork.depth.unwrap_or(cfg.backbone.depth);
            if attention.is_some() {
                cfg.frame = args.view.size.unwrap_or(cfg.frame);
                cfg.attention = attention;
            }
            cfg.validate().map_err(usage)?;
            Config::Segmenter(cfg)
        }
    })
}

/// A detector with the weights that were asked for, batch norm folded.
pub fn detector(
    preset: Preset,
    cfg: &DetectorConfig,
    weights: &WeightArgs,
    device: &Device,
) -> Result<PatchworkDet> {
    let options = weights.options(device)?;
    if weights.random {
        let mut model = PatchworkDet::new(cfg, random_weights(weights.seed, device))?;
        model.prepare()?;
        return Ok(model);
    }
    if let Some(path) = &weights.weights {
        return Ok(PatchworkDet::from_file(cfg, path, &options)?);
    }
    let published = [DetectorWeights::CocoSsdLite, DetectorWeights::ImagenetVid];
    match published.into_iter().find(|published| <PatchworkDet as Pretrained>::config(published) == *cfg) {
        Some(published) => {
            PatchworkDet::from_pretrained(published, &options).map_err(|e| untrained(e, preset))
        }
        None => Err(nobody(preset)),
    }
}

/// A segmenter with the weights that were asked for, batch norm folded.
pub fn segmenter(
    preset: Preset,
    cfg: &SegmenterConfig,
    weights: &WeightArgs,
    device: &Device,
) -> Result<PatchworkSeg> {
    let options = weights.options(device)?;
    if weights.random {
        let mut model = PatchworkSeg::new(cfg, random_weights(weights.seed, device))?;
        model.prepare()?;
        return Ok(model);
    }
    if let Some(path) = &weights.weights {
        return Ok(PatchworkSeg::from_file(cfg, path, &options)?);
    }
    let published = SegmenterWeights::Davis;
    match <PatchworkSeg as Pretrained>::config(&published) == *cfg {
        true => PatchworkSeg::from_pretrained(published, &options).map_err(|e| untrained(e, preset)),
        false => Err(nobody(preset)),
    }
}

fn untrained(error: zoo_hub::Error, preset: Preset) -> anyhow::Error {
    match error {
        zoo_hub::Error::NeverTrained { .. } => nobody(preset),
        other => other.into(),
    }
}

fn nobody(preset: Preset) -> anyhow::Error {
    Usage::error(format_args!(
        "nobody has trained weights for patchwork-det/{}: --weights FILE takes your own, --random tries the \
         machinery (what it finds means nothing)",
        preset.name()
    ))
}

/// A mode's cost beside the single-frame detector's.
struct Costs {
    step: StepFlops,
    single: f64,
}

fn flops(net: &impl StepCost, frame: FrameSize, mode: &Mode) -> Result<Costs> {
    let single = net.mflops(frame, &Mode::SingleFrame).map_err(usage)?.max;
    Ok(Costs { step: net.mflops(frame, mode).map_err(usage)?, single })
}

struct Prepared<M> {
    model: M,
    flops: Costs,
}

/// One clip, from `prepare`, which sees the frames' size, to the table of times if it is wanted.
fn clip<M, O>(
    session: &mut Session,
    input: Input,
    timings: bool,
    prepare: impl FnOnce(FrameSize) -> Result<Prepared<M>>,
) -> Result<()>
where
    M: Streaming<State = Stream<O>, Output = Step<O>, Error = Error>,
    O: Answer + Clone,
{
    let progress = Progress::new(session.expected(&input.frames), &input.name);
    let mut frames = session.frames(input.frames);
    let Some(first) = first_frame(session, &mut frames, &input.name) else { return Ok(()) };
    let source = first.image.size();
    let Prepared { model, flops } = prepare(source)?;
    let mut state = model.start(source).map_err(usage)?;
    let (mode, frame) = (state.mode().name(), state.frame_size());
    progress.pause(|| {
        note(format_args!(
            "{}: {mode}, frames of {source} resized to {frame:#}; --size takes another",
            input.name
        ));
    });
    let mut times = Vec::new();
    for item in std::iter::once(Ok(first)).chain(frames) {
        progress.step();
        let stepped = item.map_err(anyhow::Error::from).and_then(|item| {
            let step =
                model.step(&item.image, &mut state).with_context(|| match item.image.size() == source {
                    true => format!("frame {}", item.name),
                    false => format!("frame {} (--stills takes pictures one by one)", item.name),
                })?;
            Ok((item, step))
        });
        let (item, step) = match stepped {
            Ok(stepped) => stepped,
            Err(error) => {
                session.fail(error);
                continue;
            }
        };
        let time = step.time.network + step.time.decode;
        let window = step.action.and(step.window);
        let how = Circumstances {
            window: window.map(|window| picture_area(window, frame, source)),
            caption: Some(format!("{mode} · frame {}", step.index)),
            in_clip: true,
            milliseconds: Some(1e3 * time.as_secs_f64()),
            ..Circumstances::default()
        };
        times.push(step.time.network);
        progress.pause(|| session.done(&item, step.output, &how))?;
    }
    drop(progress);
    if timings {
        report(&mode, &times, &flops);
    }
    Ok(())
}

fn report(mode: &str, times: &[Duration], flops: &Costs) {
    let mut timings = Timings::new(WARM_UP.min(times.len() / 3).max(1));
    times.iter().for_each(|&time| timings.push(time));
    let distribution = timings.distribution();
    let of =
        |value: fn(&zoo_metrics::latency::Distribution) -> f64| number(distribution.as_ref().map(value), 1);
    let mut table =
        Table::new(["mode", "p95 ms", "p99 ms", "mean ± std ms", "MFLOPs max", "MFLOPs avg", "of SF"]);
    let spread = distribution.as_ref().map(|d| format!("{:.1} ± {:.1}", d.mean, d.std));
    table.row([
        mode.to_owned(),
        of(|d| d.p95),
        of(|d| d.p99),
        spread.unwrap_or_else(|| "–".to_owned()),
        number(Some(flops.step.max), 0),
        number(Some(flops.step.avg), 0),
        format!("{:.0} %", 100.0 * flops.step.avg / flops.single),
    ]);
    let dash = || "–".to_owned();
    table.row([
        "single frame (SF)".to_owned(),
        dash(),
        dash(),
        dash(),
        number(Some(flops.single), 0),
        number(Some(flops.single), 0),
        "100 %".to_owned(),
    ]);
    note(table);
}
