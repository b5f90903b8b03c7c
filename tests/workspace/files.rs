use std::ffi::OsStr;
use std::path::Path;

use toml::Table;

use crate::{assert_none, members, repository_files, root};

const MAX_REPOSITORY: u64 = 45_000_000;
const MAX_WEIGHTS: u64 = 25_000_000;

/// Tool configurations are dotfiles; everything else that a visitor sees first is one of these.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "crates",
    "docs",
    "models",
    "scripts",
    "tests",
];

/// Where unsafe code may be allowed: SIMD and in-place writes, and the memory map.
const UNSAFE_ALLOWED: &[&str] = &["crates/kernels/src", "crates/hub/src/mmap.rs"];

/// Parts of paths that exist on one person's machine only.
const HOME_FOLDERS: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

fn has_extension(file: &Path, extensions: &[&str]) -> bool {
    file.extension().and_then(OsStr::to_str).is_some_and(|extension| extensions.contains(&extension))
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(root().join(file)).unwrap()).into_owned()
}

#[test]
fn the_repository_stays_small() {
    let Some(files) = repository_files() else { return };
    let size = |file: &Path| root().join(file).metadata().unwrap().len();
    let all: u64 = files.iter().map(|file| size(file)).sum();
    let is_weights = |file: &&std::path::PathBuf| {
        has_extension(file, &["safetensors"]) && file.components().any(|part| part.as_os_str() == "weights")
    };
    let weights: u64 = files.iter().filter(is_weights).map(|file| size(file)).sum();
    assert!(all < MAX_REPOSITORY, "all files have {all} bytes, expected less than {MAX_REPOSITORY}");
    assert!(weights < MAX_WEIGHTS, "the weights have {weights} bytes, expected less than {MAX_WEIGHTS}");
    assert!(weights > 0, "no weights found, this test looks in the wrong place");
}

#[test]
fn the_top_level_is_what_it_should_be() {
    let Some(files) = repository_files() else { return };
    let mut faults = Vec::new();
    for file in &files {
        let first = file.iter().next().unwrap().to_str().unwrap();
        if !first.starts_with('.') && !TOP_LEVEL.contains(&first) {
            faults.push(file.display().to_string());
        }
    }
    assert_none("files outside the folders of the workspace", &faults);
}

#[test]
fn no_file_holds_a_path_of_one_machine() {
    let Some(files) = repository_files() else { return };
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| {
        has_extension(file, &["json", "md", "mjs", "py", "rs", "sh", "toml"]) || file.starts_with(".ci")
    }) {
        for (number, line) in text(file).lines().enumerate() {
            if HOME_FOLDERS.iter().any(|folder| line.contains(folder)) {
                faults.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("somebody's home folder", &faults);
}

#[test]
fn links_of_markdown_pages_lead_to_files() {
    let Some(files) = repository_files() else { return };
    let mut faults = Vec::new();
    let mut links = 0;
    for page in files.iter().filter(|file| has_extension(file, &["md"])) {
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in markdown_links(&text(page)) {
            let path = link.split('#').next().unwrap();
            let remote = path.contains("://") || path.starts_with("mailto:");
            if !path.is_empty() && !remote && !folder.join(path).exists() {
                faults.push(format!("{}: {link}", page.display()));
            }
            links += 1;
        }
    }
    assert_none("links to nothing", &faults);
    assert!(links > 10, "only {links} links found, this test reads them wrongly");
}

/// The targets of `[text](target)` and `![text](target)`, outside code.
fn markdown_links(page: &str) -> Vec<String> {
    let mut in_fence = false;
    let prose = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        in_fence ^= fence;
        !fence && !in_fence && !line.starts_with("    ")
    });
    let mut links = Vec::new();
    for line in prose {
        let without_code: String = line.split('`').step_by(2).collect();
        for rest in without_code.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            links.push(target.split(' ').next().unwrap_or_default().to_owned());
        }
    }
    links
}

#[test]
fn links_are_found_outside_code_only() {
    let page = "a [b](c.md#d), ![e](f.png \"g\")\n```\n[h](i)\n```\n    [j](k)\n`[l](m)` [n](o)\n";
    assert_eq!(markdown_links(page), ["c.md#d", "f.png", "o"]);
}

#[test]
fn the_index_of_the_guide_names_every_page() {
    let Some(files) = repository_files() else { return };
    let links = markdown_links(&text(Path::new("docs/README.md")));
    let pages = files.iter().filter_map(|file| file.strip_prefix("docs").ok()?.to_str());
    let pages = pages.filter(|page| page.ends_with(".md") && *page != "README.md");
    let missing: Vec<_> =
        pages.filter(|page| !links.iter().any(|link| link == page)).map(str::to_owned).collect();
    assert_none("pages that docs/README.md does not link to", &missing);
}

/// `unsafe_code` is denied by the workspace's lints, so whoever writes unsafe code has to name that lint.
#[test]
fn unsafe_code_is_in_kernels_and_the_memory_map_only() {
    let Some(files) = repository_files() else { return };
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| has_extension(file, &["rs"]) && !file.starts_with("tests")) {
        let allowed = UNSAFE_ALLOWED.iter().any(|place| file.starts_with(place));
        if !allowed && text(file).contains("unsafe_code") {
            faults.push(file.display().to_string());
        }
    }
    assert_none("unsafe code outside its places", &faults);

    let workspace: Table = toml::from_str(&text(Path::new("Cargo.toml"))).unwrap();
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
}

#[test]
fn every_crate_takes_the_lints_and_the_facts_of_the_workspace() {
    for package in members() {
        let manifest: Table = toml::from_str(&text(package.manifest_path.as_std_path())).unwrap();
        let inherits =
            |table: &toml::Value, key: &str| table.get(key).and_then(toml::Value::as_bool) == Some(true);
        assert!(inherits(&manifest["lints"], "workspace"), "{}: [lints] workspace = true", package.name);
        for fact in ["version", "edition", "rust-version", "license", "authors"] {
            assert!(
                inherits(&manifest["package"][fact], "workspace"),
                "{}: {fact}.workspace = true",
                package.name
            );
        }
        assert!(package.description.is_some(), "{}: no description", package.name);
    }
}
