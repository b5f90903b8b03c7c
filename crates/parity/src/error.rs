use std::path::PathBuf;

/// The error of a case, whatever its crate calls it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with golden files and cases. A difference in numbers is no error but part of the
/// [`crate::Report`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("reading {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no safetensors.
    #[error("{golden} is not a safetensors file: {source}")]
    Safetensors {
        /// The golden file.
        golden: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// The safetensors header has no `meta` entry.
    #[error("{golden} has no metadata entry 'meta': it holds tensors, but not what computes them")]
    NoMeta {
        /// The golden file.
        golden: String,
    },
    /// A JSON part of the file cannot be read.
    #[error("{golden}: {what} cannot be read: {source}")]
    Json {
        /// The golden file.
        golden: String,
        /// `metadata`, `config` or `case file`.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The file contradicts itself.
    #[error("{golden}: {what}")]
    Inconsistent {
        /// The golden file.
        golden: String,
        /// A sentence that says where, what was expected and what is there.
        what: String,
    },
    /// The file has no input, tensor or group of this name.
    #[error("{golden} has no {what} '{name}'; it has {known}", known = list(.known))]
    Unknown {
        /// The golden file.
        golden: String,
        /// `input`, `whole tensor` or `group`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A tensor that is larger than any real one.
    #[error("tensor '{name}' of shape {shape:?} is too large to be seeded (at most {limit} values)")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Most values of a tensor.
        limit: usize,
    },
    /// No case handles the file's model.
    #[error("{golden} is for model '{model}', which no case handles; known models: {known}", known = list(.known))]
    UnknownModel {
        /// The golden file.
        golden: String,
        /// What the file asks for.
        model: String,
        /// What the registry has.
        known: Vec<String>,
    },
    /// Two cases handle the same model.
    #[error("two cases are registered for model '{0}'")]
    DuplicateModel(String),
    /// A case produced two outputs of the same name.
    #[error("output '{0}' was produced twice")]
    DuplicateOutput(String),
    /// An output whose values do not fill its shape.
    #[error("output '{name}' of shape {shape:?} was produced with {values} values")]
    OutputLength {
        /// The output.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Values that came with it.
        values: usize,
    },
    /// A case failed before there was anything to compare.
    #[error("{golden}: running model '{model}' failed: {source}")]
    Case {
        /// The golden file.
        golden: String,
        /// The model.
        model: String,
        /// Why.
        source: BoxError,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
