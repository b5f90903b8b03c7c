//! Safetensors files: the header is checked in full before a tensor is touched.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::mmap::map;
use crate::names::printable;
use crate::{Error, Result};

/// A header longer than this is no header; the largest real ones are a few megabytes.
const MAX_HEADER: u64 = 100 << 20;
const METADATA: &str = "__metadata__";

/// The type of a stored number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum StoredType {
    Bool,
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

impl StoredType {
    const ALL: [Self; 13] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
    ];

    /// As safetensors headers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::I64 => "I64",
            Self::U64 => "U64",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether weights can be stored so.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// candle's type of the same name.
    pub(crate) fn dtype(self) -> Option<DType> {
        Some(match self {
            Self::U8 => DType::U8,
            Self::I16 => DType::I16,
            Self::I32 => DType::I32,
            Self::U32 => DType::U32,
            Self::I64 => DType::I64,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::Bool | Self::I8 | Self::U16 | Self::U64 => return None,
        })
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// How its numbers are stored.
    pub stored: StoredType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its bytes are in the file; checked.
    range: Range<usize>,
}

impl TensorEntry {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.range.len() / self.stored.size()
    }
}

enum Bytes {
    Mapped(Mmap),
    InMemory(Cow<'static, [u8]>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::InMemory(bytes) => bytes,
        }
    }
}

/// An open safetensors file whose header has been checked.
pub struct Checkpoint {
    file: String,
    bytes: Bytes,
    tensors: Tensors,
    metadata: Metadata,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.file, self.tensors.len())
    }
}

impl Checkpoint {
    /// Opens a file without reading more of it than its header.
    ///
    /// # Errors
    /// If it cannot be read, or its header is not sound: see [`Checkpoint::from_bytes`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::checked(path.display().to_string(), Bytes::Mapped(map(path)?))
    }

    /// Opens a file that is in memory, under the name that errors shall give it.
    ///
    /// # Errors
    /// If the header is truncated, is not JSON, has a name twice or an unknown type, or if shapes and
    /// offsets do not cover the data exactly, without gap and overlap.
    pub fn from_bytes(file: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        Self::checked(file.to_owned(), Bytes::InMemory(bytes.into()))
    }

    fn checked(file: String, bytes: Bytes) -> Result<Self> {
        match parse(bytes.as_slice()) {
            Ok((tensors, metadata)) => Ok(Self { file, bytes, tensors, metadata }),
            Err(problem) => Err(Error::Safetensors { file, problem }),
        }
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// The header's free-form strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The stored bytes of a tensor, little-endian, row-major.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn raw(&self, name: &str) -> Result<&[u8]> {
        self.tensors
            .get(name)
            .and_then(|entry| self.bytes.as_slice().get(entry.range.clone()))
            .ok_or_else(|| Error::NoTensor { file: self.file.clone(), name: name.to_owned() })
    }

    /// A tensor as `dtype` on `device`. Floats convert into each other, integers only come as what
    /// they are. A NaN, an infinity, or a value beyond the range of `dtype` is refused unless
    /// `allow_non_finite`.
    ///
    /// # Errors
    /// If there is no such tensor, its type does not do, or a value is refused.
    pub fn tensor(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
        allow_non_finite: bool,
    ) -> Result<Tensor> {
        let data = self.raw(name)?;
        let Some(entry) = self.tensors.get(name) else {
            return Err(Error::NoTensor { file: self.file.clone(), name: name.to_owned() });
        };
        let stored = match entry.stored.dtype() {
            Some(stored) if stored == dtype || (entry.stored.is_float() && dtype.is_float()) => stored,
            _ => {
                return Err(Error::TensorType {
                    file: self.file.clone(),
                    name: name.to_owned(),
                    stored: entry.stored.to_string(),
                    asked: dtype.as_str().to_owned(),
                    expected: if dtype.is_float() {
                        "F16, BF16, F32 or F64"
                    } else {
                        "the same integer type"
                    },
                });
            }
        };
        if entry.stored.is_float()
            && !allow_non_finite
            && let Some((index, value)) = first_beyond(data, entry.stored, largest(dtype))
        {
            return Err(Error::NonFinite {
                file: self.file.clone(),
                name: name.to_owned(),
                position: position(index, &entry.shape),
                value,
                asked: dtype.as_str().to_owned(),
            });
        }
        Tensor::from_raw_buffer(data, stored, &entry.shape, device)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .map_err(|source| Error::Tensor {
                file: self.file.clone(),
                name: name.to_owned(),
                source: Box::new(source),
            })
    }
}

/// The largest number that rounds to a finite one of this type.
pub(crate) fn largest(dtype: DType) -> f64 {
    match dtype {
        // Just below half-way between the largest value and what would come next.
        DType::F16 => 65519.99,
        DType::BF16 => 3.396e38,
        DType::F32 => f64::from(f32::MAX),
        _ => f64::MAX,
    }
}

