//! Golden files as they are read, and every way in which they can be wrong.

use candle_core::{DType, Device};
use serde::Deserialize;
use serde_json::{Value, json};
use zoo_parity::{Gain, Golden, seeded};

use crate::{file, golden};

fn values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn metadata_is_read_in_order() {
    let meta = r#"{
        "model": "m", "config": {"width": 4}, "notes": "n", "keyframes": [0],
        "state": [["b.weight", [2, 3]], ["a.bias", [2]]],
        "gain": [{"name": "a.bias", "factor": 2}, {"prefix": "b.", "factor": 0.5}, {"min_dims": 2, "factor": 3}],
        "inputs": {"input.1": [2], "input.0": [3]},
        "output_shapes": {"z": [1], "a": [1]}
    }"#;
    let golden = golden(&meta, &[("a", &[1], &[1.0]), ("z", &[1], &[2.0])]).unwrap();
    assert_eq!((golden.name(), golden.meta().model.as_str()), ("made.safetensors", "m"));
    assert_eq!(golden.meta().notes, "n");
    assert_eq!(golden.meta().other["keyframes"], json!([0]));
    assert_eq!(golden.meta().output_shapes.keys().collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(golden.meta().inputs.keys().collect::<Vec<_>>(), ["input.1", "input.0"]);
    assert_eq!(
        golden.meta().gain,
        [Gain::Name("a.bias".into(), 2.0), Gain::Prefix("b.".into(), 0.5), Gain::MinDims(2, 3.0)]
    );
    assert_eq!(golden.cases(), None);

    #[derive(Debug, Deserialize, PartialEq)]
    struct Config {
        width: usize,
    }
    assert_eq!(golden.config::<Config>().unwrap(), Config { width: 4 });
    let error = golden.config::<u8>().unwrap_err().to_string();
    assert!(error.starts_with("made.safetensors: config cannot be read: invalid type: map"), "{error}");
}

#[test]
fn weights_are_seeded_then_scaled_then_set() {
    let meta = json!({
        "model": "m",
        "state": [
            ["conv.weight", [2, 3]], ["conv.bias", [2]], ["bn.running_var", [2]],
            ["bn.num_batches_tracked", []], ["fixed.weight", [2, 2]],
        ],
        "gain": [{"prefix": "conv.", "factor": 0.5}, {"min_dims": 2, "factor": 4}],
        "set": {"fixed.weight": 0.25},
    });
    let vb = golden(&meta, &[]).unwrap().var_builder(DType::F32, &Device::Cpu).unwrap();
    let seeded = |name: &str, shape: &[usize], factor: f32| -> Vec<f32> {
        seeded::value(name, shape).unwrap().into_iter().map(|v| v * factor).collect()
    };
    for (prefix, name, shape, expected) in [
        ("conv", "weight", &[2, 3][..], seeded("conv.weight", &[2, 3], 2.0)),
        ("conv", "bias", &[2], seeded("conv.bias", &[2], 0.5)),
        ("bn", "running_var", &[2], seeded("bn.running_var", &[2], 1.0)),
        ("fixed", "weight", &[2, 2], vec![0.25; 4]),
    ] {
        assert_eq!(values(&vb.pp(prefix).get(shape, name).unwrap()), expected, "{prefix}.{name}");
    }
    assert!(!vb.contains_tensor("bn.num_batches_tracked"), "it carries nothing");
    assert!(vb.get(&[3, 2], "conv.weight").is_err(), "another shape");
}

#[test]
fn groups_are_built_by_their_own_names() {
    let meta = json!({
        "model": "m", "groups": {"first": 1, "second": 2},
        "state": [["weight", [2, 2]], ["weight", [3, 3]], ["bias", [3]]],
    });
    let made = golden(&meta, &[]).unwrap();
    let second = made.group_var_builder("second", DType::F64, &Device::Cpu).unwrap();
    let weight = second.get(&[3, 3], "weight").unwrap();
    assert_eq!(weight.dtype(), DType::F64);
    assert_eq!(values(&weight.to_dtype(DType::F32).unwrap()), seeded::value("weight", &[3, 3]).unwrap());
    assert!(made.group_var_builder("first", DType::F32, &Device::Cpu).unwrap().get(2, "bias").is_err());

    let message = |result: zoo_parity::Result<_>| result.err().unwrap().to_string();
    assert_eq!(
        message(made.group_var_builder("third", DType::F32, &Device::Cpu)),
        "made.safetensors has no group 'third'; it has first, second"
    );
    assert_eq!(
        message(made.var_builder(DType::F32, &Device::Cpu)),
        "made.safetensors: state lists 'weight' as [2, 2] and as [3, 3]: build each group by itself"
    );
    let huge = golden(&json!({"model": "m", "state": [["w", [1_u64 << 40]]]}), &[]).unwrap();
    assert!(message(huge.var_builder(DType::F32, &Device::Cpu)).contains("too large to be seeded"));
    let wide = golden(&json!({"model": "m", "state": [["w", [1 << 20]], ["v", [1 << 28]]]}), &[]).unwrap();
    assert_eq!(
        message(wide.var_builder(DType::F32, &Device::Cpu)),
        "made.safetensors: state asks for more than 268435456 values, by 'v'"
    );
}

