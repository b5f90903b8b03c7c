use std::path::{Path, PathBuf};

use crate::fit::FitReport;
use crate::verify::{Mismatch, Place};

/// Any error, for what a net says of a file.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong between a weight's name and a net that holds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written or made.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The description beside a file of weights is not understood.
    #[error("{}: {reason}: put there the config.json that `zoo convert` wrote, or remove it", file.display())]
    Description {
        /// The description.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache folder refuses writes.
    #[error(
        "cannot {action} {} in the cache: make it writable, or name another folder in HF_HUB_CACHE",
        path.display()
    )]
    CacheNotWritable {
        /// What was being done, as an infinitive.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No environment variable says where the cache is.
    #[error("no folder to keep downloads in: set HF_HUB_CACHE, HF_HOME or HOME, or give a cache folder")]
    NoCacheDir,
    /// A name of a file in a repository that could lead out of its folder.
    #[error(
        "file name {name:?} is refused, it {reason}: expected a relative path with forward slashes, \
         such as weights/model.safetensors"
    )]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that does not name a repository, or a revision of one.
    #[error("{text:?} does not name {expected}")]
    Name {
        /// What was given.
        text: String,
        /// What was expected, with an example.
        expected: &'static str,
    },
    /// There is no file to get, only a way to make one.
    #[error("weights {name} are not published in a form that can be loaded: {how}")]
    NeedsConversion {
        /// The weights.
        name: String,
        /// How `zoo convert` makes them.
        how: String,
    },
    /// Nobody has such weights.
    #[error(
        "weights {name} do not exist, nobody has trained or published them: give your own file \
         (option `weights`, or {file} in ZOO_WEIGHTS_DIR), or build the net with random weights yourself"
    )]
    NeverTrained {
        /// The weights.
        name: String,
        /// The name that a local file would have.
        file: String,
    },
    /// The weights travel with the crate, but not in this build.
    #[error(
        "weights {name} are bundled with their crate, but this build left them out: turn on its feature \
         `bundled`, or put {file} into ZOO_WEIGHTS_DIR"
    )]
    NotBundled {
        /// The weights.
        name: String,
        /// The file that the feature brings.
        file: String,
    },
    /// A download is needed and the build has no network code.
    #[error(
        "{what} has to be fetched, and this build has no network code: turn on feature `hub`, or put the file \
         into ZOO_WEIGHTS_DIR or the cache"
    )]
    NoHubFeature {
        /// File, repository and revision.
        what: String,
    },
    /// A download is needed and the user said no network.
    #[error(
        "{what} is not in the cache ({}) and HF_HUB_OFFLINE forbids fetching it: unset it once, or put the \
         file into ZOO_WEIGHTS_DIR",
        cache.display()
    )]
    Offline {
        /// File, repository and revision.
        what: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The Hub wants to know who asks (401).
    #[error(
        "{endpoint} asks for a login for {what}: set HF_TOKEN to a token that may read it, and check the \
         name, for the Hub says the same of repositories that do not exist"
    )]
    Unauthorized {
        /// File, repository and revision.
        what: String,
        /// The server.
        endpoint: String,
    },
    /// The Hub knows who asks and refuses (403).
    #[error(
        "{endpoint} refuses {what}: its terms may have to be accepted on its page first, or the token has no \
         right to read it"
    )]
    Forbidden {
        /// File, repository and revision.
        what: String,
        /// The server.
        endpoint: String,
    },
    /// The Hub has no such file, repository or revision (404).
    #[error("{endpoint} has no {what}: check the owner, the name, the revision and the file")]
    NotFound {
        /// File, repository and revision.
        what: String,
        /// The server.
        endpoint: String,
    },
    /// Too many requests (429).
    #[error(
        "{endpoint} answers too many requests for {what}: try again {}",
        retry_after.map_or_else(|| "later".to_owned(), |s| format!("in {s} s"))
    )]
    RateLimited {
        /// File, repository and revision.
        what: String,
        /// The server.
        endpoint: String,
        /// Seconds to wait, where the server said.
        retry_after: Option<u64>,
    },
    /// Any other failure of a download; nothing was stored.
    #[error("fetching {what} from {endpoint} failed, nothing was stored")]
    Download {
        /// File, repository and revision.
        what: String,
        /// The server.
        endpoint: String,
        /// The client's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Size or hash are not what they should be.
    #[error("{what} is not the file it should be: {mismatch}; {place}")]
    Mismatch {
        /// The file.
        what: String,
        /// Expected and got.
        mismatch: Mismatch,
        /// Where it lies, which decides what becomes of it.
        place: Place,
    },
    /// A branch or tag points to another commit than when it was recorded.
    #[error(
        "{what} has moved: {} records commit {recorded}, the server says {got}; look at what changed, then \
         accept it (`--accept`) or ask for the recorded commit",
        ledger.display()
    )]
    RevisionMoved {
        /// Repository and revision.
        what: String,
        /// The commit at first use.
        recorded: String,
        /// The commit now.
        got: String,
        /// The file that records.
        ledger: PathBuf,
    },
    /// A file's bytes are not those that were recorded.
    #[error(
        "{what} has changed: {} records {}, got {}; if that is right, accept it (`--accept`) or remove the \
         entry",
        ledger.display(), mismatch.expected(), mismatch.got()
    )]
    FileChanged {
        /// File, repository and revision.
        what: String,
        /// Recorded and got.
        mismatch: Mismatch,
        /// The file that records.
        ledger: PathBuf,
    },
    /// The record of fetched files cannot be understood.
    #[error("{} is not a record of fetched files: {problem}; mend or remove it", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a usable safetensors file.
    #[error("{file} is not a usable safetensors file: {problem}")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong, where.
        problem: String,
    },
    /// A tensor that the file does not have.
    #[error("{file} has no tensor {name}")]
    NoTensor {
        /// The file.
        file: String,
        /// The name.
        name: String,
    },
    /// A tensor whose stored type cannot serve as the type that was asked for.
    #[error(
        "tensor {name} of {file} is stored as {stored}, which cannot be read as {asked}: expected \
         {expected}"
    )]
    TensorType {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// The type in the file.
        stored: String,
        /// The type that was asked for.
        asked: String,
        /// Types that would do.
        expected: &'static str,
    },
    /// NaN, an infinity, or a number too large for the asked type.
    #[error(
        "tensor {name} of {file} has the value {value} at {position:?}, which {asked} cannot hold as a finite \
         number: the file is damaged or its training diverged; allow it with `allow_non_finite` if it is meant"
    )]
    NonFinite {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// Index of the first such value, one number a dimension.
        position: Vec<usize>,
        /// The value.
        value: f64,
        /// The type that was asked for.
        asked: String,
    },
    /// The net knows the file for one of another kind.
    #[error("weights {file} are not for this {model}")]
    Refused {
        /// The net.
        model: String,
        /// The file.
        file: String,
        /// What the net says of it.
        source: BoxError,
    },
    /// The tensors of the file are not those of the net.
    #[error(transparent)]
    Fit(Box<FitReport>),
    /// The net's constructor failed for another reason than its weights.
    #[error("building {model} failed")]
    Build {
        /// The net.
        model: String,
        /// The constructor's answer.
        source: Box<candle_core::Error>,
    },
    /// A tensor operation of loading or converting failed.
    #[error("tensor {name} of {file} cannot be made")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// candle's answer.
        source: Box<candle_core::Error>,
    },
    /// Not a PyTorch checkpoint, or one whose container is broken.
    #[error("{file} is not a usable PyTorch checkpoint: {problem}")]
    Checkpoint {
        /// The file.
        file: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The pickle inside a checkpoint cannot be read.
    #[error("{file} holds a pickle that cannot be read, at its byte {at}: {problem}")]
    Pickle {
        /// The file.
        file: String,
        /// Offset in the pickle stream.
        at: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The pickle names something that runs programs when Python loads it.
    #[error(
        "{file} is refused: it names {class}, which would run code if Python loaded it; nothing was run here, \
         and no checkpoint needs it"
    )]
    ForbiddenClass {
        /// The file.
        file: String,
        /// Module and name.
        class: String,
    },
    /// The file has no such dictionary of tensors, or several and none was chosen.
    #[error("{file} has {problem}; choose one of: {}", candidates.join(", "))]
    StateDict {
        /// The file.
        file: String,
        /// Why none could be taken.
        problem: String,
        /// What there is, as `key (N tensors)`.
        candidates: Vec<String>,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Wraps a system error with what was being done to which path.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}
