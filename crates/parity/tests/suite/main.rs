//! Tests of golden files and reports through the public interface, one binary.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod case_files;
mod comparing;
mod patchwork_cell;
mod reading;
mod seeded;

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};
use zoo_parity::{Golden, Result};

/// The bytes of a safetensors file with these `f32` tensors and this `meta` entry, a JSON text.
fn file(meta: Option<String>, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let meta = meta.map(|meta| HashMap::from([("meta".to_owned(), meta)]));
    safetensors::serialize(views, meta).unwrap()
}

fn golden(meta: &impl ToString, tensors: &[(&str, &[usize], &[f32])]) -> Result<Golden> {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|&(name, shape, values)| (name.to_owned(), shape.to_vec(), values.to_vec()))
        .collect();
    Golden::from_bytes("made.safetensors", &file(Some(meta.to_string()), &tensors))
}
