//! PyTorch's `.pth` files to safetensors, without running what is in them.
//!
//! A `.pth` file is a pickle, which is a program: Python runs it when it loads the file. Here it is read
//! as data. Calls are noted, not made; classes are names; a file that names a function which acts on the
//! machine is refused as a whole. The work and the memory are bounded by the size of the file.
//!
//! candle has a reader of the zip container, too. It serves files that one trusts: it copies a value at
//! each use, believes lengths before it has read them, and takes neither views nor the older container.
//! So both containers are read here, and a test compares the two readers.
//!
//! ```no_run
//! use std::path::Path;
//! use zoo_hub::convert::{CardFacts, TorchFile, write_model};
//!
//! # fn main() -> zoo_hub::Result<()> {
//! let file = TorchFile::open(Path::new("mobilenet_v2.pth"))?;
//! let state = file.state_dict(None)?.into_half()?;
//! let config = serde_json::json!({ "architecture": "mobilenet-v2" });
//! write_model(Path::new("out"), &state, &config, &CardFacts::new("MobileNetV2", "BSD-3-Clause", &file))?;
//! # Ok(())
//! # }
//! ```

mod containers;
mod pickle;
mod state_dict;
mod torch;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use serde_json::{Map, Value as Json};

pub use containers::Container;
pub use state_dict::{Skipped, StateDict, StoredTensor};
pub use write::{CardFacts, WrittenModel, model_card, to_safetensors, write_model};

use crate::mmap::map;
use crate::verify::Digest;
use crate::{Error, Result};

/// What training on several devices puts before every name.
const PARALLEL_PREFIX: &str = "module.";
/// Tensors may share storages, so they can be larger than the file; by how much, is limited.
const MAX_GROWTH: usize = 4;
/// Growth that is let pass in any case, in bytes.
const FREE_GROWTH: usize = 1 << 20;

/// An open PyTorch checkpoint.
pub struct TorchFile {
    path: String,
    file_name: String,
    bytes: Mmap,
    digest: Digest,
    container: Container,
    contents: torch::Contents,
    storages: HashMap<String, Range<usize>>,
}

impl fmt::Debug for TorchFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TorchFile({}, {})", self.path, self.container)
    }
}

/// A dictionary of tensors in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Keys that lead to it, joined by dots; empty for the outermost dictionary.
    pub key: String,
    /// Number of tensors in it.
    pub tensors: usize,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} tensors)", self.key, self.tensors)
    }
}

impl TorchFile {
    /// Opens a checkpoint of either container and reads its pickle.
    ///
    /// # Errors
    /// If the file cannot be read, is no checkpoint, is damaged, or names functions that act on the
    /// machine.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let display = path.display().to_string();
        let containers::Opened { container, contents, storages } = containers::open(&display, &bytes)?;
        Ok(Self {
            path: display,
            file_name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: Digest::of_bytes(&bytes),
            bytes,
            container,
            contents,
            storages,
        })
    }

    /// The file's name, without its folder.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The file's size and hash.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The container.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Plain entries beside the tensors (numbers, text, lists and dictionaries of such): `epoch`, `arch`.
    pub fn facts(&self) -> &Map<String, Json> {
        &self.contents.facts
    }

    /// Entries of the outermost dictionary that are neither tensors nor plain, such as a `Namespace`.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.contents.skipped.iter().map(skipped).collect()
    }

    /// The dictionaries of tensors, outermost first.
    pub fn candidates(&self) -> Vec<Candidate> {
        let dicts = self.contents.dicts.iter();
        dicts.map(|dict| Candidate { key: dict.key.clone(), tensors: dict.tensors.len() }).collect()
    }

    /// The tensors under `key` (see [`Candidate::key`]), or under the only key there is.
    ///
    /// # Errors
    /// If there is no such key, or none was given and there are several; if a tensor leaves its storage,
    /// or all of them together are much larger than the file.
    pub fn state_dict(&self, key: Option<&str>) -> Result<StateDict> {
        let dict = match (key, self.contents.dicts.as_slice()) {
            (_, []) => return Err(self.damaged("there is no tensor in it".to_owned())),
            (None, [dict]) => dict,
            (None, several) => {
                return Err(self.ambiguous(format!("{} dictionaries of tensors", several.len())));
            }
            (Some(key), all) => all
                .iter()
                .find(|dict| dict.key == key)
                .ok_or_else(|| self.ambiguous(format!("no dictionary of tensors under {key:?}")))?,
        };
        self.check_growth(dict)?;
        let stripped = dict.tensors.iter().all(|(name, _)| name.starts_with(PARALLEL_PREFIX));
        let mut tensors = BTreeMap::new();
        for (name, view) in &dict.tensors {
            let storage = self.storages.get(&view.storage).and_then(|range| self.bytes.get(range.clone()));
            let tensor = StoredTensor::gather(view, storage.unwrap_or_default())
                .map_err(|problem| self.damaged(format!("tensor {name}: {problem}")))?;
            let name = name.strip_prefix(PARALLEL_PREFIX).filter(|_| stripped).unwrap_or(name);
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(StateDict {
            file: self.path.clone(),
            key: dict.key.clone(),
            stripped,
            tensors,
            skipped: dict.skipped.iter().map(skipped).collect(),
        })
    }

    fn check_growth(&self, dict: &torch::TensorDict) -> Result<()> {
        let limit = self.bytes.len().saturating_mul(MAX_GROWTH).saturating_add(FREE_GROWTH);
        let mut total = 0usize;
        for (name, view) in &dict.tensors {
            let bytes = view.shape.iter().try_fold(view.stored.size(), |n, &dim| n.checked_mul(dim));
            total = total.saturating_add(bytes.unwrap_or(usize::MAX));
            if total > limit {
                return Err(self.damaged(format!(
                    "up to tensor {name} of shape {:?}, its tensors need {total} bytes, expected at most {limit} \
                     for a file of {}",
                    view.shape,
                    self.bytes.len()
                )));
            }
        }
        Ok(())
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Checkpoint { file: self.path.clone(), problem }
    }

    fn ambiguous(&self, problem: String) -> Error {
        let candidates = self.candidates().iter().map(Candidate::to_string).collect();
        Error::StateDict { file: self.path.clone(), problem, candidates }
    }
}

fn skipped((name, what): &(String, String)) -> Skipped {
    Skipped { name: name.clone(), what: what.clone() }
}
