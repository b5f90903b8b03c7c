//! The net, top to bottom.

pub mod backbone;
pub mod context_head;
pub mod decoder;
pub mod weight_map;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{Cost, FrameSize, ScoreNet, Tally};
use zoo_kernels::Interpolation;
use zoo_layers::{Statistics, resize_like};

use crate::config::{Config, SIGNAL_STRIDE, check_size};
use backbone::{Backbone, Features};
use context_head::ContextHead;
use decoder::{Decoder, Level};
use weight_map::WeightMap;

/// Looks at maps on the way, by name: `block.{i}`, `feature.{i}`, `signal`, `weights.{j}`, `level.{k}`.
pub type Probe<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<()>;

/// HyperSeg: a backbone b, a context head h that makes a signal of its last map, weight mappings w that make
/// weights of the signal, and a decoder d that convolves each patch of the backbone's maps with its own.
#[derive(Debug, Clone)]
pub struct HyperSegNet {
    cfg: Config,
    backbone: Backbone,
    head: ContextHead,
    maps: Vec<WeightMap>,
    decoder: Decoder,
    /// What the sides of images must be multiples of.
    size_unit: usize,
    is_prepared: bool,
}

/// What [`HyperSegNet::prepare_with`] may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadHead {
    /// What has no effect on the logits is not computed, and no longer limits the images' sizes.
    #[default]
    Skip,
    /// All is computed.
    Keep,
}

/// What the parts of a net cost.
#[derive(Debug, Clone, Default)]
pub struct PartCosts {
    /// b, with the features' reductions.
    pub backbone: Tally,
    /// h.
    pub head: Tally,
    /// w.
    pub maps: Tally,
    /// d: the dynamic convolutions, whose parameters are those of their norms.
    pub decoder: Tally,
}

