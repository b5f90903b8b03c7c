//! Concatenation against candle's.

use candle_core::{DType, Tensor};
use zoo_kernels::concat_channels;

use crate::reference::{assert_gradients, layouts};
use crate::support::{largest_difference, noise};

/// Channels of one to six maps.
const CHANNELS: [&[usize]; 6] =
    [&[5], &[1, 4], &[128, 42, 3], &[2, 3, 5, 1], &[1, 1, 1, 1, 1], &[4, 8, 2, 1, 6, 3]];

fn maps(channels: &[usize], dtype: DType) -> Vec<Tensor> {
    channels.iter().enumerate().map(|(i, &c)| noise(i as u64 + 1, &[2, c, 3, 5], dtype)).collect()
}

#[test]
fn maps_come_behind_one_another_whatever_their_order_of_memory() {
    for channels in CHANNELS {
        for dtype in [DType::F32, DType::F64, DType::F16] {
            let maps = maps(channels, dtype);
            let want = Tensor::cat(&maps, 1).unwrap();
            for order in 0..3 {
                let maps: Vec<_> =
                    maps.iter().enumerate().map(|(i, map)| layouts(map)[(order + i) % 3].clone()).collect();
                let got = concat_channels(&maps.iter().collect::<Vec<_>>()).unwrap();
                assert_eq!(largest_difference(&got, &want), 0.0, "{channels:?} in {dtype:?}");
                assert!(got.permute((0, 2, 3, 1)).unwrap().is_contiguous(), "{channels:?}");
            }
        }
    }
}

#[test]
fn each_map_gets_its_part_of_the_gradient() {
    for channels in CHANNELS {
        let maps = maps(channels, DType::F64);
        assert_gradients(&format!("{channels:?}"), &maps.iter().collect::<Vec<_>>(), |maps| {
            concat_channels(&maps.iter().collect::<Vec<_>>()).unwrap()
        });
    }
}

#[test]
fn maps_that_differ_in_more_than_channels_are_refused() {
    let map = noise(1, &[2, 3, 4, 4], DType::F32);
    for (maps, expected) in [
        (vec![], "expected at least one map, got none"),
        (
            vec![map.clone(), noise(2, &[2, 3, 4, 5], DType::F32)],
            "[2, C, 4, 4] in F32, got [2, 3, 4, 5] in F32",
        ),
        (vec![map.clone(), noise(2, &[1, 3, 4, 4], DType::F32)], "got [1, 3, 4, 4]"),
        (vec![map.clone(), noise(2, &[2, 1, 4, 4], DType::F64)], "got [2, 1, 4, 4] in F64"),
    ] {
        let error = concat_channels(&maps.iter().collect::<Vec<_>>()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
