use candle_core::{DType, Device, Tensor};
use indexmap::{IndexMap, map::Entry};
use serde_json::Value;

use crate::{BoxError, Error, Golden, Result};

/// What a case computed.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub(crate) tensors: IndexMap<String, Produced>,
    pub(crate) values: IndexMap<String, Value>,
    pub(crate) given: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Produced {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Outputs {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor of any type on any device, in its full shape, under the output's own name.
    ///
    /// # Errors
    /// If the name was used before or the tensor cannot be copied to the CPU.
    pub fn push(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let values = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        self.insert(name.into(), Produced { shape: tensor.dims().to_vec(), values })
    }

    /// Adds a tensor if the file stores one of this name.
    ///
    /// # Errors
    /// As [`Outputs::push`].
    pub fn push_stored(&mut self, golden: &Golden, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let name = name.into();
        if golden.meta().output_shapes.contains_key(&name) { self.push(name, tensor) } else { Ok(()) }
    }

    /// Runs a net with a probe that adds what the file stores, and gives what the net gives.
    ///
    /// # Errors
    /// The net's, and as [`Outputs::push`].
    pub fn push_probed<R>(
        &mut self,
        golden: &Golden,
        run: impl FnOnce(&mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>) -> candle_core::Result<R>,
    ) -> Result<R, BoxError> {
        let result =
            run(&mut |name, tensor| self.push_stored(golden, name, tensor).map_err(candle_core::Error::wrap));
        Ok(result?)
    }

    /// Adds plain numbers.
    ///
    /// # Errors
    /// If the name was used before or the values do not fill the shape.
    pub fn push_values<V: Into<f64>>(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: impl IntoIterator<Item = V>,
    ) -> Result<()> {
        let (name, shape) = (name.into(), shape.to_vec());
        let values: Vec<f64> = values.into_iter().map(V::into).collect();
        if shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)) != Some(values.len()) {
            return Err(Error::OutputLength { name, shape, values: values.len() });
        }
        self.insert(name, Produced { shape, values })
    }

    fn insert(&mut self, name: String, produced: Produced) -> Result<()> {
        match self.tensors.entry(name) {
            Entry::Occupied(entry) => Err(Error::DuplicateOutput(entry.key().clone())),
            Entry::Vacant(entry) => {
                entry.insert(produced);
                Ok(())
            }
        }
    }

    /// For a case file: what belongs at this JSON pointer (`/cases/0/result`), a number or any tree of
    /// them; `null` where the reference refuses and we do too.
    ///
    /// # Errors
    /// If the pointer was used before.
    pub fn push_value(&mut self, pointer: impl Into<String>, value: Value) -> Result<()> {
        match self.values.entry(pointer.into()) {
            Entry::Occupied(entry) => Err(Error::DuplicateOutput(entry.key().clone())),
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
        }
    }

    /// Declares a stored tensor, or everything below a JSON pointer, to be an argument that the case
    /// takes from the file rather than computes. Tensors that the file lists as inputs need no such word.
    pub fn given(&mut self, name: impl Into<String>) {
        self.given.push(name.into());
    }
}
