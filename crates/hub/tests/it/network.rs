//! Fetching, against a server on the loopback interface.
#![cfg(feature = "hub")]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use zoo_hub::{Environment, Error, LoadOptions, Located, Mismatch, Record, RepoRevision, fetch, resolve};
use zoo_testing::{LoopbackHub, Reply, Request};

use crate::support::{COMMIT, Entry, FILE, REPO, chain, files_below, options, weights};

const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn hub(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> LoopbackHub {
    LoopbackHub::start(answer)
}

fn online(hub: &LoopbackHub, cache: &Path) -> LoadOptions {
    options(cache).with_endpoint(hub.endpoint())
}

/// Files in the cache that hold weights, or parts of such.
fn stored(cache: &Path) -> Vec<String> {
    files_below(cache).into_iter().filter(|name| !name.ends_with(".lock")).collect()
}

#[test]
fn a_pinned_file_is_fetched_once_and_then_found() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = weights();
    let entry = Entry::on_hub(FILE).pinned_to(&bytes);
    let server = hub({
        let bytes = bytes.clone();
        move |_| Reply::file(COMMIT, bytes.clone())
    });
    let options = online(&server, dir.path()).with_token("hf_secret");
    let Located::Fetched(path) = resolve(&entry, &options).unwrap() else { panic!("not fetched") };
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(path, dir.path().join(format!("models--zoo--net/snapshots/{COMMIT}/{FILE}")));
    assert_eq!(stored(dir.path()), [".model.safetensors.zoo-verified", FILE], "nothing else is left");

    let requests = server.requests();
    assert!(requests.iter().all(|r| r.path == format!("/{REPO}/resolve/{COMMIT}/{FILE}")), "{requests:?}");
    assert!(requests.iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")), "{requests:?}");
    assert!(matches!(resolve(&entry, &options).unwrap(), Located::Cached(_)));
    assert!(matches!(resolve(&entry, &options.with_offline(true)).unwrap(), Located::Cached(_)));
    assert_eq!(server.requests().len(), requests.len(), "a hit asks nobody");
}

#[test]
fn without_a_token_none_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::file(COMMIT, weights()));
    resolve(&Entry::on_hub(FILE).pinned_to(&weights()), &online(&server, dir.path())).unwrap();
    assert!(server.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn the_variables_reach_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::file(COMMIT, weights()));
    let endpoint = server.endpoint();
    let cache = dir.path().join("hub").into_os_string();
    let environment = Environment::from_lookup(|name| match name {
        "HF_ENDPOINT" => Some(endpoint.clone().into()),
        "HF_HUB_CACHE" => Some(cache.clone()),
        "HF_TOKEN" => Some("hf_variable".into()),
        _ => None,
    });
    let options = LoadOptions::default().with_environment(environment);
    let located = resolve(&Entry::on_hub(FILE).pinned_to(&weights()), &options).unwrap();
    assert!(matches!(&located, Located::Fetched(path) if path.starts_with(dir.path())), "{located}");
    assert!(server.requests().iter().all(|r| r.header("authorization") == Some("Bearer hf_variable")));
}

#[test]
fn refusals_of_the_server_are_told_apart_and_leave_nothing() {
    struct Case {
        name: &'static str,
        head: Reply,
        get: Reply,
        expected: &'static str,
    }
    let good = || Reply::file(COMMIT, weights());
    let page = |status| Reply::new(status, "<html>an error page</html>").header("ETag", "\"x\"");
    let both = |reply: Reply| (reply.clone(), reply);
    let case = |name, (head, get), expected| Case { name, head, get, expected };
    for Case { name, head, get, expected } in [
        case("304 unasked", both(page(304)), "failed, nothing was stored: HTTP error: 304"),
        case("401", both(page(401)), "asks for a login for model.safetensors of zoo/net@"),
        case("403", both(page(403)), "its terms may have to be accepted on its page first"),
        case("404", both(page(404)), "has no model.safetensors of zoo/net@"),
        case("429", both(page(429).header("Retry-After", "7")), "answers too many requests"),
        case("500", both(page(500)), "failed, nothing was stored: HTTP error: 500"),
        case("GET alone fails with 404", (good(), page(404)), "has no model.safetensors"),
        case("GET alone fails with 503", (good(), page(503)), "HTTP error: 503"),
        case("error page with status 200", (good(), page(200)), "bytes, got 26 bytes; it was thrown away"),
        case(
            "body shorter than announced",
            (good(), good().claiming(weights().len() + 9)),
            "failed, nothing was stored",
        ),
        case(
            "body and length short",
            (good(), Reply::file(COMMIT, &weights()[..50])),
            "bytes, got 50 bytes; it was thrown away",
        ),
        case("no entity tag", both(Reply::new(404, "")), "has no model.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = hub(move |request| if request.method == "HEAD" { head.clone() } else { get.clone() });
        let entry = Entry::on_hub(FILE).pinned_to(&weights());
        let error = chain(&resolve(&entry, &online(&server, dir.path())).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
        assert!(stored(dir.path()).is_empty(), "{name}: {:?}", stored(dir.path()));
    }
}

#[test]
fn the_pause_that_a_busy_server_asks_for_is_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::new(429, "").header("Retry-After", "7"));
    let error = resolve(&Entry::on_hub(FILE).pinned_to(b"x"), &online(&server, dir.path())).unwrap_err();
    assert!(matches!(&error, Error::RateLimited { retry_after: Some(7), .. }), "{error:?}");
    assert!(error.to_string().ends_with("try again in 7 s"), "{error}");
}

