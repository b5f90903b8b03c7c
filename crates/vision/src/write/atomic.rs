//! A file that appears under its name when it is complete, or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{Error, Result};

/// A file under a temporary name next to the final one.
pub(super) struct AtomicFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = Builder::new();
        builder.prefix(".zoo-").suffix(".part");
        // A temporary file is private by default; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(|source| Error::Write {
            path: path.to_owned(),
            source: without_temporary_name(source),
        })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Replaces bytes that were written before; writing goes on at the end.
    pub fn rewrite(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let rewritten = (|| {
            self.file.seek(SeekFrom::Start(at))?;
            self.file.write_all(bytes)?;
            self.file.seek(SeekFrom::End(0)).map(|_| ())
        })();
        rewritten.map_err(|source| self.failed(source))
    }

    /// Gives the file its name, replacing an older one.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        let failed = |source| Error::Write { path: path.clone(), source };
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.persist(&path).map(|_: File| ()).map_err(|error| failed(error.error))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }
}

/// `tempfile` appends its own random path, which would only confuse beside the real one.
fn without_temporary_name(error: io::Error) -> io::Error {
    let text = error.to_string();
    let cause = text.split(" at path ").next().unwrap_or_default();
    io::Error::new(error.kind(), cause)
}
