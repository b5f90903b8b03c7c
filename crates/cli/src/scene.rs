//! The demo's photographs, and the clip composed from them (`assets/clip/README.md` has the rules).

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use zoo_core::{FrameSize, Image};
use zoo_vision::Limits;

/// Public-domain photographs, by file name.
const PHOTOS: [(&str, &[u8]); 3] = [
    ("astronaut.png", include_bytes!("../assets/photos/astronaut.png")),
    ("chelsea.png", include_bytes!("../assets/photos/chelsea.png")),
    ("coffee.png", include_bytes!("../assets/photos/coffee.png")),
];
const SCENE: &str = include_str!("../assets/clip/scene.json");

/// A photograph and its name without the ending.
pub struct Photo {
    pub name: &'static str,
    pub image: Image,
}

/// The photographs.
pub fn photos() -> Result<Vec<Photo>> {
    PHOTOS
        .iter()
        .map(|(file, _)| Ok(Photo { name: file.trim_end_matches(".png"), image: photo(file)? }))
        .collect()
}

/// One of the photographs, by file name.
pub fn photo(file: &str) -> Result<Image> {
    let (_, bytes) = PHOTOS
        .iter()
        .find(|(name, _)| *name == file)
        .with_context(|| format!("no photograph is called {file}"))?;
    Ok(zoo_vision::decode(bytes, file, &Limits::default())?)
}

/// A composed clip.
pub struct Clip {
    pub title: String,
    pub frames_per_second: f64,
    pub frames: Vec<Image>,
}

/// What `scene.json` says. Its notes and its hash are for people and for the test.
#[derive(Deserialize)]
struct Scene {
    title: String,
    frames: usize,
    frames_per_second: f64,
    background: Cutting,
    prints: Vec<Print>,
    border_rgb: [u8; 3],
}

#[derive(Deserialize)]
struct Cutting {
    photo: String,
    crop: Crop,
    reduce: usize,
}

#[derive(Deserialize)]
struct Crop {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

#[derive(Deserialize)]
struct Print {
    #[serde(flatten)]
    cutting: Cutting,
    border: usize,
    path: Vec<Point>,
}

#[derive(Deserialize, Clone, Copy)]
struct Point {
    frame: usize,
    top: usize,
    left: usize,
}

/// Composes the clip's first frames, all of them if `limit` is `None`.
pub fn clip(limit: Option<usize>) -> Result<Clip> {
    let scene: Scene = serde_json::from_str(SCENE).context("reading scene.json")?;
    let background = scene.background.image()?;
    let prints: Vec<(Image, &Print)> = scene
        .prints
        .iter()
        .map(|print| Ok((framed(&print.cutting.image()?, print.border, scene.border_rgb)?, print)))
        .collect::<Result<_>>()?;
    let count = limit.map_or(scene.frames, |limit| limit.min(scene.frames));
    let frames = (0..count)
        .map(|t| {
            let mut frame = background.clone();
            for (image, print) in &prints {
                let Point { top, left, .. } = print.at(t)?;
                paste(&mut frame, image, top, left);
            }
            Ok(frame)
        })
        .collect::<Result<_>>()?;
    Ok(Clip { title: scene.title, frames_per_second: scene.frames_per_second, frames })
}

impl Cutting {
    fn image(&self) -> Result<Image> {
        let Crop { top, left, height, width } = self.crop;
        let cut = photo(&self.photo)?.crop(top, left, FrameSize::new(height, width))?;
        reduced(&cut, self.reduce)
    }
}

impl Print {
    /// Where the print lies at frame `t`: at rest before its first point and after its last.
    fn at(&self, t: usize) -> Result<Point> {
        let (first, last) = self.path.first().zip(self.path.last()).context("a print without a path")?;
        if t <= first.frame {
            return Ok(*first);
        }
        let leg = self.path.windows(2).find_map(|leg| match leg {
            [a, b] if (a.frame..=b.frame).contains(&t) => Some((a, b)),
            _ => None,
        });
        Ok(leg.map_or(*last, |(a, b)| {
            let (before, after, span) = (t - a.frame, b.frame - t, b.frame - a.frame);
            let between = |from: usize, to: usize| (from * after + to * before + span / 2) / span;
            Point { frame: t, top: between(a.top, b.top), left: between(a.left, b.left) }
        }))
    }
}

/// Each block of k×k pixels becomes its mean, rounded.
fn reduced(image: &Image, k: usize) -> Result<Image> {
    ensure!(k > 0, "a photo cannot be reduced by 0");
    let size = FrameSize::new(image.height() / k, image.width() / k);
    let block = k * k;
    let mut pixels = Vec::with_capacity(3 * size.area());
    for y in 0..size.height {
        for x in 0..size.width {
            let mut sums = [0; 3];
            for pixel in (0..block).filter_map(|i| image.get(y * k + i / k, x * k + i % k)) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += usize::from(value);
                }
            }
            pixels.extend(sums.map(|sum| ((sum + block / 2) / block) as u8));
        }
    }
    Ok(Image::new(size, pixels)?)
}

fn framed(image: &Image, border: usize, rgb: [u8; 3]) -> Result<Image> {
    let size = FrameSize::new(image.height() + 2 * border, image.width() + 2 * border);
    let mut framed = Image::filled(size, rgb)?;
    paste(&mut framed, image, border, border);
    Ok(framed)
}

fn paste(onto: &mut Image, image: &Image, top: usize, left: usize) {
    let width = onto.width();
    let rows = onto.pixels_mut().chunks_exact_mut(3 * width).skip(top);
    for (row, source) in rows.zip(image.pixels().chunks_exact(3 * image.width())) {
        row.iter_mut().skip(3 * left).zip(source).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_composed_clip_is_the_one_that_scene_json_describes() {
        let clip = clip(None).unwrap();
        assert_eq!(clip.frames.len(), 48);
        assert!(clip.frames.iter().all(|frame| frame.size() == FrameSize::new(400, 600)));
        let mut hash = Sha256::new();
        clip.frames.iter().for_each(|frame| hash.update(frame.pixels()));
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let scene: serde_json::Value = serde_json::from_str(SCENE).unwrap();
        assert_eq!(Some(hash.as_str()), scene["rgb_sha256"].as_str());
    }

    #[test]
    fn fewer_frames_are_the_first_ones() {
        let few = clip(Some(2)).unwrap();
        assert_eq!(few.frames, clip(Some(100)).unwrap().frames[..2]);
    }
}
