//! Opening safetensors files, sound and not.

use candle_core::{DType, Device};
use half::{bf16, f16};
use zoo_hub::{Checkpoint, StoredType};
use zoo_testing::{flips, safetensors, truncations};

use crate::support::{chain, file_of, weights};

fn open(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    Checkpoint::from_bytes("net.safetensors", bytes).map_err(|error| chain(&error))
}

#[test]
fn a_sound_file_opens_from_memory_and_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    std::fs::write(&path, weights()).unwrap();
    for checkpoint in [open(weights()).unwrap(), Checkpoint::open(&path).unwrap()] {
        let entry = &checkpoint.tensors()["head.weight"];
        assert_eq!(
            (entry.stored, entry.shape.as_slice(), entry.elements()),
            (StoredType::F32, &[2, 3][..], 6)
        );
        let tensor = checkpoint.tensor("head.weight", DType::F32, &Device::Cpu, false).unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
    }
}

#[test]
fn another_reader_agrees() {
    let bytes = file_of(&[("b", &[3]), ("a.weight", &[2, 2])]);
    let other = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ours = open(bytes.clone()).unwrap();
    assert_eq!(other.len(), ours.tensors().len());
    for (name, view) in other.tensors() {
        assert_eq!(view.shape(), ours.tensors()[&name].shape);
        assert_eq!(view.data(), ours.raw(&name).unwrap(), "{name}");
    }
}

