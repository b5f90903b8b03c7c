use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{DType, Device};

use crate::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// A server that says nothing for this long is taken for dead.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A secret that stays out of logs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    #[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "only the network needs it"))]
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the environment variables say. The only place that reads them.
///
/// | Variable | Meaning |
/// |---|---|
/// | `ZOO_WEIGHTS_DIR` | folder of weight files that take precedence over all published ones |
/// | `HF_ENDPOINT` | the Hub's address |
/// | `HF_HUB_CACHE`, else `HF_HOME`, else `XDG_CACHE_HOME`, else `HOME` | where downloads are kept |
/// | `HF_TOKEN`, else `HF_TOKEN_PATH`, else the file `token` in `HF_HOME` | who asks |
/// | `HF_HUB_OFFLINE` | `1`, `on`, `yes` or `true`: never ask the network |
///
/// A variable that is set but empty counts as not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    weights_dir: Option<PathBuf>,
    endpoint: Option<String>,
    cache_dir: Option<PathBuf>,
    token: Option<Token>,
    offline: bool,
}

impl Environment {
    /// The variables of this process.
    pub fn from_process() -> Self {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Variables from anywhere: `lookup` gives a variable's value, or `None` where it is not set.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| set(name).map(PathBuf::from);
        let home =
            path("HF_HOME").or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("huggingface"))).or_else(
                || path("HOME").or_else(|| path("USERPROFILE")).map(|dir| dir.join(".cache/huggingface")),
            );
        let token = text("HF_TOKEN").or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|dir| dir.join("token")))?;
            std::fs::read_to_string(file).ok()
        });
        Self {
            weights_dir: path("ZOO_WEIGHTS_DIR"),
            endpoint: text("HF_ENDPOINT"),
            cache_dir: path("HF_HUB_CACHE").or_else(|| home.map(|dir| dir.join("hub"))),
            token: token.and_then(|token| trimmed_token(&token)),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
            }),
        }
    }
}

fn trimmed_token(text: &str) -> Option<Token> {
    let text = text.trim();
    (!text.is_empty()).then(|| Token(text.to_owned()))
}

/// How to find and load weights. What is not set here comes from the environment variables
/// (see [`Environment`]), which are read at each load.
///
/// ```
/// use zoo_hub::LoadOptions;
/// let options = LoadOptions::default().with_weights("my/model.safetensors").with_offline(true);
/// ```
#[derive(Debug, Clone)]
pub struct LoadOptions {
    device: Device,
    dtype: DType,
    weights: Option<PathBuf>,
    unexpected: Vec<String>,
    non_finite: bool,
    cache_dir: Option<PathBuf>,
    offline: Option<bool>,
    token: Option<Token>,
    endpoint: Option<String>,
    timeout: Duration,
    environment: Option<Environment>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: DType::F32,
            weights: None,
            unexpected: Vec::new(),
            non_finite: false,
            cache_dir: None,
            offline: None,
            token: None,
            endpoint: None,
            timeout: DEFAULT_TIMEOUT,
            environment: None,
        }
    }
}

impl LoadOptions {
    /// Where the tensors go; the CPU unless said.
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The type that the net computes in; `f32` unless said.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Use this file, whatever the specification says. Its hash is not compared: it is yours.
    pub fn with_weights(mut self, path: impl Into<PathBuf>) -> Self {
        self.weights = Some(path.into());
        self
    }

    /// Tensors of the file that the net does not ask for are no error if their names start so.
    pub fn allow_unexpected<S: Into<String>>(mut self, prefixes: impl IntoIterator<Item = S>) -> Self {
        self.unexpected.extend(prefixes.into_iter().map(Into::into));
        self
    }

    /// Take weights with NaN or infinite values in them.
    pub fn allow_non_finite(mut self) -> Self {
        self.non_finite = true;
        self
    }

