//! The one place that talks to the Hub.
//!
//! hf-hub 1.0.0's own cache stores an error page as weights when only the GET fails, compares no
//! hash, and joins file names unchecked. So the client is only ever asked to put one file, whose name
//! has been checked, into a fresh folder: on that way it does look at the GET's status, and what it
//! leaves there is compared before it moves on (see `cache`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{HFClient, HFClientSync, HFError};

use crate::cache::RemoteFile;
use crate::names::{is_commit, split_repo};
use crate::options::Settings;
use crate::{Error, Result};

const USER_AGENT: &str = concat!("candle-zoo/", env!("CARGO_PKG_VERSION"));
const LOOPBACK: [&str; 3] = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
/// With doubling pauses: at most 1.4 s of waiting before a busy or failing server is reported.
const RETRIES: usize = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Given no token, the client goes looking for one by itself; one that no header can hold makes it
/// send none.
const NO_TOKEN: &str = "\n";

/// Puts one file into `folder`, which must be empty and private.
pub(crate) fn download(settings: &Settings, remote: RemoteFile<'_>, folder: &Path) -> Result<PathBuf> {
    let (repo, commit, file) = remote.parts();
    let (owner, name) = split_repo(repo)?;
    tracing::info!(file = %remote, endpoint = %settings.endpoint, "fetching");
    let answer = connect(settings).and_then(|client| {
        client.model(owner, name).download_file().filename(file).revision(commit).local_dir(folder).send()
    });
    answer.map_err(|error| explain(settings, remote.to_string(), error))
}

/// The commit that a branch, a tag or a short commit stands for now.
pub(crate) fn commit_of(settings: &Settings, repo: &str, revision: &str) -> Result<String> {
    let (owner, name) = split_repo(repo)?;
    let what = || format!("revision {revision} of {repo}");
    let info = connect(settings)
        .and_then(|client| client.model(owner, name).info().revision(revision).send())
        .map_err(|error| explain(settings, what(), error))?;
    info.sha.filter(|sha| is_commit(sha)).ok_or_else(|| Error::Download {
        what: what(),
        endpoint: settings.endpoint.clone(),
        source: "the answer holds no commit of 40 hexadecimal digits".into(),
    })
}

fn connect(settings: &Settings) -> Result<HFClientSync, HFError> {
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
        .build_sync()
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
