//! Seeded values against numpy's, bit for bit (scripts/goldens/seeded_values.py).

use candle_core::{DType, Device};
use serde::Deserialize;
use zoo_parity::{Gain, seeded};

#[derive(Deserialize)]
struct Entry {
    role: String,
    name: String,
    shape: Vec<usize>,
    first: Vec<u32>,
    last: Vec<u32>,
}

#[test]
fn values_are_numpys_bit_for_bit() {
    let entries: Vec<Entry> = serde_json::from_str(include_str!("../data/seeded.json")).unwrap();
    assert_eq!(entries.len(), 15);
    for e in entries {
        let draw = if e.role == "input" { seeded::input } else { seeded::value };
        let bits: Vec<u32> = draw(&e.name, &e.shape).unwrap().into_iter().map(f32::to_bits).collect();
        assert_eq!(bits.len(), e.shape.iter().product::<usize>(), "{}", e.name);
        assert!(bits.starts_with(&e.first), "{}: {:x?}, not {:x?}", e.name, &bits[..e.first.len()], e.first);
        assert!(bits.ends_with(&e.last), "{}: does not end with {:x?}", e.name, e.last);
    }
}

#[test]
fn a_var_builder_gives_what_the_full_name_and_the_seed_say() {
    let get = |seed| {
        let vb = seeded::var_builder(seed, DType::F32, &Device::Cpu).pp("a");
        vb.get((2, 3), "weight").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(get(None), seeded::value("a.weight", &[2, 3]).unwrap());
    assert_eq!(get(Some(1)), get(Some(1)));
    assert_ne!(get(Some(1)), get(None));
    assert_ne!(get(Some(1)), get(Some(2)));
    let vb = seeded::var_builder(None, DType::F32, &Device::Cpu);
    let error = vb.get_unchecked("a.weight").unwrap_err().to_string();
    assert!(error.contains("a.weight: a seeded tensor needs a shape"), "{error}");
    let error = vb.get((usize::MAX, 2), "b").unwrap_err().to_string();
    assert!(error.contains("too large to be seeded"), "{error}");
}

#[test]
fn a_gain_is_for_the_tensors_that_it_names() {
    let gain = vec![Gain::Prefix("a.".to_owned(), 0.5)];
    let vb = seeded::var_builder_with_gain(gain, DType::F32, &Device::Cpu);
    let get = |name| vb.get((2, 3), name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let halved: Vec<f32> = seeded::value("a.weight", &[2, 3]).unwrap().into_iter().map(|v| v * 0.5).collect();
    assert_eq!(get("a.weight"), halved);
    assert_eq!(get("b.weight"), seeded::value("b.weight", &[2, 3]).unwrap());
}

#[test]
fn an_empty_tensor_may_have_any_other_dims() {
    assert!(seeded::value("w.weight", &[0, usize::MAX, usize::MAX]).unwrap().is_empty());
}

#[test]
fn shapes_that_no_tensor_has_are_refused() {
    for shape in [&[1 << 20, 1 << 20][..], &[usize::MAX, 2], &[usize::MAX, usize::MAX, usize::MAX]] {
        let error = seeded::value("w", shape).unwrap_err().to_string();
        let expected =
            format!("tensor 'w' of shape {shape:?} is too large to be seeded (at most 268435456 values)");
        assert_eq!(error, expected);
    }
}
