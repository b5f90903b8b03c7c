//! Multi-head self-attention: Vaswani et al., "Attention Is All You Need", NeurIPS 2017.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{LayerCost, Tally};
use zoo_kernels::attention;

use crate::Linear;
use crate::span::layer_span;

/// Every token of a sequence looks at all of them: `proj(softmax(q · kᵀ / √d + biases) · v)` head by
/// head, with q, k and v from one linear layer.
///
/// A sequence may be an image's tokens or those of one [window](crate::Windows) among many.
#[derive(Debug, Clone)]
pub struct SelfAttention {
    name: String,
    channels: usize,
    heads: usize,
    qkv: Linear,
    proj: Linear,
}

impl SelfAttention {
    /// `qkv` holds the linear layer to q, k and v, one after the other and each head by head (`weight`:
    /// `[3 · channels, channels]`), `proj` the one behind the heads.
    ///
    /// # Errors
    /// If the heads do not divide the channels, or a tensor is missing or has another shape.
    pub fn new(channels: usize, heads: usize, qkv: VarBuilder, proj: VarBuilder) -> Result<Self> {
        let name = qkv.prefix();
        if heads == 0 || channels == 0 || !channels.is_multiple_of(heads) {
            bail!("{name}: {heads} heads do not divide {channels} channels")
        }
        Ok(Self {
            name,
            channels,
            heads,
            qkv: Linear::new(channels, 3 * channels, qkv)?,
            proj: Linear::new(channels, channels, proj)?,
        })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.qkv.prepare()?;
        self.proj.prepare()
    }

    /// `xs`: `[B, N, C]`, as is the result: B sequences of N tokens. Each of `biases` is added to the
    /// scores: `[B', H', N', N]` or fewer dimensions, as [`attention`] takes them; `[H, N, N]` is one of
    /// relative positions, `[B', 1, N, N]` a mask of shifted windows.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor, biases: &[&Tensor]) -> Result<Tensor> {
        self.proj.forward(&self.heads(xs, biases)?)
    }

    /// [`SelfAttention::forward`] plus `residual`, shaped like the result.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward_add(&self, xs: &Tensor, biases: &[&Tensor], residual: &Tensor) -> Result<Tensor> {
        self.proj.forward_add(&self.heads(xs, biases)?, residual)
    }

    /// What the heads give, next to each other: `[B, N, C]`.
    fn heads(&self, xs: &Tensor, biases: &[&Tensor]) -> Result<Tensor> {
        let &[b, n, c] = xs.dims() else {
            bail!("{}: expected [B, N, {}], got {:?}", self.name, self.channels, xs.dims())
        };
        let depth = self.channels / self.heads;
        let qkv = self.qkv.forward(xs)?.reshape((b, n, 3, self.heads, depth))?.permute((2, 0, 3, 1, 4))?;
        let _span = layer_span(&self.name);
        let scale = 1.0 / (depth as f64).sqrt();
        let ys = attention(&qkv.get(0)?, &qkv.get(1)?, &qkv.get(2)?, scale, biases)?;
        ys.transpose(1, 2)?.reshape((b, n, c))
    }

    /// Counts both layers and the two products between them, for `sequences` of `tokens`.
    pub fn cost(&self, sequences: usize, tokens: usize, tally: &mut Tally) {
        self.qkv.cost(sequences * tokens, tally);
        tally.push(LayerCost {
            name: format!("{}.products", self.name),
            macs: 2 * (sequences * tokens * tokens * self.channels) as u64,
            ..LayerCost::default()
        });
        self.proj.cost(sequences * tokens, tally);
    }
}
