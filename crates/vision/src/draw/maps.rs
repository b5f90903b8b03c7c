//! Maps of numbers as pictures: motion, weights, edges.

use zoo_core::{FrameSize, Image};

use crate::Result;

/// Motion as a picture: the hue is the direction, as on a colour wheel (red to the right, then yellow, green, cyan and
/// blue clockwise), and the strength of the colour the length, full at `longest` pixels; white stands still. What is
/// not a number is black.
///
/// `vectors`: (right, down), row by row.
///
/// # Errors
/// If there are fewer or more vectors than pixels.
pub fn flow(size: FrameSize, vectors: impl IntoIterator<Item = [f32; 2]>, longest: f32) -> Result<Image> {
    let color = |[right, down]: [f32; 2]| {
        let length = right.hypot(down);
        if !length.is_finite() {
            return [0; 3];
        }
        let strength = if longest > 0.0 { (length / longest).min(1.0) } else { 0.0 };
        let turn = down.atan2(right).rem_euclid(std::f32::consts::TAU) / std::f32::consts::TAU;
        hue(turn).map(|full| (255.0 * (1.0 - strength * (1.0 - full))).round() as u8)
    };
    Ok(Image::new(size, vectors.into_iter().flat_map(color).collect())?)
}

/// Numbers as grey levels: 0 is black, 1 is white, and so is what lies beyond; what is not a number is red.
///
/// # Errors
/// If there are fewer or more values than pixels.
pub fn levels(size: FrameSize, values: impl IntoIterator<Item = f32>) -> Result<Image> {
    let color = |value: f32| match value.is_nan() {
        true => [200, 0, 0],
        false => [(255.0 * value.clamp(0.0, 1.0)).round() as u8; 3],
    };
    Ok(Image::new(size, values.into_iter().flat_map(color).collect())?)
}

/// A pure colour, red, green and blue of 0 … 1, by its turn round the wheel from red.
fn hue(turn: f32) -> [f32; 3] {
    let channel = |offset: f32| {
        let at = (offset + turn * 6.0).rem_euclid(6.0);
        (at.min(4.0 - at)).clamp(0.0, 1.0)
    };
    [5.0, 3.0, 1.0].map(|offset| 1.0 - channel(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_have_the_wheels_colours_and_rest_is_white() {
        let size = FrameSize::new(1, 7);
        let sixth = std::f32::consts::TAU / 6.0;
        let at = |turns: f32| [4.0 * (turns * sixth).cos(), 4.0 * (turns * sixth).sin()];
        let vectors = [at(0.0), at(1.0), at(2.0), at(3.0), at(4.0), [0.0, 0.0], [f32::NAN, 1.0]];
        let picture = flow(size, vectors, 4.0).unwrap();
        let pixels: Vec<&[u8]> = picture.pixels().chunks_exact(3).collect();
        let wheel: [&[u8]; 7] = [
            &[255, 0, 0],
            &[255, 255, 0],
            &[0, 255, 0],
            &[0, 255, 255],
            &[0, 0, 255],
            &[255, 255, 255],
            &[0, 0, 0],
        ];
        for (got, want) in pixels.iter().zip(wheel) {
            assert!(got.iter().zip(want).all(|(a, b)| a.abs_diff(*b) <= 1), "{got:?}, expected {want:?}");
        }
        let half = flow(FrameSize::new(1, 1), [[2.0, 0.0]], 4.0).unwrap();
        assert_eq!(half.pixels(), [255, 128, 128]);
        assert!(flow(size, [[0.0; 2]], 1.0).is_err());
    }

    #[test]
    fn levels_are_cut_at_black_and_white() {
        let picture = levels(FrameSize::new(1, 5), [-1.0, 0.0, 0.5, 7.0, f32::NAN]).unwrap();
        assert_eq!(picture.pixels(), [0, 0, 0, 0, 0, 0, 128, 128, 128, 255, 255, 255, 200, 0, 0]);
    }
}
