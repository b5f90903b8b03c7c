use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::{METADATA, assert_none, members, root};

/// The part of cargo-deny's configuration that this test reads.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[test]
fn every_dependency_has_a_licence_of_the_list() {
    let deny = std::fs::read_to_string(root().join(".cargo/deny.toml")).unwrap();
    let Licenses { allow, exceptions } = toml::from_str::<Deny>(&deny).unwrap().licenses;
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for package in &METADATA.packages {
        let excepted = exceptions.iter().filter(|exception| package.name == exception.name);
        let names = allow.iter().chain(excepted.flat_map(|exception| &exception.allow));
        let licensees: Vec<_> = names.map(|name| Licensee::parse(name).unwrap()).collect();
        let Some(text) = &package.license else {
            faults.push(format!("{} {} states no licence", package.name, package.version));
            continue;
        };
        let expression = Expression::parse_mode(text, ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{}: licence {text:?}: {error}", package.name));
        if expression.evaluate(|asked| licensees.iter().any(|licensee| licensee.satisfies(asked))) {
            used.insert(package.name.as_str());
        } else {
            faults.push(format!("{} {}: {text}", package.name, package.version));
        }
    }
    faults.extend(
        exceptions
            .iter()
            .filter(|exception| !used.contains(exception.name.as_str()))
            .map(|exception| format!("{} has an exception and is not there", exception.name)),
    );
    assert_none("licences outside .cargo/deny.toml's list", &faults);
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let mut faults = Vec::new();
    for package in &METADATA.packages {
        let local = package.source.is_none() && package.manifest_path.starts_with(root().to_str().unwrap());
        if !local && !package.source.as_ref().is_some_and(cargo_metadata::Source::is_crates_io) {
            faults.push(format!("{}: {:?}", package.name, package.source));
        }
    }
    assert_none("packages from elsewhere", &faults);
}

/// The table of `docs/dependencies.md` says of each direct dependency why it is there.
#[test]
fn the_page_of_dependencies_lists_each_of_them_and_no_other() {
    let page = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let listed: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, rest)| (name, rest.trim_matches(['|', ' '])))
        .collect();
    let direct: BTreeSet<_> = members()
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.path.is_none())
        .map(|dependency| dependency.name.as_str())
        .collect();
    let mut faults = Vec::new();
    faults.extend(
        direct.iter().filter(|name| !listed.contains_key(**name)).map(|name| format!("{name} is missing")),
    );
    faults.extend(
        listed
            .keys()
            .filter(|name| !direct.contains(**name))
            .map(|name| format!("{name} is not a dependency")),
    );
    faults.extend(listed.iter().filter(|(_, why)| why.is_empty()).map(|(name, _)| format!("{name}: why?")));
    assert_none("docs/dependencies.md", &faults);
}
