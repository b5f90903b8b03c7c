//! Label files: numbers or colours to classes.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use png::{BitDepth, ColorType};
use zoo_core::{FrameSize, SegLabels, SegMap};

use crate::{Error, Limits, Result, read_with};

/// The classes of a label file that holds the data set's colours. Other colours do not count; a file without any
/// of them is none.
pub(super) fn of_colors(path: &Path, classes: &SegLabels, limits: &Limits) -> Result<SegMap> {
    let image = read_with(path, limits)?;
    let class = |rgb: &[u8]| {
        let color = rgb.try_into().ok()?;
        classes.class_of_color(color)
    };
    // Neighbours are mostly of one class.
    let mut last = (&[][..], None);
    let found: Vec<Option<u8>> = image
        .pixels()
        .chunks_exact(3)
        .map(|rgb| {
            if last.0 != rgb {
                last = (rgb, class(rgb));
            }
            last.1
        })
        .collect();
    if found.iter().all(Option::is_none) {
        return Err(Error::Labels {
            name: path.display().to_string(),
            reason: format!(
                "expected pixels in the colours of {}, got none: is it a photograph, or does it hold numbers?",
                classes.name()
            ),
        });
    }
    let found = found.into_iter().map(|class| class.unwrap_or(SegMap::IGNORED));
    Ok(SegMap::new(image.size(), found.collect(), classes.legend())?)
}

/// The classes of a label file that holds the data set's numbers.
pub(super) fn of_numbers(path: &Path, classes: &SegLabels, limits: &Limits) -> Result<SegMap> {
    let (size, mut pixels) = numbers(path, limits)?;
    let by_id: Vec<Option<u8>> = (0..=u8::MAX).map(|id| classes.class_of_id(id)).collect();
    for (index, pixel) in pixels.iter_mut().enumerate() {
        match by_id.get(usize::from(*pixel)).copied().flatten() {
            Some(class) => *pixel = class,
            None => {
                return Err(Error::LabelValue {
                    name: path.display().to_string(),
                    value: *pixel,
                    row: index / size.width,
                    column: index % size.width,
                    data_set: classes.name(),
                    classes: classes.len(),
                });
            }
        }
    }
    Ok(SegMap::new(size, pixels, classes.legend())?)
}

/// The samples of a PNG of numbers: gray or indices of a palette, up to eight bits each.
fn numbers(path: &Path, limits: &Limits) -> Result<(FrameSize, Vec<u8>)> {
    let name = || path.display().to_string();
    let failed = |error: png::DecodingError| Error::Labels { name: name(), reason: error.to_string() };
    let file = File::open(path).map_err(|source| Error::Read { name: name(), source })?;
    let bytes = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(BufReader::new(file), png::Limits { bytes });
    // Palettes stay numbers.
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(failed)?;
    let size = FrameSize::new(reader.info().height as usize, reader.info().width as usize);
    limits.check(&name(), size)?;
    let bits = match (reader.info().color_type, reader.info().bit_depth) {
        (ColorType::Grayscale | ColorType::Indexed, depth) if depth != BitDepth::Sixteen => depth as usize,
        (color, depth) => {
            return Err(Error::Labels {
                name: name(),
                reason: format!(
                    "expected one number a pixel (gray or indexed, up to 8 bits), got {color:?} of {} bits",
                    depth as usize
                ),
            });
        }
    };
    let length = reader.output_buffer_size().ok_or_else(|| limits.too_much(&name(), "its pixels"))?;
    let mut samples = vec![0; length];
    let line = reader.next_frame(&mut samples).map_err(failed)?.line_size;
    if bits == 8 {
        return Ok((size, samples));
    }
    let mask = u8::MAX >> (8 - bits);
    let unpacked = |line: &[u8]| -> Vec<u8> {
        let shifts = (0..8).step_by(bits).rev();
        line.iter()
            .flat_map(|&byte| shifts.clone().map(move |shift| byte >> shift & mask))
            .take(size.width)
            .collect()
    };
    Ok((size, samples.chunks_exact(line.max(1)).flat_map(unpacked).collect()))
}
