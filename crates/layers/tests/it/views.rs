//! Several looks at one image: sizes, mirrors, tiles.

use std::cell::Cell;

use candle_core::{Device, Result, Tensor};
use zoo_kernels::{Interpolation, resize2d};
use zoo_layers::{MergeViews, Tiles, pyramid_scores};

fn ramp(height: usize, width: usize) -> Tensor {
    let values = Tensor::arange(0f32, (3 * height * width) as f32, &Device::Cpu).unwrap();
    (values.sin().unwrap() * 3.0).unwrap().reshape((1, 3, height, width)).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(name: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{name}");
    for (i, (a, b)) in values(got).into_iter().zip(values(want)).enumerate() {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{name}, value {i}: {a}, expected {b}");
    }
}

/// A net that sees where it is: the column is part of its answer.
fn leaning(xs: &Tensor) -> Result<Tensor> {
    let width = xs.dim(3)?;
    let slope = Tensor::arange(0f32, width as f32, &Device::Cpu)?.reshape((1, 1, 1, width))?;
    xs.narrow(1, 0, 2)?.broadcast_add(&slope)
}

#[test]
fn later_sizes_weigh_more_in_the_running_mean() {
    let sizes = [ramp(6, 8), ramp(3, 4), ramp(12, 10)];
    let at_first = |xs: &Tensor| resize2d(&leaning(xs).unwrap(), (6, 8), Interpolation::Bilinear).unwrap();
    let [a, b, c] = [&sizes[0], &sizes[1], &sizes[2]].map(at_first);
    let want = ((((&a + &b).unwrap() / 2.0).unwrap() + &c).unwrap() / 2.0).unwrap();
    let got = pyramid_scores(&sizes, false, MergeViews::RunningMean, leaning).unwrap();
    assert_near("mean", &got, &want);
    let got = pyramid_scores(&sizes, false, MergeViews::Max, leaning).unwrap();
    assert_near("max", &got, &a.maximum(&b).unwrap().maximum(&c).unwrap());
}

#[test]
fn a_mirrored_look_comes_back_mirrored_and_the_larger_score_counts() {
    let xs = ramp(4, 5);
    let mirrored = leaning(&xs.flip(&[3]).unwrap()).unwrap().flip(&[3]).unwrap();
    let want = leaning(&xs).unwrap().maximum(&mirrored).unwrap();
    let got = pyramid_scores(std::slice::from_ref(&xs), true, MergeViews::default(), leaning).unwrap();
    assert_near("mirrored", &got, &want);
    // Nets may give maps whose channels lie last.
    let last = |xs: &Tensor| leaning(xs)?.permute((0, 2, 3, 1))?.contiguous()?.permute((0, 3, 1, 2));
    let got = pyramid_scores(std::slice::from_ref(&xs), true, MergeViews::default(), last).unwrap();
    assert_near("channels last", &got, &want);
    assert!(pyramid_scores(&[], true, MergeViews::default(), leaning).is_err());
}

#[test]
fn tiles_cover_every_pixel_and_overlap_as_asked() {
    for (length, tile, overlap, starts) in [
        (10, 4, 0, &[0, 4, 6][..]),
        (10, 4, 1, &[0, 3, 6]),
        (10, 4, 3, &[0, 1, 2, 3, 4, 5, 6]),
        (10, 10, 2, &[0]),
        (3, 8, 2, &[0]),
    ] {
        let tiles = Tiles { size: (tile, 1), overlap: (overlap, 0) };
        let (rows, _) = tiles.places(length, 1).unwrap();
        assert_eq!(rows, starts, "{length} in tiles of {tile} sharing {overlap}");
    }
    let error = Tiles { size: (4, 4), overlap: (4, 0) }.places(9, 9).unwrap_err().to_string();
    assert!(
        error.starts_with("tiles: expected tiles larger than their overlap, got 4 pixels that share 4"),
        "{error}"
    );
}

#[test]
fn what_a_net_says_of_pixels_alone_does_not_depend_on_tiles() {
    let pixelwise = |xs: &Tensor| xs.narrow(1, 0, 2)? * 2.0;
    for (height, width) in [(9, 14), (4, 6), (3, 5), (16, 7)] {
        let xs = ramp(height, width);
        let tiles = Tiles { size: (4, 6), overlap: (1, 3) };
        let got = tiles.scores(&xs, pixelwise).unwrap();
        assert_near(&format!("{height}×{width}"), &got, &pixelwise(&xs).unwrap());
    }
}

#[test]
fn tiles_that_share_pixels_are_averaged() {
    // A tile answers with its number; two tiles of 4 columns on 6 share the middle two.
    let calls = Cell::new(0);
    let numbered = |xs: &Tensor| {
        calls.set(calls.get() + 1);
        let (b, _, h, w) = xs.dims4()?;
        Tensor::full(calls.get() as f32, (b, 1, h, w), &Device::Cpu)
    };
    let tiles = Tiles { size: (2, 4), overlap: (0, 2) };
    let got = tiles.scores(&ramp(2, 6), numbered).unwrap();
    assert_eq!(values(&got), [1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 1.0, 1.0, 1.5, 1.5, 2.0, 2.0]);
    assert_eq!(calls.get(), 2);
}

#[test]
fn scores_at_a_stride_are_brought_to_the_tile() {
    let halved = |xs: &Tensor| resize2d(&xs.narrow(1, 0, 1)?, (2, 3), Interpolation::Nearest);
    let xs = ramp(4, 6);
    let got = Tiles { size: (4, 6), overlap: (0, 0) }.scores(&xs, halved).unwrap();
    let want = resize2d(&halved(&xs).unwrap(), (4, 6), Interpolation::Bilinear).unwrap();
    assert_near("stride 2", &got, &want);
}
