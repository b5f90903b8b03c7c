//! Everything about finding a file that needs no network; runs with and without feature `hub`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use zoo_core::Status;
use zoo_hub::{Environment, LoadOptions, Located, resolve};

use crate::support::{COMMIT, Entry, FILE, chain, file_of, files_below, options, weights};

fn cached(cache: &Path) -> PathBuf {
    cache.join("models--zoo--net/snapshots").join(COMMIT).join(FILE)
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn with_weights_dir(options: LoadOptions, dir: &Path) -> LoadOptions {
    let dir = OsString::from(dir);
    options
        .with_environment(Environment::from_lookup(|name| (name == "ZOO_WEIGHTS_DIR").then(|| dir.clone())))
}

#[test]
fn local_wins_over_the_weights_folder_over_bundled_over_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, folder) = (dir.path().join("cache"), dir.path().join("weights"));
    let bytes: &'static [u8] = Vec::leak(weights());
    let entry = Entry::on_hub(FILE).pinned_to(bytes);
    put(&cached(&cache), bytes);
    put(&folder.join("net-tag.safetensors"), bytes);
    let own = dir.path().join("own.safetensors");
    put(&own, &file_of(&[("other", &[1])]));

    let base = options(&cache).with_offline(true);
    assert_eq!(resolve(&entry, &base).unwrap(), Located::Cached(cached(&cache)));
    let entry = entry.bundling(bytes);
    assert_eq!(resolve(&entry, &base).unwrap(), Located::Bundled { name: "net/tag".to_owned(), bytes });
    let base = with_weights_dir(base, &folder);
    assert_eq!(resolve(&entry, &base).unwrap(), Located::WeightsDir(folder.join("net-tag.safetensors")));
    let given = resolve(&entry, &base.with_weights(&own)).unwrap();
    assert_eq!(given, Located::Given(own));
    assert!(given.open().unwrap().tensors().contains_key("other"));
}

#[test]
fn an_empty_weights_folder_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: &'static [u8] = Vec::leak(weights());
    let entry = Entry::new(Status::Bundled).pinned_to(bytes).bundling(bytes);
    let located = resolve(&entry, &with_weights_dir(options(dir.path()), dir.path())).unwrap();
    assert!(matches!(located, Located::Bundled { .. }), "{located}");
}

#[test]
fn a_damaged_file_of_the_user_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net-tag.safetensors");
    let mut bytes = weights();
    let entry = Entry::on_hub(FILE).pinned_to(&bytes);
    *bytes.last_mut().unwrap() ^= 1;
    put(&path, &bytes);
    let error = resolve(&entry, &with_weights_dir(options(dir.path()), dir.path())).unwrap_err().to_string();
    assert!(error.contains("net-tag.safetensors is not the file it should be: expected sha256 "), "{error}");
    assert!(error.contains(", got sha256 "), "{error}");
    assert!(error.contains("it was left alone"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn damaged_bundled_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let entry = Entry::new(Status::Bundled).pinned_to(&weights()).bundling(b"not weights");
    let error = resolve(&entry, &options(dir.path())).unwrap_err().to_string();
    assert!(error.contains("the file bundled for net/tag is not the file it should be: expected"), "{error}");
    assert!(error.contains("got 11 bytes; the source tree is damaged"), "{error}");
}

#[test]
fn a_damaged_cached_file_is_removed_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = weights();
    let entry = Entry::on_hub(FILE).pinned_to(&bytes);
    put(&cached(dir.path()), &bytes[..bytes.len() - 3]);
    let error = resolve(&entry, &options(dir.path()).with_offline(true)).unwrap_err().to_string();
    let size = bytes.len();
    assert!(error.contains(&format!("expected {size} bytes, got {} bytes", size - 3)), "{error}");
    assert!(error.contains("it was removed from the cache: run again"), "{error}");
    assert!(!cached(dir.path()).exists());
}

#[cfg(unix)]
#[test]
fn a_damaged_blob_behind_a_link_is_removed_too_but_never_outside_of_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let entry = Entry::on_hub(FILE).pinned_to(&weights());
    let own = dir.path().join("own-file");
    for (blob, survives) in [(cache.join("models--zoo--net/blobs/abc"), false), (own, true)] {
        put(&blob, b"damaged");
        std::fs::create_dir_all(cached(&cache).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&blob, cached(&cache)).unwrap();
        assert!(resolve(&entry, &options(&cache).with_offline(true)).is_err());
        assert!(cached(&cache).symlink_metadata().is_err(), "the link to {} stayed", blob.display());
        assert_eq!(blob.exists(), survives, "{}", blob.display());
    }
}