/// The first value that is NaN or larger in size than `limit`, with its index.
pub(crate) fn first_beyond(data: &[u8], stored: StoredType, limit: f64) -> Option<(usize, f64)> {
    fn search<const N: usize>(
        data: &[u8],
        limit: f64,
        decode: impl Fn([u8; N]) -> f64,
    ) -> Option<(usize, f64)> {
        let (values, _) = data.as_chunks::<N>();
        values
            .iter()
            .map(|bytes| decode(*bytes))
            .enumerate()
            .find(|(_, value)| value.is_nan() || value.abs() > limit)
    }
    match stored {
        StoredType::F16 => search(data, limit, |b| f16::from_le_bytes(b).to_f64()),
        StoredType::Bf16 => search(data, limit, |b| bf16::from_le_bytes(b).to_f64()),
        StoredType::F32 => search(data, limit, |b| f64::from(f32::from_le_bytes(b))),
        StoredType::F64 => search(data, limit, f64::from_le_bytes),
        _ => None,
    }
}

pub(crate) fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut position: Vec<_> = shape
        .iter()
        .rev()
        .map(|&dim| {
            let at = index % dim.max(1);
            index /= dim.max(1);
            at
        })
        .collect();
    position.reverse();
    position
}

type Tensors = BTreeMap<String, TensorEntry>;
type Metadata = BTreeMap<String, String>;

fn parse(bytes: &[u8]) -> std::result::Result<(Tensors, Metadata), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("expected at least 8 bytes, got {}", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!(
            "its first 8 bytes announce a header of {length} bytes, expected at most {MAX_HEADER}; is it another \
             kind of file?"
        ));
    }
    let Some((header, data)) = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n)) else {
        return Err(format!(
            "it announces a header of {length} bytes, but only {} follow: it is truncated",
            rest.len()
        ));
    };
    let header: Header =
        serde_json::from_slice(header).map_err(|error| format!("its header cannot be read: {error}"))?;
    let start = bytes.len().saturating_sub(data.len());
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors {
        let entry = info
            .check(start, data.len())
            .map_err(|problem| format!("tensor {}: {problem}", printable(&name)))?;
        tensors.insert(name, entry);
    }
    check_cover(&tensors, start, bytes.len())?;
    Ok((tensors, header.metadata))
}

/// The data must be covered exactly: an overlap or a gap is a mistake or a trick.
fn check_cover(tensors: &Tensors, start: usize, end: usize) -> std::result::Result<(), String> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    let mut at = start;
    let mut last = "the header";
    for (name, TensorEntry { range, .. }) in by_place {
        if range.start != at {
            let kind = if range.start < at { "overlap" } else { "leave a gap between them" };
            return Err(format!(
                "{} and tensor {} {kind}: expected byte {at} to follow, got {}",
                printable(last),
                printable(name),
                range.start
            ));
        }
        at = range.end;
        last = name;
    }
    if at != end {
        return Err(format!("{} bytes follow the last tensor, expected none", end.saturating_sub(at)));
    }
    Ok(())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl TensorInfo {
    fn check(self, start: usize, available: usize) -> std::result::Result<TensorEntry, String> {
        let stored = StoredType::parse(&self.dtype).ok_or_else(|| {
            let known: Vec<_> = StoredType::ALL.into_iter().map(StoredType::name).collect();
            format!("unknown dtype {:?}, expected one of {}", printable(&self.dtype), known.join(", "))
        })?;
        let shape: Option<Vec<_>> = self.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let size = shape
            .as_ref()
            .and_then(|shape| shape.iter().try_fold(stored.size(), |n, &dim| n.checked_mul(dim)));
        let (Some(shape), Some(size)) = (shape, size) else {
            return Err(format!("shape {:?} has more bytes than can be counted", self.shape));
        };
        let (from, to) = self.data_offsets;
        let place = |offset: u64| usize::try_from(offset).ok().filter(|&offset| offset <= available);
        let (Some(from), Some(to)) = (place(from), place(to)) else {
            return Err(format!(
                "offsets {from}..{to} lie past the end of the data ({available} bytes): it is truncated"
            ));
        };
        if to.checked_sub(from) != Some(size) {
            return Err(format!(
                "shape {shape:?} of {stored} needs {size} bytes, which is not what its offsets {from}..{to} hold"
            ));
        }
        Ok(TensorEntry { stored, shape, range: start + from..start + to })
    }
}

struct Header {
    tensors: BTreeMap<String, TensorInfo>,
    metadata: Metadata,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Refuses a name that occurs twice, of which a plain map would keep the last.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut tensors = BTreeMap::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            let repeated = if name == METADATA {
                metadata.replace(map.next_value()?).is_some()
            } else {
                tensors.insert(name.clone(), map.next_value()?).is_some()
            };
            if repeated {
                return Err(A::Error::custom(format_args!("the name {:?} occurs twice", printable(&name))));
            }
        }
        Ok(Header { tensors, metadata: metadata.unwrap_or_default() })
    }
}
