//! `zoo eval patchwork-det`: agreement on any clip, COCO AP, DAVIS J and F.

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use patchwork_det::config::Config;
use patchwork_det::{Detector as _, Mode, PatchworkDet, PatchworkSeg, Preset, Streaming};
use serde::Serialize;
use zoo_metrics::davis::{Mask, Score};
use zoo_vision::{Frame, Source};

use super::compare::{Row, compare, demo_modes};
use super::run::{detector, segmenter};
use super::{NAME, clip_size, usage};
use crate::commands::eval::EvalArgs;
use crate::exit::{Usage, note};
use crate::models::detection::{self, Data};
use crate::progress::Progress;
use crate::table::{Table, number};
use crate::view_args::refuse;

/// Runs the evaluation that the arguments ask for.
pub fn eval(preset: Option<Preset>, args: &EvalArgs) -> Result<()> {
    args.refuse_labelled_data(NAME)?;
    refuse(NAME, &[("--flip", args.view.flip)])?;
    match (&args.clip, &args.coco, &args.davis) {
        (Some(clip), None, None) => agreement_on(clip, &any_detector(preset, args)?, args),
        (None, Some(annotations), None) => {
            let images = args.images.as_ref().context("--coco needs --images DIR")?;
            if preset.is_some_and(|preset| preset != Preset::Coco) {
                return Err(Usage::error("--coco needs a detector of COCO's classes: patchwork-det/coco"));
            }
            let data = Data::coco(annotations, images)?;
            let model = any_detector(preset, args)?;
            let frame = args.view.size.unwrap_or(model.config().frame);
            let model = model.with_frame(frame).map_err(usage)?;
            // By the numbers that COCO gives its classes.
            detection::eval(data, args, |id, _| Some(id), |images| Ok(model.detect(images)?))
        }
        (None, None, Some(folder)) => davis(folder, preset.unwrap_or(Preset::Davis), args),
        _ => Err(Usage::error("expected one of CLIP, --coco FILE --images DIR, --davis DIR")),
    }
}

fn any_detector(preset: Option<Preset>, args: &EvalArgs) -> Result<PatchworkDet> {
    if args.weights.random {
        return Err(Usage::error(
            "boxes of random weights mean nothing, there is nothing to measure: give --weights",
        ));
    }
    let preset = preset.unwrap_or(Preset::Coco);
    let Config::Detector(cfg) = preset.config() else {
        return Err(Usage::error(format_args!("preset {} segments: --davis DIR measures it", preset.name())));
    };
    detector(preset, &cfg, &args.weights, &args.compute.start()?)
}

fn agreement_on(clip: &str, model: &PatchworkDet, args: &EvalArgs) -> Result<()> {
    let source = Source::parse(clip)?;
    let mut modes = if args.modes.is_empty() { demo_modes()? } else { args.modes.clone() };
    // The reference comes first, whether it was asked for or not.
    modes.retain(|mode| *mode != Mode::SingleFrame);
    modes.insert(0, Mode::SingleFrame);

    let limit = args.limit.unwrap_or(usize::MAX);
    let frames = source.frames()?;
    let total = frames.count_hint().map(|count| count.saturating_sub(args.skip).min(limit));
    let mut images = frames.skip(args.skip).take(limit).map(|frame| Ok(frame?.image)).peekable();
    let size = match images.peek() {
        Some(Ok(image)) => clip_size(args.view.size, image.size(), &modes)?,
        // The comparison meets the same error, or the same lack of frames.
        Some(Err(_)) | None => model.config().frame,
    };
    let progress = Progress::new(total, clip);
    let comparison = compare(model, size, &modes, images, &progress)
        .with_context(|| format!("cannot compare modes on {clip}"))?;
    drop(progress);
    let mut out = stdout().lock();
    if args.json {
        #[derive(Serialize)]
        struct Report<'a> {
            clip: &'a str,
            frame: zoo_core::FrameSize,
            frames: usize,
            rows: &'a [Row],
        }
        let frames = comparison.found.first().map_or(0, Vec::len);
        let report = Report { clip, frame: size, frames, rows: &comparison.rows };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        let frames = comparison.found.first().map_or(0, Vec::len);
        writeln!(out, "{clip}: {frames} frames, resized to {size:#}\n\n{}", comparison.table())?;
        note(comparison.legend());
    }
    Ok(())
}

