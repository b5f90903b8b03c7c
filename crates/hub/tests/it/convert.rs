//! PyTorch checkpoints of both containers, sound, malformed and hostile.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use half::f16;
use serde_json::json;
use zip::CompressionMethod;
use zoo_hub::convert::{CardFacts, Container, TorchFile, write_model};
use zoo_hub::{Checkpoint, Digest, Error, LoadOptions, StoredType};
use zoo_testing::{Pickler, Py, TorchWriter, flips, truncations};

use crate::support::chain;

fn open(bytes: &[u8]) -> Result<TorchFile, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.pth");
    std::fs::write(&path, bytes).unwrap();
    TorchFile::open(&path)
}

/// The same contents in both containers, and around any pickle.
fn both(writer: &TorchWriter, root: &Py) -> [(Container, Vec<u8>); 2] {
    [(Container::Legacy, writer.legacy(root)), (Container::Zip, writer.zip(root))]
}

fn both_around(writer: &TorchWriter, pickle: &[u8]) -> [Vec<u8>; 2] {
    [writer.legacy_around(pickle), writer.zip_around(pickle, CompressionMethod::Stored)]
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A checkpoint as training scripts write them.
fn training_checkpoint() -> (TorchWriter, Py) {
    let mut writer = TorchWriter::new();
    let weight = writer.floats(&[0., 1., 2., 3., 4., 5.]);
    let count = writer.storage("LongStorage", 8, 42i64.to_le_bytes().to_vec());
    let state = Py::OrderedDict(vec![
        (Py::text("module.fc.weight"), Py::parameter(Py::tensor(&weight, 0, &[2, 3], &[3, 1]))),
        (Py::text("module.fc.transposed"), Py::tensor(&weight, 0, &[3, 2], &[1, 3])),
        (Py::text("module.fc.bias"), Py::tensor(&weight, 4, &[2], &[1])),
        (Py::text("module.bn.num_batches_tracked"), Py::tensor(&count, 0, &[], &[])),
    ]);
    let root = Py::dict([
        ("epoch", Py::Int(90)),
        ("arch", Py::text("hyperseg_b1")),
        ("best", Py::Float(0.75)),
        ("sizes", Py::List(vec![Py::Int(512), Py::Tuple(vec![Py::Bool(true), Py::None])])),
        (
            "args",
            Py::Object("argparse", "Namespace", vec![], Some(Box::new(Py::dict([("lr", Py::Float(0.1))])))),
        ),
        ("lr", Py::Object("numpy.core.multiarray", "scalar", vec![Py::text("f8"), Py::text("bytes")], None)),
        ("state_dict", state),
    ]);
    (writer, root)
}

#[test]
fn both_containers_give_the_same_tensors_and_facts() {
    let (writer, root) = training_checkpoint();
    for (container, bytes) in both(&writer, &root) {
        let file = open(&bytes).unwrap();
        assert_eq!(file.container(), container);
        assert_eq!(*file.digest(), Digest::of_bytes(&bytes));
        assert_eq!(
            serde_json::Value::Object(file.facts().clone()),
            json!({ "epoch": 90, "arch": "hyperseg_b1", "best": 0.75, "sizes": [512, [true, null]] })
        );
        let skipped: Vec<_> = file.skipped().into_iter().map(|s| (s.name, s.what)).collect();
        assert_eq!(
            skipped,
            [
                ("args".to_owned(), "an object of argparse.Namespace".to_owned()),
                ("lr".to_owned(), "an object of numpy.core.multiarray.scalar".to_owned()),
            ],
            "{container}"
        );
        let state = file.state_dict(None).unwrap();
        assert_eq!((state.key(), state.stripped(), state.values()), ("state_dict", true, 14));
        let values: BTreeMap<_, _> = state.tensors().iter().map(|(name, t)| (name.as_str(), t)).collect();
        assert_eq!(floats(values["fc.weight"].data()), [0., 1., 2., 3., 4., 5.], "{container}");
        assert_eq!(floats(values["fc.transposed"].data()), [0., 3., 1., 4., 2., 5.], "a strided view");
        assert_eq!(values["fc.transposed"].shape(), [3, 2]);
        assert_eq!(floats(values["fc.bias"].data()), [4., 5.], "a view with an offset");
        let count = values["bn.num_batches_tracked"];
        assert_eq!((count.stored(), count.data()), (StoredType::I64, &42i64.to_le_bytes()[..]));
    }
}

#[test]
fn candles_reader_agrees_on_a_file_one_can_trust() {
    let mut writer = TorchWriter::new();
    let a = writer.floats(&[1., 2., 3., 4.]);
    let b = writer.storage("HalfStorage", 2, f16::from_f32(0.5).to_le_bytes().repeat(3));
    let root = Py::OrderedDict(vec![
        (Py::text("a"), Py::tensor(&a, 0, &[2, 2], &[2, 1])),
        (Py::text("b"), Py::tensor(&b, 1, &[2], &[1])),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.pth");
    std::fs::write(&path, writer.zip(&root)).unwrap();
    let theirs = candle_core::pickle::read_all(&path).unwrap();
    let ours = TorchFile::open(&path).unwrap().state_dict(None).unwrap().to_checkpoint().unwrap();
    assert_eq!(theirs.len(), ours.tensors().len());
    for (name, tensor) in theirs {
        let got = ours.tensor(&name, tensor.dtype(), &Device::Cpu, false).unwrap();
        zoo_testing::assert_close(&name, &got, &tensor, 0.0, 0.0);
    }
}

#[test]
fn every_storage_type_keeps_its_bytes() {
    for (class, size, stored) in [
        ("DoubleStorage", 8, StoredType::F64),
        ("FloatStorage", 4, StoredType::F32),
        ("HalfStorage", 2, StoredType::F16),
        ("BFloat16Storage", 2, StoredType::Bf16),
        ("LongStorage", 8, StoredType::I64),
        ("IntStorage", 4, StoredType::I32),
        ("ShortStorage", 2, StoredType::I16),
        ("CharStorage", 1, StoredType::I8),
        ("ByteStorage", 1, StoredType::U8),
        ("BoolStorage", 1, StoredType::Bool),
    ] {
        let mut writer = TorchWriter::new();
        let bytes: Vec<u8> = (0..2 * size as u8).collect();
        let storage = writer.storage(class, size, bytes.clone());
        let root = Py::dict([("x", Py::tensor(&storage, 0, &[2], &[1]))]);
        for (container, file) in both(&writer, &root) {
            let state = open(&file).unwrap().state_dict(None).unwrap();
            let tensor = &state.tensors()["x"];
            assert_eq!(
                (tensor.stored(), tensor.data()),
                (stored, bytes.as_slice()),
                "{class} in a {container}"
            );
        }
    }
}

#[test]
fn old_views_into_a_storage_start_where_they_say() {
    let mut writer = TorchWriter::new();
    let storage = writer.floats(&[0., 1., 2., 3., 4., 5.]);
    let part = Py::StorageView(Box::new(storage), 2, 3);
    let root = Py::dict([("x", Py::tensor(&part, 1, &[2], &[1]))]);
    let state = open(&writer.legacy(&root)).unwrap().state_dict(None).unwrap();
    assert_eq!(floats(state.tensors()["x"].data()), [3., 4.]);
}

#[test]
fn several_dictionaries_of_tensors_ask_for_a_choice() {
    let mut writer = TorchWriter::new();
    let w = writer.floats(&[1., 2.]);
    let state = |offset| Py::dict([("w", Py::tensor(&w, offset, &[1], &[1]))]);
    let root = Py::dict([("model", Py::dict([("net", state(0))])), ("ema", state(1))]);
    for (_, bytes) in both(&writer, &root) {
        let file = open(&bytes).unwrap();
        let error = file.state_dict(None).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "has 2 dictionaries of tensors; choose one of: \"model.net\" (1 tensors), \"ema\" (1 tensors)"
            ),
            "{error}"
        );
        let error = file.state_dict(Some("model")).unwrap_err().to_string();
        assert!(error.contains("has no dictionary of tensors under \"model\"; choose one of"), "{error}");
        for (key, expected) in [("model.net", 1.), ("ema", 2.)] {
            let state = file.state_dict(Some(key)).unwrap();
            assert_eq!(floats(state.tensors()["w"].data()), [expected]);
        }
    }
}

#[test]
fn hostile_pickles_run_nothing_and_say_what_they_named() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("proof");
    let command = format!("touch {}", proof.display());
    let call = |module, name| Py::Object(module, name, vec![Py::text(&command)], None);
    let writer = TorchWriter::new();
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("subprocess", "check_output"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "__import__"),
        ("builtins", "getattr"),
        ("__builtin__", "open"),
        ("importlib", "import_module"),
        ("runpy", "run_path"),
        ("os.path", "exists"),
        ("webbrowser", "open"),
        ("ctypes", "CDLL"),
    ] {
        for (container, bytes) in both(&writer, &Py::dict([("epoch", Py::Int(1)), ("x", call(module, name))]))
        {
            let error = open(&bytes).unwrap_err();
            assert!(matches!(&error, Error::ForbiddenClass { .. }), "{container}: {error:?}");
            let expected = format!(
                "is refused: it names {module}.{name}, which would run code if Python loaded it; \
                                    nothing was run here"
            );
            assert!(error.to_string().contains(&expected), "{container}: {error}");
        }
    }
    // By the other instructions that name or call something.
    for (what, pickle) in [
        ("STACK_GLOBAL", Pickler::new(false).raw(b"\x8c\x02os\x8c\x06system\x93)R").finish()),
        ("NEWOBJ", Pickler::new(false).raw(b"cos\nsystem\n)\x81").finish()),
        ("never called", Pickler::new(false).raw(b"cos\nsystem\n").finish()),
    ] {
        for bytes in both_around(&writer, &pickle) {
            let error = open(&bytes).unwrap_err();
            assert!(
                matches!(&error, Error::ForbiddenClass { class, .. } if class == "os.system"),
                "{what}: {error}"
            );
        }
    }
    for (what, instruction) in
        [("INST", &b"(ios\nsystem\n"[..]), ("OBJ", b"(o"), ("EXT1", b"\x82\x01"), ("PERSID", b"Pid\n")]
    {
        for bytes in both_around(&writer, &Pickler::new(false).raw(instruction).finish()) {
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains("is none that PyTorch writes"), "{what}: {error}");
        }
    }
    assert!(!proof.exists());
}