#[test]
fn a_wrong_hash_of_the_right_size_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = weights();
    *other.last_mut().unwrap() ^= 1;
    let server = hub(move |_| Reply::file(COMMIT, other.clone()));
    let error =
        resolve(&Entry::on_hub(FILE).pinned_to(&weights()), &online(&server, dir.path())).unwrap_err();
    assert!(matches!(&error, Error::Mismatch { mismatch: Mismatch::Sha256 { .. }, .. }), "{error:?}");
    assert!(stored(dir.path()).is_empty());
}

#[test]
fn a_server_that_sends_without_end_is_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::file(COMMIT, vec![7; 1 << 16]).without_end());
    let entry = Entry::on_hub(FILE).pinned_to(&weights());
    let error = resolve(&entry, &online(&server, dir.path())).unwrap_err();
    let expected = weights().len() as u64;
    assert!(
        matches!(&error, Error::Mismatch { mismatch: Mismatch::Longer { expected: e }, .. } if *e == expected),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(&format!("expected {expected} bytes, got more; it was thrown away")), "{text}");
    assert!(stored(dir.path()).is_empty());
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::file(COMMIT, weights()).after(Duration::from_secs(5)));
    let options = online(&server, dir.path()).with_timeout(Duration::from_millis(50));
    let error = chain(&resolve(&Entry::on_hub(FILE).pinned_to(&weights()), &options).unwrap_err());
    assert!(error.contains("failed, nothing was stored"), "{error}");
    assert!(error.contains("timed out"), "{error}");
}

#[test]
fn nobody_there_is_an_error_that_names_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let error = chain(&resolve(&Entry::on_hub(FILE).pinned_to(b"x"), &options(dir.path())).unwrap_err());
    assert!(error.contains("from http://127.0.0.1:9 failed, nothing was stored"), "{error}");
}

#[test]
fn threads_that_want_the_same_file_fetch_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::file(COMMIT, weights()).after(Duration::from_millis(20)));
    let options = online(&server, dir.path());
    let fetched = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let located = resolve(&Entry::on_hub(FILE).pinned_to(&weights()), &options).unwrap();
                *fetched.lock().unwrap() += usize::from(matches!(located, Located::Fetched(_)));
                located.open().unwrap();
            });
        }
    });
    assert_eq!(*fetched.lock().unwrap(), 1);
    assert_eq!(server.count("GET"), 1);
    assert_eq!(stored(dir.path()), [".model.safetensors.zoo-verified", FILE]);
}

/// The processes are this test binary again; the parent tells them where by these variables.
const CHILD_ENDPOINT: &str = "ZOO_TEST_CHILD_ENDPOINT";
const CHILD_CACHE: &str = "ZOO_TEST_CHILD_CACHE";

#[test]
fn processes_that_want_the_same_file_fetch_it_once() {
    let entry = Entry::on_hub(FILE).pinned_to(&weights());
    if let (Ok(endpoint), Some(cache)) = (std::env::var(CHILD_ENDPOINT), std::env::var_os(CHILD_CACHE)) {
        resolve(&entry, &options(Path::new(&cache)).with_endpoint(endpoint)).unwrap().open().unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::file(COMMIT, weights()).after(Duration::from_millis(100)));
    let children: Vec<_> = (0..3)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "network::processes_that_want_the_same_file_fetch_it_once"])
                .env(CHILD_ENDPOINT, server.endpoint())
                .env(CHILD_CACHE, dir.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(server.count("GET"), 1);
}

/// A repository whose branch `main` and whose file can be changed while it is served.
struct Repository {
    server: LoopbackHub,
    state: std::sync::Arc<Mutex<(&'static str, Vec<u8>)>>,
}

impl Repository {
    fn start() -> Self {
        let state = std::sync::Arc::new(Mutex::new((COMMIT, weights())));
        let served = std::sync::Arc::clone(&state);
        let server = hub(move |request| {
            let (commit, bytes) = served.lock().unwrap().clone();
            if request.path.starts_with("/api/models/zoo/net/revision/") {
                Reply::revision(REPO, commit)
            } else {
                Reply::file(commit, bytes)
            }
        });
        Self { server, state }
    }

    fn set(&self, commit: &'static str, bytes: &[u8]) {
        *self.state.lock().unwrap() = (commit, bytes.to_vec());
    }
}

#[test]
fn the_first_fetch_records_and_the_later_ones_enforce() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::start();
    let options = online(&repository.server, dir.path());
    let main: RepoRevision = "zoo/net@main".parse().unwrap();

