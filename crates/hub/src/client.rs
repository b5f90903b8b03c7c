//! The one place that talks to the Hub.
//!
//! hf-hub 1.0.0's own cache stores an error page as weights when only the GET fails, compares no
//! hash, and joins file names unchecked. So the client is only ever asked for the bytes of one file,
//! whose name has been checked: on that way it does look at the GET's status, and the bytes are counted
//! as they come, and compared before they move on (see `cache`).

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use hf_hub::{HFClient, HFError};
use tokio::runtime;

use crate::cache::{RemoteFile, from_server, not_writable};
use crate::names::{is_commit, split_repo};
use crate::options::Settings;
use crate::verify::Mismatch;
use crate::{Error, Result};

const USER_AGENT: &str = concat!("candle-zoo/", env!("CARGO_PKG_VERSION"));
const LOOPBACK: [&str; 3] = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
/// With doubling pauses: at most 1.4 s of waiting before a busy or failing server is reported.
const RETRIES: usize = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Given no token, the client goes looking for one by itself; one that no header can hold makes it
/// send none.
const NO_TOKEN: &str = "\n";

/// Writes one file to `path`, and breaks off once it is longer than `size`, where that is known.
pub(crate) fn download(
    settings: &Settings,
    remote: RemoteFile<'_>,
    size: Option<u64>,
    path: &Path,
) -> Result<()> {
    tracing::info!(file = %remote, endpoint = %settings.endpoint, "fetching");
    wait(settings, || remote.to_string(), receive(settings, remote, size, path))
}

async fn receive(settings: &Settings, remote: RemoteFile<'_>, size: Option<u64>, path: &Path) -> Result<()> {
    let explained = |error| explain(settings, remote.to_string(), error);
    let (repo, commit, file) = remote.parts();
    let (owner, name) = split_repo(repo)?;
    let model = connect(settings).map_err(explained)?.model(owner, name);
    let answer = model.download_file_stream().filename(file).revision(commit).send().await;
    let (_, mut chunks) = answer.map_err(explained)?;
    let mut written = File::create(path).map_err(not_writable("write", path))?;
    let mut received = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(explained)?;
        received += chunk.len() as u64;
        if let Some(expected) = size.filter(|&size| received > size) {
            return Err(from_server(settings, remote, Mismatch::Longer { expected }));
        }
        written.write_all(&chunk).map_err(not_writable("write", path))?;
    }
    Ok(())
}

/// The commit that a branch, a tag or a short commit stands for now.
pub(crate) fn commit_of(settings: &Settings, repo: &str, revision: &str) -> Result<String> {
    let (owner, name) = split_repo(repo)?;
    let what = || format!("revision {revision} of {repo}");
    let explained = |error| explain(settings, what(), error);
    let info = wait(settings, what, async {
        let model = connect(settings).map_err(explained)?.model(owner, name);
        model.info().revision(revision).send().await.map_err(explained)
    })?;
    info.sha.filter(|sha| is_commit(sha)).ok_or_else(|| Error::Download {
        what: what(),
        endpoint: settings.endpoint.clone(),
        source: "the answer holds no commit of 40 hexadecimal digits".into(),
    })
}

/// Runs a future to its end on a thread of its own, for the caller may be inside another runtime.
fn wait<T: Send>(
    settings: &Settings,
    what: impl FnOnce() -> String,
    future: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Download {
        what: what(),
        endpoint: settings.endpoint.clone(),
        source: error.into(),
    })?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || runtime.block_on(future));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn connect(settings: &Settings) -> Result<HFClient, HFError> {
    let mut http = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(settings.timeout)
        .read_timeout(settings.timeout);
    if LOOPBACK.iter().any(|start| settings.endpoint.starts_with(start)) {
        // A proxy has a loopback interface of its own.
        http = http.no_proxy();
    }
    HFClient::builder()
        .client(http.build()?)
        .endpoint(&settings.endpoint)
        .token(settings.token.as_ref().map_or(NO_TOKEN, |token| token.secret()))
        .cache_enabled(false)
        .retry_max_attempts(RETRIES)
        .retry_base_delay(FIRST_PAUSE)
        .build()
}

fn explain(settings: &Settings, what: String, error: HFError) -> Error {
    let endpoint = settings.endpoint.clone();
    match error {
        HFError::AuthRequired { .. } => Error::Unauthorized { what, endpoint },
        HFError::Forbidden { .. } => Error::Forbidden { what, endpoint },
        HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } | HFError::EntryNotFound { .. } => {
            Error::NotFound { what, endpoint }
        }
        HFError::RateLimited { retry_after, .. } => {
            Error::RateLimited { what, endpoint, retry_after: retry_after.map(|pause| pause.as_secs()) }
        }
        error => Error::Download { what, endpoint, source: error.into() },
    }
}
