//! The block of vision transformers: Dosovitskiy et al., "An Image is Worth 16×16 Words", ICLR 2021.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{LayerCost, Tally};

use crate::{LayerNorm, Mlp, SelfAttention};

/// Shape and options of a [`TransformerBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Channels of a token.
    pub channels: usize,
    /// Heads that they are split into.
    pub heads: usize,
    /// Hidden channels of the MLP.
    pub hidden: usize,
    /// The norms' epsilon.
    pub eps: f64,
}

impl TransformerConfig {
    /// An MLP four times as wide as the block, and the epsilon of timm's vision transformers.
    pub const fn vit(channels: usize, heads: usize) -> Self {
        Self { channels, heads, hidden: 4 * channels, eps: 1e-6 }
    }
}

/// `x + attn(norm1(x))`, then `x + mlp(norm2(x))`. Tensor names are timm's.
#[derive(Debug, Clone)]
pub struct TransformerBlock {
    name: String,
    channels: usize,
    norm1: LayerNorm,
    attn: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl TransformerBlock {
    /// `vb` holds `norm1`, `attn.qkv`, `attn.proj`, `norm2`, `mlp.fc1` and `mlp.fc2`.
    ///
    /// # Errors
    /// If the heads do not divide the channels, or a tensor is missing or has another shape.
    pub fn new(cfg: &TransformerConfig, vb: VarBuilder) -> Result<Self> {
        let &TransformerConfig { channels, heads, hidden, eps } = cfg;
        let attn = vb.pp("attn");
        Ok(Self {
            name: vb.prefix(),
            channels,
            norm1: LayerNorm::new(channels, eps, vb.pp("norm1"))?,
            attn: SelfAttention::new(channels, heads, attn.pp("qkv"), attn.pp("proj"))?,
            norm2: LayerNorm::new(channels, eps, vb.pp("norm2"))?,
            mlp: Mlp::new(channels, hidden, vb.pp("mlp"))?,
        })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.norm1.prepare();
        self.norm2.prepare();
        self.attn.prepare()?;
        self.mlp.prepare()
    }

    /// `xs`: `[B, N, C]`, as is the result; `biases` as for [`SelfAttention::forward`].
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor, biases: &[&Tensor]) -> Result<Tensor> {
        let xs = self.attn.forward_add(&self.norm1.forward(xs)?, biases, xs)?;
        self.mlp.forward_add(&self.norm2.forward(&xs)?, &xs)
    }

    /// Counts every layer, for `sequences` of `tokens`.
    pub fn cost(&self, sequences: usize, tokens: usize, tally: &mut Tally) {
        let add = LayerCost {
            name: format!("{}.add", self.name),
            residual_adds: (sequences * tokens * self.channels) as u64,
            ..LayerCost::default()
        };
        self.norm1.cost(tally);
        self.attn.cost(sequences, tokens, tally);
        tally.push(add.clone());
        self.norm2.cost(tally);
        self.mlp.cost(sequences * tokens, tally);
        tally.push(add);
    }
}
