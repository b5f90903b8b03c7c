//! Anchors: boxes of a few shapes at every cell of a map.

/// The anchors of a level's first cell as the Caffe2-based detectors draw them (Lin et al., "Focal Loss for Dense Object
/// Detection", ICCV 2017, in maskrcnn-benchmark's form), corners as pixels that belong to the box.
///
/// The square of side `stride` at the origin becomes one box for each of `ratios` (height over width) with sides rounded
/// to whole pixels, halves to even; these grow around their centres by `size / stride` times 2^(i/octaves) for i below
/// `octaves`. Order: ratio by ratio, octaves within.
pub fn detectron_anchors(stride: usize, size: f64, octaves: usize, ratios: &[f64]) -> Vec<[f32; 4]> {
    let side = stride as f64;
    let centre = (side - 1.0) / 2.0;
    let mut anchors = Vec::with_capacity(ratios.len() * octaves);
    for ratio in ratios {
        let width = (side * side / ratio).sqrt().round_ties_even();
        let height = (width * ratio).round_ties_even();
        for octave in 0..octaves {
            let scale = 2f64.powf(octave as f64 / octaves as f64) * size / side;
            let (dx, dy) = ((width * scale - 1.0) / 2.0, (height * scale - 1.0) / 2.0);
            anchors.push([centre - dx, centre - dy, centre + dx, centre + dy].map(|v| v as f32));
        }
    }
    anchors
}

/// The anchors of a level's first cell as torchvision's `AnchorGenerator` draws them: boxes around the origin of sides
/// `size` · √ratio (height) and `size` / √ratio (width), corners rounded to whole pixels, halves to even. Order: ratio
/// by ratio, sizes within.
pub fn torchvision_anchors(sizes: &[f32], ratios: &[f32]) -> Vec<[f32; 4]> {
    let mut anchors = Vec::with_capacity(sizes.len() * ratios.len());
    for ratio in ratios {
        let tall = ratio.sqrt();
        let wide = 1.0 / tall;
        for size in sizes {
            let (x, y) = ((wide * size / 2.0).round_ties_even(), (tall * size / 2.0).round_ties_even());
            anchors.push([-x, -y, x, y]);
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATIOS: [f64; 3] = [0.5, 1.0, 2.0];

    /// Sides of the base boxes as the paper's code rounds them, by stride.
    #[test]
    fn sides_are_rounded_to_even() {
        for (stride, sides) in [
            (8, [(11.0, 6.0), (8.0, 8.0), (6.0, 12.0)]),
            (16, [(23.0, 12.0), (16.0, 16.0), (11.0, 22.0)]),
            (32, [(45.0, 22.0), (32.0, 32.0), (23.0, 46.0)]),
            (64, [(91.0, 46.0), (64.0, 64.0), (45.0, 90.0)]),
            (128, [(181.0, 90.0), (128.0, 128.0), (91.0, 182.0)]),
        ] {
            let anchors = detectron_anchors(stride, 4.0 * stride as f64, 3, &RATIOS);
            assert_eq!(anchors.len(), 9);
            for (of_ratio, (width, height)) in anchors.chunks(3).zip(sides) {
                let [x0, y0, x1, y1] = of_ratio[0];
                assert_eq!((x1 - x0 + 1.0, y1 - y0 + 1.0), (4.0 * width, 4.0 * height), "stride {stride}");
                let [x0, _, x1, _] = of_ratio[1];
                assert!((x1 - x0 + 1.0 - width * 4.0 * 2f32.powf(1.0 / 3.0)).abs() < 1e-3 * width);
            }
        }
        assert_eq!(detectron_anchors(8, 32.0, 3, &RATIOS)[0], [-18.0, -8.0, 25.0, 15.0]);
    }

    /// Half sides of [32, 40, 50] · √½, 1, √2, rounded.
    #[test]
    fn torchvisions_are_around_the_origin() {
        let anchors = torchvision_anchors(&[32.0, 40.0, 50.0], &[0.5, 1.0, 2.0]);
        let halves: Vec<(f32, f32)> = anchors.iter().map(|&[_, _, x, y]| (x, y)).collect();
        let expected = [
            (23., 11.),
            (28., 14.),
            (35., 18.),
            (16., 16.),
            (20., 20.),
            (25., 25.),
            (11., 23.),
            (14., 28.),
            (18., 35.),
        ];
        assert_eq!(halves, expected);
        assert!(anchors.iter().all(|[x0, y0, x1, y1]| (-x0, -y0) == (*x1, *y1)));
    }
}