#[test]
fn the_marker_saves_a_second_hashing_and_a_change_is_still_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = weights();
    let entry = Entry::on_hub(FILE).pinned_to(&bytes);
    let options = options(dir.path()).with_offline(true);
    put(&cached(dir.path()), &bytes);
    resolve(&entry, &options).unwrap();
    assert_eq!(files_below(dir.path()), [".model.safetensors.zoo-verified", "model.safetensors"]);

    // Same size and time, other bytes: only a file that is not hashed again passes.
    let time = std::fs::metadata(cached(dir.path())).unwrap().modified().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    put(&cached(dir.path()), &bytes);
    let file = std::fs::File::options().write(true).open(cached(dir.path())).unwrap();
    file.set_modified(time).unwrap();
    resolve(&entry, &options).unwrap();

    file.set_modified(time + std::time::Duration::from_secs(1)).unwrap();
    let error = resolve(&entry, &options).unwrap_err().to_string();
    assert!(error.contains("expected sha256"), "{error}");
    assert!(files_below(dir.path()).is_empty(), "file and marker are gone");
}

#[test]
fn offline_without_a_cached_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let offline = Environment::from_lookup(|name| (name == "HF_HUB_OFFLINE").then(|| "1".into()));
    let options = options(dir.path()).with_environment(offline);
    let error = resolve(&Entry::on_hub(FILE).pinned_to(b"x"), &options).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("model.safetensors of zoo/net@{COMMIT} is not in the cache")),
        "{error}"
    );
    assert!(error.contains("HF_HUB_OFFLINE forbids fetching it: unset it once, or put"), "{error}");
    assert!(files_below(dir.path()).is_empty());
}

#[test]
fn what_cannot_be_fetched_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (status, expected) in [
        (
            Status::Convert("zoo convert net.pth --model net".to_owned()),
            "weights net/tag are not published in a form that can be loaded: zoo convert net.pth --model net",
        ),
        (
            Status::Random,
            "weights net/tag do not exist, nobody has trained or published them: give your own file",
        ),
        (Status::Bundled, "this build left them out: turn on its feature `bundled`"),
    ] {
        let error = resolve(&Entry::new(status), &options(dir.path())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_that_leave_the_cache_never_reach_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    for name in ["../../../escape", "/escape", "a\\..\\escape", "C:/escape", "a//escape", "", "."] {
        let error = resolve(&Entry::on_hub(name).pinned_to(b"x"), &options(&cache)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("file name {name:?} is refused, it ")), "{error}");
        let mut entry = Entry::new(Status::Bundled).bundling(b"x");
        entry.spec.file = name.to_owned();
        assert!(resolve(&entry, &options(&cache)).is_err(), "{name}");
    }
    assert!(files_below(dir.path()).is_empty());
}

#[test]
fn a_branch_cannot_be_pinned_to_a_hash() {
    let dir = tempfile::tempdir().unwrap();
    let mut entry = Entry::on_hub(FILE).pinned_to(b"x");
    if let Status::Hub(at) = &mut entry.spec.status {
        at.revision = "main".to_owned();
    }
    let error = resolve(&entry, &options(dir.path())).unwrap_err().to_string();
    assert!(error.starts_with("\"main\" does not name a commit (40 hexadecimal digits"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // A plain file where the folder should be fails for every user, root too.
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let error = resolve(&Entry::on_hub(FILE).pinned_to(b"x"), &options(&blocked.join("cache"))).unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with("cannot make the folder "), "{text}");
    assert!(
        text.contains("in the cache: make it writable, or name another folder in HF_HUB_CACHE"),
        "{text}"
    );
}

#[test]
fn no_home_and_no_cache_folder_is_an_error_not_a_guess() {
    let options = LoadOptions::default().with_environment(Environment::from_lookup(|_| None));
    let error = resolve(&Entry::on_hub(FILE).pinned_to(b"x"), &options).unwrap_err().to_string();
    assert_eq!(
        error,
        "no folder to keep downloads in: set HF_HUB_CACHE, HF_HOME or HOME, or give a cache folder"
    );
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_a_needed_download_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = resolve(&Entry::on_hub(FILE).pinned_to(b"x"), &options(dir.path())).unwrap_err().to_string();
    assert!(error.contains("this build has no network code: turn on feature `hub`"), "{error}");
}
