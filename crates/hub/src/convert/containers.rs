//! The two files that `torch.save` has written: a zip archive, and before PyTorch 1.6 a plain stream.
//! Both are a pickle and the storages that it refers to.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Fault, Pickle, Value};
use super::torch::{Contents, StorageInfo};
use crate::Error;

/// 0x1950a86a20f9469cfc6c, as the first pickle of a stream spells it.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;
const BIG_ENDIAN: &str = "its numbers are not little-endian: save it again on a usual machine";
/// Where a tar archive says that it is one.
const TAR_MARK: Range<usize> = 257..262;
/// Real ones have about a kilobyte for each tensor.
const MAX_PICKLE: u64 = 256 << 20;

/// The container of a PyTorch checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Container {
    /// A zip archive, since PyTorch 1.6.
    Zip,
    /// A stream of pickles and raw numbers, before.
    Legacy,
}

impl std::fmt::Display for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zip => "zip archive (PyTorch 1.6 and later)",
            Self::Legacy => "legacy stream (before PyTorch 1.6)",
        })
    }
}

/// A checkpoint whose pickle has been understood and whose storages have been found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) container: Container,
    pub(crate) contents: Contents,
    /// Where each storage's bytes are in the file; checked.
    pub(crate) storages: HashMap<String, Range<usize>>,
}

pub(crate) fn open(file: &str, bytes: &[u8]) -> Result<Opened, Error> {
    let from_pickle = |fault| match fault {
        Fault::At { at, problem } => Error::Pickle { file: file.to_owned(), at, problem },
        Fault::Forbidden { class } => Error::ForbiddenClass { file: file.to_owned(), class },
    };
    let result = if bytes.starts_with(b"PK\x03\x04") {
        open_zip(bytes)
    } else if bytes.get(TAR_MARK) == Some(b"ustar") {
        Err(Problem::Container(
            "it is a tar archive, from before PyTorch 0.2: load it there, and save it again".to_owned(),
        ))
    } else {
        open_legacy(bytes)
    };
    result.map_err(|problem| match problem {
        Problem::Container(problem) => Error::Checkpoint { file: file.to_owned(), problem },
        Problem::Pickle(fault) => from_pickle(fault),
    })
}

enum Problem {
    Container(String),
    Pickle(Fault),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Pickle(fault)
    }
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Container(problem)
    }
}

fn open_zip(bytes: &[u8]) -> Result<Opened, Problem> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|error| format!("the zip archive cannot be read ({error}): is it truncated?"))?;
    let mut pickles = (0..archive.len()).filter_map(|index| {
        let name = archive.name_for_index(index)?.ok()?;
        let prefix = name.strip_suffix("data.pkl")?;
        (prefix.is_empty() || prefix.ends_with('/')).then(|| prefix.to_owned())
    });
    let prefix = match (pickles.next(), pickles.next()) {
        (Some(prefix), None) => prefix,
        (None, _) => {
            return Err("the zip archive has no data.pkl: PyTorch did not write it".to_owned().into());
        }
        _ => return Err("the zip archive has more than one data.pkl".to_owned().into()),
    };
    drop(pickles);
    let byte_order = format!("{prefix}byteorder");
    if archive.index_for_name(&byte_order).is_some()
        && bytes.get(stored(&mut archive, bytes, &byte_order)?) != Some(b"little")
    {
        return Err(BIG_ENDIAN.to_owned().into());
    }
    let range = stored(&mut archive, bytes, &format!("{prefix}data.pkl"))?;
    if range.len() as u64 > MAX_PICKLE {
        return Err(format!("its pickle has {} bytes, expected at most {MAX_PICKLE}", range.len()).into());
    }
    let contents = Contents::read(&Pickle::parse(bytes.get(range).unwrap_or_default())?)?;
    let mut storages = HashMap::with_capacity(contents.storages.len());
    for (key, info) in &contents.storages {
        let range = stored(&mut archive, bytes, &format!("{prefix}data/{key}"))?;
        let expected = size_of(key, *info)?;
        if range.len() != expected {
            return Err(
                format!("storage {key} needs {expected} bytes, the archive has {}", range.len()).into()
            );
        }
        storages.insert(key.clone(), range);
    }
    Ok(Opened { container: Container::Zip, contents, storages })
}

