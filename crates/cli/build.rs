//! Notes the commit for `zoo bench`, where the build happens in a git checkout.
#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::path::Path;
use std::process::Command;

fn main() {
    // Grows with every commit and checkout. Where it is missing, naming it would rebuild every time.
    let log = "../../.git/logs/HEAD";
    if Path::new(log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let described = Command::new("git").args(["describe", "--always", "--tags"]).output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo::rustc-env=ZOO_COMMIT={}", commit.as_deref().unwrap_or("unknown").trim());
}
