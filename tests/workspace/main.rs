//! What holds for the workspace as a whole, one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod dependencies;
mod features;
mod files;
mod key_frames;
mod licenses;
mod outside_program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};

/// The packages of the workspace and what they are built from on this machine. What only other machines or
/// features need may not have been downloaded, and no test should ask for the network.
static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    command.other_options(["--offline", "--filter-platform", "host-tuple"].map(str::to_owned));
    command.exec().unwrap_or_else(|error| panic!("cargo metadata: {error}"))
});

/// The top folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn members() -> Vec<&'static Package> {
    METADATA.workspace_packages()
}

fn member(name: &str) -> Option<&'static Package> {
    members().into_iter().find(|package| package.name == name)
}

/// Where a package lies in the repository: `crates/core`, `models/patchwork-det`.
fn folder(package: &Package) -> &Utf8Path {
    let folder = package.manifest_path.parent().unwrap();
    folder.strip_prefix(&METADATA.workspace_root).unwrap_or(folder)
}

fn is_model(package: &Package) -> bool {
    folder(package).starts_with("models")
}

/// What the library or the binaries are built from, without what only tests and benches need.
fn normal_dependencies(package: &Package) -> impl Iterator<Item = &Dependency> {
    package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development)
}

/// What git tracks or would track, relative to [`root`]; `None` (and a line that says so) where this is
/// no git checkout.
fn repository_files() -> Option<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let Some(output) = git.output().ok().filter(|output| output.status.success()) else {
        println!("skipped: no git checkout, so nothing says which files belong to the repository");
        return None;
    };
    let names = String::from_utf8(output.stdout).unwrap();
    let files = names.split_terminator('\0').map(PathBuf::from);
    Some(files.filter(|file| root().join(file).is_file()).collect())
}

/// Fails with all faults at once.
fn assert_none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}
