use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use zoo_core::{Image, SegMap};

use crate::source::{Frame, Source};
use crate::{Error, Result};

/// How single pictures are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StillFormat {
    /// Without loss.
    #[default]
    Png,
    /// A tenth of the size, with loss.
    Jpeg,
}

impl StillFormat {
    fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
        }
    }
}

/// A folder for results, one file a frame, named after the frame: `street.jpg` gives `street.png`.
///
/// No file of the sources is ever overwritten, and no name is given twice in a run: the second
/// `street` becomes `street-2`. Results of an earlier run are replaced.
#[derive(Debug)]
pub struct OutputFolder {
    folder: PathBuf,
    inputs: HashSet<PathBuf>,
    /// Names given so far, in lower case: some file systems do not tell cases apart.
    given: HashSet<String>,
}

impl OutputFolder {
    /// Creates the folder if need be. The files of `sources` are those never to be overwritten; a source whose
    /// files cannot be listed has none, and its frames will say why.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn create(folder: impl AsRef<Path>, sources: &[Source]) -> Result<Self> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
        let files = sources.iter().flat_map(|source| source.files().unwrap_or_default());
        let inputs = files.filter_map(|path| path.canonicalize().ok()).collect();
        Ok(Self { folder: folder.to_owned(), inputs, given: HashSet::new() })
    }

    /// A name in this folder that is free: `NAME.ENDING`, else `NAME-2.ENDING` and so on.
    pub fn path_for(&mut self, name: &str, ending: &str) -> PathBuf {
        let safe: String =
            name.chars().map(|c| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c }).collect();
        let mut number = 1;
        loop {
            let file = match number {
                1 => format!("{safe}.{ending}"),
                _ => format!("{safe}-{number}.{ending}"),
            };
            let path = self.folder.join(&file);
            let is_input = path.canonicalize().is_ok_and(|path| self.inputs.contains(&path));
            if !is_input && self.given.insert(file.to_lowercase()) {
                return path;
            }
            number += 1;
        }
    }

    /// Writes a picture for a frame and says where.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn image(&mut self, frame: &Frame, drawn: &Image, format: StillFormat) -> Result<PathBuf> {
        let path = self.path_for(&frame.name, format.ending());
        super::still(&path, drawn, format)?;
        Ok(path)
    }

    /// Writes a frame's class map, as [`mask`](super::mask) does, and says where.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn mask(&mut self, frame: &Frame, map: &SegMap) -> Result<PathBuf> {
        let path = self.path_for(&frame.name, "png");
        super::mask(&path, map)?;
        Ok(path)
    }
}