#[test]
fn unknown_classes_are_named_never_made() {
    let mut writer = TorchWriter::new();
    let w = writer.floats(&[1.]);
    let odd = Py::Object("torch._utils", "_rebuild_sparse_tensor", vec![], None);
    let root =
        Py::dict([("w", Py::tensor(&w, 0, &[1], &[1])), ("odd", odd), ("size", Py::Global("torch", "Size"))]);
    for (_, bytes) in both(&writer, &root) {
        let state = open(&bytes).unwrap().state_dict(None).unwrap();
        let skipped: Vec<_> = state.skipped().iter().map(|s| s.what.as_str()).collect();
        assert_eq!(skipped, ["an object of torch._utils._rebuild_sparse_tensor", "the class torch.Size"]);
    }
    let module = Py::Object("models.hyperseg", "HyperSeg", vec![], Some(Box::new(Py::dict([]))));
    for (_, bytes) in both(&writer, &module) {
        let error = open(&bytes).unwrap_err().to_string();
        assert!(
            error.contains("it holds an object of models.hyperseg.HyperSeg and no dictionary of tensors"),
            "{error}"
        );
        assert!(error.contains("save `model.state_dict()`"), "{error}");
    }
}

#[test]
fn tensors_that_lie_about_themselves_are_refused() {
    let mut writer = TorchWriter::new();
    let w = writer.floats(&[1., 2., 3., 4.]);
    let tensor = |offset: usize, shape: &[usize], strides: &[usize]| Py::tensor(&w, offset, shape, strides);
    let too_big = Py::Storage("FloatStorage", "0".to_owned(), 5);
    let other = Py::Storage("QInt8Storage", "0".to_owned(), 4);
    let huge = 1usize << 62;
    for (name, value, expected) in [
        ("one too many", tensor(1, &[4], &[1]), "from element 1 leaves its storage of 4 elements"),
        (
            "strides too wide",
            tensor(0, &[2, 2], &[3, 1]),
            "with strides [3, 1] from element 0 leaves its storage",
        ),
        ("overflow", tensor(0, &[huge, huge], &[1, 1]), "its tensors need"),
        ("offset overflow", tensor(huge, &[2], &[huge]), "leaves its storage"),
        ("bomb by stride 0", tensor(0, &[1 << 20, 1 << 20], &[0, 0]), "its tensors need"),
        ("ranks differ", tensor(0, &[2, 2], &[1]), "differ in length"),
        ("storage of another size", Py::tensor(&too_big, 0, &[5], &[1]), "storage 0 "),
        (
            "unknown storage class",
            Py::tensor(&other, 0, &[4], &[1]),
            "storages of class QInt8Storage are not understood",
        ),
        (
            "negative size",
            Py::Object(
                "torch._utils",
                "_rebuild_tensor_v2",
                vec![w.clone(), Py::Int(-1), Py::Tuple(vec![]), Py::Tuple(vec![])],
                None,
            ),
            "expected a size, got the number -1",
        ),
        (
            "no arguments",
            Py::Object("torch._utils", "_rebuild_tensor_v2", vec![], None),
            "its description is incomplete",
        ),
        ("no storage", Py::tensor(&Py::Int(1), 0, &[1], &[1]), "expected a storage, got the number 1"),
    ] {
        for (container, bytes) in both(&writer, &Py::dict([("x", value.clone())])) {
            let error = open(&bytes).and_then(|file| file.state_dict(None)).unwrap_err().to_string();
            assert!(error.contains(expected), "{name} in a {container}: {error}");
        }
    }
    let empty = Py::dict([("x", tensor(4, &[0, 3], &[3, 1]))]);
    let state = open(&writer.zip(&empty)).unwrap().state_dict(None).unwrap();
    assert_eq!(state.tensors()["x"].shape(), [0, 3], "an empty tensor is a tensor");
}

