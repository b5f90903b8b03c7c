//! Still pictures: the format is read from the content, the size checked before pixels are allocated.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::error::{DecodingError, ImageError};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbaImage};
use zoo_core::{FrameSize, Image};

use crate::{Error, Result};

/// What a decoder may use up. Files that ask for more are refused from their header, before the
/// memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of one picture or frame: 64 Mpx unless set.
    pub max_pixels: usize,
    /// Longest side in pixels: 32,768 unless set.
    pub max_side: usize,
    /// Bytes of one file held in memory, and of one decoder's buffers: 1 GiB each unless set.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 64 << 20, max_side: 32_768, max_bytes: 1 << 30 }
    }
}

impl Limits {
    /// Checks a size that a header states.
    pub(crate) fn check(&self, name: &str, size: FrameSize) -> Result<()> {
        if size.area() > self.max_pixels || size.height.max(size.width) > self.max_side {
            return Err(Error::TooLarge {
                name: name.to_owned(),
                size,
                max_pixels: self.max_pixels,
                max_side: self.max_side,
            });
        }
        Ok(())
    }

    pub(crate) fn for_decoder(&self) -> image::Limits {
        // Sides and pixels are checked here, with a message that tells the size.
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(self.max_bytes);
        limits
    }

    pub(crate) fn too_much(&self, name: &str, needed: impl Into<String>) -> Error {
        Error::TooMuchMemory { name: name.to_owned(), needed: needed.into(), max_bytes: self.max_bytes }
    }
}

/// Reads a picture with the default [`Limits`]; see [`decode`].
///
/// # Errors
/// If the file cannot be read or decoded, or is larger than the limits.
pub fn read(path: impl AsRef<Path>) -> Result<Image> {
    read_with(path, &Limits::default())
}

/// Reads a picture; see [`decode`].
///
/// # Errors
/// If the file cannot be read or decoded, or is larger than the limits.
pub fn read_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Image> {
    let name = path.as_ref().display().to_string();
    if path.as_ref().is_dir() {
        return Err(Error::Folder { name });
    }
    let failed = |source| Error::Read { name: name.clone(), source };
    let file = File::open(&path).map_err(failed)?;
    decode(&read_all(file, &name, limits)?, &name, limits)
}

/// All bytes of a stream, or an error as soon as it holds more than the limits allow.
pub(crate) fn read_all(stream: impl Read, name: &str, limits: &Limits) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = stream.take(limits.max_bytes.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read { name: name.to_owned(), source })?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(limits.too_much(name, "the file itself is larger"));
    }
    Ok(bytes)
}

/// Decodes a picture; `name` is for messages.
///
/// PNG, JPEG, WebP, BMP, GIF, PNM and TIFF, told apart by content. An EXIF (or TIFF) orientation is
/// applied. 16-bit and float samples are rounded to 8 bits, gray is repeated, CMYK converted without a
/// profile, and transparency composited over white, as a page shows it. Colour profiles are ignored.
/// Of an animation this is the first frame.
///
/// # Errors
/// If the bytes are no such picture, are damaged, or need more than the limits.
pub fn decode(bytes: &[u8], name: &str, limits: &Limits) -> Result<Image> {
    if bytes.is_empty() {
        return Err(Error::Empty { name: name.to_owned() });
    }
    let Ok(format) = image::guess_format(bytes) else {
        return Err(Error::UnknownFormat { name: name.to_owned(), got: describe(bytes) });
    };
    let failed = |source| decoding_error(source, name, format, limits);
    if format == ImageFormat::Jpeg && !has_jpeg_end(bytes) {
        // The decoder would fill up what is missing with gray and say nothing.
        let cut = DecodingError::new(format.into(), "no end marker after the last scan");
        return Err(failed(ImageError::Decoding(cut)));
    }

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.for_decoder());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check(name, FrameSize::new(height as usize, width as usize))?;
    // Taking the decoder apart to see the orientation bypasses the allocation check that the reader's
    // own `decode` would make.
    if decoder.total_bytes() > limits.max_bytes {
        return Err(limits.too_much(name, format!("{} for its pixels", decoder.total_bytes())));
    }
    let orientation = match format {
        ImageFormat::WebP => webp_exif(bytes).and_then(Orientation::from_exif_chunk),
        _ => decoder
            .orientation()
            .inspect_err(|error| tracing::warn!("{name}: orientation ignored: {error}"))
            .ok(),
    };
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    picture.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));

    let premultiplied = format == ImageFormat::Tiff && has_associated_alpha(bytes);
    flatten(picture, premultiplied)
}