    let first = fetch(&main, &[FILE], false, &options).unwrap();
    assert_eq!((first.commit.as_str(), first.files[0].record), (COMMIT, Record::New));
    assert_eq!(std::fs::read(&first.files[0].path).unwrap(), weights());
    let ledger = std::fs::read_to_string(&first.ledger).unwrap();
    for part in ["\"zoo/net@main\"", COMMIT, FILE, &first.files[0].digest.sha256] {
        assert!(ledger.contains(part), "{part} is not in {ledger}");
    }
    let second = fetch(&main, &[FILE], false, &options).unwrap();
    assert_eq!(second.files[0].record, Record::Enforced);
    let offline = fetch(&main, &[FILE], false, &options.clone().with_offline(true)).unwrap();
    assert_eq!(offline.commit, COMMIT, "offline goes by the record");

    // The branch moves.
    repository.set(OTHER_COMMIT, b"other bytes");
    let error = fetch(&main, &[FILE], false, &options).unwrap_err();
    assert!(matches!(&error, Error::RevisionMoved { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("records commit {COMMIT}, the server says {OTHER_COMMIT}")), "{text}");
    assert!(text.contains("`--accept`"), "{text}");
    let accepted = fetch(&main, &[FILE], true, &options).unwrap();
    assert_eq!((accepted.commit.as_str(), accepted.files[0].record), (OTHER_COMMIT, Record::Accepted));
    assert_eq!(fetch(&main, &[FILE], false, &options).unwrap().files[0].record, Record::Enforced);

    // The same commit serves other bytes, to someone whose cache is empty but for the record.
    std::fs::remove_dir_all(dir.path().join("models--zoo--net")).unwrap();
    repository.set(OTHER_COMMIT, b"OTHER BYTES");
    let error = fetch(&main, &[FILE], false, &options).unwrap_err();
    assert!(matches!(&error, Error::FileChanged { mismatch: Mismatch::Sha256 { .. }, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(" records sha256 ") && text.contains(", got sha256 "), "{text}");
    assert!(text.contains("accept it (`--accept`) or remove the entry"), "{text}");
    assert_eq!(fetch(&main, &[FILE], true, &options).unwrap().files[0].record, Record::Accepted);
}

#[test]
fn weights_whose_hash_nobody_pinned_are_recorded_at_first_use() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::start();
    let options = online(&repository.server, dir.path());
    let entry = Entry::on_hub(FILE);
    assert!(matches!(resolve(&entry, &options).unwrap(), Located::Fetched(_)));
    assert!(matches!(resolve(&entry, &options).unwrap(), Located::Cached(_)));
    std::fs::remove_dir_all(dir.path().join("models--zoo--net")).unwrap();
    repository.set(COMMIT, b"something else");
    let error = resolve(&entry, &options).unwrap_err();
    assert!(matches!(&error, Error::FileChanged { .. }), "{error:?}");
}

#[test]
fn what_fetch_cannot_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::start();
    let options = online(&repository.server, dir.path());
    for (text, expected) in [
        ("zoo/net", "OWNER/NAME@REV"),
        ("zoo@main", "OWNER/NAME"),
        ("zoo/net@", "a revision (a branch, a tag or a commit"),
        ("zoo/net@a..b", "a revision"),
        ("zoo/net@a b", "a revision"),
    ] {
        let error = text.parse::<RepoRevision>().unwrap_err().to_string();
        assert!(error.contains("does not name") && error.contains(expected), "{text}: {error}");
    }
    let main: RepoRevision = "zoo/net@main".parse().unwrap();
    let error = fetch(&main, &["../up"], false, &options).unwrap_err().to_string();
    assert!(error.contains("file name \"../up\" is refused"), "{error}");
    let error = fetch(&main, &[FILE], false, &options.clone().with_offline(true)).unwrap_err().to_string();
    assert!(error.starts_with("the commit of zoo/net@main is not in the cache"), "{error}");
    for (ledger, expected) in [
        ("{", "EOF while parsing"),
        (r#"{"version": 9, "revisions": {}}"#, "expected version 1, got 9"),
        (
            r#"{"version": 1, "revisions": {"a/b@c": {"commit": "../x", "files": {}}}}"#,
            "has \"../x\" for a commit",
        ),
    ] {
        std::fs::write(dir.path().join("zoo-lock.json"), ledger).unwrap();
        let error = fetch(&main, &[FILE], false, &options).unwrap_err().to_string();
        assert!(error.contains("is not a record of fetched files") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_revision_that_is_no_commit_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = hub(|_| Reply::revision(REPO, "../../up"));
    let main: RepoRevision = "zoo/net@main".parse().unwrap();
    let error = chain(&fetch(&main, &[FILE], false, &online(&server, dir.path())).unwrap_err());
    assert!(error.contains("the answer holds no commit of 40 hexadecimal digits"), "{error}");
}