#[derive(Serialize)]
struct Sequence {
    name: String,
    frames: usize,
    #[serde(flatten)]
    score: Score,
}

/// J and F over DAVIS's folders: `JPEGImages/480p/SEQUENCE`, `Annotations/480p/SEQUENCE`.
fn davis(root: &Path, preset: Preset, args: &EvalArgs) -> Result<()> {
    let Config::Segmenter(cfg) = preset.config() else {
        return Err(Usage::error(format_args!("preset {} detects: --davis goes with davis", preset.name())));
    };
    let model = segmenter(preset, &cfg, &args.weights, &args.compute.start()?)?;
    let mode = args.modes.first().cloned().unwrap_or(Mode::SingleFrame);
    let images = root.join("JPEGImages/480p");
    let mut names: Vec<PathBuf> = fs::read_dir(&images)
        .with_context(|| format!("{} is no DAVIS folder: reading {}", root.display(), images.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    names.retain(|path| path.is_dir());
    names.sort();
    ensure!(!names.is_empty(), "{} holds no sequence", images.display());
    let progress = Progress::new(Some(names.len()), "davis");
    let mut sequences = Vec::new();
    for folder in names.iter().take(args.limit.unwrap_or(usize::MAX)) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sequences.push(sequence(
            &model,
            &mode,
            folder,
            &root.join("Annotations/480p").join(&name),
            name,
            args,
        )?);
        progress.step();
    }
    drop(progress);

    let scores: Vec<Score> = sequences.iter().map(|sequence| sequence.score).collect();
    let mean = Score::mean(&scores).context("no sequence was scored")?;
    let weights = if args.weights.random { "random weights" } else { "own weights" };
    let mut out = stdout().lock();
    if args.json {
        let report = serde_json::json!({
            "mode": mode.name(), "weights": weights, "mean": mean, "sequences": sequences,
        });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    let mut table = Table::new(["sequence", "frames", "J", "F"]);
    for Sequence { name, frames, score } in &sequences {
        table.row([name.clone(), frames.to_string(), number(Some(score.j), 3), number(Some(score.f), 3)]);
    }
    table.row(["mean".to_owned(), String::new(), number(Some(mean.j), 3), number(Some(mean.f), 3)]);
    writeln!(out, "{table}\n{}, {weights}", mode.name())?;
    Ok(())
}

fn sequence(
    model: &PatchworkSeg,
    mode: &Mode,
    images: &Path,
    truth: &Path,
    name: String,
    args: &EvalArgs,
) -> Result<Sequence> {
    let (mut predicted, mut annotated) = (Vec::new(), Vec::new());
    let model = model.clone().with_frame(args.view.size.unwrap_or(model.config().frame)).map_err(usage)?;
    let mut state = None;
    for frame in Source::Folder(images.to_owned()).frames()? {
        let Frame { image, name, .. } = frame?;
        let stream = match &mut state {
            Some(stream) => stream,
            None => state.insert(model.start_with(image.size(), mode).map_err(usage)?),
        };
        let map = model.step(&image, stream)?.output;
        predicted.push(Mask::from_labels(map.size, &map.classes)?);
        // Annotations are indexed colours: black is the background.
        let mask = zoo_vision::read(truth.join(format!("{name}.png")))?;
        let object = mask.pixels().chunks_exact(3).map(|rgb| rgb.iter().any(|&value| value > 0)).collect();
        annotated.push(Mask::new(mask.size(), object)?);
    }
    let score = Score::of_sequence(&predicted, &annotated).with_context(|| format!("sequence {name}"))?;
    Ok(Sequence { name, frames: predicted.len(), score })
}
