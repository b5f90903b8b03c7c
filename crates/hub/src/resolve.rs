use std::fmt;
use std::path::PathBuf;

use zoo_core::{Status, Weights};

use crate::cache::{RemoteFile, obtain};
use crate::fetch::fetch_one;
use crate::names::check_file_name;
use crate::verify::{Expected, check_bundled, check_user_file};
use crate::{Checkpoint, Error, LoadOptions, RepoRevision, Result};

/// Where a weight file was found. Its size and hash are those of the specification, as far as that
/// pins them; only [`Located::Given`] is taken as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Located {
    /// The file that the caller named.
    Given(PathBuf),
    /// In the folder `ZOO_WEIGHTS_DIR`.
    WeightsDir(PathBuf),
    /// In the model crate.
    Bundled {
        /// The weights' name.
        name: String,
        /// The file's bytes.
        bytes: &'static [u8],
    },
    /// In the cache.
    Cached(PathBuf),
    /// In the cache, since just now.
    Fetched(PathBuf),
}

impl Located {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be read or is no usable safetensors file.
    pub fn open(&self) -> Result<Checkpoint> {
        match self {
            Self::Given(path) | Self::WeightsDir(path) | Self::Cached(path) | Self::Fetched(path) => {
                Checkpoint::open(path)
            }
            Self::Bundled { name, bytes } => Checkpoint::from_bytes(name, *bytes),
        }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(path) => {
                write!(f, "the given file {} (not compared with the published one)", path.display())
            }
            Self::WeightsDir(path) => write!(f, "{} of ZOO_WEIGHTS_DIR", path.display()),
            Self::Bundled { name, bytes } => write!(f, "the bundled {name} ({} bytes)", bytes.len()),
            Self::Cached(path) => write!(f, "{} of the cache", path.display()),
            Self::Fetched(path) => write!(f, "{}, just fetched", path.display()),
        }
    }
}

/// Finds a weight file: the given file, else `ZOO_WEIGHTS_DIR`, else the bytes bundled with the crate,
/// else the cache, else the Hub. The log says which one it was.
///
/// # Errors
/// If there is no such file, or it is not the one that the specification describes.
pub fn resolve(weights: &dyn Weights, options: &LoadOptions) -> Result<Located> {
    let spec = weights.spec();
    let located = locate(weights, options)?;
    tracing::info!(weights = %spec.name, "using {located}");
    Ok(located)
}

fn locate(weights: &dyn Weights, options: &LoadOptions) -> Result<Located> {
    if let Some(path) = options.weights() {
        return Ok(Located::Given(path.to_owned()));
    }
    let spec = weights.spec();
    check_file_name(&spec.file)?;
    let expected = Expected::of(&spec);
    let settings = options.settings();
    if let Some(path) = settings.weights_dir.as_ref().map(|dir| dir.join(&spec.file)).filter(|p| p.is_file())
    {
        check_user_file(&path, &expected)?;
        return Ok(Located::WeightsDir(path));
    }
    if let Some(bytes) = weights.bundled() {
        check_bundled(&spec.name, bytes, &expected)?;
        return Ok(Located::Bundled { name: spec.name, bytes });
    }
    match &spec.status {
        Status::Hub(at) => {
            let (path, fetched) = if spec.sha256.is_some() {
                let remote = RemoteFile::new(&at.repo, &at.revision, &at.file)?;
                let found = obtain(&settings, remote, &expected)?;
                (found.path, found.fetched)
            } else {
                // Nobody pinned the hash: the first use does.
                let target = RepoRevision::new(&at.repo, &at.revision)?;
                let found = fetch_one(&settings, &target, &at.file)?;
                (found.path, found.fetched)
            };
            Ok(if fetched { Located::Fetched(path) } else { Located::Cached(path) })
        }
        Status::Bundled => Err(Error::NotBundled { name: spec.name, file: spec.file }),
        Status::Convert(how) => Err(Error::NeedsConversion { name: spec.name, how: how.clone() }),
        _ => Err(Error::NeverTrained { name: spec.name, file: spec.file }),
    }
}
