//! What stands in for the network in a build without feature `hub`.

use std::path::Path;

use crate::cache::RemoteFile;
use crate::options::Settings;
use crate::{Error, Result};

pub(crate) fn download(_: &Settings, remote: RemoteFile<'_>, _: Option<u64>, _: &Path) -> Result<()> {
    Err(Error::NoHubFeature { what: remote.to_string() })
}

pub(crate) fn commit_of(_: &Settings, repo: &str, revision: &str) -> Result<String> {
    Err(Error::NoHubFeature { what: format!("the commit of {repo}@{revision}") })
}
