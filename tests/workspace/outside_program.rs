use std::path::Path;
use std::process::Command;

use crate::root;

/// The one line that a stranger writes.
const DEPENDENCY: &str =
    "patchwork-det = { path = \"FOLDER\", default-features = false, features = [\"bundled\"] }";

/// The program of the README, in a package that knows nothing of this workspace, builds from one line of
/// dependencies, and brings neither network nor command line with it.
#[test]
fn the_programs_of_the_readme_build_outside_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    let model = root().join("models/patchwork-det");
    let dependency = DEPENDENCY.replace("FOLDER", model.to_str().unwrap());
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"outside\"\nedition = \"2024\"\n\n[dependencies]\n{dependency}\n\n[workspace]\n"
        ),
    );
    write("src/main.rs", &program(&std::fs::read_to_string(root().join("README.md")).unwrap()));
    // The versions that the workspace was tested with; those that are not needed fall away.
    std::fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();

    cargo(folder.path(), &["check", "--quiet"]);
    let tree = cargo(folder.path(), &["tree", "--prefix", "none", "--edges", "normal"]);
    for name in ["clap", "hf-hub", "reqwest", "rustls", "tokio"] {
        let found = tree.lines().any(|line| line.split(' ').next() == Some(name));
        assert!(!found, "{name} is in the tree of the program:\n{tree}");
    }
}

/// The README's Rust program: the block that starts with the model's import.
fn program(readme: &str) -> String {
    let blocks = readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut programs = blocks.filter(|block| block.starts_with("use patchwork_det::"));
    let program = programs
        .next()
        .unwrap_or_else(|| panic!("README.md has no ```rust block that starts with `use patchwork_det::`"));
    assert!(program.lines().count() <= 24, "the README's program is meant to have about 20 lines");
    program.to_owned()
}

/// Runs cargo in the outside package, with its build folder inside the workspace's, so that a second run
/// has nothing to do.
fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).arg("--offline").current_dir(folder);
    cargo.env("CARGO_TARGET_DIR", root().join("target/outside"));
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "{cargo:?} in a package of its own:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
