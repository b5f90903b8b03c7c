//! Class maps laid over the picture.

use zoo_core::{Image, SegMap};

use super::canvas::{Paint, blend};
use super::{Style, class_color};
use crate::{Error, Result};

/// What label files of PASCAL VOC show where a pixel does not count.
const IGNORED_COLOR: [u8; 3] = [224, 224, 192];

/// The colour of a class of a map: its legend's, or one of the zoo's where the legend has no such class.
pub(crate) fn color_of(map: &SegMap, class: u8) -> [u8; 3] {
    match map.legend.get(usize::from(class)) {
        Some(known) => known.color,
        None if class == SegMap::IGNORED => IGNORED_COLOR,
        None => class_color(usize::from(class)),
    }
}

/// Tints each pixel in its class's colour, with a firm line where classes meet. A class 0 named
/// `background` and pixels that do not count stay as they are.
///
/// # Errors
/// If the map was made for an image of another size.
pub fn mask(image: &mut Image, map: &SegMap, style: &Style) -> Result<()> {
    let size = image.size();
    if map.size != size || map.classes.len() != size.area() {
        return Err(Error::SizeMismatch {
            what: "this class map",
            expected: map.size,
            got: size,
            hint: "draw it on the frame that it was made from",
        });
    }
    let background = map.legend.first().is_some_and(|class| class.name == "background").then_some(0u8);
    let colors: Vec<[u8; 3]> = (0..=u8::MAX).map(|class| color_of(map, class)).collect();
    let alpha = style.mask_alpha.clamp(0.0, 1.0);
    let at = |index: usize| map.classes.get(index).copied();
    for (index, pixel) in image.pixels_mut().chunks_exact_mut(3).enumerate() {
        let Some(class) = at(index) else { break };
        let (Some(&color), false) =
            (colors.get(usize::from(class)), Some(class) == background || class == SegMap::IGNORED)
        else {
            continue;
        };
        let (x, y) = (index % size.width, index / size.width);
        let neighbours = [
            (x > 0).then(|| at(index - 1)),
            (x + 1 < size.width).then(|| at(index + 1)),
            (y > 0).then(|| at(index - size.width)),
            (y + 1 < size.height).then(|| at(index + size.width)),
        ];
        let edge = neighbours.into_iter().flatten().any(|other| other != Some(class));
        let alpha = if edge { (alpha * 1.8).min(1.0) } else { alpha };
        blend(pixel, Paint::solid(color).at(alpha), 1.0);
    }
    Ok(())
}
