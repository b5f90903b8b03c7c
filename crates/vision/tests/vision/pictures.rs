//! Small pictures and files that several tests need.

use image::{ImageEncoder, ImageFormat};
use zoo_core::{FrameSize, Image};

/// A picture in which every pixel differs from its neighbours, with at most 24 colours.
pub fn pattern(height: usize, width: usize) -> Image {
    let pixel = |i: usize| {
        let (y, x) = (i / width, i % width);
        [(x % 6 * 40) as u8, (y % 4 * 60) as u8, ((x + y) % 2 * 90) as u8]
    };
    let pixels = (0..height * width).flat_map(pixel).collect();
    Image::new(FrameSize::new(height, width), pixels).unwrap()
}

/// Encodes with the `image` crate.
pub fn encode(image: &Image, format: ImageFormat) -> Vec<u8> {
    let (width, height) = (image.width() as u32, image.height() as u32);
    let buffer = image::RgbImage::from_raw(width, height, image.pixels().to_vec()).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    buffer.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Encodes samples of another kind than RGB8 as PNG.
pub fn png(width: u32, height: u32, samples: &[u8], kind: image::ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(samples, width, height, kind).unwrap();
    bytes
}

/// A Y4M stream with frames of the given planes.
pub fn y4m(header: &str, frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("YUV4MPEG2 {header}\n").into_bytes();
    for frame in frames {
        bytes.extend(b"FRAME\n");
        bytes.extend(*frame);
    }
    bytes
}
