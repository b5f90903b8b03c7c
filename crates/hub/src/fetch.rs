//! Fetching files whose commit and hash nobody has pinned: the first use records them, every later
//! use enforces the record.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cache::{CachedFile, RemoteFile, lock, not_writable, obtain, write_atomically};
use crate::error::io;
use crate::names::{is_commit, split_repo};
use crate::options::Settings;
use crate::verify::{Digest, Expected, Place};
use crate::{Error, LoadOptions, Result, client};

const LEDGER: &str = "zoo-lock.json";
const LEDGER_VERSION: u32 = 1;

/// A repository and a branch, a tag or a commit of it: `OWNER/NAME@REV`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoRevision {
    repo: String,
    revision: String,
}

impl RepoRevision {
    /// From the two parts.
    ///
    /// # Errors
    /// If they cannot name a repository and a revision.
    pub fn new(repo: &str, revision: &str) -> Result<Self> {
        split_repo(repo)?;
        let usable = !revision.is_empty()
            && !revision.contains("..")
            && revision
                .chars()
                .all(|c| c.is_ascii_graphic() && !matches!(c, '\\' | '?' | '#' | ':' | '~' | '^'));
        if !usable {
            return Err(Error::Name {
                text: revision.to_owned(),
                expected: "a revision (a branch, a tag or a commit, such as main or v1.0)",
            });
        }
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }
}

impl FromStr for RepoRevision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (repo, revision) = text.split_once('@').ok_or_else(|| Error::Name {
            text: text.to_owned(),
            expected: "a repository and a revision of it (OWNER/NAME@REV, such as timm/resnet50@main)",
        })?;
        Self::new(repo, revision)
    }
}

impl fmt::Display for RepoRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repo, self.revision)
    }
}

/// What [`fetch`] got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// The commit that the revision stands for, 40 hexadecimal digits.
    pub commit: String,
    /// The file that records commits and hashes.
    pub ledger: PathBuf,
    /// The files, in the order they were asked for.
    pub files: Vec<FetchedFile>,
}

/// One file of [`Fetched`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchedFile {
    /// Its name in the repository.
    pub file: String,
    /// Where it lies now.
    pub path: PathBuf,
    /// Whether it was fetched just now, and not found in the cache.
    pub fetched: bool,
    /// Its size and hash.
    pub digest: Digest,
    /// What became of the record.
    pub record: Record,
}

/// How a file stands to the record of fetched files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Record {
    /// Recorded now, at first use.
    New,
    /// Recorded earlier, and the same.
    Enforced,
    /// Recorded earlier otherwise, and overwritten because the caller accepts the change.
    Accepted,
}

/// Gets `files` of a repository at a revision, and holds them against the record in the cache folder.
/// With `accept`, a changed commit or file replaces its record.
///
/// # Errors
/// If the revision points to another commit than recorded, a file differs from its record, or
/// something cannot be fetched.
pub fn fetch<S: AsRef<str>>(
    target: &RepoRevision,
    files: &[S],
    accept: bool,
    options: &LoadOptions,
) -> Result<Fetched> {
    let settings = options.settings();
    let mut fetching = Fetching::open(&settings, target, accept)?;
    let files = files.iter().map(|file| fetching.obtain(file.as_ref())).collect::<Result<_>>()?;
    let (commit, ledger) = fetching.close()?;
    Ok(Fetched { commit, ledger, files })
}

/// [`fetch`] of one file, without a change being accepted.
pub(crate) fn fetch_one(settings: &Settings, target: &RepoRevision, file: &str) -> Result<FetchedFile> {
    let mut fetching = Fetching::open(settings, target, false)?;
    let file = fetching.obtain(file)?;
    fetching.close()?;
    Ok(file)
}

/// One repository at one commit, with the record locked.
struct Fetching<'a> {
    settings: &'a Settings,
    target: &'a RepoRevision,
    accept: bool,
    path: PathBuf,
    ledger: Ledger,
    commit: String,
    /// What was recorded before.
    known: BTreeMap<String, Digest>,
    /// What will be.
    pinned: BTreeMap<String, Digest>,
    _guard: fs::File,
}

