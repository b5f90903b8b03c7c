use candle_core::{Result, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder};
use zoo_kernels::{Activation, Moments, batch_norm, channel_affine};

/// Which means and variances a batch norm normalises by, before it is folded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Statistics {
    /// The stored ones, which stay what they are.
    #[default]
    Stored,
    /// Those of the batch, as in training; the stored ones follow.
    Batch {
        /// How far the stored ones move towards the batch's: 0.1 in PyTorch.
        momentum: f64,
    },
}

/// Batch norm: `(y − mean) / √(var + ε) · scale + shift`.
///
/// Convolutions bring theirs along ([`ConvNormAct`](crate::ConvNormAct)); this one is for layers whose
/// weights are not their own.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    scale: Tensor,
    shift: Tensor,
    mean: Var,
    var: Var,
    eps: f64,
    statistics: Statistics,
}

impl BatchNorm {
    /// `vb` holds `weight`, `bias`, `running_mean` and `running_var`.
    ///
    /// # Errors
    /// If one of them is missing or has another shape.
    pub fn new(channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            scale: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            shift: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
            mean: Var::from_tensor(&vb.get_with_hints(channels, "running_mean", Init::Const(0.0))?)?,
            var: Var::from_tensor(&vb.get_with_hints(channels, "running_var", Init::Const(1.0))?)?,
            eps,
            statistics: Statistics::Stored,
        })
    }

    /// What it normalises by.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.statistics = statistics;
    }

    /// The norm of `ys`, `[B, C, H, W]`, plus `residual`, through `act`.
    ///
    /// # Errors
    /// If a shape does not fit, or a batch of one value a channel is to give statistics.
    pub fn forward(&self, ys: &Tensor, residual: Option<&Tensor>, act: Activation) -> Result<Tensor> {
        match self.statistics {
            Statistics::Stored => {
                let (scale, shift) = self.affine()?;
                channel_affine(ys, Some(&scale), &shift, residual, act)
            }
            Statistics::Batch { momentum } => {
                let (ys, moments) = batch_norm(ys, &self.scale, &self.shift, self.eps, residual, act)?;
                self.follow(&moments, momentum)?;
                Ok(ys)
            }
        }
    }

    /// Moves the stored statistics towards a batch's, whose variance counts as a sample's.
    fn follow(&self, Moments { mean, variance, count }: &Moments, momentum: f64) -> Result<()> {
        if *count < 2 {
            bail!(
                "batch norm: a batch of one value a channel has no variance: use more images or larger ones"
            )
        }
        let sample = *count as f64 / (count - 1) as f64;
        for (stored, found) in [(&self.mean, mean.clone()), (&self.var, (variance * sample)?)] {
            stored.set(&((stored.as_detached_tensor() * (1.0 - momentum))? + (found * momentum)?)?)?;
        }
        Ok(())
    }

    /// Scale and shift, `[C]` each, that do the same by the stored statistics.
    ///
    /// # Errors
    /// If candle cannot compute them.
    pub fn affine(&self) -> Result<(Tensor, Tensor)> {
        let deviation = (self.var.as_detached_tensor() + self.eps)?.sqrt()?;
        let scale = (&self.scale / deviation)?;
        let shift = (&self.shift - (self.mean.as_detached_tensor() * &scale)?)?;
        Ok((scale, shift))
    }

    /// The filter and bias of a convolution that does what `filter`, `bias` and this norm do.
    pub(crate) fn fold_into(&self, filter: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (scale, shift) = self.affine()?;
        let shift = match bias {
            Some(bias) => (shift + (bias * &scale)?)?,
            None => shift,
        };
        Ok((filter.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?.detach(), shift.detach()))
    }
}

/// A factor, an offset and an activation for each channel, which the layer before can do to its results.
#[derive(Debug, Clone)]
pub struct ChannelAffine {
    /// `[C]`
    pub scale: Tensor,
    /// `[C]`; none is zero.
    pub shift: Option<Tensor>,
    /// Applied last.
    pub act: Activation,
}

impl ChannelAffine {
    /// The factor alone: what an addend has to be times, where the sum goes through all of it.
    pub fn scaling(&self) -> Self {
        Self { scale: self.scale.clone(), shift: None, act: Activation::None }
    }
}
