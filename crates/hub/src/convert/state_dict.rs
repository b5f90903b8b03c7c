use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use serde::Serialize;

use super::torch::TensorRef;
use crate::checkpoint::{first_beyond, largest, position};
use crate::{Checkpoint, Error, Result, StoredType};

/// A tensor as it is written: little-endian, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    pub(crate) stored: StoredType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl StoredTensor {
    /// How its numbers are stored.
    pub fn stored(&self) -> StoredType {
        self.stored
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Copies a view out of its storage, whose bytes are `storage`.
    pub(crate) fn gather(view: &TensorRef, storage: &[u8]) -> std::result::Result<Self, String> {
        let TensorRef { stored, offset, shape, strides, .. } = view;
        let size = stored.size();
        let data = if shape.contains(&0) {
            Vec::new()
        } else {
            let last = shape
                .iter()
                .zip(strides)
                .try_fold(*offset, |at, (dim, stride)| at.checked_add((dim - 1).checked_mul(*stride)?));
            if last.is_none_or(|last| last >= storage.len() / size) {
                return Err(format!(
                    "shape {shape:?} with strides {strides:?} from element {offset} leaves its storage of {} \
                     elements",
                    storage.len() / size
                ));
            }
            let storage = storage.get(offset * size..).unwrap_or_default();
            if is_contiguous(shape, strides) {
                let bytes = shape.iter().product::<usize>() * size;
                storage.get(..bytes).unwrap_or_default().to_vec()
            } else {
                let mut data = Vec::with_capacity(shape.iter().product::<usize>() * size);
                copy_strided(shape, strides, size, storage, &mut data);
                data
            }
        };
        Ok(Self { stored: *stored, shape: shape.clone(), data })
    }

    /// The bytes of a candle tensor.
    pub(crate) fn of(tensor: &Tensor) -> candle_core::Result<Self> {
        macro_rules! bytes {
            ($stored:ident, $t:ty) => {{
                let values = tensor.flatten_all()?.to_vec1::<$t>()?;
                (StoredType::$stored, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }};
        }
        let (stored, data) = match tensor.dtype() {
            DType::U8 => bytes!(U8, u8),
            DType::U32 => bytes!(U32, u32),
            DType::I16 => bytes!(I16, i16),
            DType::I32 => bytes!(I32, i32),
            DType::I64 => bytes!(I64, i64),
            DType::F16 => bytes!(F16, f16),
            DType::BF16 => bytes!(Bf16, bf16),
            DType::F32 => bytes!(F32, f32),
            DType::F64 => bytes!(F64, f64),
            other => candle_core::bail!("tensors of type {} cannot be stored", other.as_str()),
        };
        Ok(Self { stored, shape: tensor.dims().to_vec(), data })
    }

    /// As f16, if it is a float; rounded to nearest.
    fn halved(self) -> Self {
        fn round<const N: usize>(data: &[u8], decode: impl Fn([u8; N]) -> f16) -> Vec<u8> {
            let (values, _) = data.as_chunks::<N>();
            values.iter().flat_map(|bytes| decode(*bytes).to_le_bytes()).collect()
        }
        let data = match self.stored {
            StoredType::Bf16 => round(&self.data, |b| f16::from_f32(bf16::from_le_bytes(b).to_f32())),
            StoredType::F32 => round(&self.data, |b| f16::from_f32(f32::from_le_bytes(b))),
            StoredType::F64 => round(&self.data, |b| f16::from_f64(f64::from_le_bytes(b))),
            _ => return self,
        };
        Self { stored: StoredType::F16, data, ..self }
    }
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
        // Nobody steps along a dimension of one, so its stride may be anything.
        let contiguous = dim == 1 || stride == expected;
        expected = expected.saturating_mul(dim);
        contiguous
    })
}

