//! Pictures in, class maps out: the net with everything before and after it.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Image, SegMap};
use zoo_kernels::{Interpolation, on_pool, resize_argmax};
use zoo_layers::{all_finite, pyramid_scores};

use crate::config::{ModelConfig, PictureConfig};
use crate::error::Context as _;
use crate::views::{Look, Views};
use crate::{Error, HyperSegNet, Result};

/// HyperSeg on pictures: net, preparation and labels, through [`zoo_core::Segmenter`].
///
/// Labels have each picture's own size: logits are resized to it (bilinearly, half-pixel centres), and the largest
/// one is the class. Pictures of one call that become inputs of one size run as one batch.
#[derive(Debug, Clone)]
pub struct HyperSeg {
    net: HyperSegNet,
    pictures: PictureConfig,
    views: Views,
    device: Device,
}

impl HyperSeg {
    /// Builds the net from `vb`, on `vb`'s device.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a tensor is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        config.net.validate()?;
        config.pictures.validate(config.net.num_classes)?;
        let device = vb.device().clone();
        let net = HyperSegNet::new(&config.net, vb).context("building the net")?;
        Ok(Self { net, pictures: config.pictures.clone(), views: Views::default(), device })
    }

    /// The size that pictures are fitted to, instead of the configuration's; with [`Views::windows`] a window's.
    ///
    /// # Errors
    /// If the net does not take it, with the nearest size that it takes.
    pub fn with_size(mut self, size: FrameSize) -> Result<Self> {
        self.net.check_size(size)?;
        self.pictures = self.pictures.with_size(size)?;
        Ok(self)
    }

    /// How pictures are looked at.
    ///
    /// # Errors
    /// If the views cannot be made.
    pub fn with_views(self, views: Views) -> Result<Self> {
        views.validate()?;
        Ok(Self { views, ..self })
    }

    /// Prepares the net for inference; the loaders do.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> candle_core::Result<()> {
        self.net.prepare()
    }

    /// The net itself.
    pub fn net(&self) -> &HyperSegNet {
        &self.net
    }

    /// How pictures become the net's input, and its classes.
    pub fn pictures(&self) -> &PictureConfig {
        &self.pictures
    }

    /// How pictures are looked at.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Class maps of looks whose inputs have the same sizes.
    fn label(&self, looks: &[Look]) -> Result<Vec<SegMap>> {
        let size = self.pictures.size()?;
        let logits = on_pool(|| -> candle_core::Result<Tensor> {
            let batch = |view: usize| {
                let inputs: Vec<&Tensor> = looks.iter().filter_map(|look| look.inputs.get(view)).collect();
                Tensor::cat(&inputs, 0)
            };
            let inputs = (0..self.views.scales.len()).map(batch).collect::<candle_core::Result<Vec<_>>>()?;
            let tiles = self.views.tiles(size);
            pyramid_scores(&inputs, self.views.mirrored, self.views.merge, |xs| match &tiles {
                Some(tiles) => tiles.scores(xs, |xs| self.net.forward(xs)),
                None => self.net.forward(xs),
            })
        })
        .context("logits")?;
        looks.iter().enumerate().map(|(i, look)| self.class_map(&logits, i, look)).collect()
    }

    /// The class map of the `i`th picture of a batch.
    fn class_map(&self, logits: &Tensor, i: usize, look: &Look) -> Result<SegMap> {
        let FrameSize { height, width } = look.shown;
        // Where it is all of them nothing is copied, in whichever order the net gave them.
        let cut = || logits.narrow(0, i, 1)?.narrow(2, 0, height)?.narrow(3, 0, width);
        let own = cut().context("the logits of the picture")?;
        if !all_finite(&own).context("looking for logits that are no numbers")? {
            return Err(Error::NotFinite { picture: look.picture });
        }
        let size = (look.picture.height, look.picture.width);
        let labels = on_pool(|| resize_argmax(&own, size, Interpolation::Bilinear)?.flatten_all()?.to_vec1());
        Ok(SegMap::new(look.picture, labels.context("labels")?, self.pictures.labels.clone())
            .map_err(zoo_vision::Error::from)?)
    }
}

impl zoo_core::Segmenter for HyperSeg {
    type Error = Error;

    fn segment(&self, images: &[Image]) -> Result<Vec<SegMap>> {
        self.net.check_size(self.pictures.size()?)?;
        let unit = self.net.size_unit();
        let look = |image| Look::new(image, &self.pictures, &self.views, unit, &self.device);
        let looks = images.iter().map(look).collect::<Result<Vec<_>>>()?;
        let mut maps = Vec::with_capacity(images.len());
        for alike in looks.chunk_by(Look::is_like) {
            maps.append(&mut self.label(alike)?);
        }
        Ok(maps)
    }
}
