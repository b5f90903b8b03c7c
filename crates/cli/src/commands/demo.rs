//! `zoo demo`: the shipped photographs and the clip composed from them.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use patchwork_det::{
    Detections, Detector as _, DetectorWeights, FrameSize, Image, LoadOptions, PatchworkDet, Pretrained,
};
use zoo_core::{BBox, Detection};
use zoo_vision::draw::{self, Style};
use zoo_vision::write::Animation;
use zoo_vision::{Resize, resize, write};

use crate::args::{ComputeArgs, at_least_one};
use crate::exit::{Outcome, note};
use crate::host::Host;
use crate::models::patchwork::{clip_size, compare, demo_modes};
use crate::progress::Progress;
use crate::scene::{self, Photo};

/// Objects below this score are neither drawn nor listed.
const SCORE: f32 = 0.5;
/// Size of the animation's two halves.
const SMALL: FrameSize = FrameSize::new(280, 420);
/// Cells of the overview.
const CELL: FrameSize = FrameSize::new(360, 540);
/// Frames of the overview, in twelfths of the clip: both prints on their way.
const SHOWN: [usize; 3] = [3, 5, 8];
/// Below the overview.
const LEGEND: &str = "Box: an object, with its score; a colour a class. White frame: all that is computed; the dark rest is remembered";
/// Of `demo_modes`: the two that the pictures show.
const SINGLE_FRAME: usize = 0;
const MOTION: usize = 3;

/// Where to, and how much.
#[derive(Args)]
pub struct DemoArgs {
    /// Folder for the pictures
    #[arg(short = 'o', long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    /// Only the first N frames of the clip
    #[arg(long, value_name = "N", value_parser = at_least_one, hide = true)]
    frames: Option<usize>,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Runs both parts.
pub fn run(args: &DemoArgs) -> Result<Outcome> {
    let started = Instant::now();
    let device = args.compute.start()?;
    let folders = ["frames", "annotated"].map(|name| args.out.join(name));
    for folder in &folders {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("cannot make the folder {}: choose another with -o", folder.display())
        })?;
    }
    let options = LoadOptions::default().with_device(device);
    let model = PatchworkDet::from_pretrained(DetectorWeights::CocoSsdLite, &options)?;

    let mut overview = photographs(&model, &args.out)?;
    overview.extend(clip(&model, args, &folders)?);
    let tiles: Vec<(&Image, &str)> = overview.iter().map(|(image, text)| (image, text.as_str())).collect();
    write::image(args.out.join("overview.png"), &draw::caption(&draw::montage(&tiles, 3)?, LEGEND)?)?;
    note(format_args!(
        "\nin {0}: overview.png, clip.gif, the photographs with boxes; annotated/, the clip's frames with boxes and \
         windows; frames/, the same frames as they are, for `zoo run` and `zoo eval patchwork-det {0}/frames` \
         ({1:.1} s in all)",
        args.out.display(),
        started.elapsed().as_secs_f64()
    ));
    Ok(Outcome::Success)
}

/// Single-frame detection at the weights' own size. Returns the overview's first row.
fn photographs(model: &PatchworkDet, out: &Path) -> Result<Vec<(Image, String)>> {
    let size = model.config().frame;
    writeln!(stdout(), "Photographs, resized to {size:#}, objects of score {SCORE} or more:\n")?;
    let mut tiles = Vec::new();
    for Photo { name, image } in scene::photos()? {
        let found = model.detect(std::slice::from_ref(&image))?.pop().context("no result")?;
        let shown: Vec<&Detection> = found.above(SCORE).collect();
        for Detection { label, score, bbox, .. } in &shown {
            writeln!(stdout(), "  {name:<10} {label:<14} {score:.2}  {bbox}")?;
        }
        write::image(out.join(format!("{name}.png")), &drawn(&image, &found, None))?;
        let labels: Vec<&str> = shown.iter().map(|object| object.label.as_ref()).collect();
        let within = inside(image.size(), CELL);
        let tile = drawn(&resize(&image, within, Resize::Pil)?, &scaled(&found, within), None);
        tiles.push((tile, format!("{name}: {}", labels.join(", "))));
    }
    Ok(tiles)
}

