//! Sizes and hashes.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zoo_core::WeightSpec;

use crate::error::io;
use crate::{Error, Result};

/// Size and SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Digest {
    /// Of bytes in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
    }

    /// Of a file, read in pieces.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(io("open", path))?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer).map_err(io("read", path))?;
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            hash.update(chunk);
            size += chunk.len() as u64;
        }
        Ok(Self { size, sha256: hex(&hash.finalize()) })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with sha256 {}", self.size, self.sha256)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a file should have been and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// Another number of bytes.
    Size {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        got: u64,
    },
    /// More bytes than it should have; the rest was not waited for.
    Longer {
        /// Bytes it should have.
        expected: u64,
    },
    /// Another hash.
    Sha256 {
        /// Hash it should have.
        expected: String,
        /// Hash it has.
        got: String,
    },
}

impl Mismatch {
    /// What it should have been.
    pub fn expected(&self) -> String {
        match self {
            Self::Size { expected, .. } | Self::Longer { expected } => format!("{expected} bytes"),
            Self::Sha256 { expected, .. } => format!("sha256 {expected}"),
        }
    }

    /// What it is.
    pub fn got(&self) -> String {
        match self {
            Self::Size { got, .. } => format!("{got} bytes"),
            Self::Longer { .. } => "more".to_owned(),
            Self::Sha256 { got, .. } => format!("sha256 {got}"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected(), self.got())
    }
}

/// Where a file lies that is not what it should be, which decides what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Among the user's own files.
    User,
    /// Bundled with a crate.
    Bundled,
    /// In the cache, and removed from it.
    Cache,
    /// In the cache, which would not let it be removed.
    StuckInCache,
    /// On the server; it was not stored.
    Server,
}

impl fmt::Display for Place {
    /// What was done, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => {
                "it was left alone: replace it, or name it as the file to use, which is not compared"
            }
            Self::Bundled => "the source tree is damaged: get the file anew, and build again",
            Self::Cache => "it was removed from the cache: run again to fetch it anew",
            Self::StuckInCache => "it could not be removed from the cache: remove it by hand",
            Self::Server => {
                "it was thrown away: try again, and if it stays so, the server's file is not the pinned one"
            }
        })
    }
}

/// What is known beforehand of a file; what is not known is not compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
}

impl Expected {
    pub(crate) fn of(spec: &WeightSpec) -> Self {
        Self { size: spec.size, sha256: spec.sha256.clone() }
    }

    pub(crate) fn exactly(digest: &Digest) -> Self {
        Self { size: Some(digest.size), sha256: Some(digest.sha256.clone()) }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.size.is_none() && self.sha256.is_none()
    }

    pub(crate) fn compare(&self, got: &Digest) -> std::result::Result<(), Mismatch> {
        if let Some(expected) = self.size.filter(|size| *size != got.size) {
            return Err(Mismatch::Size { expected, got: got.size });
        }
        match &self.sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&got.sha256) => {
                Err(Mismatch::Sha256 { expected: expected.clone(), got: got.sha256.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Compares a file that belongs to the user, who alone may remove it.
pub(crate) fn check_user_file(path: &Path, expected: &Expected) -> Result<()> {
    if expected.is_unknown() {
        return Ok(());
    }
    expected.compare(&Digest::of_file(path)?).map_err(|mismatch| Error::Mismatch {
        what: path.display().to_string(),
        mismatch,
        place: Place::User,
    })
}

/// Compares bytes that travel with a crate, once a process: they cannot change while it runs.
pub(crate) fn check_bundled(name: &str, bytes: &'static [u8], expected: &Expected) -> Result<()> {
    static CHECKED: Mutex<Option<HashSet<(usize, usize, String)>>> = Mutex::new(None);
    let key = (bytes.as_ptr() as usize, bytes.len(), expected.sha256.clone().unwrap_or_default());
    let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    let checked = checked.get_or_insert_default();
    if !checked.contains(&key) {
        expected.compare(&Digest::of_bytes(bytes)).map_err(|mismatch| Error::Mismatch {
            what: format!("the file bundled for {name}"),
            mismatch,
            place: Place::Bundled,
        })?;
        checked.insert(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_is_that_of_the_standard_and_the_same_from_file_and_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let expected = Digest { size: 3, sha256: ABC.to_owned() };
        assert_eq!(Digest::of_bytes(b"abc"), expected);
        assert_eq!(Digest::of_file(&path).unwrap(), expected);
    }

    #[test]
    fn only_what_is_known_is_compared() {
        let got = Digest::of_bytes(b"abc");
        let expected = |size, sha256: Option<&str>| Expected { size, sha256: sha256.map(str::to_owned) };
        assert_eq!(expected(None, None).compare(&got), Ok(()));
        assert_eq!(expected(Some(3), Some(&ABC.to_uppercase())).compare(&got), Ok(()));
        let mismatch = expected(Some(4), Some("00")).compare(&got).unwrap_err();
        assert_eq!(mismatch.to_string(), "expected 4 bytes, got 3 bytes");
        let mismatch = expected(None, Some("00")).compare(&got).unwrap_err();
        assert_eq!(mismatch.to_string(), format!("expected sha256 00, got sha256 {ABC}"));
    }

    #[test]
    fn damaged_bundled_bytes_are_refused_every_time() {
        static BYTES: &[u8] = b"abd";
        let expected = Expected { size: Some(3), sha256: Some(ABC.to_owned()) };
        for _ in 0..2 {
            let error = check_bundled("model/tag", BYTES, &expected).unwrap_err().to_string();
            assert!(
                error.starts_with(
                    "the file bundled for model/tag is not the file it should be: expected sha256 ba78"
                ),
                "{error}"
            );
        }
    }
}