/// Where an entry's bytes are in the archive. PyTorch compresses none, so nothing here can grow; the
/// entry's checksum is compared.
fn stored(archive: &mut ZipArchive<Cursor<&[u8]>>, bytes: &[u8], name: &str) -> Result<Range<usize>, String> {
    let mut entry =
        archive.by_name(name).map_err(|error| format!("its entry {name} cannot be read ({error})"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("its entry {name} is compressed, which PyTorch never does"));
    }
    let range = entry
        .data_start()
        .and_then(|start| {
            Some(usize::try_from(start).ok()?..usize::try_from(start.checked_add(entry.size())?).ok()?)
        })
        .filter(|range| range.end <= bytes.len())
        .ok_or_else(|| format!("its entry {name} lies past the end of the file: it is truncated"))?;
    std::io::copy(&mut entry.by_ref(), &mut std::io::sink())
        .map_err(|error| format!("its entry {name} is damaged ({error})"))?;
    Ok(range)
}

fn open_legacy(bytes: &[u8]) -> Result<Opened, Problem> {
    let mut stream = Stream { bytes, at: 0 };
    let magic = stream.pickle();
    if !matches!(&magic, Ok(pickle) if matches!(pickle.get(pickle.root()), Value::BigInt(MAGIC))) {
        return Err(
            "it starts neither as a zip archive nor with the number that PyTorch's older files start \
                    with"
                .to_owned()
                .into(),
        );
    }
    let protocol = stream.pickle()?;
    match protocol.get(protocol.root()) {
        Value::Int(PROTOCOL) => {}
        other => return Err(format!("expected protocol {PROTOCOL}, got {other:?}").into()),
    }
    let system = stream.pickle()?;
    if let Value::Dict(entries) = system.get(system.root())
        && entries.iter().any(|&(key, value)| {
            matches!((system.get(key), system.get(value)), (Value::Text("little_endian"), Value::Bool(false)))
        })
    {
        return Err(BIG_ENDIAN.to_owned().into());
    }
    let contents = Contents::read(&stream.pickle()?)?;
    let keys = stream.pickle()?;
    let Value::List(keys_in_order) = keys.get(keys.root()) else {
        return Err("the list of its storages is no list".to_owned().into());
    };
    let mut storages = HashMap::with_capacity(contents.storages.len());
    for &key in keys_in_order {
        let Value::Text(key) = keys.get(key) else {
            return Err("the list of its storages has something that is no key".to_owned().into());
        };
        let Some(info) = contents.storages.get(*key) else {
            return Err(format!("storage {key:.40} is listed, but no tensor says what it holds").into());
        };
        let range = stream.storage(key, *info)?;
        if storages.insert((*key).to_owned(), range).is_some() {
            return Err(format!("storage {key} is listed twice").into());
        }
    }
    if let Some(key) = contents.storages.keys().find(|key| !storages.contains_key(*key)) {
        return Err(format!("storage {key} is referred to, but the file does not list it").into());
    }
    Ok(Opened { container: Container::Legacy, contents, storages })
}

struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Stream<'a> {
    fn pickle(&mut self) -> Result<Pickle<'a>, Fault> {
        let start = self.at;
        let pickle =
            Pickle::parse(self.bytes.get(start..).unwrap_or_default()).map_err(|fault| match fault {
                Fault::At { at, problem } => Fault::At { at: at.saturating_add(start), problem },
                forbidden => forbidden,
            })?;
        self.at = start.saturating_add(pickle.length);
        Ok(pickle)
    }

    /// A count of elements, then the elements.
    fn storage(&mut self, key: &str, info: StorageInfo) -> Result<Range<usize>, String> {
        let truncated = || format!("storage {key} goes past the end of the file: it is truncated");
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (count, _) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let count = i64::from_le_bytes(*count);
        if usize::try_from(count) != Ok(info.elements) {
            return Err(format!("storage {key} has {count} elements, its tensors say {}", info.elements));
        }
        let start = self.at.saturating_add(8);
        let end = start
            .checked_add(size_of(key, info)?)
            .filter(|&end| end <= self.bytes.len())
            .ok_or_else(truncated)?;
        self.at = end;
        Ok(start..end)
    }
}

fn size_of(key: &str, info: StorageInfo) -> Result<usize, String> {
    info.elements
        .checked_mul(info.stored.size())
        .ok_or_else(|| format!("storage {key} has {} elements, which is beyond counting", info.elements))
}
