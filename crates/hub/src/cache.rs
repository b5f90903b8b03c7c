//! The folder of downloads, laid out as the Hub's own tools lay it out, so that both share it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::names::{check_file_name, is_commit, split_repo};
use crate::options::Settings;
use crate::verify::{Digest, Expected, Mismatch, Place};
use crate::{Error, Result, client};

/// A file of a repository at a commit. Its parts have been checked: they make safe paths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemoteFile<'a> {
    repo: &'a str,
    commit: &'a str,
    file: &'a str,
}

impl<'a> RemoteFile<'a> {
    pub(crate) fn new(repo: &'a str, commit: &'a str, file: &'a str) -> Result<Self> {
        split_repo(repo)?;
        check_file_name(file)?;
        if !is_commit(commit) {
            return Err(Error::Name {
                text: commit.to_owned(),
                expected: "a commit (40 hexadecimal digits; a branch can change under a pinned hash)",
            });
        }
        Ok(Self { repo, commit, file })
    }

    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "only the network asks for it"))]
    pub(crate) fn parts(&self) -> (&'a str, &'a str, &'a str) {
        (self.repo, self.commit, self.file)
    }
}

impl fmt::Display for RemoteFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}@{}", self.file, self.repo, self.commit)
    }
}

/// A file in the cache whose digest is known and as expected.
#[derive(Debug)]
pub(crate) struct CachedFile {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    /// Whether it was fetched just now.
    pub(crate) fetched: bool,
}

/// Gives the file from the cache, or fetches it into the cache. Nothing that does not match
/// `expected` stays there, or ever gets there.
pub(crate) fn obtain(settings: &Settings, remote: RemoteFile<'_>, expected: &Expected) -> Result<CachedFile> {
    let root = settings.cache_dir()?;
    let folder = format!("models--{}", remote.repo.replace('/', "--"));
    let repo_dir = root.join(&folder);
    let path = repo_dir.join("snapshots").join(remote.commit).join(remote.file);
    if path.is_file() {
        return check_cached(root, path, remote, expected);
    }
    if settings.offline {
        return Err(Error::Offline { what: remote.to_string(), cache: root.to_owned() });
    }
    let _guard = lock(&root.join(".locks").join(&folder).join("zoo.lock"))?;
    // Another process may have fetched it while this one waited.
    if path.is_file() {
        return check_cached(root, path, remote, expected);
    }
    create_dir(&repo_dir)?;
    let scratch = tempfile::Builder::new()
        .prefix(".zoo-fetch-")
        .tempdir_in(&repo_dir)
        .map_err(not_writable("make a temporary folder", &repo_dir))?;
    let fetched = scratch.path().join("file");
    client::download(settings, remote, expected.size, &fetched)?;
    let digest = Digest::of_file(&fetched)?;
    expected.compare(&digest).map_err(|mismatch| from_server(settings, remote, mismatch))?;
    if let Some(dir) = path.parent() {
        create_dir(dir)?;
    }
    fs::rename(&fetched, &path).map_err(not_writable("write", &path))?;
    mark(&path, &digest);
    Ok(CachedFile { path, digest, fetched: true })
}

/// What the server sent is not what it should be.
pub(crate) fn from_server(settings: &Settings, remote: RemoteFile<'_>, mismatch: Mismatch) -> Error {
    let what = format!("{remote}, as fetched from {}", settings.endpoint);
    Error::Mismatch { what, mismatch, place: Place::Server }
}

/// Takes the lock of a file that is made if need be; it is freed on drop, or by the system at the
/// process's end.
pub(crate) fn lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        create_dir(dir)?;
    }
    let file = File::create(path).map_err(not_writable("make the lock", path))?;
    file.lock().map_err(not_writable("take the lock", path))?;
    Ok(file)
}

/// Writes a file under a temporary name, then renames it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is the owner's alone by default; these are to be read like any other.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.prefix(".zoo-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

pub(crate) fn not_writable(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::CacheNotWritable { action, path: path.to_owned(), source }
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(not_writable("make the folder", dir))
}

fn check_cached(
    root: &Path,
    path: PathBuf,
    remote: RemoteFile<'_>,
    expected: &Expected,
) -> Result<CachedFile> {
    let marked = Marker::read(&path);
    let digest = match &marked {
        Some(digest) => digest.clone(),
        None => Digest::of_file(&path)?,
    };
    if let Err(mismatch) = expected.compare(&digest) {
        let place = if evict(root, &path).is_ok() { Place::Cache } else { Place::StuckInCache };
        let what = format!("{remote}, as cached in {}", path.display());
        return Err(Error::Mismatch { what, mismatch, place });
    }
    if marked.is_none() {
        mark(&path, &digest);
    }
    Ok(CachedFile { path, digest, fetched: false })
}

/// Removes a file, and the blob it points to where it is a link into the same cache.
fn evict(root: &Path, path: &Path) -> std::io::Result<()> {
    let blob = path.canonicalize()?;
    fs::remove_file(path)?;
    let _ = fs::remove_file(Marker::path(path));
    if blob.starts_with(root.canonicalize()?) && blob.exists() {
        fs::remove_file(blob)?;
    }
    Ok(())
}

/// Says beside a file that its digest was computed, so that it need not be at every start.
#[derive(Serialize, Deserialize)]
struct Marker {
    modified_ns: u64,
    digest: Digest,
}

impl Marker {
    fn path(file: &Path) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        file.with_file_name(format!(".{name}.zoo-verified"))
    }

    /// The digest, if the file is as it was when the marker was written.
    fn read(file: &Path) -> Option<Digest> {
        let marker: Self = serde_json::from_slice(&fs::read(Self::path(file)).ok()?).ok()?;
        let (size, modified_ns) = size_and_time(file)?;
        (marker.digest.size == size && marker.modified_ns == modified_ns).then_some(marker.digest)
    }
}

fn size_and_time(file: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(file).ok()?;
    let age = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((metadata.len(), age.as_nanos().try_into().ok()?))
}

/// A marker only saves time: a cache that cannot take it still serves its files.
fn mark(file: &Path, digest: &Digest) {
    let written = || {
        let (_, modified_ns) = size_and_time(file)?;
        let text = serde_json::to_vec(&Marker { modified_ns, digest: digest.clone() }).ok()?;
        write_atomically(&Marker::path(file), &text).ok()
    };
    if written().is_none() {
        tracing::debug!(file = %file.display(), "no marker written, the file is hashed again next time");
    }
}