    /// Where downloads are kept, in place of the environment's folder.
    pub fn with_cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// Whether the network is forbidden, in place of `HF_HUB_OFFLINE`.
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = Some(offline);
        self
    }

    /// The Hub token, in place of the environment's. An empty one means the environment's.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = trimmed_token(token);
        self
    }

    /// The Hub's address, in place of the environment's.
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// How long a server may stay silent; 60 s unless said.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Variables to go by, in place of the process's.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Where the tensors go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type that the net computes in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The file to use whatever the specification says.
    pub fn weights(&self) -> Option<&Path> {
        self.weights.as_deref()
    }

    pub(crate) fn unexpected_prefixes(&self) -> &[String] {
        &self.unexpected
    }

    pub(crate) fn non_finite_allowed(&self) -> bool {
        self.non_finite
    }

    /// These options over the environment over the defaults.
    pub(crate) fn settings(&self) -> Settings {
        let environment = self.environment.clone().unwrap_or_else(Environment::from_process);
        Settings {
            weights_dir: environment.weights_dir,
            cache_dir: self.cache_dir.clone().or(environment.cache_dir),
            endpoint: self
                .endpoint
                .clone()
                .or(environment.endpoint)
                .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: self.token.clone().or(environment.token),
            offline: self.offline.unwrap_or(environment.offline),
            timeout: self.timeout,
        }
    }
}

/// Where to look and whom to ask, with nothing left open.
#[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "only the network needs all of them"))]
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) weights_dir: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    pub(crate) endpoint: String,
    pub(crate) token: Option<Token>,
    pub(crate) offline: bool,
    pub(crate) timeout: Duration,
}

impl Settings {
    pub(crate) fn cache_dir(&self) -> Result<&Path> {
        self.cache_dir.as_deref().ok_or(Error::NoCacheDir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from_lookup(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_folder_follows_the_order_of_the_variables() {
        struct Case {
            variables: &'static [(&'static str, &'static str)],
            expected: Option<&'static str>,
        }
        for case in [
            Case { variables: &[], expected: None },
            Case { variables: &[("HOME", "/h")], expected: Some("/h/.cache/huggingface/hub") },
            Case {
                variables: &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                expected: Some("/x/huggingface/hub"),
            },
            Case { variables: &[("HF_HOME", "/f"), ("XDG_CACHE_HOME", "/x")], expected: Some("/f/hub") },
            Case { variables: &[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], expected: Some("/c") },
            Case { variables: &[("HF_HOME", "/f"), ("HF_HUB_CACHE", "")], expected: Some("/f/hub") },
        ] {
            let got = environment(case.variables).cache_dir;
            assert_eq!(got.as_deref(), case.expected.map(Path::new), "{:?}", case.variables);
        }
    }

    #[test]
    fn only_the_usual_words_mean_offline() {
        for (value, expected) in [
            ("1", true),
            ("on", true),
            ("YES", true),
            ("True", true),
            ("0", false),
            ("", false),
            ("no", false),
        ] {
            assert_eq!(environment(&[("HF_HUB_OFFLINE", value)]).offline, expected, "{value:?}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_or_from_a_file_and_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_stored\n").unwrap();
        std::fs::write(dir.path().join("other"), "  hf_other\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let other = dir.path().join("other");
        let other = other.to_str().unwrap();
        for (variables, expected) in [
            (vec![("HF_HOME", home)], "hf_stored"),
            (vec![("HF_HOME", home), ("HF_TOKEN_PATH", other)], "hf_other"),
            (vec![("HF_HOME", home), ("HF_TOKEN_PATH", other), ("HF_TOKEN", "hf_variable")], "hf_variable"),
        ] {
            let environment = environment(&variables);
            assert_eq!(environment.token, Some(Token(expected.to_owned())), "{variables:?}");
            assert!(!format!("{environment:?}").contains(expected));
        }
    }

    #[test]
    fn an_option_wins_over_its_variable() {
        let environment =
            environment(&[("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "1"), ("HF_TOKEN", "a")]);
        let options = LoadOptions::default().with_environment(environment);
        let settings = options.settings();
        assert_eq!((settings.endpoint.as_str(), settings.offline), ("http://mirror", true));
        let settings = options.with_endpoint("http://other").with_offline(false).with_token("b").settings();
        assert_eq!((settings.endpoint.as_str(), settings.offline), ("http://other", false));
        assert_eq!(settings.token, Some(Token("b".to_owned())));
    }
}
