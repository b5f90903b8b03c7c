//! The authors' checkpoints: files with their names and entries, and seeded values.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use hyperseg::checkpoint::Shapes;
use hyperseg::weights::{HyperSegWeights, config_beside};
use hyperseg::{BackboneName, Config, HyperSegNet, Preset, Version, checkpoint};
use zoo_hub::convert::{CardFacts, TorchFile, write_model};
use zoo_hub::{LoadOptions, Pretrained};
use zoo_testing::{Py, TorchWriter};

use crate::support::{net, noise, small, state, value, values};

/// A description with everything that a configuration decides.
fn arch(cfg: &Config) -> String {
    let version = cfg.version;
    let mut text =
        format!("hyperseg.models.hyperseg_{version}.hyperseg_efficientnet('{}'", cfg.backbone.name());
    let mut add = |name: &str, value: String| text.push_str(&format!(",{name}={}", value.replace(' ', "")));
    add("pretrained", "True".to_owned());
    add("levels", cfg.head_levels.to_string());
    add("kernel_sizes", format!("{:?}", cfg.kernel_sizes));
    add("expand_ratio", cfg.expand_ratio.to_string());
    add("inference_hflip", "True".to_owned());
    if version == Version::V0_1 {
        add("weight_groups", cfg.weight_groups[0].to_string());
    } else {
        add("weight_groups", format!("{:?}", cfg.weight_groups));
        add("out_feat_scale", format!("{:?}", cfg.out_feat_scale));
        let mut channels = cfg.level_channels.clone().unwrap();
        channels.push(99);
        add("level_channels", format!("{channels:?}"));
        add("coords_res", "[(64, 64), (64, 128)]".to_owned());
    }
    if let Some(level) = cfg.unify_level {
        add("unify_level", level.to_string());
    }
    format!("{text},num_classes={})", cfg.num_classes)
}

/// A checkpoint as their training writes it.
fn checkpoint_file(cfg: &Config, folder: &Path) -> TorchFile {
    let mut writer = TorchWriter::new();
    let mut entries = Vec::new();
    let tensor = |writer: &mut TorchWriter, name: &str, shape: &[usize]| {
        let storage = writer.floats(&value(name, shape));
        let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        Py::tensor(&storage, 0, shape, &strides)
    };
    for (name, shape) in state(cfg) {
        entries.push((Py::text(&name), tensor(&mut writer, &name, &shape)));
        if let Some(norm) = name.strip_suffix("running_var") {
            let count = writer.storage("LongStorage", 8, 7i64.to_le_bytes().to_vec());
            entries.push((Py::text(&format!("{norm}num_batches_tracked")), Py::tensor(&count, 0, &[], &[])));
        }
    }
    if cfg.version != Version::V0_1 {
        for side in [64, 32, 16, 8, 4] {
            let name = format!("decoder.coord{side}_{side}");
            entries.push((Py::text(&name), tensor(&mut writer, &name, &[1, 2, side, side])));
        }
    }
    let moment = tensor(&mut writer, "exp_avg", &[4]);
    let moments = Py::Dict(vec![(Py::Int(0), Py::dict([("step", Py::Int(3)), ("exp_avg", moment)]))]);
    let root = Py::dict([
        ("epoch", Py::Int(120)),
        ("state_dict", Py::OrderedDict(entries)),
        ("optimizer", Py::dict([("state", moments), ("param_groups", Py::List(vec![]))])),
        ("scheduler", Py::dict([("last_epoch", Py::Int(120))])),
        (
            "best_iou",
            Py::Object("numpy.core.multiarray", "scalar", vec![Py::text("f8"), Py::text("bytes")], None),
        ),
        ("arch", Py::text(&arch(cfg))),
    ]);
    let path = folder.join("model_best.pth");
    std::fs::write(&path, writer.zip(&root)).unwrap();
    TorchFile::open(&path).unwrap()
}

/// What `zoo convert` does, and the net from what it wrote.
fn converted(cfg: &Config, folder: &Path) -> HyperSegNet {
    let file = checkpoint_file(cfg, folder);
    assert!(checkpoint::is_hyperseg(&file));
    let read = checkpoint::config(&file).unwrap();
    assert_eq!(&read, cfg, "{}", arch(cfg));
    let mut tensors = file.state_dict(None).unwrap();
    checkpoint::leave_out_unused(&mut tensors);
    assert_eq!(tensors.tensors().len(), state(cfg).len(), "position maps and counters are left out");
    HyperSegNet::check(&read, &tensors.to_checkpoint().unwrap()).unwrap();
    let config = serde_json::json!({ "architecture": "hyperseg", "config": read });
    let written =
        write_model(folder, &tensors, &config, &CardFacts::new("hyperseg", "unknown", &file)).unwrap();
    let beside = config_beside(&written.weights).unwrap().unwrap();
    HyperSegNet::from_file(&beside.net, &written.weights, &LoadOptions::default()).unwrap()
}

#[test]
fn the_authors_files_become_the_nets_they_describe() {
    let v0_2 = Config { version: Version::V0_2, ..small(Preset::CamvidS) };
    // The paper's numbers fit a HyperSeg-M with r_1 = 1/4: a released file may be one.
    let quarter = Config { out_feat_scale: [0.25; 5], ..small(Preset::CityscapesM) };
    let mut cases: Vec<Config> = Preset::ALL.map(small).into();
    cases.extend([v0_2, quarter]);
    for cfg in cases {
        let folder = tempfile::tempdir().unwrap();
        let loaded = converted(&cfg, folder.path());
        let mut expected = net(&cfg);
        expected.prepare().unwrap();
        let xs = noise(1, 128, 128);
        let (got, expected) = (loaded.forward(&xs).unwrap(), expected.forward(&xs).unwrap());
        assert_eq!(values(&got), values(&expected), "{}", arch(&cfg));
    }
}

