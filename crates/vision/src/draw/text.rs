//! Antialiased type: Noto Sans, from the crate `notosans` (SIL Open Font License).

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use zoo_core::Image;

use super::canvas::{Paint, blend};

// A font that does not parse would leave pictures without type; a test sees that these do.
static REGULAR: LazyLock<Option<FontRef<'static>>> =
    LazyLock::new(|| FontRef::try_from_slice(notosans::REGULAR_TTF).ok());
static BOLD: LazyLock<Option<FontRef<'static>>> =
    LazyLock::new(|| FontRef::try_from_slice(notosans::BOLD_TTF).ok());

/// The weights of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// One line of text, laid out.
pub(super) struct Line {
    font: Option<&'static FontRef<'static>>,
    glyphs: Vec<Glyph>,
    /// From the first glyph's origin to behind the last.
    pub width: f32,
    /// From the top of capital letters to the baseline: what looks like the height of a line.
    pub cap_height: f32,
}

impl Line {
    /// Lays out `text` with glyphs whose line would be `height` pixels high.
    pub fn new(text: &str, height: f32, weight: Weight) -> Self {
        let font = match weight {
            Weight::Regular => REGULAR.as_ref(),
            Weight::Bold => BOLD.as_ref(),
        };
        let mut line = Self { font, glyphs: Vec::new(), width: 0.0, cap_height: 0.0 };
        let Some(font) = font else { return line };
        let scaled = font.as_scaled(PxScale::from(height));
        let mut previous = None;
        for letter in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            let mut glyph = scaled.scaled_glyph(letter);
            if let Some(previous) = previous.replace(glyph.id) {
                line.width += scaled.kern(previous, glyph.id);
            }
            glyph.position = point(line.width, 0.0);
            line.width += scaled.h_advance(glyph.id);
            line.glyphs.push(glyph);
        }
        let capital = scaled.outline_glyph(scaled.scaled_glyph('H'));
        line.cap_height = capital.map_or(0.0, |glyph| -glyph.px_bounds().min.y);
        line
    }

    /// Draws the line with its first origin at `x` and its baseline at `y`.
    pub fn draw(&self, image: &mut Image, x: f32, y: f32, rgb: [u8; 3]) {
        let Some(font) = self.font else { return };
        let (width, height) = (image.width() as i64, image.height() as i64);
        // A whole pixel for the baseline keeps the letters' feet sharp.
        let (x, y) = (x.round(), y.round());
        for glyph in &self.glyphs {
            let Some(outline) = font.outline_glyph(glyph.clone()) else { continue };
            let corner = outline.px_bounds().min;
            let (left, top) = ((corner.x + x) as i64, (corner.y + y) as i64);
            let pixels = image.pixels_mut();
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (left.saturating_add(dx.into()), top.saturating_add(dy.into()));
                if (0..width).contains(&px) && (0..height).contains(&py) {
                    let at = (3 * (py * width + px)) as usize;
                    if let Some(pixel) = pixels.get_mut(at..at + 3) {
                        blend(pixel, Paint::solid(rgb), coverage);
                    }
                }
            });
        }
    }
}

/// `text` laid out in at most `width` pixels, with an ellipsis where it had to be cut.
pub(super) fn fitted(text: &str, width: f32, height: f32, weight: Weight) -> Line {
    let whole = Line::new(text, height, weight);
    if whole.width <= width {
        return whole;
    }
    let letters: Vec<char> = text.chars().collect();
    let cut = |count: usize| {
        let start: String = letters.iter().take(count).collect();
        Line::new(&format!("{}…", start.trim_end()), height, weight)
    };
    let counts: Vec<usize> = (0..letters.len()).collect();
    cut(counts.partition_point(|&count| cut(count).width <= width).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use zoo_core::FrameSize;

    use super::*;

    #[test]
    fn both_fonts_parse_and_hold_what_captions_use() {
        for font in [&REGULAR, &BOLD] {
            let font = font.as_ref().unwrap();
            for letter in "Az09 ·×→…é%=".chars() {
                assert_ne!(font.glyph_id(letter).0, 0, "{letter}");
            }
        }
    }

    #[test]
    fn text_is_as_wide_as_it_says_and_darkens_its_place() {
        let line = Line::new("person 0.93", 20.0, Weight::Regular);
        assert!((80.0..120.0).contains(&line.width), "{}", line.width);
        assert!((9.0..15.0).contains(&line.cap_height), "{}", line.cap_height);
        let mut image = Image::filled(FrameSize::new(40, 140), [255; 3]).unwrap();
        line.draw(&mut image, 10.0, 30.0, [0; 3]);
        let inked = |x: usize| (0..40).any(|y| image.get(y, x).unwrap()[0] < 128);
        assert!((10..10 + line.width as usize).any(inked));
        assert!(!(0..9).any(inked) && !(12 + line.width as usize..140).any(inked));
    }

    #[test]
    fn long_text_is_cut_and_text_outside_is_not_drawn() {
        let line = fitted("a very long caption that does not fit", 90.0, 16.0, Weight::Bold);
        assert!(line.width <= 90.0 && line.width > 60.0, "{}", line.width);
        assert!(fitted("long", 0.0, 16.0, Weight::Bold).glyphs.len() <= 1);
        let mut image = Image::filled(FrameSize::new(10, 10), [7; 3]).unwrap();
        for (x, y) in [(-500.0, 5.0), (500.0, 5.0), (5.0, -1e9), (f32::INFINITY, f32::NAN)] {
            line.draw(&mut image, x, y, [255; 3]);
        }
    }
}
