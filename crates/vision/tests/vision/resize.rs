//! Resizing against four frameworks' own output, and its parts against the whole.

use std::collections::BTreeSet;

use safetensors::SafeTensors;
use zoo_core::{FrameSize, Image};
use zoo_vision::{Region, Resize, Resizer, resize};

const CONVENTIONS: [(&str, Resize); 6] = [
    ("pil", Resize::Pil),
    ("pil_bicubic", Resize::PilBicubic),
    ("nearest", Resize::Nearest),
    ("opencv", Resize::OpenCv),
    ("half_pixel", Resize::HalfPixel),
    ("tensorflow1", Resize::TensorFlow1),
];

fn noise(height: usize, width: usize) -> Image {
    let mut state = 1u32;
    let pixels = (0..height * width * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Image::new(FrameSize::new(height, width), pixels.collect()).unwrap()
}

fn size_of(shape: &[usize]) -> FrameSize {
    FrameSize::new(shape[0], shape[1])
}

#[test]
fn every_convention_gives_what_its_framework_gives() {
    let bytes = include_bytes!("../data/resize.safetensors");
    let file = SafeTensors::deserialize(bytes).unwrap();
    let names = file.names();
    let cases: BTreeSet<&str> = names.iter().filter_map(|name| name.split('.').next()).collect();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let input = file.tensor(&format!("{case}.input")).unwrap();
        let image = Image::new(size_of(input.shape()), input.data().to_vec()).unwrap();
        for (name, convention) in CONVENTIONS {
            let stored = file.tensor(&format!("{case}.{name}")).unwrap();
            let to = size_of(stored.shape());
            let resizer = Resizer::new(image.size(), to, convention).unwrap();
            let planes = resizer.planes(&image).unwrap();
            let (expected, tolerance): (Vec<f32>, f32) = match stored.dtype() {
                safetensors::Dtype::U8 => (stored.data().iter().map(|&v| f32::from(v)).collect(), 0.0),
                _ => {
                    let values = stored.data().chunks_exact(4);
                    let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    // Two units in the last place of 255: torch adds the four products in another order.
                    (values.collect(), if convention == Resize::HalfPixel { 3.1e-5 } else { 0.0 })
                }
            };
            for (i, expected) in expected.into_iter().enumerate() {
                let got = planes[i % 3 * to.area() + i / 3];
                assert!(
                    (got - expected).abs() <= tolerance,
                    "{case} to {to}, {name}, value {i}: expected {expected}, got {got}"
                );
            }
        }
    }
}

/// From a row 0, 100 to five pixels, by hand from the definitions.
#[test]
fn a_step_edge_tells_the_conventions_apart() {
    let image = Image::new(FrameSize::new(1, 2), vec![0, 0, 0, 100, 100, 100]).unwrap();
    for (convention, expected) in [
        (Resize::Pil, [0.0, 10.0, 50.0, 90.0, 100.0]),
        (Resize::HalfPixel, [0.0, 10.0, 50.0, 90.0, 100.0]),
        (Resize::AlignedCorners, [0.0, 25.0, 50.0, 75.0, 100.0]),
        (Resize::TensorFlow1, [0.0, 40.0, 80.0, 100.0, 100.0]),
        (Resize::OpenCv, [0.0, 10.0, 50.0, 90.0, 100.0]),
        (Resize::Nearest, [0.0, 0.0, 100.0, 100.0, 100.0]),
    ] {
        let resizer = Resizer::new(image.size(), FrameSize::new(1, 5), convention).unwrap();
        let row = &resizer.planes(&image).unwrap()[..5];
        for (got, expected) in row.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-4, "{convention:?}: {row:?}, expected {expected}");
        }
    }
    // Shrinking 0 0 0 0 90 90 90 90 to two: only Pillow's filter sees more than two pixels.
    let edge: Vec<u8> = [0u8, 0, 0, 0, 90, 90, 90, 90].into_iter().flat_map(|v| [v; 3]).collect();
    let image = Image::new(FrameSize::new(1, 8), edge).unwrap();
    for (convention, expected) in [
        (Resize::Pil, [13.0, 77.0]),
        (Resize::HalfPixel, [0.0, 90.0]),
        (Resize::AlignedCorners, [0.0, 90.0]),
        (Resize::TensorFlow1, [0.0, 90.0]),
        (Resize::OpenCv, [0.0, 90.0]),
        (Resize::Nearest, [0.0, 90.0]),
    ] {
        let resizer = Resizer::new(image.size(), FrameSize::new(1, 2), convention).unwrap();
        assert_eq!(resizer.planes(&image).unwrap()[..2], expected, "{convention:?}");
    }
}

