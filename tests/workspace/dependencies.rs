use std::collections::BTreeSet;
use std::process::Command;

use cargo_metadata::Package;

use crate::{assert_none, folder, is_model, members, normal_dependencies, root};

/// The shared crates, and which of them each may be built on. Whoever adds a crate adds a line.
const SHARED: &[(&str, &[&str])] = &[
    ("zoo-core", &[]),
    ("zoo-kernels", &["zoo-core"]),
    ("zoo-layers", &["zoo-core", "zoo-kernels"]),
    ("zoo-hub", &["zoo-core"]),
    ("zoo-vision", &["zoo-core"]),
    ("zoo-metrics", &["zoo-core"]),
    ("zoo-parity", &["zoo-core"]),
    ("zoo-train", &["zoo-core", "zoo-kernels"]),
    ("zoo-testing", &[]),
];
/// Whoever only runs a model does without it.
const OPTIONAL: &str = "zoo-train";
/// Serves tests; no library or binary is built on it.
pub const DEV_ONLY: &str = "zoo-testing";

/// Crates that have one home: the network and memory maps in the hub, the command line in the cli.
const AT_HOME: &[(&str, &str)] = &[
    ("hf-hub", "zoo-hub"),
    ("reqwest", "zoo-hub"),
    ("tokio", "zoo-hub"),
    ("memmap2", "zoo-hub"),
    ("zip", "zoo-hub"),
    ("image", "zoo-vision"),
    ("hotcoco", "zoo-metrics"),
    ("anyhow", "zoo-cli"),
    ("clap", "zoo-cli"),
    ("indicatif", "zoo-cli"),
    ("tracing-subscriber", "zoo-cli"),
];

/// Nothing of the network or the command line may come with a model that was asked for without `hub`.
pub const NOT_IN_A_BARE_MODEL: &[&str] =
    &["clap", "hf-hub", "hyper", "native-tls", "openssl", "reqwest", "ring", "rustls", "tokio"];

fn allowed(package: &Package) -> Option<Vec<&'static str>> {
    let for_models = || SHARED.iter().map(|(name, _)| *name).filter(|name| *name != DEV_ONLY);
    match folder(package).as_str() {
        "tests" => Some(Vec::new()),
        "crates/cli" => {
            let models = members().into_iter().filter(|package| is_model(package));
            Some(for_models().chain(models.map(|model| model.name.as_str())).collect())
        }
        _ if is_model(package) => Some(for_models().collect()),
        _ => SHARED.iter().find(|(name, _)| package.name == name).map(|(_, allowed)| allowed.to_vec()),
    }
}

#[test]
fn dependencies_point_one_way() {
    let mut faults = Vec::new();
    for package in members() {
        let Some(allowed) = allowed(package) else {
            faults.push(format!("{}: not in the table of shared crates of this test", package.name));
            continue;
        };
        for dependency in normal_dependencies(package).filter(|dependency| dependency.path.is_some()) {
            if !allowed.contains(&dependency.name.as_str()) {
                faults.push(format!("{} depends on {}; allowed: {allowed:?}", package.name, dependency.name));
            }
        }
    }
    assert_none("core <- kernels <- layers <- models <- cli; hub, vision, metrics, parity on core", &faults);
}

#[test]
fn models_train_only_if_asked() {
    let mut faults = Vec::new();
    for model in members().into_iter().filter(|package| is_model(package)) {
        let train = normal_dependencies(model).find(|dependency| dependency.name == OPTIONAL);
        if train.is_some_and(|train| !train.optional) {
            faults
                .push(format!("{} takes {OPTIONAL} always: make it optional, behind a feature", model.name));
        }
    }
    assert_none("training that inference has to carry", &faults);
}

#[test]
fn network_decoders_and_command_line_stay_in_their_crates() {
    let mut faults = Vec::new();
    for package in members().into_iter().filter(|package| package.name != DEV_ONLY) {
        for dependency in normal_dependencies(package) {
            let home = AT_HOME.iter().find(|(name, _)| dependency.name == *name);
            if let Some((name, home)) = home.filter(|(_, home)| package.name != home) {
                faults.push(format!("{} depends on {name}, whose place is {home}", package.name));
            }
        }
    }
    assert_none("crates outside their home", &faults);
}

#[test]
fn a_model_without_features_brings_no_network_and_no_command_line() {
    for model in members().into_iter().filter(|package| is_model(package)) {
        let bare = tree(&model.name, &["--no-default-features"]);
        let unwanted: Vec<_> = NOT_IN_A_BARE_MODEL.iter().filter(|name| bare.contains(**name)).collect();
        assert!(unwanted.is_empty(), "{} --no-default-features brings {unwanted:?}", model.name);
        assert!(bare.contains("candle-core"), "{}: {bare:?}", model.name);
        assert!(tree(&model.name, &[]).contains("hf-hub"), "{} with `hub` brings no hf-hub", model.name);
    }
}

/// The names of all packages that a package is built from.
fn tree(package: &str, options: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package]);
    let output = cargo.args(options).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn each_crate_has_one_integration_test_binary_at_most() {
    let mut faults = Vec::new();
    for package in members() {
        let binaries: Vec<_> = package.targets.iter().filter(|t| t.is_test()).map(|t| &t.name).collect();
        if binaries.len() > 1 {
            faults.push(format!("{}: {binaries:?}", package.name));
        }
    }
    assert_none("each binary links candle anew; make them modules of one", &faults);
}