impl HyperSegNet {
    /// `vb` holds `backbone`, `weight_mapper` and `decoder`, by the names of the version's code.
    ///
    /// # Errors
    /// If the configuration is not valid, or a tensor is missing or has another shape.
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let layout = cfg.layout().map_err(candle_core::Error::wrap)?;
        Ok(Self {
            backbone: Backbone::new(cfg, &layout, vb.pp("backbone"))?,
            head: ContextHead::new(cfg, layout.signal, vb.pp("weight_mapper"))?,
            maps: layout
                .maps
                .iter()
                .zip(cfg.map_names())
                .map(|(shape, name)| WeightMap::new(shape, vb.pp(name)))
                .collect::<Result<_>>()?,
            decoder: Decoder::new(cfg, &layout, vb)?,
            size_unit: cfg.size_unit(),
            is_prepared: false,
            cfg: cfg.clone(),
        })
    }

    /// What was built.
    pub fn config(&self) -> &Config {
        &self.cfg
    }

    /// What the sides of images must be multiples of.
    pub fn size_unit(&self) -> usize {
        self.size_unit
    }

    /// Folds batch norm, into the weight mappings too, packs the weights, and leaves out what has no
    /// effect on the logits. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.prepare_with(DeadHead::default()).map(drop)
    }

    /// [`HyperSegNet::prepare`], with or without what has no effect on the logits. Gives, for each weight
    /// mapping, the norms' scales, `[P]`, which the weights it makes are times from now on; nothing if the
    /// net was prepared before.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_with(&mut self, dead_head: DeadHead) -> Result<Vec<Tensor>> {
        if self.is_prepared {
            return Ok(Vec::new());
        }
        let skip =
            dead_head == DeadHead::Skip && self.cfg.head_is_dead().map_err(candle_core::Error::wrap)?;
        self.backbone.prepare()?;
        self.head.prepare(skip)?;
        let mut folded = Vec::with_capacity(self.maps.len());
        for map in &mut self.maps {
            let levels = map.shape().levels.clone();
            let levels = &mut self.decoder.levels_mut()[levels];
            let scales = levels.iter_mut().map(Level::fold).collect::<Result<Vec<_>>>()?;
            let scales = Tensor::cat(&scales, 0)?;
            map.prepare(&scales)?;
            folded.push(scales);
        }
        if skip {
            self.size_unit = Config { head_levels: 1, ..self.cfg.clone() }.size_unit();
        }
        self.is_prepared = true;
        Ok(folded)
    }

    /// What the norms normalise by, as long as they are not folded: the batch's statistics in training.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.backbone.set_statistics(statistics);
        self.head.set_statistics(statistics);
        self.decoder.set_statistics(statistics);
    }

    /// Whether the net takes images of this size.
    ///
    /// # Errors
    /// If not, with the nearest size that it takes.
    pub fn check_size(&self, size: FrameSize) -> crate::Result<()> {
        let why = match self.size_unit / SIGNAL_STRIDE {
            1 => " (the backbone's stride)".to_owned(),
            parts => format!(
                " (the backbone's stride, {SIGNAL_STRIDE}, times {parts} for the context head's {} sizes{})",
                self.cfg.head_levels,
                self.cfg.signal_grid.map_or_else(String::new, |g| format!(" and a grid of {g}×{g}"))
            ),
        };
        check_size(size, self.size_unit, &why)
    }

    /// `xs`: `[B, 3, H, W]`, normalised. Result: logits, `[B, classes, H, W]`.
    ///
    /// # Errors
    /// If H and W are no multiples of [`HyperSegNet::size_unit`], or there are not three channels.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_probed(xs, &mut |_, _| Ok(()))
    }

    /// [`HyperSegNet::forward`], showing maps on the way: `block.{i}`, `feature.{i}`, `signal`,
    /// `weights.{j}`, `level.{k}`.
    ///
    /// # Errors
    /// As there, and what the probe returns.
    pub fn forward_probed(&self, xs: &Tensor, probe: Probe) -> Result<Tensor> {
        let (_, channels, h, w) = xs.dims4()?;
        if channels != 3 {
            bail!("hyperseg: expected images of 3 channels, [B, 3, H, W], got {:?}", xs.dims())
        }
        self.check_size(FrameSize::new(h, w)).map_err(candle_core::Error::wrap)?;
        let Features { maps, last } = self.backbone.forward(xs, probe)?;
        let signal = self.head.forward(&last)?;
        probe("signal", &signal)?;
        let weights = self.weights(&signal, probe)?;
        let logits = self.decoder.forward(xs, &maps, &weights, probe)?;
        if self.cfg.version.resizes_logits() {
            return resize_like(&logits, xs, Interpolation::Bilinear);
        }
        Ok(logits)
    }

    /// The dynamic weights of each level.
    fn weights(&self, signal: &Tensor, probe: Probe) -> Result<Vec<Tensor>> {
        let levels = self.decoder.levels();
        let mut weights = Vec::with_capacity(levels.len());
        for (j, map) in self.maps.iter().enumerate() {
            let all = map.forward(signal)?;
            probe(&format!("weights.{j}"), &all)?;
            let mut from = 0;
            for level in &levels[map.shape().levels.clone()] {
                weights.push(all.narrow(1, from, level.params())?);
                from += level.params();
            }
        }
        Ok(weights)
    }

    /// Parameters and operations for images of `input`, layer by layer.
    pub fn costs(&self, input: FrameSize) -> PartCosts {
        let mut costs = PartCosts::default();
        let last = FrameSize::new(input.height / SIGNAL_STRIDE, input.width / SIGNAL_STRIDE);
        let grid = self.head.grid(last);
        self.backbone.cost(input, &mut costs.backbone);
        self.head.cost(last, &mut costs.head);
        for map in &self.maps {
            map.cost(grid, &mut costs.maps);
        }
        self.decoder.cost(input, grid, &mut costs.decoder);
        costs
    }

    /// The sum of [`HyperSegNet::costs`].
    pub fn cost(&self, input: FrameSize) -> Cost {
        let PartCosts { backbone, head, maps, decoder } = self.costs(input);
        [backbone, head, maps, decoder].iter().map(Tally::total).sum()
    }
}

/// Key frames of a video model, for one.
impl ScoreNet for HyperSegNet {
    fn classes(&self) -> usize {
        self.cfg.num_classes
    }

    fn check_input(&self, size: FrameSize) -> Result<()> {
        self.check_size(size).map_err(candle_core::Error::wrap)
    }

    fn scores(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward(xs)
    }

    fn tally(&self, input: FrameSize, tally: &mut Tally) {
        let PartCosts { backbone, head, maps, decoder } = self.costs(input);
        [backbone, head, maps, decoder].into_iter().for_each(|part| tally.append(part));
    }
}
