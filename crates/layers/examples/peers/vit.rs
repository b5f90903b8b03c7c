//! A transformer block as timm's `Block` has it: names, order and epsilon.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_kernels::{Activation, PackedLinear, attention, layer_norm};

const EPS: f64 = 1e-5;
/// Hidden channels of the MLP, as a multiple of the block's.
const EXPANSION: usize = 4;

/// `x + proj(attention(norm1(x)))`, then `x + fc2(gelu(fc1(norm2(x))))`.
pub struct Block {
    heads: usize,
    norm1: Norm,
    qkv: PackedLinear,
    proj: PackedLinear,
    norm2: Norm,
    fc1: PackedLinear,
    fc2: PackedLinear,
}

impl Block {
    pub fn new(channels: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let hidden = EXPANSION * channels;
        let linear = |name: &str, inputs, outputs, act| {
            let vb = vb.pp(name);
            PackedLinear::new(&vb.get((outputs, inputs), "weight")?, Some(&vb.get(outputs, "bias")?), act)
        };
        Ok(Self {
            heads,
            norm1: Norm::new(channels, vb.pp("norm1"))?,
            qkv: linear("attn.qkv", channels, 3 * channels, Activation::None)?,
            proj: linear("attn.proj", channels, channels, Activation::None)?,
            norm2: Norm::new(channels, vb.pp("norm2"))?,
            fc1: linear("mlp.fc1", channels, hidden, Activation::Gelu)?,
            fc2: linear("mlp.fc2", hidden, channels, Activation::None)?,
        })
    }

    /// `xs`: `[B, N, C]`, as is the result.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (b, n, c) = xs.dims3()?;
        let depth = c / self.heads;
        let qkv = self.qkv.forward(&self.norm1.forward(xs)?, None)?;
        let qkv = qkv.reshape((b, n, 3, self.heads, depth))?.permute((2, 0, 3, 1, 4))?;
        let scale = 1.0 / (depth as f64).sqrt();
        let ys = attention(&qkv.get(0)?, &qkv.get(1)?, &qkv.get(2)?, scale, &[])?;
        let xs = self.proj.forward(&ys.transpose(1, 2)?.reshape((b, n, c))?, Some(xs))?;
        self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&xs)?, None)?, Some(&xs))
    }
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: vb.get(channels, "weight")?, bias: vb.get(channels, "bias")? })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        layer_norm(xs, &self.weight, &self.bias, EPS)
    }
}
