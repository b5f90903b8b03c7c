//! Maps in one plane, against slices of it.

use candle_core::{DType, Tensor};
use zoo_kernels::{MapBox, pack_maps};

use crate::reference::{assert_gradients, layouts};
use crate::support::{largest_difference, noise};

const PLANE: (usize, usize) = (9, 11);

fn at(left: usize, top: usize, width: usize, height: usize) -> MapBox {
    MapBox { left, top, width, height }
}

/// One to eight boxes: touching, alone, in corners, not in the order of rows.
fn cases() -> Vec<Vec<MapBox>> {
    let eight = [
        at(0, 0, 11, 4),
        at(0, 4, 4, 5),
        at(9, 7, 2, 2),
        at(7, 5, 2, 1),
        at(6, 5, 1, 1),
        at(4, 7, 3, 2),
        at(4, 4, 1, 1),
        at(10, 4, 1, 3),
    ];
    let all = vec![at(0, 0, 11, 9)];
    (1..=eight.len()).map(|n| eight[..n].to_vec()).chain([all, vec![at(3, 2, 2, 3)]]).collect()
}

fn maps(boxes: &[MapBox], dtype: DType) -> Vec<Tensor> {
    let map = |(i, at): (usize, &MapBox)| noise(i as u64 + 1, &[2, 3, at.height, at.width], dtype);
    boxes.iter().enumerate().map(map).collect()
}

#[test]
fn each_map_lies_at_its_box_and_nothing_elsewhere() {
    for boxes in cases() {
        for dtype in [DType::F32, DType::F64, DType::F16] {
            let maps = maps(&boxes, dtype);
            for order in 0..3 {
                let maps: Vec<_> =
                    maps.iter().enumerate().map(|(i, map)| layouts(map)[(order + i) % 3].clone()).collect();
                let plane = pack_maps(&maps.iter().collect::<Vec<_>>(), &boxes, PLANE).unwrap();
                assert_eq!(plane.dims(), [2, 3, 9, 11]);
                let mut rest = plane.to_dtype(DType::F64).unwrap().abs().unwrap().sum_all().unwrap();
                for (map, at) in maps.iter().zip(&boxes) {
                    let cut = plane.narrow(2, at.top, at.height).unwrap();
                    let cut = cut.narrow(3, at.left, at.width).unwrap();
                    assert_eq!(largest_difference(&cut, map), 0.0, "{at:?} in {dtype:?}");
                    let sum = map.to_dtype(DType::F64).unwrap().abs().unwrap().sum_all().unwrap();
                    rest = (rest - sum).unwrap();
                }
                assert!(rest.to_scalar::<f64>().unwrap().abs() < 1e-9, "{boxes:?} in {dtype:?}");
            }
        }
    }
}

#[test]
fn each_map_gets_its_part_of_the_gradient() {
    for boxes in cases() {
        let maps = maps(&boxes, DType::F64);
        assert_gradients(&format!("{boxes:?}"), &maps.iter().collect::<Vec<_>>(), |maps| {
            pack_maps(&maps.iter().collect::<Vec<_>>(), &boxes, PLANE).unwrap()
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let map = |h: usize, w: usize| noise(1, &[2, 3, h, w], DType::F32);
    let (a, b, c) = (map(4, 11), map(5, 4), noise(1, &[1, 3, 5, 4], DType::F32));
    let pack = |maps: &[&Tensor], boxes: &[MapBox]| pack_maps(maps, boxes, PLANE).unwrap_err().to_string();
    let nine: Vec<MapBox> = (0..9).map(|i| at(i, 0, 1, 1)).collect();
    let dot = map(1, 1);
    for (error, expected) in [
        (pack(&[], &[]), "expected at least one map, got none"),
        (pack(&[&a], &[]), "expected a box for each of 1 maps, got 0"),
        (pack(&[&a], &[at(0, 0, 11, 3)]), "expected map 0 as [2, 3, 3, 11] in F32, got [2, 3, 4, 11]"),
        (pack(&[&a, &c], &[at(0, 0, 11, 4), at(0, 4, 4, 5)]), "expected map 1 as [2, 3, 5, 4]"),
        (pack(&[&b], &[at(8, 0, 4, 5)]), "leaves the plane of 9×11"),
        (pack(&[&a, &b], &[at(0, 0, 11, 4), at(0, 3, 4, 5)]), "the boxes of maps 0 and 1 overlap"),
        (pack(&[&dot; 9], &nine), "at most 8 maps, got 9"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