#[test]
fn pickles_that_cannot_be_are_refused_where_they_go_wrong() {
    let writer = TorchWriter::new();
    let cut = |bytes: &[u8]| Pickler::new(false).raw(bytes).finish();
    for (name, pickle, expected) in [
        ("text longer than the file", cut(b"X\xff\xff\xff\x7fab"), "expected 2147483647 more bytes"),
        ("long integer longer than the file", cut(b"\x8b\xff\xff\xff\x7f"), "it is truncated"),
        ("8-byte length", cut(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "more bytes, got"),
        ("nothing to end with", cut(b""), "the stack is empty where a value should be"),
        ("a call of nothing", cut(b"R"), "the stack is empty"),
        ("a list's end alone", cut(b"e"), "a list's end without its start"),
        ("a pop past a mark", cut(b"N(0"), "the stack is empty"),
        ("a key without value", cut(b"}(X\x01\x00\x00\x00au"), "a dictionary with a key but no value"),
        ("items for a number", cut(b"K\x01Na"), "items for something that is no list"),
        ("entries for a list", cut(b"]NNs"), "entries for something that is no dictionary"),
        ("recall of nothing", cut(b"h\x07"), "it recalls value 7, which it never stored"),
        ("a class without end", b"\x80\x02ctorch".to_vec(), "has no end"),
        ("text that is not UTF-8", cut(b"X\x01\x00\x00\x00\xff"), "a text is not UTF-8"),
        ("too many instructions", b"N0".repeat(3 << 20), "more than 4194304 instructions"),
    ] {
        let zip = writer.zip_around(&pickle, CompressionMethod::Stored);
        let error = open(&zip).unwrap_err();
        assert!(matches!(&error, Error::Pickle { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn values_that_share_or_contain_themselves_cost_no_more_than_their_bytes() {
    // Each list holds the one before ten times: written out, the last would have 10^40 items.
    let mut sharing = Pickler::new(false).raw(b"}X\x01\x00\x00\x00a]q\x00");
    for level in 0..40u8 {
        sharing = sharing.raw(b"](").raw(&[b'h', level].repeat(10)).raw(&[b'e', b'q', level + 1]);
    }
    // Drops all but the last list, then makes it the dictionary's entry.
    let sharing = sharing.raw(b"q\xf0").raw(&b"0".repeat(41)).raw(b"h\xf0s").finish();
    let circular = Pickler::new(false).raw(b"}q\x00X\x01\x00\x00\x00ah\x00s").finish();
    for pickle in [sharing, circular] {
        for bytes in both_around(&TorchWriter::new(), &pickle) {
            let file = open(&bytes).unwrap();
            assert_eq!(file.skipped().len(), 1);
            let error = file.state_dict(None).unwrap_err().to_string();
            assert!(error.contains("there is no tensor in it"), "{error}");
        }
    }
}

#[test]
fn broken_containers_are_refused_with_the_reason() {
    let (writer, root) = training_checkpoint();
    let pickle = Pickler::pickle(&root, false);
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let mut damaged = writer.zip(&root);
    let place =
        damaged.windows(8).position(|w| w == [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat()).unwrap();
    damaged[place] ^= 1;
    let unlisted = TorchWriter::new().legacy_around(&Pickler::pickle(&root, true));
    let replace = |bytes: Vec<u8>, from: &[u8], to: &[u8]| {
        let mut bytes = bytes;
        while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        bytes
    };
    let (legacy, zip) = (writer.legacy(&root), writer.zip(&root));
    let recount = replace(legacy.clone(), &[6, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[7]);
    for (name, bytes, expected) in [
        ("big-endian stream", writer.clone().big_endian().legacy(&root), "its numbers are not little-endian"),
        ("big-endian zip", writer.clone().big_endian().zip(&root), "its numbers are not little-endian"),
        (
            "another protocol",
            replace(legacy.clone(), b"J\xe9\x03", b"J\xea\x03"),
            "expected protocol 1001, got Int(1002)",
        ),
        ("another count", recount, "storage 0 has 7 elements, its tensors say 6"),
        ("no pickle in the zip", replace(zip, b"data.pkl", b"date.pkl"), "the zip archive has no data.pkl"),
        (
            "cut in the storages",
            legacy[..legacy.len() - 3].to_vec(),
            "goes past the end of the file: it is truncated",
        ),
        ("empty", vec![], "it starts neither as a zip archive nor with the number"),
        ("text", b"<html>not found</html>".to_vec(), "it starts neither as a zip archive"),
        ("another pickle", Pickler::pickle(&root, true), "it starts neither as a zip archive"),
        ("tar", tar, "it is a tar archive, from before PyTorch 0.2"),
        (
            "compressed zip",
            writer.zip_around(&pickle, CompressionMethod::Deflated),
            "is compressed, which PyTorch never does",
        ),
        ("a storage missing from the zip", TorchWriter::new().zip(&root), "its entry archive/data/"),
        ("a storage missing from the stream", unlisted, "is referred to, but the file does not list it"),
        ("a flipped bit in a storage", damaged, "its entry archive/data/0 is damaged"),
    ] {
        let error = chain(&open(&bytes).unwrap_err());
        assert!(error.contains("is not a usable PyTorch checkpoint: "), "{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn cut_or_flipped_checkpoints_give_errors_and_never_panic() {
    let (writer, root) = training_checkpoint();
    for (container, bytes) in both(&writer, &root) {
        for cut in truncations(&bytes, 37) {
            assert!(open(cut).is_err(), "{} of {} bytes of a {container}", cut.len(), bytes.len());
        }
        for (_, flipped) in flips(&bytes, 1) {
            // Some flips only change a name or a value; none may do worse.
            if let Ok(file) = open(&flipped) {
                let _ = file.state_dict(None);
            }
        }
    }
}

#[test]
fn a_model_folder_has_weights_config_and_card_and_is_the_same_each_time() {
    let (writer, root) = training_checkpoint();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("net.pth");
    std::fs::write(&source, writer.legacy(&root)).unwrap();
    let file = TorchFile::open(&source).unwrap();
    let state = file.state_dict(None).unwrap();
    let build = |vb: candle_nn::VarBuilder<'static>| {
        vb.get((3, 2), "fc.transposed")?;
        candle_nn::linear(3, 2, vb.pp("fc"))
    };
    let fit =
        zoo_hub::check_fit("Net", state.to_checkpoint().unwrap(), &LoadOptions::default(), build).unwrap();
    let facts = CardFacts::new("Net", "BSD-3-Clause\nevil: true", &file).with_fit(fit);
    let config = json!({ "arch": file.facts()["arch"], "classes": 2 });
    let half = state.clone().into_half().unwrap();
    let write = |folder: &str| write_model(&dir.path().join(folder), &half, &config, &facts).unwrap();
    let (first, second) = (write("a"), write("b"));
    assert_eq!(first.digest, second.digest);
    assert_eq!(std::fs::read(&first.card).unwrap(), std::fs::read(&second.card).unwrap());
    assert_eq!(Digest::of_file(&first.weights).unwrap(), first.digest);

    let checkpoint = Checkpoint::open(&first.weights).unwrap();
    assert_eq!(checkpoint.metadata()["source_sha256"], file.digest().sha256);
    assert_eq!(checkpoint.tensors()["fc.weight"].stored, StoredType::F16);
    assert_eq!(checkpoint.tensors()["bn.num_batches_tracked"].stored, StoredType::I64);
    let bias = checkpoint.tensor("fc.bias", DType::F32, &Device::Cpu, false).unwrap();
    assert_eq!(bias.to_vec1::<f32>().unwrap(), [4., 5.]);
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(&first.config).unwrap()).unwrap();
    assert_eq!(config, json!({ "arch": "hyperseg_b1", "classes": 2 }));
    let card = std::fs::read_to_string(&first.card).unwrap();
    for part in [
        "---\nlicense: \"BSD-3-Clause\\nevil: true\"\n",
        "# Net\n",
        &format!("`{}`", file.digest().sha256),
        &format!("`{}`", first.digest.sha256),
        "| Source | `net.pth` |",
        "| Tensors | 4 (3 F16, 1 I64) |",
        "| Values | 14 |",
        "| State dict | `state_dict`, prefix `module.` removed |",
        "legacy stream (before PyTorch 1.6)",
        "all 3 tensors of Net are in ",
    ] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("a")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "no temporary file stays: {left:?}");
}

#[test]
fn values_too_large_for_f16_are_named() {
    let mut writer = TorchWriter::new();
    let w = writer.floats(&[1., 70000., f32::NAN]);
    let root = |offset| Py::dict([("w", Py::tensor(&w, offset, &[2], &[1]))]);
    let state = |offset| open(&writer.zip(&root(offset))).unwrap().state_dict(None).unwrap();
    let error = state(0).into_half().unwrap_err().to_string();
    assert!(error.contains("has the value 70000 at [1], which f16 cannot hold"), "{error}");
    assert!(state(0).check_finite().is_ok());
    let error = state(1).check_finite().unwrap_err().to_string();
    assert!(error.contains("has the value NaN at [1]"), "{error}");
}

#[test]
fn a_tensor_type_without_a_place_in_the_file_is_named() {
    let tensor = candle_core::Tensor::zeros(1, DType::F8E4M3, &Device::Cpu).unwrap();
    let error = zoo_hub::convert::to_safetensors([("x", &tensor)], &BTreeMap::new()).unwrap_err();
    let error = chain(&error);
    assert!(
        error.contains("tensor x of the file to write cannot be made: tensors of type f8e4m3"),
        "{error}"
    );
}

#[test]
fn a_missing_checkpoint_is_named() {
    let error = chain(&TorchFile::open(Path::new("/nowhere/net.pth")).unwrap_err());
    assert!(error.starts_with("cannot open /nowhere/net.pth: "), "{error}");
}