#[test]
fn every_pair_of_conventions_differs_on_a_photograph_like_picture() {
    let image = noise(61, 47);
    let results = CONVENTIONS.map(|(_, convention)| {
        Resizer::new(image.size(), FrameSize::new(40, 30), convention).unwrap().planes(&image).unwrap()
    });
    for (i, (a, _)) in CONVENTIONS.iter().enumerate() {
        for (j, (b, _)) in CONVENTIONS.iter().enumerate().skip(i + 1) {
            let pairs = results[i].iter().zip(&results[j]);
            let largest = pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(largest > 0.05, "{a} and {b} differ by {largest} at most");
        }
    }
}

#[test]
fn a_region_is_bit_equal_to_the_whole_cropped() {
    let image = noise(90, 70);
    for to in [FrameSize::new(40, 64), FrameSize::new(128, 96)] {
        for (name, convention) in CONVENTIONS {
            let resizer = Resizer::new(image.size(), to, convention).unwrap();
            let whole = resizer.planes(&image).unwrap();
            for region in [
                Region::all(to),
                Region::window(0, 0, FrameSize::new(8, 16)),
                Region::window(17, 30, FrameSize::new(23, 34)),
                Region::window(39, 63, FrameSize::new(1, 1)),
                Region::all(to).every(4),
                Region::window(5, 7, FrameSize::new(30, 50)).every(3),
            ] {
                let got = resizer.region(&image, &region).unwrap();
                let size = region.sampled();
                assert_eq!(got.len(), 3 * size.area());
                for (i, value) in got.iter().enumerate() {
                    let (c, y, x) = (i / size.area(), i / size.width % size.height, i % size.width);
                    let at = (region.top + y * region.step) * to.width + region.left + x * region.step;
                    let expected = whole[c * to.area() + at];
                    assert_eq!(value.to_bits(), expected.to_bits(), "{name}, {region:?}, ({c}, {y}, {x})");
                }
            }
        }
    }
}

#[test]
fn the_same_size_changes_nothing() {
    let image = noise(13, 9);
    for (name, convention) in CONVENTIONS {
        assert_eq!(resize(&image, image.size(), convention).unwrap(), image, "{name}");
    }
}

#[test]
fn wrong_sizes_are_named() {
    let resizer = Resizer::new(FrameSize::new(8, 6), FrameSize::new(4, 4), Resize::Pil).unwrap();
    assert_eq!(
        resizer.planes(&noise(6, 8)).unwrap_err().to_string(),
        "this resizer is for images of 8×6, got one of 6×8 (rows × columns); make another with Resizer::new"
    );
    let image = noise(8, 6);
    for region in [
        Region::window(3, 0, FrameSize::new(2, 1)),
        Region::window(0, usize::MAX, FrameSize::new(1, 1)),
        Region::window(0, 0, FrameSize::new(0, 4)),
        Region::all(FrameSize::new(4, 4)).every(0),
    ] {
        let message = resizer.region(&image, &region).unwrap_err().to_string();
        assert!(message.contains("does not lie in the resized picture of 4×4"), "{region:?}: {message}");
    }
    let empty = Resizer::new(FrameSize::new(8, 0), FrameSize::new(4, 4), Resize::Pil).unwrap_err();
    assert_eq!(empty.to_string(), "an image needs at least one row and one column, got 8×0 (rows × columns)");
}
