use std::collections::BTreeMap;

use crate::dependencies::DEV_ONLY;
use crate::{METADATA, assert_none, folder, is_model, member, members, normal_dependencies};

/// What candle has and the zoo passes on.
const OF_CANDLE: &[&str] = &["accelerate", "cuda", "cudnn", "mkl"];

/// What only programs of others switch on: the command does not train.
const OF_LIBRARIES: &[&str] = &["train"];

/// Every feature of every dependency has to be reachable from the crate that depends on it, by the same
/// name: else `--features cuda` at the top leaves a crate below on the CPU.
#[test]
fn every_crate_forwards_the_features_of_its_dependencies() {
    let mut faults = Vec::new();
    for package in members().into_iter().filter(|package| package.name != DEV_ONLY) {
        let mut missing = BTreeMap::<_, Vec<_>>::new();
        for dependency in normal_dependencies(package) {
            let name = dependency.name.as_str();
            for feature in features_of(name) {
                let links = [format!("{name}/{feature}"), format!("{name}?/{feature}")];
                let forwards = package.features.get(&feature);
                if !forwards.is_some_and(|forwards| links.iter().any(|link| forwards.contains(link))) {
                    missing.entry(feature).or_default().push(name);
                }
            }
        }
        faults.extend(missing.iter().map(|(feature, names)| {
            format!("{}: {feature} does not reach {}", folder(package), names.join(", "))
        }));
    }
    assert_none("features that stop on their way down", &faults);
}

fn features_of(dependency: &str) -> Vec<String> {
    let passed_on = |name: &&String| *name != "default" && !OF_LIBRARIES.contains(&name.as_str());
    let ours = member(dependency).map(|package| package.features.keys().filter(passed_on));
    match ours {
        Some(names) => names.cloned().collect(),
        None if dependency.starts_with("candle-") => {
            let package = METADATA.packages.iter().find(|package| package.name == dependency).unwrap();
            let has = |name: &&&str| package.features.contains_key(**name);
            OF_CANDLE.iter().filter(has).map(|name| (*name).to_owned()).collect()
        }
        None => Vec::new(),
    }
}

#[test]
fn only_models_and_the_cli_have_features_on_by_default() {
    for package in members() {
        let mut default = package.features.get("default").cloned().unwrap_or_default();
        default.sort();
        match folder(package).as_str() {
            "crates/cli" => assert_eq!(default, ["bundled", "hub"], "{}", package.name),
            _ if is_model(package) => assert_eq!(default, ["hub"], "{}", package.name),
            _ => assert!(default.is_empty(), "{}: {default:?}", package.name),
        }
    }
}

/// Else no binary could leave a default feature out.
#[test]
fn no_crate_takes_another_with_its_default_features() {
    let mut faults = Vec::new();
    for package in members() {
        for dependency in normal_dependencies(package).filter(|dependency| dependency.uses_default_features) {
            let default = member(&dependency.name).and_then(|package| package.features.get("default"));
            if default.is_some_and(|default| !default.is_empty()) {
                faults.push(format!("{} takes {} with its defaults", package.name, dependency.name));
            }
        }
    }
    assert_none("`default-features = false` is missing", &faults);
}

/// NVIDIA's deep-learning library serves nothing without CUDA itself.
#[test]
fn cudnn_brings_cuda() {
    for package in members() {
        if let Some(brings) = package.features.get("cudnn") {
            assert!(brings.iter().any(|entry| entry == "cuda"), "{}: cudnn = {brings:?}", package.name);
        }
    }
}