/// Every mode on the composed clip: table, frames as they are and annotated, animation. Returns the overview's
/// second row.
fn clip(
    model: &PatchworkDet,
    args: &DemoArgs,
    [plain, annotated]: &[PathBuf; 2],
) -> Result<Vec<(Image, String)>> {
    let clip = scene::clip(args.frames)?;
    let modes = demo_modes()?;
    let progress = Progress::new(Some(clip.frames.len()), "clip");
    let images = clip.frames.iter().cloned().map(Ok);
    let source = clip.frames.first().context("the clip has no frame")?.size();
    let size = clip_size(None, source, &modes)?;
    let comparison = compare(model, size, &modes, images, &progress)?;
    drop(progress);
    let mut out = stdout().lock();
    writeln!(
        out,
        "\nClip \"{}\", composed from these photographs (real objects, made-up movement): {} frames, resized to \
         {size:#}.\n\n{}\n\n{}\n{}",
        clip.title,
        clip.frames.len(),
        comparison.table(),
        comparison.legend(),
        Host::current()
    )?;
    drop(out);

    let progress = Progress::new(Some(clip.frames.len()), "pictures");
    let none = (Vec::new(), Vec::new());
    let pick = |mode: usize| comparison.found.get(mode).zip(comparison.windows.get(mode));
    let (found, windows) = pick(MOTION).unwrap_or((&none.0, &none.1));
    let (single, _) = pick(SINGLE_FRAME).unwrap_or((&none.0, &none.1));
    let mut animation = Animation::create(args.out.join("clip.gif"), clip.frames_per_second)?;
    let shown = SHOWN.map(|twelfth| clip.frames.len() * twelfth / 12);
    let mut tiles = Vec::new();
    for (t, (image, ((found, window), single))) in
        clip.frames.iter().zip(found.iter().zip(windows).zip(single)).enumerate()
    {
        write::image(plain.join(format!("frame_{t:05}.png")), image)?;
        write::image(annotated.join(format!("frame_{t:05}.jpg")), &drawn(image, found, *window))?;
        let small = resize(image, SMALL, Resize::Pil)?;
        let halves = [
            (drawn(&small, &scaled(single, SMALL), None), "single frame"),
            (
                drawn(&small, &scaled(found, SMALL), window.map(|w| scale(w, image.size(), SMALL))),
                "white frame: all that is computed (M=4 N=2 motion)",
            ),
        ];
        let halves: Vec<(&Image, &str)> = halves.iter().map(|(image, text)| (image, *text)).collect();
        animation.push(&draw::montage(&halves, 2)?)?;
        if shown.contains(&t) {
            let within = inside(image.size(), CELL);
            let window = window.map(|w| scale(w, image.size(), within));
            let tile = drawn(&resize(image, within, Resize::Pil)?, &scaled(found, within), window);
            tiles.push((tile, format!("clip, frame {t}: the window, a quarter, is where most has moved")));
        }
        progress.step();
    }
    animation.finish()?;
    Ok(tiles)
}

fn drawn(image: &Image, found: &Detections, window: Option<BBox>) -> Image {
    let mut image = image.clone();
    let style = Style::default().with_min_score(SCORE);
    if let Some(window) = window {
        draw::window(&mut image, window, &style);
    }
    draw::detections(&mut image, found, &style);
    image
}

/// The largest size of the same shape that fits into `cell`.
fn inside(size: FrameSize, cell: FrameSize) -> FrameSize {
    let scale = (cell.height as f64 / size.height as f64).min(cell.width as f64 / size.width as f64);
    let side = |length: usize| ((length as f64 * scale).round() as usize).max(1);
    FrameSize::new(side(size.height), side(size.width))
}

fn scaled(found: &Detections, to: FrameSize) -> Detections {
    let items = found.items.iter().map(|d| Detection { bbox: scale(d.bbox, found.size, to), ..d.clone() });
    Detections::new(to, items.collect())
}

fn scale(bbox: BBox, from: FrameSize, to: FrameSize) -> BBox {
    let (x, y) = (to.width as f32 / from.width as f32, to.height as f32 / from.height as f32);
    BBox::new(bbox.x0 * x, bbox.y0 * y, bbox.x1 * x, bbox.y1 * y)
}
