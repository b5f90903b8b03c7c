//! Pictures in, boxes out: the net with everything before and after it.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{BBox, Detection, Detections, FrameSize, Image};
use zoo_kernels::on_pool;

use crate::boxes::{Candidate, Candidates, Convention};
use crate::config::{ModelConfig, PictureConfig, Resizing, filled_up};
use crate::error::Context as _;
use crate::raw::RawMaps;
use crate::views::{Look, Views};
use crate::{Error, PackDetNet, Result};

/// What the images of one call are filled up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Each to its own size, rounded up to what the net takes: what is found in an image does not depend on the others.
    /// Images that are filled up to one size run together.
    #[default]
    Own,
    /// All to the largest, as the authors' code does. The plane grows with it, and with the plane what a packed head's group
    /// norms and borders see: boxes of an image depend, a little, on the others.
    Shared,
}

/// A detector on pictures: net, preparation and decoding, through [`zoo_core::Detector`].
///
/// Boxes are in pixels of each original picture, about as many as [`PostProcess::max_boxes`](crate::PostProcess) at most (equals of
/// the last one stay), of classes that pass its threshold; for drawing, those above 0.5 are a fair choice.
#[derive(Debug, Clone)]
pub struct PackDet {
    net: PackDetNet,
    pictures: PictureConfig,
    padding: Padding,
    views: Views,
    device: Device,
}

/// A picture, ready for the net.
struct Input {
    /// `[1, 3, h, w]`
    xs: Tensor,
    /// Its size after resizing, which is `[h, w]` before it is filled up.
    resized: FrameSize,
}

impl PackDet {
    /// Builds the net from `vb`, on `vb`'s device.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a tensor is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        config.net.validate()?;
        config.pictures.validate(&config.net)?;
        let device = vb.device().clone();
        let net = PackDetNet::new(&config.net, vb).context("building the net")?;
        let pictures = config.pictures.clone();
        Ok(Self { net, pictures, padding: Padding::default(), views: Views::default(), device })
    }

    /// What pictures are resized to, instead of the configuration's.
    ///
    /// # Errors
    /// If they cannot be.
    pub fn with_resizing(mut self, resizing: Resizing) -> Result<Self> {
        resizing.validate()?;
        self.pictures.resizing = resizing;
        Ok(self)
    }

    /// Further looks at each picture.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn with_views(self, views: Views) -> Result<Self> {
        views.validate()?;
        Ok(Self { views, ..self })
    }

    /// What the pictures of one call are filled up to.
    #[must_use]
    pub fn with_padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// Prepares the net for inference; the loaders do.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> candle_core::Result<()> {
        self.net.prepare()
    }

    /// The net itself.
    pub fn net(&self) -> &PackDetNet {
        &self.net
    }

    /// How pictures become the net's input, and its maps boxes.
    pub fn pictures(&self) -> &PictureConfig {
        &self.pictures
    }

    /// Further looks at each picture.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// The net's input for one picture, `[1, 3, H, W]`, filled up with zeros at the right and below to what the net takes; and
    /// the part of it that is the picture.
    ///
    /// # Errors
    /// If the picture cannot be resized.
    pub fn input(&self, image: &Image) -> Result<(Tensor, FrameSize)> {
        let Input { xs, resized } =
            self.look_at(image, &Look { resizing: self.pictures.resizing, mirrored: false })?;
        Ok((filled_up(&xs, self.net.config().padded(resized))?, resized))
    }

    fn look_at(&self, image: &Image, look: &Look) -> Result<Input> {
        let (xs, resized) = self.pictures.tensor(image, look.resizing, &self.device)?;
        let xs = if look.mirrored { xs.flip(&[3]).context("mirroring a picture")? } else { xs };
        Ok(Input { xs, resized })
    }

    /// Candidates of each picture from one look, boxes in its resized, unmirrored picture.
    fn candidates(&self, images: &[Image], look: &Look) -> Result<Vec<(Candidates, FrameSize)>> {
        let inputs = images.iter().map(|image| self.look_at(image, look)).collect::<Result<Vec<_>>>()?;
        let mut sizes: Vec<FrameSize> =
            inputs.iter().map(|input| self.net.config().padded(input.resized)).collect();
        if self.padding == Padding::Shared {
            let height = sizes.iter().map(|size| size.height).max().unwrap_or_default();
            let width = sizes.iter().map(|size| size.width).max().unwrap_or_default();
            sizes.fill(FrameSize::new(height, width));
        }
        let pairs: Vec<(Input, FrameSize)> = inputs.into_iter().zip(sizes).collect();
        let mut found = Vec::with_capacity(images.len());
        for alike in pairs.chunk_by(|(_, a), (_, b)| a == b) {
            let filled =
                alike.iter().map(|(input, size)| filled_up(&input.xs, *size)).collect::<Result<Vec<_>>>()?;
            let xs = Tensor::cat(&filled, 0).context("a batch of pictures")?;
            let raw = on_pool(|| self.net.forward(&xs)).context("running the net")?;
            for (b, (Input { resized, .. }, _)) in alike.iter().enumerate() {
                found.push((self.of_image(&raw, b, *resized, look)?, *resized));
            }
        }
        Ok(found)
    }

    fn of_image(&self, raw: &RawMaps, b: usize, resized: FrameSize, look: &Look) -> Result<Candidates> {
        let rule = &self.pictures.boxes;
        let candidates = Candidates::decode(raw, b, resized, rule)?;
        Ok(if look.mirrored { candidates.mirrored(resized.width, rule.convention) } else { candidates })
    }

    /// Boxes in pixels of the original, with names; classes that are none are left out.
    fn named(&self, found: &[Candidate], resized: FrameSize, original: FrameSize) -> Detections {
        let convention = self.pictures.boxes.convention;
        let scale = |to: usize, from: usize| to as f32 / from as f32;
        let (x, y) = (scale(original.width, resized.width), scale(original.height, resized.height));
        // A last pixel that belongs to the box ends one further on.
        let one = if convention == Convention::PlusOne { 1.0 } else { 0.0 };
        let (width, height) = (original.width as f32, original.height as f32);
        let items = found.iter().filter_map(|&Candidate { class, score, bbox: [x0, y0, x1, y1] }| {
            let class = self.pictures.classes.get(class)?.as_ref()?;
            let bbox = BBox::new(x0 * x, y0 * y, (x1 * x + one).min(width), (y1 * y + one).min(height));
            Some(Detection::new(class.id, class.name.clone(), score, bbox))
        });
        Detections::new(original, items.collect())
    }
}

impl zoo_core::Detector for PackDet {
    type Error = Error;

    fn detect(&self, images: &[Image]) -> Result<Vec<Detections>> {
        let rule = &self.pictures.boxes;
        let mut looks = self.views.looks(self.pictures.resizing).into_iter();
        let Some(usual) = looks.next() else { return Ok(Vec::new()) };
        let mut all = self.candidates(images, &usual)?;
        for look in looks {
            for ((candidates, first), (further, size)) in all.iter_mut().zip(self.candidates(images, &look)?)
            {
                candidates.extend(further.resized(size, *first));
            }
        }
        let named = |((candidates, resized), image): (&(Candidates, FrameSize), &Image)| {
            self.named(&candidates.suppress(rule), *resized, image.size())
        };
        Ok(all.iter().zip(images).map(named).collect())
    }
}
