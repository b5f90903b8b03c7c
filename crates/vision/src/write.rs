//! Results to files: pictures, animations, masks and records.
//!
//! Every file is written under a temporary name in its own folder and renamed when it is complete. One
//! that is dropped before `finish`, or fails, leaves nothing behind.

mod animation;
mod apng;
mod atomic;
mod folder;
mod gif_frames;
mod records;

use std::path::Path;

use image::ImageEncoder;
use image::codecs::jpeg::JpegEncoder;
use zoo_core::{FrameSize, Image, SegMap};

use crate::draw::{class_color, color_of};
use crate::{Error, Result};
pub use animation::Animation;
use atomic::AtomicFile;
pub use folder::{OutputFolder, StillFormat};
pub use records::{CocoResults, Csv, JsonLines, Record};

/// Above this nobody sees a difference, and the files grow fast.
const JPEG_QUALITY: u8 = 92;

/// Writes a picture: PNG if the name ends in `.png`, JPEG for `.jpg` and `.jpeg`.
///
/// # Errors
/// If the name has another ending, or the file cannot be written.
pub fn image(path: impl AsRef<Path>, image: &Image) -> Result<()> {
    let path = path.as_ref();
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("png") => still(path, image, StillFormat::Png),
        Some("jpg" | "jpeg") => still(path, image, StillFormat::Jpeg),
        _ => Err(Error::OutputName { path: path.to_owned(), expected: ".png, .jpg or .jpeg" }),
    }
}

fn still(path: &Path, image: &Image, format: StillFormat) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    match format {
        StillFormat::Png => file.write_all(&encode_png(path, image)?)?,
        StillFormat::Jpeg => {
            let mut bytes = Vec::new();
            let (width, height) = dimensions(path, image)?;
            JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
                .write_image(image.pixels(), width, height, image::ExtendedColorType::Rgb8)
                .map_err(|error| encoding(path, error))?;
            file.write_all(&bytes)?;
        }
    }
    file.finish()
}

/// Writes a class map as a PNG whose pixels are the class indices, with the classes' colours as its
/// palette: a viewer shows colours, a program reads labels.
///
/// # Errors
/// If the file cannot be written.
pub fn mask(path: impl AsRef<Path>, map: &SegMap) -> Result<()> {
    let colors = (0..=u8::MAX).map(|class| color_of(map, class));
    indexed(path.as_ref(), map.size, &map.classes, &colors.collect::<Vec<_>>())
}

/// The same with the numbers of the data set's own files ([`SegClass::id`](zoo_core::SegClass::id)) for pixels, as a
/// benchmark's server takes them; [`SegMap::IGNORED`] where the legend has no such class.
///
/// # Errors
/// If the file cannot be written.
pub fn mask_of_ids(path: impl AsRef<Path>, map: &SegMap) -> Result<()> {
    let mut ids = [SegMap::IGNORED; 256];
    let mut colors: Vec<[u8; 3]> = (0..=u8::MAX).map(|id| class_color(id.into())).collect();
    for (class, (index, id)) in map.legend.iter().zip(ids.iter_mut().enumerate()) {
        *id = class.id;
        if let (Some(color), Ok(index)) = (colors.get_mut(usize::from(class.id)), u8::try_from(index)) {
            *color = color_of(map, index);
        }
    }
    let pixels: Vec<u8> = map
        .classes
        .iter()
        .map(|&class| ids.get(usize::from(class)).copied().unwrap_or(SegMap::IGNORED))
        .collect();
    indexed(path.as_ref(), map.size, &pixels, &colors)
}

/// A PNG of eight-bit indices.
fn indexed(path: &Path, size: FrameSize, pixels: &[u8], colors: &[[u8; 3]]) -> Result<()> {
    let side = |length: usize| u32::try_from(length).map_err(|error| encoding(path, error));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(size.width)?, side(size.height)?);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(colors.as_flattened().to_vec());
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map_err(|error| encoding(path, error))?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes)?;
    file.finish()
}

/// A whole RGB PNG in memory.
fn encode_png(path: &Path, image: &Image) -> Result<Vec<u8>> {
    let (width, height) = dimensions(path, image)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_filter(png::Filter::Adaptive);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(image.pixels())?;
        writer.finish()
    });
    written.map_err(|error| encoding(path, error))?;
    Ok(bytes)
}

fn dimensions(path: &Path, image: &Image) -> Result<(u32, u32)> {
    let side = |length: usize| u32::try_from(length).map_err(|error| encoding(path, error));
    Ok((side(image.width())?, side(image.height())?))
}

fn encoding(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Encode { path: path.to_owned(), reason: reason.to_string() }
}
