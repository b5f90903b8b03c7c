//! Lateral connections against the operations that they are made of.

use candle_core::{DType, Tensor};
use zoo_kernels::{
    Activation, ConvOptions, Interpolation, LateralNorm, PackedConv, Pads, Region, channel_affine, lateral,
    resize2d,
};

use crate::packed::on_each_isa;
use crate::reference::layouts;
use crate::support::{largest_difference, noise};

fn single(seed: u64, shape: &[usize]) -> Tensor {
    noise(seed, shape, DType::F32)
}

fn pointwise(inputs: usize, outputs: usize, act: Activation) -> PackedConv {
    let weight = (single(1, &[outputs, inputs, 1, 1]) * (2.0 / (inputs as f64).sqrt())).unwrap();
    PackedConv::new(&weight, Some(&single(2, &[outputs])), ConvOptions::default(), act).unwrap()
}

#[test]
fn it_equals_norm_projection_and_resizing() {
    for (seed, ([b, c, h, w], outputs, size)) in [
        ([1, 64, 12, 100], 128, (6, 50)),
        ([2, 7, 9, 13], 19, (5, 7)),
        ([1, 33, 5, 49], 130, (3, 70)),
        ([2, 16, 4, 4], 16, (4, 4)),
        ([1, 8, 3, 1], 5, (1, 1)),
        // Weights that do not stay in the cache.
        ([1, 300, 6, 60], 260, (3, 30)),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = 10 * seed as u64 + 3;
        let (fine, coarse) = (single(seed, &[b, c, h, w]), single(seed + 1, &[b, outputs, size.0, size.1]));
        let (scale, shift) = (single(seed + 2, &[c]), single(seed + 3, &[c]));
        for (interpolation, act, inner) in [
            (Interpolation::Bilinear, Activation::None, Some(Activation::Relu)),
            (Interpolation::Bilinear, Activation::Relu, None),
            (Interpolation::BilinearCorners, Activation::Silu, Some(Activation::Silu)),
            (Interpolation::Nearest, Activation::Relu6, Some(Activation::None)),
            (Interpolation::Bicubic, Activation::None, None),
        ] {
            let resized = resize2d(&coarse, (h, w), interpolation).unwrap();
            on_each_isa(|isa| {
                let conv = pointwise(c, outputs, act);
                let entered = match inner {
                    Some(act) => channel_affine(&fine, Some(&scale), &shift, None, act).unwrap(),
                    None => fine.clone(),
                };
                let region = Region::whole(&entered).unwrap();
                let want = conv.forward(&region, Pads::default(), Some(&resized)).unwrap();
                let norm = inner.map(|act| LateralNorm { scale: &scale, shift: &shift, act });
                for (fine, coarse) in layouts(&fine).iter().zip(layouts(&coarse).iter().rev()) {
                    let got = lateral(fine, norm, &conv, coarse, interpolation).unwrap();
                    let d = largest_difference(&got, &want);
                    assert!(d < 1e-5, "{:?} {interpolation:?} {act:?} {inner:?} on {isa}: {d}", fine.dims());
                    assert!(got.permute((0, 2, 3, 1)).unwrap().is_contiguous());
                }
            });
        }
    }
}

#[test]
fn it_refuses_what_does_not_fit() {
    let conv = pointwise(8, 12, Activation::None);
    let (fine, coarse) = (single(1, &[2, 8, 4, 4]), single(2, &[2, 12, 2, 2]));
    let error = |fine: &Tensor, conv: &PackedConv, coarse: &Tensor, vector: usize| {
        let vector = single(3, &[vector]);
        let norm = LateralNorm { scale: &vector, shift: &vector, act: Activation::None };
        lateral(fine, Some(norm), conv, coarse, Interpolation::Bilinear).unwrap_err().to_string()
    };
    let wide = PackedConv::new(&single(1, &[12, 8, 3, 3]), None, ConvOptions::default(), Activation::None);
    for (error, expected) in [
        (
            error(&single(1, &[2, 7, 4, 4]), &conv, &coarse, 7),
            "a 1×1 convolution over 7 channels, got one over 8",
        ),
        (error(&fine, &wide.unwrap(), &coarse, 8), "or of another kind"),
        (
            error(&fine, &conv, &single(2, &[2, 11, 2, 2]), 8),
            "a coarser map of [2, 12, h, w], got [2, 11, 2, 2]",
        ),
        (error(&fine, &conv, &single(2, &[1, 12, 2, 2]), 8), "a coarser map of [2, 12, h, w]"),
        (error(&fine, &conv, &coarse, 9), "a scale and a shift of [8], got [9]"),
        (error(&noise(1, &[2, 8, 4, 4], DType::F64), &conv, &coarse, 8), "got F64"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