pub(crate) fn decoding_error(source: ImageError, name: &str, format: ImageFormat, limits: &Limits) -> Error {
    match source {
        ImageError::Limits(limit) => limits.too_much(name, limit.to_string()),
        source => Error::Decode { name: name.to_owned(), format: format_name(format), source },
    }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Tiff => "TIFF",
        other => other.to_mime_type(),
    }
}

/// Whether a JPEG's end marker follows the start of its last scan. Compressed data never contains
/// either of the two.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    let start_of_scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]);
    let scan = start_of_scan.and_then(|at| bytes.get(at..)).unwrap_or_default();
    scan.windows(2).any(|pair| pair == [0xff, 0xd9])
}

/// The EXIF chunk of a WebP file. The decoder's own way to it allocates what the chunk's header claims.
fn webp_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(12..)?;
    while let Some((name, sized)) = rest.split_first_chunk::<4>() {
        let (length, body) = sized.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if name == b"EXIF" {
            return body.get(..length);
        }
        rest = body.get(length.checked_add(length % 2)?..)?;
    }
    None
}

/// Whether a TIFF says that its colours are already multiplied by alpha (`ExtraSamples` = 1).
fn has_associated_alpha(bytes: &[u8]) -> bool {
    let Ok(mut decoder) = tiff::decoder::Decoder::new(Cursor::new(bytes)) else { return false };
    let samples = decoder.find_tag_unsigned_vec::<u16>(tiff::tags::Tag::ExtraSamples);
    samples.ok().flatten().is_some_and(|samples| samples.first() == Some(&1))
}

/// RGB without alpha, over white.
fn flatten(picture: DynamicImage, premultiplied: bool) -> Result<Image> {
    let size = FrameSize::new(picture.height() as usize, picture.width() as usize);
    if !picture.color().has_alpha() {
        return Ok(Image::new(size, picture.into_rgb8().into_raw())?);
    }
    over_white(&picture.into_rgba8(), premultiplied)
}

/// Composites over white, rounded to nearest.
pub(crate) fn over_white(picture: &RgbaImage, premultiplied: bool) -> Result<Image> {
    let size = FrameSize::new(picture.height() as usize, picture.width() as usize);
    let mut pixels = Vec::with_capacity(size.area().saturating_mul(3));
    for pixel in picture.pixels() {
        let [r, g, b, alpha] = pixel.0.map(u32::from);
        let weight = if premultiplied { 255 } else { alpha };
        let over = |c: u32| ((c * weight + 255 * (255 - alpha) + 127) / 255).min(255) as u8;
        pixels.extend([over(r), over(g), over(b)]);
    }
    Ok(Image::new(size, pixels)?)
}

/// What the first bytes of something that is no picture look like, for a message.
fn describe(bytes: &[u8]) -> String {
    let start = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    let text = String::from_utf8_lossy(start).trim_start_matches('\u{feff}').trim_start().to_lowercase();
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return "an HTML page (a download that failed?)".to_owned();
    }
    if text.starts_with("<svg") || (text.starts_with("<?xml") && text.contains("<svg")) {
        return "an SVG drawing; render it to PNG first".to_owned();
    }
    if start.starts_with(b"YUV4MPEG2") {
        return "a Y4M video; read it with Source::parse".to_owned();
    }
    if start.starts_with(b"version https://git-lfs") {
        return "a Git LFS pointer; run `git lfs pull`".to_owned();
    }
    if let Some(brand) = start.get(4..12).filter(|brand| brand.starts_with(b"ftyp")) {
        return format!(
            "an {} file; convert it first",
            match &brand[4..] {
                b"avif" | b"avis" => "AVIF",
                b"heic" | b"heix" | b"mif1" => "HEIC",
                _ => "MP4",
            }
        );
    }
    let first: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("bytes {}", first.join(" "))
}
