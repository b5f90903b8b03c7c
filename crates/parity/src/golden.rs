use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use indexmap::IndexMap;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::stored::{Form, Stored};
use crate::{Error, Meta, Result, case_file, seeded};

/// A golden file, read and checked against itself.
#[derive(Debug, Clone)]
pub struct Golden {
    name: String,
    meta: Meta,
    pub(crate) stored: IndexMap<String, Stored>,
    pub(crate) cases: Option<Value>,
}

impl Golden {
    /// Reads a `.safetensors` golden or a `.json` case file.
    ///
    /// # Errors
    /// If the file cannot be read, is not of its format, or contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self::from_bytes(&name.to_string_lossy(), &bytes)
    }

    /// As [`Golden::open`], from a file's name and content.
    ///
    /// # Errors
    /// If the content is not of the format that the name says, or contradicts itself.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        match name.strip_suffix(".json") {
            Some(stem) => Self::from_case_file(name, stem, bytes),
            None => Self::from_safetensors(name, bytes),
        }
    }

    fn from_case_file(name: &str, stem: &str, bytes: &[u8]) -> Result<Self> {
        let cases: Value = serde_json::from_slice(bytes).map_err(|source| Error::Json {
            golden: name.to_owned(),
            what: "case file",
            source,
        })?;
        let text = |key| cases.get(key).and_then(Value::as_str);
        let meta = Meta {
            model: text(case_file::MODEL).unwrap_or(stem).to_owned(),
            notes: text(case_file::NOTES).unwrap_or_default().to_owned(),
            ..Meta::default()
        };
        Ok(Self { name: name.to_owned(), meta, stored: IndexMap::new(), cases: Some(cases) })
    }

    fn from_safetensors(name: &str, bytes: &[u8]) -> Result<Self> {
        let golden = || name.to_owned();
        let unreadable = |source| Error::Safetensors { golden: golden(), source };
        let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let meta = header.metadata().as_ref().and_then(|entries| entries.get("meta"));
        let meta: Meta = serde_json::from_str(meta.ok_or_else(|| Error::NoMeta { golden: golden() })?)
            .map_err(|source| Error::Json { golden: golden(), what: "metadata", source })?;

        let mut stored = IndexMap::new();
        for (tensor, view) in file.iter() {
            let read =
                Stored::read(tensor, &view).map_err(|what| Error::Inconsistent { golden: golden(), what })?;
            stored.insert(tensor.to_owned(), read);
        }
        let read = Self { name: golden(), meta, stored, cases: None };
        read.check().map_err(|what| Error::Inconsistent { golden: golden(), what })?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        let Meta { state, groups, gain, set, inputs, output_shapes, .. } = &self.meta;
        for (name, tensor) in &self.stored {
            match output_shapes.get(&tensor.base).or_else(|| inputs.get(&tensor.base)) {
                Some(shape) => tensor.check(name, shape)?,
                None => return Err(format!("tensor '{name}' is in neither output_shapes nor inputs")),
            }
        }
        let is_stored =
            |output: &str| self.stored.values().any(|t| t.base == output && t.form != Form::Stats);
        if let Some(output) = output_shapes.keys().find(|output| !is_stored(output)) {
            return Err(format!("output_shapes lists '{output}', but the file does not hold its values"));
        }
        let grouped: usize = groups.values().fold(0, |sum, &n| sum.saturating_add(n));
        if !groups.is_empty() && grouped != state.len() {
            return Err(format!("groups cover {grouped} tensors, but state lists {}", state.len()));
        }
        let affects = |f: &dyn Fn(&str, &[usize]) -> bool| state.iter().any(|(name, shape)| f(name, shape));
        if let Some(gain) = gain.iter().find(|g| !affects(&|name, shape| g.factor(name, shape).is_some())) {
            return Err(format!("gain {gain:?} fits no tensor of state"));
        }
        if let Some(name) = set.keys().find(|&of| !affects(&|name, _| name == of)) {
            return Err(format!("set names '{name}', which state does not list"));
        }
        Ok(())
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the file says of itself. A case file's `model` is its own `model` entry or else its name
    /// without `.json`; everything but the notes is empty.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The content of a `.json` case file; `None` for a safetensors.
    pub fn cases(&self) -> Option<&Value> {
        self.cases.as_ref()
    }

    /// The configuration as the model's own type.
    ///
    /// # Errors
    /// If the type does not take it.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.meta.config).map_err(|source| Error::Json {
            golden: self.name.clone(),
            what: "config",
            source,
        })
    }

    /// An input: the tensor that the file holds under this name, or else drawn by [`seeded::input`].
    /// Where the configuration has a formula for raw inputs (`config.raw`), applying it is up to the case.
    ///
    /// # Errors
    /// If the file lists no such input.
    pub fn input(&self, name: &str, device: &Device) -> Result<Tensor> {
        let shape =
            self.meta.inputs.get(name).ok_or_else(|| self.unknown("input", name, self.meta.inputs.keys()))?;
        if self.stored.contains_key(name) {
            return self.tensor(name, device);
        }
        Ok(Tensor::from_vec(seeded::input(name, shape)?, shape.as_slice(), device)?)
    }

    /// A tensor that the file holds whole, as `f32`. For one that a case takes as given rather than
    /// computes; say so with [`crate::Outputs::given`].
    ///
    /// # Errors
    /// If the file does not hold it whole.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let whole = |tensor: &&Stored| tensor.form == Form::Whole;
        let tensor = self.stored.get(name).filter(whole).ok_or_else(|| {
            let known = self.stored.iter().filter(|(_, t)| whole(t)).map(|(name, _)| name);
            self.unknown("whole tensor", name, known)
        })?;
        let values: Vec<f32> = tensor.values.iter().map(|&v| v as f32).collect();
        Ok(Tensor::from_vec(values, tensor.shape.as_slice(), device)?)
    }

    /// The seeded weights of the whole state table, after gain and constants.
    ///
    /// # Errors
    /// If two groups share a name with different shapes, or a tensor is too large.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
        self.seed(&self.meta.state, dtype, device)
    }

    /// The seeded weights of one net of several, under the names of its own checkpoint.
    ///
    /// # Errors
    /// If the file has no such group, or a tensor is too large.
    pub fn group_var_builder(
        &self,
        group: &str,
        dtype: DType,
        device: &Device,
    ) -> Result<VarBuilder<'static>> {
        let groups = &self.meta.groups;
        let at = groups.get_index_of(group).ok_or_else(|| self.unknown("group", group, groups.keys()))?;
        let start: usize = groups.values().take(at).sum();
        let len = groups.get(group).copied().unwrap_or_default();
        let tensors = self.meta.state.iter().skip(start).take(len);
        self.seed(tensors, dtype, device)
    }

    fn seed<'a>(
        &self,
        state: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
        dtype: DType,
        device: &Device,
    ) -> Result<VarBuilder<'static>> {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        let mut seeded_so_far = 0usize;
        for (name, shape) in state {
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            seeded_so_far = seeded_so_far.saturating_add(seeded::count(name, shape)?);
            if seeded_so_far > seeded::LIMIT {
                let what = format!("state asks for more than {} values, by '{name}'", seeded::LIMIT);
                return Err(Error::Inconsistent { golden: self.name.clone(), what });
            }
            let mut values = seeded::value_with_gain(name, shape, &self.meta.gain)?;
            if let Some(&constant) = self.meta.set.get(name) {
                values.fill(constant as f32);
            }
            let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?;
            if let Some(other) = tensors.insert(name.clone(), tensor)
                && other.dims() != shape.as_slice()
            {
                let what = format!(
                    "state lists '{name}' as {:?} and as {shape:?}: build each group by itself",
                    other.dims()
                );
                return Err(Error::Inconsistent { golden: self.name.clone(), what });
            }
        }
        Ok(VarBuilder::from_tensors(tensors, dtype, device))
    }

    fn unknown<'a>(&self, what: &'static str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
        let known = known.cloned().collect();
        Error::Unknown { golden: self.name.clone(), what, name: name.to_owned(), known }
    }
}
