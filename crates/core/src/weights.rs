use serde::Serialize;

/// Where a weight file stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Status {
    /// The file travels with the model crate (feature `bundled`).
    Bundled,
    /// The file is on the Hugging Face Hub, at a pinned revision.
    Hub(HubFile),
    /// Published by others in a form that `zoo convert` reads; the text says where and how.
    Convert(String),
    /// Nobody has trained or published such weights; a net built for them has random ones.
    Random,
}

/// A file of a repository on the Hugging Face Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: String,
    /// A commit, 40 hexadecimal digits; never a branch.
    pub revision: String,
    /// Path inside the repository.
    pub file: String,
}

/// A measured quality of a weight file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    /// What was measured, on what, at which resolution.
    pub name: String,
    /// The value.
    pub value: f64,
}

/// Everything that is known of one weight file: the data that finding, checking and naming it need.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightSpec {
    /// `model/tag`, for people and for file names.
    pub name: String,
    /// File name in the cache, in `ZOO_WEIGHTS_DIR`, or inside the crate.
    pub file: String,
    /// Where it is to be had.
    pub status: Status,
    /// Bytes, where the file is pinned.
    pub size: Option<u64>,
    /// SHA-256 as 64 hexadecimal digits, where the file is pinned.
    pub sha256: Option<String>,
    /// SPDX licence expression of the weights.
    pub license: String,
    /// The data that it was trained on, with the data's caveats.
    pub trained_on: String,
    /// Measured quality; empty where nobody measured.
    pub metrics: Vec<Metric>,
}

/// A model's list of weight files.
pub trait Weights {
    /// The data of this entry.
    fn spec(&self) -> WeightSpec;

    /// The file's bytes, where it is bundled with the crate.
    fn bundled(&self) -> Option<&'static [u8]> {
        None
    }
}
