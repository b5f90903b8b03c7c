//! Antialiased shapes on an RGB image: every shape is a coverage 0..=1 per pixel, blended in place.

use zoo_core::{BBox, Image};

/// A colour and how much of it is laid over what is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    pub rgb: [u8; 3],
    pub alpha: f32,
}

impl Paint {
    pub fn solid(rgb: [u8; 3]) -> Self {
        Self { rgb, alpha: 1.0 }
    }

    pub fn at(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }
}

/// Mixes a paint into one pixel.
pub(super) fn blend(pixel: &mut [u8], paint: Paint, coverage: f32) {
    let weight = (paint.alpha * coverage).clamp(0.0, 1.0);
    if weight.is_nan() {
        return;
    }
    for (value, over) in pixel.iter_mut().zip(paint.rgb) {
        let mixed = f32::from(*value) * (1.0 - weight) + f32::from(over) * weight;
        *value = mixed.round() as u8;
    }
}

/// Calls `paint` with each pixel of a range of rows and columns, as far as they exist.
pub(super) fn for_each_pixel(
    image: &mut Image,
    (top, bottom): (f32, f32),
    (left, right): (f32, f32),
    mut paint: impl FnMut(f32, f32, &mut [u8]),
) {
    let width = image.width();
    // `as usize` takes NaN and negative numbers to 0 and saturates above.
    let clip = |from: f32, to: f32, all: usize| {
        let end = (to.ceil().max(0.0) as usize).min(all);
        (from.floor().max(0.0) as usize).min(end)..end
    };
    let rows = clip(top, bottom, image.height());
    let columns = clip(left, right, width);
    let lines = image.pixels_mut().chunks_exact_mut(width * 3).enumerate();
    for (y, line) in lines.skip(rows.start).take(rows.len()) {
        let pixels = line.chunks_exact_mut(3).enumerate();
        for (x, pixel) in pixels.skip(columns.start).take(columns.len()) {
            paint(x as f32 + 0.5, y as f32 + 0.5, pixel);
        }
    }
}

/// Fills a rectangle with round corners.
pub(super) fn fill(image: &mut Image, area: BBox, radius: f32, paint: Paint) {
    for_each_pixel(image, (area.y0, area.y1), (area.x0, area.x1), |x, y, pixel| {
        blend(pixel, paint, (0.5 - distance(area, radius, x, y)).clamp(0.0, 1.0));
    });
}

/// Draws a line of `width` along the edge of a rectangle with round corners, half of it outside.
pub(super) fn outline(image: &mut Image, area: BBox, radius: f32, width: f32, paint: Paint) {
    let half = width / 2.0;
    // Corners need the distance; so does nothing deeper inside than this.
    let band = half + radius + 1.0;
    let outer =
        BBox::new(area.x0 - half - 1.0, area.y0 - half - 1.0, area.x1 + half + 1.0, area.y1 + half + 1.0);
    let mut stroke = |rows: (f32, f32), columns: (f32, f32)| {
        for_each_pixel(image, rows, columns, |x, y, pixel| {
            blend(pixel, paint, (half + 0.5 - distance(area, radius, x, y).abs()).clamp(0.0, 1.0));
        });
    };
    // Four strips that share no pixel: blending twice would show.
    let upper = (area.y0 + band).ceil().min(outer.y1);
    let lower = (area.y1 - band).floor().max(upper);
    let inner_left = (area.x0 + band).ceil().min(outer.x1);
    let inner_right = (area.x1 - band).floor().max(inner_left);
    stroke((outer.y0, upper), (outer.x0, outer.x1));
    stroke((lower, outer.y1), (outer.x0, outer.x1));
    stroke((upper, lower), (outer.x0, inner_left));
    stroke((upper, lower), (inner_right, outer.x1));
}

/// Signed distance to the edge of a rectangle with round corners, negative inside.
fn distance(area: BBox, radius: f32, x: f32, y: f32) -> f32 {
    let radius = radius.min(area.width() / 2.0).min(area.height() / 2.0);
    let beyond = |at: f32, low: f32, high: f32| (at - (low + high) / 2.0).abs() - (high - low) / 2.0 + radius;
    let (dx, dy) = (beyond(x, area.x0, area.x1), beyond(y, area.y0, area.y1));
    dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius
}

#[cfg(test)]
mod tests {
    use zoo_core::FrameSize;

    use super::*;

    fn black() -> Image {
        Image::filled(FrameSize::new(20, 20), [0; 3]).unwrap()
    }

    #[test]
    fn a_filled_rectangle_covers_by_area() {
        let mut image = black();
        fill(&mut image, BBox::new(2.0, 3.0, 10.5, 9.0), 0.0, Paint::solid([200; 3]));
        assert_eq!(image.get(3, 2), Some([200; 3]));
        assert_eq!(image.get(8, 10), Some([100; 3]), "half a pixel");
        assert_eq!(image.get(8, 11), Some([0; 3]));
        assert_eq!(image.get(2, 5), Some([0; 3]));
    }

    #[test]
    fn an_outline_touches_no_pixel_twice_and_leaves_the_inside_alone() {
        for (name, area) in [
            ("large", BBox::new(3.0, 3.0, 17.0, 17.0)),
            ("small", BBox::new(8.0, 8.0, 11.0, 10.0)),
            ("fractional", BBox::new(3.4, 2.7, 15.2, 16.9)),
        ] {
            let mut image = black();
            outline(&mut image, area, 1.0, 2.0, Paint { rgb: [255; 3], alpha: 0.5 });
            let brightest = image.pixels().iter().max();
            assert_eq!(brightest, Some(&128), "{name}");
        }
        let mut image = black();
        outline(&mut image, BBox::new(3.0, 3.0, 17.0, 17.0), 0.0, 2.0, Paint::solid([255; 3]));
        assert_eq!(image.get(10, 2), Some([255; 3]));
        assert_eq!(image.get(10, 3), Some([255; 3]));
        assert_eq!(image.get(10, 10), Some([0; 3]));
        assert_eq!(image.get(10, 5), Some([0; 3]));
    }
}
