//! Writing a model's folder: weights, configuration, card.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::Serialize;
use serde_json::json;

use super::{Container, StateDict, StoredTensor};
use crate::cache::write_atomically;
use crate::description::CONFIG_FILE;
use crate::error::io;
use crate::fit::FitReport;
use crate::verify::Digest;
use crate::{Error, Result};

const WEIGHTS: &str = "model.safetensors";
const CARD: &str = "README.md";
/// Lines of the card's list of what was left out.
const SHOWN: usize = 20;

/// The safetensors file of some tensors: the same tensors and metadata give the same bytes.
///
/// # Errors
/// If a tensor's type has no place in such a file.
pub fn to_safetensors<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let tensors = tensors
        .into_iter()
        .map(|(name, tensor)| match StoredTensor::of(tensor) {
            Ok(stored) => Ok((name.to_owned(), stored)),
            Err(source) => Err(Error::Tensor {
                file: "the file to write".to_owned(),
                name: name.to_owned(),
                source: Box::new(source),
            }),
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    serialize(&tensors, metadata)
}

/// Sorted by falling size of the numbers, so that all are aligned, then by name.
pub(crate) fn serialize(
    tensors: &BTreeMap<String, StoredTensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(name, tensor)| (std::cmp::Reverse(tensor.stored.size()), *name));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for (name, tensor) in &order {
        let start = end;
        end += tensor.data.len();
        let entry =
            json!({ "dtype": tensor.stored.name(), "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert((*name).clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).map_err(|error| Error::Safetensors {
        file: "the file to write".to_owned(),
        problem: error.to_string(),
    })?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    for (_, tensor) in order {
        bytes.extend(&tensor.data);
    }
    Ok(bytes)
}

/// What a model card says beside what the tensors say themselves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CardFacts {
    /// The model's name, as title.
    pub name: String,
    /// Name of the file that was converted, without its folder.
    pub source_file: String,
    /// Its size and hash.
    pub source: Digest,
    /// Its container.
    pub container: Container,
    /// SPDX expression, as the user gave it.
    pub license: String,
    /// How the tensors fit the net, if they were held against one.
    pub fit: Option<FitReport>,
}

impl CardFacts {
    /// Facts about a checkpoint that was opened.
    pub fn new(name: &str, license: &str, source: &super::TorchFile) -> Self {
        Self {
            name: name.to_owned(),
            source_file: source.file_name().to_owned(),
            source: source.digest().clone(),
            container: source.container(),
            license: license.to_owned(),
            fit: None,
        }
    }

    /// Adds how the tensors fit a net.
    pub fn with_fit(mut self, fit: FitReport) -> Self {
        self.fit = Some(fit);
        self
    }
}

/// The files of [`write_model`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenModel {
    /// `model.safetensors`.
    pub weights: PathBuf,
    /// Its size and hash.
    pub digest: Digest,
    /// `config.json`.
    pub config: PathBuf,
    /// `README.md`.
    pub card: PathBuf,
}

/// Writes `model.safetensors`, `config.json` and a model card into `folder`, which is made if need be.
/// Each file appears whole or not at all; the same input gives the same bytes.
///
/// # Errors
/// If a file cannot be written.
pub fn write_model(
    folder: &Path,
    state: &StateDict,
    config: &serde_json::Value,
    facts: &CardFacts,
) -> Result<WrittenModel> {
    let metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("license".to_owned(), facts.license.clone()),
        ("source".to_owned(), facts.source_file.clone()),
        ("source_sha256".to_owned(), facts.source.sha256.clone()),
    ]);
    let bytes = state.to_safetensors(&metadata)?;
    let digest = Digest::of_bytes(&bytes);
    fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        write_atomically(&path, bytes).map_err(io("write", &path))?;
        Ok::<_, Error>(path)
    };
    // `{:#}` of a JSON value is its indented form.
    Ok(WrittenModel {
        weights: write(WEIGHTS, &bytes)?,
        config: write(CONFIG_FILE, format!("{config:#}\n").as_bytes())?,
        card: write(CARD, model_card(state, facts, &digest).as_bytes())?,
        digest,
    })
}

/// The text of a model card.
pub fn model_card(state: &StateDict, facts: &CardFacts, weights: &Digest) -> String {
    let mut types = BTreeMap::new();
    for tensor in state.tensors().values() {
        *types.entry(tensor.stored().name()).or_insert(0usize) += 1;
    }
    let types: Vec<_> = types.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    let key = if state.key().is_empty() { "the outermost dictionary".to_owned() } else { code(state.key()) };
    let fit = match &facts.fit {
        Some(fit) => format!("```text\n{fit}\n```"),
        None => "Not held against a net.".to_owned(),
    };
    let mut card = format!(
        "---\nlicense: {license}\nlibrary_name: candle\n---\n\n# {name}\n\nConverted from a PyTorch checkpoint \
         by `zoo convert`.\n\n\
         | | |\n|---|---|\n\
         | Source | {source} |\n\
         | Source's sha256 | `{source_sha256}` |\n\
         | Source's size | {source_size} bytes, {container} |\n\
         | State dict | {key}{stripped} |\n\
         | Weights | `{WEIGHTS}`, {size} bytes |\n\
         | Weights' sha256 | `{sha256}` |\n\
         | Tensors | {count} ({types}) |\n\
         | Values | {values} |\n\
         | Licence, as stated by whoever converted | {plain_license} |\n\n\
         ## Fit\n\n{fit}\n",
        // Quoted as JSON, which YAML can read, so that no text can add entries.
        license = json!(facts.license),
        name = line(&facts.name),
        source = code(&facts.source_file),
        source_sha256 = facts.source.sha256,
        source_size = facts.source.size,
        container = facts.container,
        stripped = if state.stripped() { ", prefix `module.` removed" } else { "" },
        size = weights.size,
        sha256 = weights.sha256,
        count = state.tensors().len(),
        types = types.join(", "),
        values = state.values(),
        plain_license = line(&facts.license),
    );
    if !state.skipped().is_empty() {
        card.push_str("\n## Left out\n\n");
        for skipped in state.skipped().iter().take(SHOWN) {
            // Writing to a String cannot fail.
            let _ = writeln!(card, "- {}: {}", code(&skipped.name), line(&skipped.what));
        }
        let more = state.skipped().len().saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(card, "- and {more} more");
        }
    }
    card
}

/// Text from outside, on one line and without a table's bars.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '|' { ' ' } else { c }).collect()
}

fn code(text: &str) -> String {
    format!("`{}`", line(text).replace('`', "'"))
}
