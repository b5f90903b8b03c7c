use safetensors::{Dtype, tensor::TensorView};

/// How a golden file holds an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `NAME`: all values.
    Whole,
    /// `NAME@stride=S`: the flat values 0, S, 2S, …
    Strided(usize),
    /// `NAME@stats`: mean, standard deviation, largest absolute value.
    Stats,
}

/// A tensor of a golden file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The output's own name.
    pub base: String,
    pub form: Form,
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Stored {
    /// Reads one tensor; the error says what is wrong with it.
    pub fn read(name: &str, view: &TensorView) -> Result<Self, String> {
        let (base, form) = parse_name(name)?;
        let values = decode(view).ok_or_else(|| {
            format!("tensor '{name}' has type {:?}, which golden files do not use: store F32", view.dtype())
        })?;
        Ok(Self { base: base.to_owned(), form, shape: view.shape().to_vec(), values })
    }

    /// Checks the tensor against its output's full shape.
    pub fn check(&self, name: &str, full: &[usize]) -> Result<(), String> {
        let n = full.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        let expected = match self.form {
            Form::Whole => full.to_vec(),
            Form::Strided(stride) => vec![n.map_or(usize::MAX, |n| n.div_ceil(stride))],
            Form::Stats => vec![3],
        };
        if self.shape == expected {
            Ok(())
        } else {
            Err(format!(
                "tensor '{name}' has shape {:?}, but output_shapes gives '{}' as {full:?}, hence {expected:?}",
                self.shape, self.base
            ))
        }
    }
}

fn parse_name(name: &str) -> Result<(&str, Form), String> {
    let Some((base, suffix)) = name.rsplit_once('@') else {
        return Ok((name, Form::Whole));
    };
    if suffix == "stats" {
        return Ok((base, Form::Stats));
    }
    let stride = suffix.strip_prefix("stride=").and_then(|s| s.parse().ok()).filter(|&s| s > 0);
    stride.map(|stride| (base, Form::Strided(stride))).ok_or_else(|| {
        format!("tensor '{name}' has the suffix '@{suffix}': expected '@stats' or '@stride=S' with S > 0")
    })
}

fn decode(view: &TensorView) -> Option<Vec<f64>> {
    fn read<const N: usize>(bytes: &[u8], convert: fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
    }
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Some(read(bytes, |b| f64::from(f32::from_le_bytes(b)))),
        Dtype::F64 => Some(read(bytes, f64::from_le_bytes)),
        Dtype::I32 => Some(read(bytes, |b| f64::from(i32::from_le_bytes(b)))),
        Dtype::I64 => Some(read(bytes, |b| i64::from_le_bytes(b) as f64)),
        Dtype::U8 => Some(read(bytes, |[b]| f64::from(b))),
        _ => None,
    }
}
