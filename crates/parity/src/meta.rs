use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

/// The `meta` entry of a golden file. Maps keep the file's order.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Meta {
    /// What computes the outputs; a [`crate::Case`] answers to it.
    pub model: String,
    /// What to build, in the model's own terms.
    #[serde(default)]
    pub config: Value,
    /// Name and shape of every tensor to seed.
    #[serde(default)]
    pub state: Vec<(String, Vec<usize>)>,
    /// Where `state` joins the tables of several nets, in order: name and number of entries of each.
    #[serde(default)]
    pub groups: IndexMap<String, usize>,
    /// Factors that are applied after seeding.
    #[serde(default)]
    pub gain: Vec<Gain>,
    /// Tensors that hold a constant instead.
    #[serde(default)]
    pub set: IndexMap<String, f64>,
    /// Name and shape of every input.
    #[serde(default)]
    pub inputs: IndexMap<String, Vec<usize>>,
    /// Name and full shape of every output, in forward order.
    #[serde(default)]
    pub output_shapes: IndexMap<String, Vec<usize>>,
    /// Remarks.
    #[serde(default)]
    pub notes: String,
    /// Entries that only some models have.
    #[serde(flatten)]
    pub other: IndexMap<String, Value>,
}

/// A factor on seeded tensors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "GainEntry")]
pub enum Gain {
    /// On the tensor of this name.
    Name(String, f32),
    /// On the tensors whose names start so.
    Prefix(String, f32),
    /// On the tensors of at least so many dims.
    MinDims(usize, f32),
}

impl Gain {
    /// The factor for a tensor that this entry is about.
    pub fn factor(&self, name: &str, shape: &[usize]) -> Option<f32> {
        let (applies, factor) = match self {
            Self::Name(of, factor) => (name == of, factor),
            Self::Prefix(of, factor) => (name.starts_with(of), factor),
            Self::MinDims(of, factor) => (shape.len() >= *of, factor),
        };
        applies.then_some(*factor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GainEntry {
    factor: f32,
    name: Option<String>,
    prefix: Option<String>,
    min_dims: Option<usize>,
}

impl TryFrom<GainEntry> for Gain {
    type Error = &'static str;

    fn try_from(entry: GainEntry) -> Result<Self, Self::Error> {
        match (entry.name, entry.prefix, entry.min_dims) {
            (Some(name), None, None) => Ok(Self::Name(name, entry.factor)),
            (None, Some(prefix), None) => Ok(Self::Prefix(prefix, entry.factor)),
            (None, None, Some(dims)) => Ok(Self::MinDims(dims, entry.factor)),
            _ => Err("a gain entry needs exactly one of 'name', 'prefix' and 'min_dims'"),
        }
    }
}
