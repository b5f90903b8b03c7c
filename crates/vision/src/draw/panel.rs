//! Pictures with a caption, and several of them in one.

use zoo_core::{FrameSize, Image};

use super::text::{Weight, fitted};
use super::text_height;
use crate::Result;

pub(super) const PANEL: [u8; 3] = [24, 26, 31];
pub(super) const CAPTION: [u8; 3] = [233, 236, 239];

/// The picture with a dark strip below that holds one line of text, cut where it does not fit.
///
/// # Errors
/// If the result would be too large to address.
pub fn caption(image: &Image, text: &str) -> Result<Image> {
    let type_height = text_height(image.size());
    captioned(image, text, image.size(), type_height, (type_height * 1.7).round() as usize)
}

/// Pictures side by side, `columns` in a row, each with its caption. Every cell is as large as the
/// largest picture; smaller ones are centred. An empty list gives an error.
///
/// # Errors
/// If there is no picture, or the result would be too large to address.
pub fn montage(pictures: &[(&Image, &str)], columns: usize) -> Result<Image> {
    let side = |of: fn(&Image) -> usize| pictures.iter().map(|(image, _)| of(image)).max().unwrap_or(0);
    let cell = FrameSize::new(side(Image::height), side(Image::width));
    let type_height = text_height(cell);
    let has_captions = pictures.iter().any(|(_, text)| !text.is_empty());
    let strip = if has_captions { (type_height * 1.7).round() as usize } else { 0 };
    let gap = (type_height * 0.5).round() as usize;

    let columns = columns.clamp(1, pictures.len().max(1));
    let rows = pictures.len().div_ceil(columns);
    let (pitch_y, pitch_x) = (cell.height + strip + gap, cell.width + gap);
    let size = FrameSize::new(
        (rows * pitch_y).saturating_sub(gap),
        if cell.width == 0 { 0 } else { (columns * pitch_x).saturating_sub(gap) },
    );
    let mut panel = Image::filled(size, PANEL)?;
    for (i, (image, text)) in pictures.iter().enumerate() {
        let tile = captioned(image, text, cell, type_height, strip)?;
        paste(&mut panel, &tile, i / columns * pitch_y, i % columns * pitch_x);
    }
    Ok(panel)
}

/// The picture in the middle of a cell, above a strip of `strip` rows with the text.
fn captioned(image: &Image, text: &str, cell: FrameSize, type_height: f32, strip: usize) -> Result<Image> {
    let mut panel = Image::filled(FrameSize::new(cell.height + strip, cell.width), PANEL)?;
    let centre = |all: usize, part: usize| all.saturating_sub(part) / 2;
    paste(&mut panel, image, centre(cell.height, image.height()), centre(cell.width, image.width()));
    let margin = type_height * 0.5;
    let line = fitted(text, cell.width as f32 - 2.0 * margin, type_height, Weight::Regular);
    let baseline = cell.height as f32 + (strip as f32 + line.cap_height) / 2.0;
    line.draw(&mut panel, margin, baseline, CAPTION);
    Ok(panel)
}

/// Copies a picture into another, as far as it fits.
pub(super) fn paste(onto: &mut Image, image: &Image, top: usize, left: usize) {
    let width = onto.width();
    let rows = onto.pixels_mut().chunks_exact_mut(width * 3).skip(top);
    for (row, source) in rows.zip(image.pixels().chunks_exact(image.width() * 3)) {
        let place = row.iter_mut().skip(3 * left);
        place.zip(source).for_each(|(to, from)| *to = *from);
    }
}