impl<'a> Fetching<'a> {
    fn open(settings: &'a Settings, target: &'a RepoRevision, accept: bool) -> Result<Self> {
        let root = settings.cache_dir()?;
        let path = root.join(LEDGER);
        let guard = lock(&root.join(".locks").join("zoo-lock.lock"))?;
        let ledger = Ledger::read(&path)?;
        let recorded = ledger.revisions.get(&target.to_string());
        let commit = commit(settings, target, recorded.map(|entry| entry.commit.as_str()))?;
        let (known, pinned) = match recorded {
            Some(entry) if entry.commit == commit => (entry.files.clone(), entry.files.clone()),
            Some(entry) if !accept => {
                let recorded = entry.commit.clone();
                return Err(Error::RevisionMoved {
                    what: target.to_string(),
                    recorded,
                    got: commit,
                    ledger: path,
                });
            }
            // Hashes of files of the old commit say nothing about those that are not fetched now.
            Some(moved) => (moved.files.clone(), BTreeMap::new()),
            None => Default::default(),
        };
        Ok(Self { settings, target, accept, path, ledger, commit, known, pinned, _guard: guard })
    }

    fn obtain(&mut self, file: &str) -> Result<FetchedFile> {
        let remote = RemoteFile::new(&self.target.repo, &self.commit, file)?;
        let recorded = self.known.get(file);
        let expected = recorded.filter(|_| !self.accept).map(Expected::exactly).unwrap_or_default();
        let CachedFile { path, digest, fetched } =
            obtain(self.settings, remote, &expected).map_err(|error| match error {
                Error::Mismatch { what, mismatch, place: Place::Server } => {
                    Error::FileChanged { what, mismatch, ledger: self.path.clone() }
                }
                error => error,
            })?;
        let record = match recorded {
            None => Record::New,
            Some(recorded) if *recorded == digest => Record::Enforced,
            Some(_) => Record::Accepted,
        };
        self.pinned.insert(file.to_owned(), digest.clone());
        Ok(FetchedFile { file: file.to_owned(), path, fetched, digest, record })
    }

    /// Writes the record, if it changed. Gives the commit and the record's place.
    fn close(mut self) -> Result<(String, PathBuf)> {
        let entry = Pinned { commit: self.commit.clone(), files: self.pinned };
        let key = self.target.to_string();
        if self.ledger.revisions.get(&key) != Some(&entry) {
            self.ledger.revisions.insert(key, entry);
            self.ledger.write(&self.path)?;
        }
        Ok((self.commit, self.path))
    }
}

fn commit(settings: &Settings, target: &RepoRevision, recorded: Option<&str>) -> Result<String> {
    match recorded {
        _ if is_commit(&target.revision) => Ok(target.revision.to_ascii_lowercase()),
        Some(recorded) if settings.offline => Ok(recorded.to_owned()),
        None if settings.offline => Err(Error::Offline {
            what: format!("the commit of {target}"),
            cache: settings.cache_dir()?.to_owned(),
        }),
        _ => client::commit_of(settings, &target.repo, &target.revision),
    }
}

/// The record: for each `OWNER/NAME@REV`, its commit and its files' digests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    version: u32,
    revisions: BTreeMap<String, Pinned>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pinned {
    commit: String,
    files: BTreeMap<String, Digest>,
}

impl Ledger {
    fn read(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { version: LEDGER_VERSION, revisions: BTreeMap::new() });
            }
            Err(error) => return Err(io("read", path)(error)),
        };
        let problem = |problem: String| Error::Ledger { path: path.to_owned(), problem };
        let ledger: Self = serde_json::from_slice(&text).map_err(|error| problem(error.to_string()))?;
        if ledger.version != LEDGER_VERSION {
            return Err(problem(format!("expected version {LEDGER_VERSION}, got {}", ledger.version)));
        }
        if let Some((key, pinned)) = ledger.revisions.iter().find(|(_, pinned)| !is_commit(&pinned.commit)) {
            return Err(problem(format!("{key} has {:?} for a commit", pinned.commit)));
        }
        Ok(ledger)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Ledger { path: path.to_owned(), problem: error.to_string() })?;
        text.push(b'\n');
        write_atomically(path, &text).map_err(not_writable("write", path))
    }
}
