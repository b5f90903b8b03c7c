//! Weight mapping w: dynamic parameters from the signal (Section 3.1, Equations 6 and 7 for their cost).

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, ConvOptions, PackedConv, Pads, Region, conv2d};
use zoo_layers::layer_span;

use crate::config::MapShape;

/// A grouped 1×1 convolution without bias, of some of the signal's channels.
#[derive(Debug, Clone)]
pub struct WeightMap {
    name: String,
    shape: MapShape,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    /// As stored, or times the norms' scales: for devices and types without packed weights.
    Filter(Tensor),
    Packed(PackedConv),
}

impl WeightMap {
    /// `vb` holds `weight`: `[P rounded up, split / groups, 1, 1]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new(shape: &MapShape, vb: VarBuilder) -> Result<Self> {
        let size = (shape.rows(), shape.split / shape.groups, 1, 1);
        let filter = vb.get_with_hints(size, "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
        Ok(Self { name: vb.prefix(), shape: shape.clone(), weights: Weights::Filter(filter) })
    }

    /// Which parameters of which levels it makes.
    pub fn shape(&self) -> &MapShape {
        &self.shape
    }

    /// Multiplies the rows by `scales`, `[P]`, the scales of the norms behind the convolutions that use
    /// them (supplement, Section E), and packs the weights. Inference only.
    ///
    /// The norms' shifts stay with those convolutions: here they would shift weights, not outputs.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self, scales: &Tensor) -> Result<()> {
        let Weights::Filter(filter) = &self.weights else { return Ok(()) };
        let unused = self.shape.rows() - self.shape.params;
        let scales = scales.pad_with_zeros(0, 0, unused)?.reshape(((), 1, 1, 1))?;
        let filter = filter.broadcast_mul(&scales)?.detach();
        self.weights = if filter.device().is_cpu() && filter.dtype() == candle_core::DType::F32 {
            Weights::Packed(PackedConv::new(&filter, None, self.options(), Activation::None)?)
        } else {
            Weights::Filter(filter)
        };
        Ok(())
    }

    fn options(&self) -> ConvOptions {
        ConvOptions { groups: self.shape.groups, ..ConvOptions::default() }
    }

    /// The signal, `[B, C, h, w]`, → parameters, `[B, P, h, w]`.
    ///
    /// # Errors
    /// If the signal has too few channels.
    pub fn forward(&self, signal: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        let MapShape { offset, split, params, .. } = self.shape;
        let (_, channels, _, _) = signal.dims4()?;
        if channels < offset + split {
            bail!(
                "{}: reads channels {offset} to {} of the signal, which has {channels}",
                self.name,
                offset + split
            )
        }
        let part = Region::whole(&signal.narrow(1, offset, split)?)?;
        let ys = match &self.weights {
            Weights::Filter(filter) => conv2d(&part, filter, Pads::default(), self.options())?,
            Weights::Packed(conv) => conv.forward(&part, Pads::default(), None)?,
        };
        ys.narrow(1, 0, params)
    }

    /// Counts it for a signal of `size`.
    pub fn cost(&self, size: FrameSize, tally: &mut Tally) {
        let MapShape { groups, split, .. } = self.shape;
        let (rows, area) = (self.shape.rows() as u64, size.area() as u64);
        let params = rows * (split / groups) as u64;
        tally.push(LayerCost {
            name: self.name.clone(),
            params,
            macs: params * area,
            outputs: rows * area,
            ..LayerCost::default()
        });
    }
}
