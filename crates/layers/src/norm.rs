use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Batch norm by stored statistics: `(y − mean) / √(var + ε) · scale + shift`.
#[derive(Debug, Clone)]
pub(crate) struct BatchNorm {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: f64,
}

impl BatchNorm {
    /// `vb` holds `weight`, `bias`, `running_mean` and `running_var`.
    pub(crate) fn new(channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            scale: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            shift: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
            mean: vb.get_with_hints(channels, "running_mean", Init::Const(0.0))?,
            var: vb.get_with_hints(channels, "running_var", Init::Const(1.0))?,
            eps,
        })
    }

    pub(crate) fn forward(&self, ys: &Tensor) -> Result<Tensor> {
        let channelwise = |t: &Tensor| t.reshape((1, (), 1, 1));
        ys.broadcast_sub(&channelwise(&self.mean)?)?
            .broadcast_div(&channelwise(&(&self.var + self.eps)?.sqrt()?)?)?
            .broadcast_mul(&channelwise(&self.scale)?)?
            .broadcast_add(&channelwise(&self.shift)?)
    }

    /// The filter and bias of a convolution that does what `filter` and this norm do.
    pub(crate) fn fold_into(&self, filter: &Tensor) -> Result<(Tensor, Tensor)> {
        let scale = (&self.scale / (&self.var + self.eps)?.sqrt()?)?;
        let bias = (&self.shift - (&self.mean * &scale)?)?.detach();
        Ok((filter.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?.detach(), bias))
    }
}
