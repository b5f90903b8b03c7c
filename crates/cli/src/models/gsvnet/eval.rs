//! `zoo eval gsvnet-seg`: section "evaluation" of the paper. For each i below the interval, the key frame is i frames
//! before the labelled one.

use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use gsvnet_seg::{GsvNetSeg, Preset, Schedule, SegMap, Streaming as _};
use serde::Serialize;
use zoo_metrics::segment::{ConfusionMatrix, IouRule, SegmentationScores};
use zoo_vision::Layout;

use super::{NAME, run::loaded, usage};
use crate::commands::eval::EvalArgs;
use crate::exit::Usage;
use crate::models::segmentation::{Data, name_of, table};
use crate::progress::Progress;
use crate::table::{Table, number};

const RULE: IouRule = IouRule::GSVNET;

#[derive(Serialize)]
struct Report<'a> {
    data: &'a Path,
    layout: Layout,
    split: &'a str,
    pictures: usize,
    /// Labelled pictures with too few frames before them.
    left_out: usize,
    schedule: Schedule,
    frame_step: usize,
    iou_rule: IouRule,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<&'static str>,
    /// mIoU with the key frame i frames before, i = 0, 1, …
    miou_at: Vec<Option<f64>>,
    /// Of all i in one matrix.
    avg_miou: Option<f64>,
    /// Of the last i.
    min_miou: Option<f64>,
    /// mIoU of each frame's labels against those of the frame before, between key frames.
    temporal_consistency: Option<f64>,
    /// Of all i in one matrix.
    #[serde(flatten)]
    scores: SegmentationScores,
}

/// avg and min mIoU on a labelled data set.
pub fn eval(preset: Option<Preset>, args: &EvalArgs) -> Result<()> {
    args.refuse_all_but_labelled_data(NAME)?;
    args.segment.refuse_for(NAME)?;
    args.view.refuse_for(NAME)?;
    let device = args.compute.start()?;
    let schedule = args.key_frames.schedule();
    let model = loaded(preset, &args.weights, &device)?.with_schedule(schedule).map_err(usage)?;
    let legend = model.pictures().labels.clone();
    let data = Data::open(&legend, args)?;
    let counts = count(&model, &data, args)?;
    let mut pooled = data.matrix()?;
    for matrix in &counts.matrices {
        pooled.merge(matrix)?;
    }
    let miou = |matrix: &ConfusionMatrix| matrix.mean_iou_by(RULE);
    let report = Report {
        data: data.at,
        layout: data.layout,
        split: data.split,
        pictures: counts.pictures,
        left_out: data.pictures - counts.pictures,
        schedule,
        frame_step: args.frame_step,
        iou_rule: RULE,
        weights: args.weights.random.then_some("random weights"),
        miou_at: counts.matrices.iter().map(miou).collect(),
        avg_miou: miou(&pooled),
        min_miou: counts.matrices.last().and_then(miou),
        temporal_consistency: counts.consistency.mean_iou(),
        scores: pooled.summary(RULE, name_of(&legend)),
    };
    print(&report, args.json)
}

/// What was counted.
struct Counts {
    /// One for each distance from the key frame.
    matrices: Vec<ConfusionMatrix>,
    /// Each frame against the one before, at the largest distance.
    consistency: ConfusionMatrix,
    pictures: usize,
}

fn count(model: &GsvNetSeg, data: &Data, args: &EvalArgs) -> Result<Counts> {
    let frames = args.frames.as_deref();
    let interval = model.net().schedule().interval;
    let matrices = (0..interval).map(|_| data.matrix()).collect::<Result<Vec<_>>>()?;
    let mut counts = Counts { matrices, consistency: data.matrix()?, pictures: 0 };
    let progress = Progress::new(Some(data.pictures), data.set.classes().name());
    for pair in data.set.pairs().iter().take(data.pictures) {
        progress.step();
        // All distances are measured on the same pictures.
        let before = data.set.frames_before(pair, frames, interval - 1, args.frame_step);
        let before = before.context("the frames before a labelled one: --frames names their folder, and Cityscapes has them in its package leftImg8bit_sequence")?;
        let Some(before) = before else { continue };
        let labelled = data.set.read(pair)?;
        let mut images = Vec::with_capacity(interval);
        for path in &before {
            images.push(data.set.read_frame(path)?);
        }
        images.push(labelled.image);
        for (distance, matrix) in counts.matrices.iter_mut().enumerate() {
            let mut stream = model.start(labelled.truth.size).map_err(usage)?;
            let mut last: Option<SegMap> = None;
            for image in &images[images.len() - 1 - distance..] {
                let map = model
                    .step(image, &mut stream)
                    .with_context(|| format!("processing frames before {}", labelled.path.display()))?
                    .map;
                if let Some(last) = last.filter(|_| distance + 1 == interval) {
                    counts.consistency.add(&map.classes, &last.classes)?;
                }
                last = Some(map);
            }
            if let Some(map) = last {
                matrix.add(&map.classes, &labelled.truth.classes).with_context(|| labelled.name.clone())?;
            }
        }
        counts.pictures += 1;
    }
    if counts.pictures == 0 {
        return Err(Usage::error(format_args!(
            "none of the {} labelled pictures has {} frames before it whose numbers are {} apart, in {}: name the folder with the video's frames (--frames), how far apart they are (--frame-step), or take --interval 1",
            data.pictures,
            interval - 1,
            args.frame_step,
            frames
                .map_or_else(
                    || data.set.pairs().first().map(|pair| data.set.video_of(pair)).unwrap_or_default(),
                    Path::to_owned
                )
                .display()
        )));
    }
    Ok(counts)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let Report { layout, split, pictures, left_out, schedule, weights, .. } = report;
    let mut distances = Table::new(["key frame", "mIoU"]);
    for (i, miou) in report.miou_at.iter().enumerate() {
        let name = match i {
            0 => "the frame itself".to_owned(),
            1 => "1 frame before".to_owned(),
            i => format!("{i} frames before"),
        };
        distances.row([name, number(*miou, 4)]);
    }
    let caveat = weights.map(|weights| format!("; {weights}")).unwrap_or_default();
    let left_out = match left_out {
        0 => String::new(),
        n => format!(", {n} without frames before them left out"),
    };
    writeln!(
        out,
        "{}\nall distances in one matrix\n\n{distances}\n{layout}, {split}: {pictures} pictures{left_out}; interval {}, key frames at {}; avg mIoU {}, min mIoU {}; each frame against the one before: mIoU {}{caveat}",
        table(&report.scores),
        schedule.interval,
        schedule.scale.name(),
        number(report.avg_miou, 4),
        number(report.min_miou, 4),
        number(report.temporal_consistency, 4),
    )?;
    Ok(())
}
