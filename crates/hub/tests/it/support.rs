//! What several of the test files need.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::Path;

use candle_core::{Device, Tensor};
use zoo_core::{HubFile, Status, WeightSpec, Weights};
use zoo_hub::{Digest, Environment, Error, LoadOptions};

pub const REPO: &str = "zoo/net";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const FILE: &str = "model.safetensors";

/// A weight file as a model crate describes it.
#[derive(Clone)]
pub struct Entry {
    pub spec: WeightSpec,
    pub bundled: Option<&'static [u8]>,
}

impl Weights for Entry {
    fn spec(&self) -> WeightSpec {
        self.spec.clone()
    }

    fn bundled(&self) -> Option<&'static [u8]> {
        self.bundled
    }
}

impl Entry {
    pub fn new(status: Status) -> Self {
        let spec = WeightSpec {
            name: "net/tag".to_owned(),
            file: "net-tag.safetensors".to_owned(),
            status,
            size: None,
            sha256: None,
            license: "MIT".to_owned(),
            trained_on: "nothing".to_owned(),
            metrics: Vec::new(),
        };
        Self { spec, bundled: None }
    }

    pub fn on_hub(file: &str) -> Self {
        Self::new(Status::Hub(HubFile {
            repo: REPO.to_owned(),
            revision: COMMIT.to_owned(),
            file: file.to_owned(),
        }))
    }

    pub fn pinned_to(mut self, bytes: &[u8]) -> Self {
        let digest = Digest::of_bytes(bytes);
        self.spec.size = Some(digest.size);
        self.spec.sha256 = Some(digest.sha256);
        self
    }

    pub fn bundling(mut self, bytes: &'static [u8]) -> Self {
        self.bundled = Some(bytes);
        self
    }
}

/// Options that see nothing of the machine's own environment.
pub fn options(cache: &Path) -> LoadOptions {
    LoadOptions::default()
        .with_environment(Environment::from_lookup(|_| None))
        .with_cache_dir(cache)
        .with_endpoint("http://127.0.0.1:9")
}

/// A small sound weight file: `head.weight` of 2 × 3.
pub fn weights() -> Vec<u8> {
    file_of(&[("head.weight", &[2, 3])])
}

pub fn file_of(shapes: &[(&str, &[usize])]) -> Vec<u8> {
    let tensors: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<usize>() as f32;
            let tensor = Tensor::arange(0f32, count, &Device::Cpu).unwrap().reshape(*shape).unwrap();
            (*name, tensor)
        })
        .collect();
    let tensors = tensors.iter().map(|(name, tensor)| (*name, tensor));
    zoo_hub::convert::to_safetensors(tensors, &BTreeMap::new()).unwrap()
}

/// An error with its causes, on one line.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// All files below a folder, by name.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    names
}
