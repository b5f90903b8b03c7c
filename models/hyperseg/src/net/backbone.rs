//! The net b: EfficientNet, whose maps at five strides go through 1×1 reductions (Section 3.1).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::dropout;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, EfficientNet, Statistics, Trunk as _};

use super::{HyperSegNet, Probe};
use crate::config::{Config, DropRates, Layout};

/// EfficientNet with reductions.
#[derive(Debug, Clone)]
pub struct Backbone {
    net: EfficientNet,
    /// By feature; `None` where a map is taken as it is. Without an activation.
    reductions: Vec<Option<ConvNormAct>>,
    /// Of the last map's values, in training.
    dropout: f64,
}

/// What the decoder and the context head read.
#[derive(Debug, Clone)]
pub struct Features {
    /// F_1 … F_5, finest first: `[B, C_i, H / 2^i, W / 2^i]`.
    pub maps: Vec<Tensor>,
    /// E, the last convolution's map: `[B, C, H / 32, W / 32]`.
    pub last: Tensor,
}

impl Backbone {
    /// `vb` holds `_conv_stem`, `_blocks`, `_feat_fc_*` and `_conv_head`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &Config, layout: &Layout, vb: VarBuilder) -> Result<Self> {
        let net_cfg = cfg.backbone.config();
        let eps = net_cfg.bn_eps;
        let net = EfficientNet::new(&net_cfg, vb.clone())?;
        let reduction = |(i, scale): (usize, &f64)| {
            if *scale == 1.0 {
                return Ok(None);
            }
            let spec = ConvSpec::pointwise(layout.raw_features[i], layout.features[i], eps, Activation::None);
            let vb = vb.pp(format!("_feat_fc_{i}"));
            ConvNormAct::new(spec, vb.pp(0), vb.pp(1)).map(Some)
        };
        let reductions = cfg.out_feat_scale.iter().enumerate().map(reduction).collect::<Result<_>>()?;
        Ok(Self { net, reductions, dropout: 0.0 })
    }

    /// Folds batch norm and packs the weights. Inference only, in which nothing is dropped.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.set_drop_rates(DropRates::default());
        self.net.prepare()?;
        self.reductions.iter_mut().flatten().try_for_each(ConvNormAct::prepare)
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.net.set_statistics(statistics);
        for reduction in self.reductions.iter_mut().flatten() {
            reduction.set_statistics(statistics);
        }
    }

    /// What training drops at random.
    pub fn set_drop_rates(&mut self, rates: DropRates) {
        self.net.set_drop_connect(rates.drop_connect);
        self.dropout = rates.dropout;
    }

    /// `xs`: `[B, 3, H, W]`, normalised. Shows `block.{i}`, `feature.{0 … 4}` and, for the last map,
    /// `feature.5`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor, probe: Probe) -> Result<Features> {
        let mut maps = Vec::with_capacity(self.reductions.len());
        let mut ends = self.net.last_blocks().zip(&self.reductions).peekable();
        let last = self.net.forward(xs, &mut |i, ys| {
            probe(&format!("block.{i}"), ys)?;
            if let Some((_, reduction)) = ends.next_if(|((block, _), _)| *block == i) {
                let map = match reduction {
                    Some(reduction) => reduction.forward(ys)?,
                    None => ys.clone(),
                };
                probe(&format!("feature.{}", maps.len()), &map)?;
                maps.push(map);
            }
            Ok(())
        })?;
        let last = if self.dropout == 0.0 { last } else { dropout(&last, self.dropout as f32)? };
        probe(&format!("feature.{}", maps.len()), &last)?;
        Ok(Features { maps, last })
    }

    /// Counts every layer for images of `input`.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) {
        self.net.cost(input, tally);
        for ((_, info), reduction) in self.net.last_blocks().zip(&self.reductions) {
            if let Some(reduction) = reduction {
                let size = FrameSize::new(input.height / info.reduction, input.width / info.reduction);
                reduction.cost(size, tally);
            }
        }
    }
}

impl HyperSegNet {
    /// What training drops at random in the backbone: nothing at first, and nothing once the net is prepared.
    /// [`BackboneName::drop_rates`](crate::BackboneName::drop_rates) are the authors'.
    pub fn set_drop_rates(&mut self, rates: DropRates) {
        if !self.is_prepared {
            self.backbone.set_drop_rates(rates);
        }
    }
}