#[test]
fn all_float_types_convert_into_each_other() {
    let values = [1.0f32, -2.5, 0.0];
    let cases: [(&str, Vec<u8>); 4] = [
        ("F16", values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
        ("BF16", values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()),
        ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("F64", values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect()),
    ];
    for (stored, data) in cases {
        let header =
            format!(r#"{{"x":{{"dtype":"{stored}","shape":[3],"data_offsets":[0,{}]}}}}"#, data.len());
        let checkpoint = open(safetensors(&header, &data)).unwrap();
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let tensor = checkpoint.tensor("x", dtype, &Device::Cpu, false).unwrap();
            assert_eq!(tensor.dtype(), dtype);
            let got: Vec<f32> = tensor.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            assert_eq!(got, values, "{stored} as {dtype:?}");
        }
    }
}

#[test]
fn integers_come_only_where_they_are_asked_for() {
    let header = r#"{"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"b":{"dtype":"BOOL","shape":[1],"data_offsets":[8,9]}}"#;
    let data = [&7i64.to_le_bytes()[..], &[1]].concat();
    let checkpoint = open(safetensors(header, &data)).unwrap();
    let count = checkpoint.tensor("n", DType::I64, &Device::Cpu, false).unwrap();
    assert_eq!(count.to_scalar::<i64>().unwrap(), 7);
    for (name, dtype, expected) in [
        ("n", DType::F32, "is stored as I64, which cannot be read as f32: expected F16, BF16, F32 or F64"),
        ("n", DType::U8, "is stored as I64, which cannot be read as u8: expected the same integer type"),
        ("b", DType::U8, "is stored as BOOL"),
        ("x", DType::F32, "net.safetensors has no tensor x"),
    ] {
        let error = checkpoint.tensor(name, dtype, &Device::Cpu, false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn values_that_are_no_finite_numbers_are_named_with_their_place() {
    let file = |values: &[f32; 6]| {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        open(safetensors(r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#, &data)).unwrap()
    };
    for (value, dtype, expected) in [
        (f32::NAN, DType::F32, "tensor w of net.safetensors has the value NaN at [1, 1], which f32"),
        (f32::NEG_INFINITY, DType::F32, "has the value -inf at [1, 1]"),
        (65520.0, DType::F16, "has the value 65520 at [1, 1], which f16 cannot hold"),
    ] {
        let checkpoint = file(&[0., 1., 2., 3., value, f32::NAN]);
        let error = checkpoint.tensor("w", dtype, &Device::Cpu, false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(checkpoint.tensor("w", dtype, &Device::Cpu, true).is_ok(), "allowed");
    }
    let largest = file(&[65519.0, f32::MIN_POSITIVE, 0., 0., 0., -65519.0]);
    assert!(largest.tensor("w", DType::F16, &Device::Cpu, false).is_ok(), "rounds to 65504");
}

#[test]
fn unsound_headers_are_refused_with_the_reason() {
    let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let one = |entry: String| format!(r#"{{"w":{entry}}}"#);
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let twice = |a: String, b: String| format!(r#"{{"a":{a},"a":{b}}}"#);
    let good = || tensor("F32", "[2]", 0, 8);
    for (name, header, data, expected) in [
        ("not JSON", "{".to_owned(), 0, "its header cannot be read"),
        ("a list", "[]".to_owned(), 0, "expected an object with an entry for each tensor"),
        ("no dtype", one(r#"{"shape":[2],"data_offsets":[0,8]}"#.to_owned()), 8, "missing field `dtype`"),
        (
            "a field too many",
            one(r#"{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}"#.to_owned()),
            4,
            "unknown field `x`",
        ),
        ("negative dimension", one(tensor("F32", "[-2]", 0, 8)), 8, "its header cannot be read"),
        (
            "unknown type",
            one(tensor("Q4_0", "[2]", 0, 8)),
            8,
            "tensor w: unknown dtype \"Q4_0\", expected one of BOOL, U8",
        ),
        (
            "product overflow",
            one(tensor("F32", "[4294967296,4294967296]", 0, 8)),
            8,
            "has more bytes than can be counted",
        ),
        (
            "bomb dimension",
            one(tensor("F32", "[1000000000]", 0, 8)),
            8,
            "needs 4000000000 bytes, which is not what its offsets 0..8 hold",
        ),
        (
            "past the end",
            one(tensor("F32", "[4]", 0, 16)),
            8,
            "offsets 0..16 lie past the end of the data (8 bytes): it is truncated",
        ),
        ("backwards", one(tensor("F32", "[2]", 8, 0)), 8, "which is not what its offsets 8..0 hold"),
        ("shape and offsets differ", one(tensor("F32", "[3]", 0, 8)), 8, "shape [3] of F32 needs 12 bytes"),
        ("overlap", two(good(), tensor("F32", "[2]", 4, 12)), 12, "a and tensor b overlap: expected byte"),
        ("same place", two(good(), good()), 8, "a and tensor b overlap"),
        ("gap", two(good(), tensor("F32", "[1]", 12, 16)), 16, "a and tensor b leave a gap between them"),
        ("trailing bytes", one(good()), 12, "4 bytes follow the last tensor, expected none"),
        ("a name twice", twice(good(), tensor("F32", "[1]", 8, 12)), 12, "the name \"a\" occurs twice"),
        (
            "metadata twice",
            r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(),
            0,
            "the name \"__metadata__\" occurs twice",
        ),
        ("metadata not text", r#"{"__metadata__":{"a":1}}"#.to_owned(), 0, "its header cannot be read"),
    ] {
        let error = open(safetensors(&header, &vec![0; data])).unwrap_err();
        assert!(error.starts_with("net.safetensors is not a usable safetensors file: "), "{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn header_lengths_that_lie_are_refused() {
    let mut bytes = weights();
    for (length, expected) in [
        (u64::MAX, "announce a header of 18446744073709551615 bytes, expected at most 104857600"),
        (1 << 40, "is it another kind of file?"),
        (1 << 20, "it announces a header of 1048576 bytes, but only"),
        (0, "its header cannot be read"),
        (10, "its header cannot be read"),
    ] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        let error = open(bytes.clone()).unwrap_err();
        assert!(error.contains(expected), "{length}: {error}");
    }
}

#[test]
fn cut_or_flipped_files_give_errors_and_never_panic() {
    let bytes = file_of(&[("a.weight", &[5, 7]), ("b.bias", &[9]), ("c", &[2, 2, 2])]);
    for cut in (0..bytes.len()).map(|length| &bytes[..length]).chain(truncations(&bytes, 37)) {
        let error = open(cut.to_vec()).unwrap_err();
        assert!(error.contains("is not a usable safetensors file"), "{} bytes: {error}", cut.len());
    }
    for (at, flipped) in flips(&bytes, 1) {
        // A flipped letter of a name leaves a sound file; all that matters is that it holds.
        if let Ok(checkpoint) = open(flipped) {
            for name in checkpoint.tensors().keys() {
                assert!(checkpoint.raw(name).is_ok(), "byte {at}");
            }
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Checkpoint::open(std::path::Path::new("/nowhere/net.safetensors")).unwrap_err();
    assert!(chain(&error).starts_with("cannot open /nowhere/net.safetensors: "), "{}", chain(&error));
}
