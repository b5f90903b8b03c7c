//! Results drawn into the picture they belong to, for people to look at.
//!
//! Sizes follow the picture: type is about a thirtieth of it, lines a seventh of the type. Each class
//! has its own colour, the same in every picture and run. Nothing here fails on odd numbers: a box
//! with NaN or without area is left out, one that leaves the picture is clipped.
//!
//! ```
//! use zoo_core::{BBox, Detection, Detections, FrameSize, Image};
//! use zoo_vision::draw::{self, Style};
//!
//! let mut image = Image::filled(FrameSize::new(120, 160), [90, 110, 130])?;
//! let found = Detections::new(
//!     image.size(),
//!     vec![Detection::new(17, "cat", 0.93, BBox::new(30.0, 40.0, 120.0, 100.0))],
//! );
//! draw::detections(&mut image, &found, &Style::default());
//! let titled = draw::caption(&image, "single frame · 1 object")?;
//! assert!(titled.height() > image.height());
//! # Ok::<(), zoo_vision::Error>(())
//! ```

mod boxes;
mod canvas;
mod color;
mod legend;
mod maps;
mod mask;
mod panel;
mod text;

pub use boxes::{bbox, detections, window};
pub use color::class_color;
pub use legend::legend;
pub use maps::{flow, levels};
pub(crate) use mask::color_of;
pub use mask::mask;
pub use panel::{caption, montage};

use zoo_core::FrameSize;

/// How results are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Style {
    /// Objects below this score are not drawn.
    pub min_score: f32,
    /// Whether scores stand behind the class names.
    pub scores: bool,
    /// How strongly a mask covers the picture, 0..=1.
    pub mask_alpha: f32,
    /// What remains of the brightness outside of a highlighted window, 0..=1.
    pub outside: f32,
    /// Height of the type in pixels; from the picture's size where `None`.
    pub text_height: Option<f32>,
}

impl Default for Style {
    fn default() -> Self {
        Self { min_score: 0.0, scores: true, mask_alpha: 0.5, outside: 0.45, text_height: None }
    }
}

impl Style {
    /// Sets [`Style::min_score`].
    #[must_use]
    pub fn with_min_score(self, min_score: f32) -> Self {
        Self { min_score, ..self }
    }

    /// Sets [`Style::scores`].
    #[must_use]
    pub fn with_scores(self, scores: bool) -> Self {
        Self { scores, ..self }
    }

    /// Sets [`Style::mask_alpha`].
    #[must_use]
    pub fn with_mask_alpha(self, mask_alpha: f32) -> Self {
        Self { mask_alpha, ..self }
    }

    /// Sets [`Style::outside`].
    #[must_use]
    pub fn with_outside(self, outside: f32) -> Self {
        Self { outside, ..self }
    }

    /// Sets [`Style::text_height`].
    #[must_use]
    pub fn with_text_height(self, pixels: f32) -> Self {
        Self { text_height: Some(pixels), ..self }
    }

    fn text_height_for(&self, size: FrameSize) -> f32 {
        let wished = self.text_height.filter(|height| height.is_finite());
        wished.map_or_else(|| text_height(size), |height| height.clamp(6.0, 400.0))
    }
}

/// Type that reads well in a picture of this size.
fn text_height(size: FrameSize) -> f32 {
    ((size.area() as f32).sqrt() * 0.029).clamp(12.0, 56.0)
}

/// Lines that go with type of a height.
fn line_width(text_height: f32) -> f32 {
    (text_height / 7.0).max(1.5)
}
