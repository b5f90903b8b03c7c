//! What `zoo convert` writes beside weights of the net that they belong to.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// Its name, in the folder of the weights.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// The `config.json` beside a file of weights.
#[derive(Debug, Clone)]
pub struct Description {
    file: PathBuf,
    entries: Value,
}

impl Description {
    /// Reads it, where there is one. One whose `architecture` is null is of a conversion that nothing was known of, and
    /// says nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Description`] if it is no JSON.
    pub fn beside(weights: &Path) -> Result<Option<Self>> {
        let file = weights.with_file_name(CONFIG_FILE);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path: file, source }),
        };
        let mut read = Self { file, entries: Value::Null };
        read.entries = serde_json::from_str(&text).map_err(|error| read.fault(error))?;
        let says_nothing = read.entries.get("architecture").is_some_and(Value::is_null);
        Ok((!says_nothing).then_some(read))
    }

    /// An entry of it, where there is one.
    ///
    /// # Errors
    /// [`Error::Description`] if it is not what is asked for.
    pub fn entry<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let entry = self.entries.get(name).cloned();
        entry
            .map(|entry| {
                serde_json::from_value(entry).map_err(|error| self.fault(format_args!("{name}: {error}")))
            })
            .transpose()
    }

    /// An entry that it must have.
    ///
    /// # Errors
    /// As [`Description::entry`], and if it is missing.
    pub fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.entry(name)?.ok_or_else(|| self.fault(format_args!("it has no entry '{name}'")))
    }

    /// What is wrong with it.
    pub fn fault(&self, reason: impl Display) -> Error {
        Error::Description { file: self.file.clone(), reason: reason.to_string() }
    }
}