fn copy_strided(shape: &[usize], strides: &[usize], size: usize, storage: &[u8], out: &mut Vec<u8>) {
    match (shape.split_first(), strides.split_first()) {
        (Some((&dim, shape)), Some((&stride, strides))) => {
            for i in 0..dim {
                let rest = storage.get(i * stride * size..).unwrap_or_default();
                copy_strided(shape, strides, size, rest, out);
            }
        }
        _ => out.extend(storage.iter().take(size)),
    }
}

/// Something of a checkpoint that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: String,
}

/// The tensors of a PyTorch checkpoint, by name.
#[derive(Debug, Clone)]
pub struct StateDict {
    pub(crate) file: String,
    pub(crate) key: String,
    pub(crate) stripped: bool,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    pub(crate) skipped: Vec<Skipped>,
}

impl StateDict {
    /// The keys that led to it, joined by dots; empty for the outermost dictionary.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether all names started with `module.`, which training on several devices adds, and lost it.
    pub fn stripped(&self) -> bool {
        self.stripped
    }

    /// The tensors.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// Entries that are no tensors, or such that cannot be written.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The same under names that begin with `prefix`.
    #[must_use]
    pub fn prefixed(mut self, prefix: &str) -> Self {
        let named = |(name, tensor): (String, StoredTensor)| (format!("{prefix}{name}"), tensor);
        self.tensors = self.tensors.into_iter().map(named).collect();
        self
    }

    /// Adds the tensors of another dictionary, for a net whose parts are in several files.
    ///
    /// # Errors
    /// The first name that both have.
    pub fn join(&mut self, other: Self) -> std::result::Result<(), String> {
        for (name, tensor) in other.tensors {
            if self.tensors.contains_key(&name) {
                return Err(name);
            }
            self.tensors.insert(name, tensor);
        }
        self.skipped.extend(other.skipped);
        Ok(())
    }

    /// Leaves out the tensors of these names, with a word on what they are.
    pub fn leave_out(&mut self, what: &str, which: impl Fn(&str) -> bool) {
        let skipped = &mut self.skipped;
        self.tensors.retain(|name, _| {
            let goes = which(name);
            if goes {
                skipped.push(Skipped { name: name.clone(), what: what.to_owned() });
            }
            !goes
        });
    }

    /// Values in float tensors: weights, biases, and running statistics.
    pub fn values(&self) -> u64 {
        self.tensors
            .values()
            .filter(|tensor| tensor.stored.is_float())
            .map(|tensor| (tensor.data.len() / tensor.stored.size()) as u64)
            .sum()
    }

    /// Rounds all float tensors to f16.
    ///
    /// # Errors
    /// If a value is too large for f16: see [`StateDict::check_finite`].
    pub fn into_half(mut self) -> Result<Self> {
        self.check(DType::F16)?;
        for tensor in self.tensors.values_mut() {
            let whole = std::mem::replace(
                tensor,
                StoredTensor { stored: StoredType::F16, shape: Vec::new(), data: Vec::new() },
            );
            *tensor = whole.halved();
        }
        Ok(self)
    }

    /// Looks for values that are no finite numbers.
    ///
    /// # Errors
    /// If there is one, with its tensor and position.
    pub fn check_finite(&self) -> Result<()> {
        self.check(DType::F64)
    }

    fn check(&self, dtype: DType) -> Result<()> {
        for (name, tensor) in &self.tensors {
            if let Some((index, value)) = first_beyond(&tensor.data, tensor.stored, largest(dtype)) {
                return Err(Error::NonFinite {
                    file: self.file.clone(),
                    name: name.clone(),
                    position: position(index, &tensor.shape),
                    value,
                    asked: dtype.as_str().to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The safetensors file of these tensors: the same tensors give the same bytes.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn to_safetensors(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        super::write::serialize(&self.tensors, metadata)
    }

    /// The tensors as an open checkpoint, to hold a net against.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn to_checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::from_bytes(&self.file, self.to_safetensors(&BTreeMap::new())?)
    }
}