#[test]
fn inputs_are_drawn_unless_given() {
    let meta = json!({
        "model": "m", "inputs": {"drawn": [2, 2], "given": [3]}, "output_shapes": {"long": [5]},
    });
    let made =
        golden(&meta, &[("given", &[3], &[1.0, 2.0, 3.0]), ("long@stride=3", &[2], &[0.0; 2])]).unwrap();
    let drawn = made.input("drawn", &Device::Cpu).unwrap();
    assert_eq!((drawn.dims(), values(&drawn)), (&[2, 2][..], seeded::input("drawn", &[2, 2]).unwrap()));
    assert_eq!(values(&made.input("given", &Device::Cpu).unwrap()), [1.0, 2.0, 3.0]);
    assert_eq!(values(&made.tensor("given", &Device::Cpu).unwrap()), [1.0, 2.0, 3.0]);

    let error = made.input("other", &Device::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "made.safetensors has no input 'other'; it has drawn, given");
    let error = made.tensor("long@stride=3", &Device::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "made.safetensors has no whole tensor 'long@stride=3'; it has given");
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    type Tensors = &'static [(&'static str, &'static [usize], &'static [f32])];
    let one: Tensors = &[("a", &[1], &[1.0])];
    let cases: &[(Value, Tensors, &str)] = &[
        (json!({"output_shapes": {"a": [1]}}), one, "metadata cannot be read: missing field `model`"),
        (
            json!({"model": "m", "output_shapes": {"a": [1]}, "state": [["w", [1]]], "gain": [{"factor": 2}]}),
            one,
            "metadata cannot be read: a gain entry needs exactly one of 'name', 'prefix' and 'min_dims'",
        ),
        (
            json!({"model": "m", "gain": [{"factor": 2, "suffix": "x"}]}),
            &[],
            "metadata cannot be read: unknown field `suffix`",
        ),
        (json!({"model": "m"}), one, "tensor 'a' is in neither output_shapes nor inputs"),
        (
            json!({"model": "m", "output_shapes": {"a": [1], "b": [1]}}),
            one,
            "output_shapes lists 'b', but the file does not hold its values",
        ),
        (
            json!({"model": "m", "output_shapes": {"a": [1, 1]}}),
            one,
            "tensor 'a' has shape [1], but output_shapes gives 'a' as [1, 1], hence [1, 1]",
        ),
        (
            json!({"model": "m", "output_shapes": {"a": [10]}}),
            &[("a@stride=3", &[3], &[0.0; 3])],
            "tensor 'a@stride=3' has shape [3], but output_shapes gives 'a' as [10], hence [4]",
        ),
        (
            json!({"model": "m", "output_shapes": {"a": [1]}}),
            &[("a", &[1], &[1.0]), ("a@stats", &[2], &[0.0; 2])],
            "tensor 'a@stats' has shape [2], but output_shapes gives 'a' as [1], hence [3]",
        ),
        (
            json!({"model": "m", "output_shapes": {"a": [1]}}),
            &[("a@stride=0", &[1], &[1.0])],
            "tensor 'a@stride=0' has the suffix '@stride=0': expected '@stats' or '@stride=S' with S > 0",
        ),
        (
            json!({"model": "m", "groups": {"x": 1}, "state": [["w", [1]], ["v", [1]]]}),
            &[],
            "groups cover 1 tensors, but state lists 2",
        ),
        (
            json!({"model": "m", "state": [["w", [1]]], "gain": [{"prefix": "x", "factor": 2}]}),
            &[],
            "gain Prefix(\"x\", 2.0) fits no tensor of state",
        ),
        (
            json!({"model": "m", "state": [["w", [1]]], "set": {"v": 1}}),
            &[],
            "set names 'v', which state does not list",
        ),
    ];
    for (meta, tensors, expected) in cases {
        let error = golden(meta, tensors).unwrap_err().to_string();
        assert!(error.starts_with(&format!("made.safetensors: {expected}")), "{error}\nnot {expected}");
    }
}

#[test]
fn files_of_another_format_are_refused() {
    let error = Golden::from_bytes("x.safetensors", &file(None, &[])).unwrap_err().to_string();
    assert_eq!(
        error,
        "x.safetensors has no metadata entry 'meta': it holds tensors, but not what computes them"
    );

    let bytes = [1u8, 2].as_slice();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, vec![1], bytes).unwrap();
    let meta = json!({"model": "m", "output_shapes": {"a": [1]}}).to_string();
    let half = safetensors::serialize([("a", view)], Some([("meta".to_owned(), meta)].into())).unwrap();
    let error = Golden::from_bytes("x.safetensors", &half).unwrap_err().to_string();
    assert_eq!(error, "x.safetensors: tensor 'a' has type F16, which golden files do not use: store F32");

    let error = Golden::from_bytes("x.json", b"[1,").unwrap_err().to_string();
    assert!(error.starts_with("x.json: case file cannot be read: EOF"), "{error}");

    let error = Golden::open("absent/x.safetensors").unwrap_err().to_string();
    assert!(error.starts_with("reading absent/x.safetensors: "), "{error}");
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_ends() {
    let meta = json!({"model": "m", "output_shapes": {"a": [64]}});
    let whole = file(Some(meta.to_string()), &[("a".to_owned(), vec![64], vec![1.0; 64])]);
    assert!(Golden::from_bytes("x.safetensors", &whole).is_ok());
    for end in (0..whole.len()).step_by(37) {
        let error = Golden::from_bytes("x.safetensors", &whole[..end]).unwrap_err().to_string();
        assert!(error.starts_with("x.safetensors is not a safetensors file: "), "{end}: {error}");
    }
}
