//! The palette of classes.

use super::canvas::Paint;

/// Thirty-six colours in three rounds of twelve hues, chosen in OKLCh: neighbours in the list lie far
/// apart in hue, each round is as saturated as the screen allows, the second is lighter than the first
/// and the third darker.
const PALETTE: [[u8; 3]; 36] = [
    [255, 56, 72],
    [42, 156, 255],
    [2, 221, 62],
    [249, 199, 24],
    [219, 60, 254],
    [12, 215, 224],
    [254, 134, 15],
    [127, 106, 252],
    [187, 220, 25],
    [254, 56, 173],
    [9, 220, 184],
    [18, 186, 244],
    [254, 131, 90],
    [148, 183, 254],
    [21, 254, 166],
    [244, 227, 0],
    [254, 115, 232],
    [159, 236, 255],
    [253, 188, 112],
    [180, 137, 255],
    [149, 255, 47],
    [254, 145, 173],
    [13, 254, 243],
    [155, 209, 254],
    [172, 84, 4],
    [89, 71, 253],
    [18, 163, 133],
    [153, 174, 1],
    [184, 8, 126],
    [21, 160, 206],
    [163, 120, 13],
    [138, 8, 184],
    [13, 190, 78],
    [206, 4, 60],
    [17, 165, 176],
    [15, 121, 253],
];

/// The colour of a class whose data set names none: the same everywhere, one of 36.
pub const fn class_color(class_id: usize) -> [u8; 3] {
    // 0 is most often the background, so that the first colour goes to class 1.
    PALETTE[class_id.wrapping_add(PALETTE.len() - 1) % PALETTE.len()]
}

/// WCAG's relative luminance, 0..=1.
fn luminance(rgb: [u8; 3]) -> f32 {
    let [r, g, b] = rgb.map(|value| (f32::from(value) / 255.0).powf(2.2));
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

/// What edges a line: light beside the palette's dark colours, which get lost in pictures that are as dark, and
/// dark beside all others.
pub(super) fn edging(rgb: [u8; 3]) -> Paint {
    const DARK: f32 = 0.25;
    if luminance(rgb) < DARK {
        Paint { rgb: [255; 3], alpha: 0.8 }
    } else {
        Paint { rgb: [0; 3], alpha: 0.5 }
    }
}

/// Near black or white, whichever reads better on a background.
pub(super) fn text_on(background: [u8; 3]) -> [u8; 3] {
    const INK: [u8; 3] = [16, 18, 22];
    let own = luminance(background) + 0.05;
    if 1.05 / own > own / (luminance(INK) + 0.05) { [255; 3] } else { INK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_distinct_and_stable() {
        for a in 0..36 {
            for b in 0..a {
                let apart: i32 = class_color(a)
                    .iter()
                    .zip(class_color(b))
                    .map(|(&x, y)| (i32::from(x) - i32::from(y)).pow(2))
                    .sum();
                assert!(apart > 700, "classes {a} and {b} differ by {apart}");
            }
        }
        assert_eq!(class_color(1), [255, 56, 72]);
        assert_eq!(class_color(37), class_color(1));
        class_color(usize::MAX);
    }

    #[test]
    fn text_contrasts_with_every_class_colour() {
        assert_eq!(text_on([255, 255, 0]), [16, 18, 22]);
        assert_eq!(text_on([0, 0, 120]), [255; 3]);
        let contrast = |a: [u8; 3], b: [u8; 3]| {
            let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
            a.max(b) / a.min(b)
        };
        for class in 0..36 {
            let color = class_color(class);
            let (text, line) = (contrast(color, text_on(color)), contrast(color, edging(color).rgb));
            assert!(text >= 4.0, "class {class}: text contrast {text}");
            assert!(line >= 3.0, "class {class}: edging contrast {line}");
        }
    }
}
