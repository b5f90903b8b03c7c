//! Boxes with their chips, and the window a model looked at.

use zoo_core::{BBox, Detection, Detections, FrameSize, Image};

use super::canvas::{Paint, blend, fill, for_each_pixel, outline};
use super::color::{class_color, edging, text_on};
use super::text::{Line, Weight, fitted};
use super::{Style, line_width};

/// What a line or chip is edged with, on both sides together, in pixels.
const EDGING: f32 = 2.0;
/// White, since no class has it.
const WINDOW: [u8; 3] = [255; 3];

/// Draws each object's box in its class's colour, and a chip with its name and score. The best
/// objects come out on top, and their chips get the best places.
pub fn detections(image: &mut Image, found: &Detections, style: &Style) {
    let size = image.size();
    let shown: Vec<(&Detection, BBox)> = found
        .above(style.min_score)
        .filter_map(|object| Some((object, visible(object.bbox, size)?)))
        .collect();
    let text_height = style.text_height_for(size);
    for (object, area) in shown.iter().rev() {
        frame(image, *area, class_color(object.class_id), line_width(text_height));
    }
    let mut taken = Vec::with_capacity(shown.len());
    for (object, area) in shown {
        let text = match style.scores {
            true => format!("{} {:.2}", object.label, object.score),
            false => object.label.to_string(),
        };
        let chip = Chip::new(&text, text_height, size);
        let place = chip.place(area, size, &taken);
        chip.draw(image, place, class_color(object.class_id));
        taken.push(place);
    }
}

/// Draws one box, with a chip if there is a text for it.
pub fn bbox(image: &mut Image, bbox: BBox, text: Option<&str>, rgb: [u8; 3], style: &Style) {
    let size = image.size();
    let Some(area) = visible(bbox, size) else { return };
    let text_height = style.text_height_for(size);
    frame(image, area, rgb, line_width(text_height));
    if let Some(text) = text {
        let chip = Chip::new(text, text_height, size);
        let place = chip.place(area, size, &[]);
        chip.draw(image, place, rgb);
    }
}

/// Highlights the rectangle that a model looked at: a white frame, and everything outside dimmed.
pub fn window(image: &mut Image, window: BBox, style: &Style) {
    let size = image.size();
    let Some(area) = visible(window, size) else { return };
    let dim = Paint { rgb: [0; 3], alpha: 1.0 - style.outside };
    let (height, width) = (size.height as f32, size.width as f32);
    for_each_pixel(image, (0.0, height), (0.0, width), |x, y, pixel| {
        let inside = (area.x0..area.x1).contains(&x) && (area.y0..area.y1).contains(&y);
        if !inside {
            blend(pixel, dim, 1.0);
        }
    });
    let line = line_width(style.text_height_for(size)) * 1.25;
    let edge = inset(area, line / 2.0);
    outline(image, edge, 0.0, line + EDGING, edging(WINDOW));
    outline(image, edge, 0.0, line, Paint::solid(WINDOW));
}

fn frame(image: &mut Image, area: BBox, rgb: [u8; 3], line: f32) {
    let edge = inset(area, line / 2.0);
    outline(image, edge, line, line + EDGING, edging(rgb));
    outline(image, edge, line, line, Paint::solid(rgb));
}

/// The part of a box that lies in the picture; `None` where nothing does, or a side is NaN.
fn visible(bbox: BBox, size: FrameSize) -> Option<BBox> {
    let (width, height) = (size.width as f32, size.height as f32);
    let edges = [bbox.x0, bbox.y0, bbox.x1, bbox.y1];
    let meets = bbox.x0 < bbox.x1 && bbox.y0 < bbox.y1 && bbox.x1 > 0.0 && bbox.y1 > 0.0;
    if edges.iter().any(|edge| edge.is_nan()) || !meets || bbox.x0 >= width || bbox.y0 >= height {
        return None;
    }
    Some(BBox::new(bbox.x0.max(0.0), bbox.y0.max(0.0), bbox.x1.min(width), bbox.y1.min(height)))
}

/// Moves every side inwards, as far as there is room.
fn inset(area: BBox, by: f32) -> BBox {
    let (dx, dy) = (by.min(area.width() / 2.0), by.min(area.height() / 2.0));
    BBox::new(area.x0 + dx, area.y0 + dy, area.x1 - dx, area.y1 - dy)
}

/// A label: text on a filled rectangle.
struct Chip {
    line: Line,
    width: f32,
    height: f32,
    padding: f32,
}

impl Chip {
    fn new(text: &str, text_height: f32, size: FrameSize) -> Self {
        let padding = (text_height * 0.3).round();
        let line = fitted(text, size.width as f32 - 2.0 * padding, text_height, Weight::Bold);
        let width = (line.width + 2.0 * padding).ceil();
        let height = (line.cap_height + text_height * 0.56).ceil();
        Self { line, width, height, padding }
    }

    /// On top of the box, inside its upper edge, below it, inside its lower edge, each from the left
    /// and from the right: the first of these places that is in the picture and free; where none is,
    /// the one that hides least.
    fn place(&self, area: BBox, size: FrameSize, taken: &[BBox]) -> BBox {
        let (width, height) = (size.width as f32, size.height as f32);
        let tops = [area.y0 - self.height, area.y0, area.y1, area.y1 - self.height];
        let lefts = [area.x0, area.x1 - self.width];
        let places = tops.into_iter().flat_map(|top| lefts.map(|left| (top.round(), left.round())));
        let hidden = |place: &BBox| -> f32 { taken.iter().map(|other| other.intersection(place)).sum() };
        let mut best: Option<(f32, BBox)> = None;
        for (top, left) in places {
            let x0 = left.min(width - self.width).max(0.0);
            let y0 = top.min(height - self.height).max(0.0);
            let place = BBox::new(x0, y0, x0 + self.width, y0 + self.height);
            // A chip pushed back into the picture lies over its own box, which the next place may avoid.
            let pushed = (y0 - top).abs() * self.width;
            let cost = hidden(&place) + pushed;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, place));
            }
            if cost == 0.0 {
                break;
            }
        }
        best.map_or(BBox::new(0.0, 0.0, self.width, self.height), |(_, place)| place)
    }

    fn draw(&self, image: &mut Image, place: BBox, rgb: [u8; 3]) {
        let radius = (self.height * 0.2).round();
        outline(image, place, radius, EDGING, edging(rgb));
        fill(image, place, radius, Paint::solid(rgb));
        let baseline = place.y0 + (self.height + self.line.cap_height) / 2.0;
        self.line.draw(image, place.x0 + self.padding, baseline, text_on(rgb));
    }
}
