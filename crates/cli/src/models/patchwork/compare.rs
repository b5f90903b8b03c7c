//! Ways to spend computation on one clip, side by side: what each costs, and how much of the
//! single-frame detector's boxes it keeps.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use patchwork_det::flops::StepCost;
use patchwork_det::{
    Detections, FrameSize, Image, Mode, PatchworkDet, PolicyKind, Start, Stream, Streaming, Window,
};
use serde::Serialize;
use zoo_core::BBox;
use zoo_metrics::agreement::{Agreement, agreement};
use zoo_metrics::latency::{Distribution, Timings};

use super::usage;
use crate::progress::Progress;
use crate::table::{Table, number};

/// Frames whose time does not count, in clips that are long enough.
const WARM_UP: usize = 10;
/// A first frame, which warms up, and one that is timed and that a window may see a part of.
const MIN_FRAMES: usize = 2;

/// What the demo compares: the baselines, and Patchwork's windows. Single frame comes first.
pub fn demo_modes() -> Result<Vec<Mode>> {
    let windows = |m, n, policy| Mode::windows(m, n, policy).map_err(usage);
    Ok(vec![
        Mode::SingleFrame,
        Mode::Interval { every: 4, delay: 0 },
        windows(4, 2, PolicyKind::Raster)?,
        windows(4, 2, PolicyKind::Motion)?,
        windows(4, 1, PolicyKind::Motion)?,
    ])
}

/// One mode's row of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    pub mode: String,
    /// Of the most expensive frame; a whole first frame is the start-up.
    pub mflops_max: f64,
    pub mflops_avg: f64,
    /// Milliseconds of a whole first frame, which the times do not count.
    pub startup_ms: Option<f64>,
    /// Milliseconds of crop, resizing, network and memories.
    pub step_ms: Option<Distribution>,
    /// Milliseconds of decoding and suppression, median.
    pub decode_ms: Option<f64>,
    /// At the mean step.
    pub frames_per_second: Option<f64>,
    /// With the single-frame detector.
    pub agreement: Agreement,
}

/// The rows, and what every mode found in every frame.
pub struct Comparison {
    pub rows: Vec<Row>,
    /// By mode, by frame.
    pub found: Vec<Vec<Detections>>,
    /// By mode, by frame: the window in the picture's pixels, `None` for all or nothing of it.
    pub windows: Vec<Vec<Option<BBox>>>,
}

struct Run {
    mode: Mode,
    stream: Stream<Detections>,
    steps: Vec<Duration>,
    decodes: Vec<Duration>,
    found: Vec<Detections>,
    windows: Vec<Option<BBox>>,
}

/// Runs every mode on the same frames, in turn on each frame, so that whatever else the machine does
/// meets all of them. The first mode is the reference of the agreement.
pub fn compare(
    model: &PatchworkDet,
    frame: FrameSize,
    modes: &[Mode],
    images: impl Iterator<Item = Result<Image>>,
    progress: &Progress,
) -> Result<Comparison> {
    let model = model.clone().with_frame(frame).map_err(usage)?;
    let mut runs: Vec<Run> = Vec::new();
    for image in images {
        let image = image?;
        if runs.is_empty() {
            for mode in modes {
                let stream = model.start_with(image.size(), mode).map_err(usage)?;
                let (steps, decodes, found, windows) = Default::default();
                runs.push(Run { mode: mode.clone(), stream, steps, decodes, found, windows });
            }
        }
        for run in &mut runs {
            let step = model.step(&image, &mut run.stream)?;
            run.steps.push(step.time.network);
            run.decodes.push(step.time.decode);
            run.found.push(step.output);
            let window = step.action.and(step.window);
            run.windows.push(window.map(|window| picture_area(window, frame, image.size())));
        }
        progress.step();
    }
    let frames = runs.first().map_or(0, |run| run.found.len());
    ensure!(frames >= MIN_FRAMES, "expected a clip of at least {MIN_FRAMES} frames, got {frames}");
    let reference = runs.first().map(|run| run.found.clone()).context("there is no frame to compare on")?;
    let rows = runs.iter().map(|run| row(&model, frame, run, &reference)).collect::<Result<_>>()?;
    let (found, windows) = runs.into_iter().map(|run| (run.found, run.windows)).unzip();
    Ok(Comparison { rows, found, windows })
}

fn row(model: &PatchworkDet, frame: FrameSize, run: &Run, reference: &[Detections]) -> Result<Row> {
    let timings = |times: &[Duration]| {
        // A short clip gives up a third of its frames, no more.
        let mut timings = Timings::new(WARM_UP.min(times.len() / 3).max(1));
        times.iter().for_each(|&time| timings.push(time));
        timings
    };
    let flops = model.net().mflops(frame, &run.mode).map_err(usage)?;
    let whole_start = matches!(run.mode, Mode::Windows { start: Start::Full, .. });
    let steps = timings(&run.steps);
    Ok(Row {
        mode: run.mode.name(),
        mflops_max: flops.max,
        mflops_avg: flops.avg,
        startup_ms: run.steps.first().filter(|_| whole_start).map(|time| 1e3 * time.as_secs_f64()),
        step_ms: steps.distribution(),
        decode_ms: timings(&run.decodes).distribution().map(|d| d.median),
        frames_per_second: steps.frames_per_second(),
        agreement: agreement(reference, &run.found)?,
    })
}

/// A window of the net's frame, in pixels of the picture.
pub fn picture_area(window: Window, frame: FrameSize, picture: FrameSize) -> BBox {
    let x = |at: usize| at as f32 * picture.width as f32 / frame.width as f32;
    let y = |at: usize| at as f32 * picture.height as f32 / frame.height as f32;
    BBox::new(x(window.left), y(window.top), x(window.left + window.width), y(window.top + window.height))
}

impl Comparison {
    /// The table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "mode",
            "MFLOPs",
            "median ms",
            "p95 ms",
            "p99 ms",
            "frames/s",
            "AP50 vs SF",
            "start-up ms",
        ]);
        for row in &self.rows {
            let of = |value: fn(&Distribution) -> f64| number(row.step_ms.as_ref().map(value), 1);
            table.row([
                row.mode.clone(),
                number(Some(row.mflops_max), 0),
                of(|d| d.median),
                of(|d| d.p95),
                of(|d| d.p99),
                number(row.frames_per_second, 1),
                number(row.agreement.ap50, 3),
                number(row.startup_ms, 1),
            ]);
        }
        table
    }

    /// What the table's numbers mean.
    pub fn legend(&self) -> String {
        let timed = self.rows.iter().find_map(|row| row.step_ms).map_or(0, |d| d.n);
        let decode = self.rows.iter().filter_map(|row| row.decode_ms).fold(0.0, f64::max);
        let truths = self.rows.first().map_or(0, |row| row.agreement.truths);
        format!(
            "MFLOPs: of the most expensive frame. ms: crop, resize, network, memories; decoding adds up to \
             {decode:.1} ms. Times are of the last {timed} frames;\nthe modes took turns on each frame. interval \
             modes compute nothing on most frames, hence their median. AP50: agreement with the {truths} boxes of\n\
             score ≥ 0.5 that the single-frame detector (SF) finds, not accuracy. Windows see the whole first frame \
             (start-up).\nPolicy motion, because no attention network has been trained."
        )
    }
}