#[test]
fn a_file_for_another_net_says_for_which() {
    let camvid = small(Preset::CamvidS);
    let shapes = state(&camvid);
    let change = |change: &dyn Fn(&mut Shapes)| {
        let mut shapes = shapes.clone();
        change(&mut shapes);
        shapes
    };
    let more_classes = change(&|shapes| {
        for name in ["weight", "bias", "running_mean", "running_var"] {
            shapes.insert(format!("decoder.level_4.0.bn3.{name}"), vec![19]);
        }
    });
    let unreduced = change(&|shapes| shapes.retain(|name, _| !name.contains("_feat_fc_0")));
    for (cfg, shapes, expected) in [
        (
            small(Preset::VocL),
            &shapes,
            "was made by version v1_0 of the authors' code (it has decoder.level_0.0.0.signal2weights.weight), the configuration is of v0_1: load it with the config.json that `zoo convert` writes beside it, or with a configuration of version v1_0 (or v0_2)",
        ),
        (small(Preset::CityscapesS), &shapes, "by version v1_0"),
        (
            camvid.clone(),
            &state(&small(Preset::VocL)),
            "by version v0_1 of the authors' code (it has weight_mapper.out_conv.conv_0.weight)",
        ),
        (camvid.clone(), &state(&small(Preset::CityscapesS)), "by version v1_0_unify"),
        (
            Config { version: Version::V0_2, ..camvid.clone() },
            &shapes,
            "by version v1_0 of the authors' code (decoder.level_2.0.0.signal2weights.weight reads 8 channels a group)",
        ),
        (
            camvid.clone(),
            &more_classes,
            "predicts 19 classes (decoder.level_4.0.bn3.weight has so many values), the configuration 12: set num_classes = 19",
        ),
        (small(Preset::CityscapesM), &shapes, "predicts 12 classes"),
        (
            camvid.clone(),
            &unreduced,
            "_feat_fc_0.0.weight shows a net without that reduction: 1, the configuration's out_feat_scale[0] is 0.25 for 16 channels",
        ),
        (
            Config { backbone: BackboneName::EfficientnetB3, ..camvid.clone() },
            &shapes,
            "shows 16 → 4 channels: 0.250, the configuration's out_feat_scale[0] is 0.25 for 24 channels",
        ),
        (Config { weight_groups: vec![32, 32, 32, 16, 8], ..camvid.clone() }, &shapes, "check weight_groups"),
        (camvid.clone(), &BTreeMap::new(), "it has no tensor of a HyperSeg decoder"),
    ] {
        let error = checkpoint::check(&cfg, shapes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    checkpoint::check(&camvid, &shapes).unwrap();
}

#[test]
fn loading_into_another_configuration_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    converted(&small(Preset::CamvidS), folder.path());
    let weights = folder.path().join("model.safetensors");
    let error =
        HyperSegNet::from_file(&small(Preset::VocL), &weights, &LoadOptions::default()).err().unwrap();
    assert!(error.to_string().contains("model.safetensors are not for this HyperSegNet"), "{error}");
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("the configuration is of v0_1"), "{reason}");
}

#[test]
fn files_without_a_description_and_configurations_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = TorchWriter::new();
    let storage = writer.floats(&[1.0]);
    let root = Py::dict([("state_dict", Py::dict([("a", Py::tensor(&storage, 0, &[1], &[1]))]))]);
    let path = folder.path().join("model.pth");
    std::fs::write(&path, writer.zip(&root)).unwrap();
    let file = TorchFile::open(&path).unwrap();
    assert!(!checkpoint::is_hyperseg(&file));
    let error = checkpoint::config(&file).unwrap_err().to_string();
    assert!(error.contains("arch string is missing: name a preset"), "{error}");

    let weights = folder.path().join("model.safetensors");
    assert!(config_beside(&weights).unwrap().is_none());
    for (text, expected) in [
        ("{", "config.json"),
        ("{}", "has no entry 'config'"),
        (r#"{"config":{"version":"v1_0"}}"#, "missing field"),
    ] {
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let error = config_beside(&weights).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn published_weights_say_how_to_get_them_and_unpublished_ones_that_there_are_none() {
    for preset in Preset::ALL {
        let error = HyperSegNet::from_pretrained(HyperSegWeights(preset), &LoadOptions::default());
        let error = error.err().unwrap().to_string();
        let expected = match preset {
            Preset::CamvidL => "nobody has trained or published them",
            _ => "`zoo convert ",
        };
        assert!(error.contains(expected), "{}: {error}", preset.name());
    }
}

#[test]
fn a_seeded_value_is_what_the_file_holds() {
    let cfg = small(Preset::CamvidS);
    let folder = tempfile::tempdir().unwrap();
    let file = checkpoint_file(&cfg, folder.path());
    let tensors = file.state_dict(Some("state_dict")).unwrap().to_checkpoint().unwrap();
    let name = "weight_mapper.in_conv.0.weight";
    let stored = tensors.tensor(name, DType::F32, &Device::Cpu, false).unwrap();
    let expected = Tensor::from_vec(value(name, stored.dims()), stored.dims(), &Device::Cpu);
    assert_eq!(values(&stored), values(&expected.unwrap()));
}
