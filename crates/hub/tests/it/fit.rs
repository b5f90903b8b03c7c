//! Holding files against nets.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear, linear_no_bias};
use zoo_core::Status;
use zoo_hub::{Checkpoint, Error, FitReport, LoadOptions, Pretrained, load};

use crate::support::{Entry, file_of, options};

fn checkpoint(shapes: &[(&str, &[usize])]) -> Checkpoint {
    Checkpoint::from_bytes("net.safetensors", file_of(shapes)).unwrap()
}

fn report(error: Error) -> FitReport {
    match error {
        Error::Fit(report) => *report,
        other => panic!("{other}"),
    }
}

struct Net {
    head: Linear,
    prepared: bool,
}

impl Pretrained for Net {
    type Config = usize;
    type Weights = Entry;

    fn config(_: &Entry) -> usize {
        2
    }

    fn new(classes: &usize, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        if *classes == 0 {
            candle_core::bail!("a net needs at least one class");
        }
        Ok(Self { head: linear(3, *classes, vb.pp("head"))?, prepared: false })
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        self.prepared = true;
        Ok(())
    }
}

#[test]
fn a_fitting_file_makes_a_net_that_computes_and_is_prepared() {
    let bytes: &'static [u8] = Vec::leak(file_of(&[("head.weight", &[2, 3]), ("head.bias", &[2])]));
    let entry = Entry::new(Status::Bundled).pinned_to(bytes).bundling(bytes);
    let dir = tempfile::tempdir().unwrap();
    let net = Net::from_pretrained(entry, &options(dir.path())).unwrap();
    assert!(net.prepared);
    let xs = Tensor::new(&[[1f32, 1., 1.]], &Device::Cpu).unwrap();
    let ys = net.head.forward(&xs).unwrap();
    assert_eq!(ys.to_vec2::<f32>().unwrap(), [[3., 13.]]);

    let path = dir.path().join("net.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let half = Net::from_file(&2, &path, &LoadOptions::default().with_dtype(DType::F16)).unwrap();
    assert_eq!((half.head.weight().dtype(), half.prepared), (DType::F16, true));
}

#[test]
fn every_fault_is_in_one_report() {
    let file = checkpoint(&[
        ("decoder.level0.0.weight", &[4, 2]),
        ("decoder.level0.0.num_batches_tracked", &[1]),
        ("head.weight", &[21, 32, 1, 1]),
        ("unrelated", &[1]),
        ("transposed", &[3, 2]),
    ]);
    let error = load("HyperSeg (efficientnet_b1)", file, &LoadOptions::default(), |vb| {
        vb.get((4, 2), "decoder.level_0.0.weight")?;
        vb.get(7, "nothing_like_it_at_all")?;
        vb.get((2, 3), "transposed")?;
        vb.get((19, 32, 1, 1), "head.weight")
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "weights net.safetensors do not fit HyperSeg (efficientnet_b1): 2 missing, 2 unexpected, 2 wrong shape\n\
         \x20 missing     decoder.level_0.0.weight  [4, 2] (did you mean decoder.level0.0.weight?)\n\
         \x20 missing     nothing_like_it_at_all    [7]\n\
         \x20 unexpected  decoder.level0.0.weight\n\
         \x20 unexpected  unrelated\n\
         \x20 wrong shape head.weight               expected [19, 32, 1, 1], file has [21, 32, 1, 1] (num_classes \
         21?)\n\
         \x20 wrong shape transposed                expected [2, 3], file has [3, 2]"
    );
    let report = report(error);
    assert_eq!((report.missing.len(), report.unexpected.len(), report.wrong_shape.len()), (2, 2, 2));
    assert_eq!(report.requested, 4);
}

#[test]
fn a_long_report_is_cut_and_says_by_how_much() {
    let error = load("Net", checkpoint(&[]), &LoadOptions::default(), |vb| {
        for i in 0..25 {
            vb.get(1, &format!("layer{i}"))?;
        }
        Ok(())
    })
    .unwrap_err();
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1 + 10 + 1, "{text}");
    assert!(text.ends_with("\n  missing     and 15 more"), "{text}");
    assert_eq!(report(error).missing.len(), 25, "the report itself is whole");
}

#[test]
fn only_named_prefixes_may_be_left_over() {
    let shapes: &[(&str, &[usize])] = &[
        ("head.weight", &[2, 3]),
        ("aux.weight", &[1]),
        ("aux.bn.num_batches_tracked", &[1]),
        ("ema", &[1]),
    ];
    let build = |vb: VarBuilder<'static>| linear_no_bias(3, 2, vb.pp("head"));
    let options = LoadOptions::default();
    let left = report(load("Net", checkpoint(shapes), &options, build).unwrap_err()).unexpected;
    assert_eq!(left, ["aux.weight", "ema"]);
    let options = options.allow_unexpected(["aux."]);
    let left = report(load("Net", checkpoint(shapes), &options, build).unwrap_err()).unexpected;
    assert_eq!(left, ["ema"]);
    assert!(load("Net", checkpoint(shapes), &options.allow_unexpected(["ema"]), build).is_ok());
}

#[test]
fn a_tensor_asked_for_without_a_shape_is_reported_too() {
    let file = checkpoint(&[("tabel", &[4])]);
    let error = load("Net", file, &LoadOptions::default(), |vb| vb.get_unchecked("table")).unwrap_err();
    let report = report(error);
    assert_eq!(report.missing[0].shape, None);
    assert!(report.unexpected.is_empty(), "the net was not built to its end");
    let file = checkpoint(&[("table", &[4])]);
    let table = load("Net", file, &LoadOptions::default(), |vb| vb.get_unchecked("table")).unwrap();
    assert_eq!(table.dims(), [4]);
}

#[test]
fn a_shape_that_does_not_fit_is_reported_even_if_another_request_does() {
    for order in [[2, 4], [4, 2]] {
        let error = load("Net", checkpoint(&[("w", &[4])]), &LoadOptions::default(), |vb| {
            order.iter().try_for_each(|&size| vb.get(size, "w").map(drop))
        })
        .unwrap_err();
        assert_eq!(report(error).wrong_shape[0].expected, [2], "{order:?}");
    }
}

#[test]
fn other_failures_keep_their_own_words() {
    let nan = Tensor::new(&[1f32, f32::NAN], &Device::Cpu).unwrap();
    let bytes = zoo_hub::convert::to_safetensors([("w", &nan)], &Default::default()).unwrap();
    let file = || Checkpoint::from_bytes("net.safetensors", bytes.clone()).unwrap();
    let build = |vb: VarBuilder<'static>| vb.get(2, "w");
    let error = load("Net", file(), &LoadOptions::default(), build).unwrap_err();
    assert!(matches!(&error, Error::NonFinite { position, .. } if *position == [1]), "{error}");
    assert!(load("Net", file(), &LoadOptions::default().allow_non_finite(), build).is_ok());

    let count = Tensor::new(&[1i64, 2], &Device::Cpu).unwrap();
    let bytes = zoo_hub::convert::to_safetensors([("w", &count)], &Default::default()).unwrap();
    let file = Checkpoint::from_bytes("net.safetensors", bytes).unwrap();
    let error = load("Net", file, &LoadOptions::default(), build).unwrap_err();
    assert!(matches!(&error, Error::TensorType { .. }), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    std::fs::write(&path, file_of(&[])).unwrap();
    let error = Net::from_file(&0, &path, &LoadOptions::default()).err().unwrap();
    let text = crate::support::chain(&error);
    assert!(text.starts_with("building Net failed: a net needs at least one class"), "{text}");
}
