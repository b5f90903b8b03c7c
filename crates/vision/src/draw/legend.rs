//! Which colour is which class.

use zoo_core::{BBox, FrameSize, Image, SegClass};

use super::canvas::{Paint, fill, outline};
use super::panel::{CAPTION, PANEL, paste};
use super::text::{Line, Weight, fitted};
use super::text_height;
use crate::Result;

/// The light line around a swatch, without which black would not show.
const RIM: Paint = Paint { rgb: CAPTION, alpha: 0.4 };

/// The picture with a dark strip below that shows the colour and the name of each class, in as many rows as it takes.
/// For a clip, whose pictures must be of one size, give the same classes each time.
///
/// # Errors
/// If the result would be too large to address.
pub fn legend(image: &Image, classes: &[SegClass]) -> Result<Image> {
    let type_height = text_height(image.size());
    let pitch = (type_height * 1.5).round();
    let entries = placed(classes, image.width() as f32, type_height);
    let rows = entries.last().map_or(0, |entry| entry.row + 1);
    let strip = if rows == 0 { 0 } else { (rows as f32 * pitch + type_height * 0.5) as usize };
    let mut panel = Image::filled(FrameSize::new(image.height() + strip, image.width()), PANEL)?;
    paste(&mut panel, image, 0, 0);
    for Entry { row, left, side, line, color } in entries {
        let centre = image.height() as f32 + type_height * 0.25 + (row as f32 + 0.5) * pitch;
        let top = (centre - side / 2.0).round();
        let swatch = BBox::new(left, top, left + side, top + side);
        fill(&mut panel, swatch, side * 0.2, Paint::solid(color));
        outline(&mut panel, swatch, side * 0.2, 1.0, RIM);
        line.draw(&mut panel, left + side * 1.4, centre + line.cap_height / 2.0, CAPTION);
    }
    Ok(panel)
}

/// A class and where it stands.
struct Entry {
    row: usize,
    left: f32,
    /// Of the square in the class's colour.
    side: f32,
    line: Line,
    color: [u8; 3],
}

/// Places entries side by side, a new row where the next one does not fit.
fn placed(classes: &[SegClass], width: f32, type_height: f32) -> Vec<Entry> {
    let (margin, gap, side) = (type_height * 0.5, type_height, (type_height * 0.75).round());
    let (mut row, mut left) = (0, margin);
    let mut entries: Vec<Entry> = Vec::with_capacity(classes.len());
    for class in classes {
        let room = width - 2.0 * margin - side * 1.4;
        let line = fitted(&class.name, room, type_height, Weight::Regular);
        let length = side * 1.4 + line.width;
        if left > margin && left + length > width - margin {
            (row, left) = (row + 1, margin);
        }
        entries.push(Entry { row, left: left.round(), side, line, color: class.color });
        left += length + gap;
    }
    entries
}
