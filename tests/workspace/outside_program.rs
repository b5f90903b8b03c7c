use std::path::Path;
use std::process::Command;

use crate::dependencies::NOT_IN_A_BARE_MODEL;
use crate::root;

/// The program of the README, in a package that knows nothing of this workspace, builds from one line of
/// dependencies, and brings neither network nor command line with it.
#[test]
fn the_program_of_the_readme_builds_outside_the_workspace() {
    let readme = std::fs::read_to_string(root().join("README.md"));
    let readme = readme.unwrap_or_else(|error| panic!("README.md: {error}"));
    let model = root().join("models/patchwork-det");
    let manifest = format!(
        "[package]
name = 'outside'
edition = '2024'

[dependencies]
patchwork-det = {{ path = '{}', default-features = false, features = ['bundled'] }}

# Keeps cargo from looking for a workspace above.
[workspace]
",
        model.display()
    );

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(folder.path().join("src/main.rs"), program(&readme)).unwrap();
    // The versions that the workspace was tested with; those that are not needed fall away.
    std::fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();

    cargo(folder.path(), &["build", "--quiet"]);
    let tree = cargo(folder.path(), &["tree", "--prefix", "none", "--edges", "normal"]);
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(!NOT_IN_A_BARE_MODEL.contains(&name), "{name} is in the tree of the program:\n{tree}");
    }
    assert!(tree.contains("candle-core "), "{tree}");
}

/// The README's Rust program: the block that starts with the model's import.
fn program(readme: &str) -> &str {
    let mut blocks = readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
    let program = blocks.find(|block| block.starts_with("use patchwork_det::"));
    let program = program
        .unwrap_or_else(|| panic!("README.md has no block of Rust that starts with `use patchwork_det::`"));
    let lines = program.lines().count();
    assert!(lines <= 24, "the README's program has {lines} lines and is meant to have about 20");
    program
}

/// Runs cargo in the outside package. Its build folder is inside the workspace's, so that only the first
/// run has much to do; the program is not run, so it needs no debug information.
fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).arg("--offline").current_dir(folder);
    cargo.env("CARGO_TARGET_DIR", root().join("target/outside"));
    cargo.envs([("CARGO_INCREMENTAL", "0"), ("CARGO_PROFILE_DEV_DEBUG", "0")]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{cargo:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
