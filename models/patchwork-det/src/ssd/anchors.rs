//! SSD anchors and the box code, as TensorFlow's object detection API defines them.

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_layers::SamePadding;

use crate::detector::LEVELS;

/// Scales of the six levels: 0.2 to 0.95 in equal steps; one more level would have 1.
const SCALES: [f64; 7] = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0];
/// The first anchor of the finest level is smaller than its scale.
const SMALLEST_SCALE: f64 = 0.1;
/// Convolutions of stride 2 before the finest level, C4; each level after it has one more.
const FINEST_STRIDES: usize = 4;
/// Box code: offsets are in tenths of the anchor, log sizes in fifths.
const OFFSET_FACTOR: f32 = 10.0;
const SIZE_FACTOR: f32 = 5.0;
/// Largest log growth that is decoded, ln(1000 / 16), so that a wild output cannot overflow.
const MAX_LOG_GROWTH: f32 = 4.135_166_6;

/// How anchors are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorConfig {
    /// The aspect ratio called one third; the COCO weights were trained with 0.3333.
    pub third: f64,
    /// The frame size that the weights were trained at, where anchors are fractions of the frame. At
    /// another size anchors keep their size in **pixels**, and their centres keep their place over
    /// what the net sees: SAME padding moves that with the parity of the maps' sizes. `None`:
    /// fractions at every size.
    pub base: Option<FrameSize>,
}

impl Default for AnchorConfig {
    fn default() -> Self {
        Self { third: 1.0 / 3.0, base: None }
    }
}

/// A box by its centre and size, in fractions of the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    /// Centre, horizontally.
    pub cx: f32,
    /// Centre, vertically.
    pub cy: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

/// Cells of each level of a frame, finest first: C4 at stride 16, then half as many at each further
/// level, rounded up.
pub fn level_sizes(frame: FrameSize) -> [FrameSize; LEVELS] {
    std::array::from_fn(|k| {
        let stride = 1 << (FINEST_STRIDES + k);
        FrameSize::new(frame.height.div_ceil(stride), frame.width.div_ceil(stride))
    })
}

/// The anchors of all levels in the order of the predictions: level, row, column, anchor.
/// `levels`: cells of each level, as [`level_sizes`] and the net count them; `frame`: the net's input
/// size; `padding`: the net's.
pub fn anchors(
    levels: &[FrameSize],
    frame: FrameSize,
    cfg: &AnchorConfig,
    padding: SamePadding,
) -> Vec<Anchor> {
    let (grow_w, grow_h) = cfg.base.map_or((1.0, 1.0), |base| {
        (base.width as f64 / frame.width as f64, base.height as f64 / frame.height as f64)
    });
    let mut out = Vec::new();
    for (k, level) in levels.iter().enumerate() {
        let shapes = level_shapes(k, cfg.third);
        let shift = |base: usize, size: usize| {
            (view_offset(size, k, padding) - view_offset(base, k, padding)) / size as f64
        };
        let (shift_x, shift_y) = cfg
            .base
            .map_or((0.0, 0.0), |base| (shift(base.width, frame.width), shift(base.height, frame.height)));
        for y in 0..level.height {
            for x in 0..level.width {
                for &(scale, ratio) in &shapes {
                    out.push(Anchor {
                        cx: ((x as f64 + 0.5) / level.width as f64 + shift_x) as f32,
                        cy: ((y as f64 + 0.5) / level.height as f64 + shift_y) as f32,
                        w: (scale * ratio.sqrt() * grow_w) as f32,
                        h: (scale / ratio.sqrt() * grow_h) as f32,
                    });
                }
            }
        }
    }
    out
}

/// How far the cells of level `k` look past the place where the frame would be cut into equal cells:
/// the mean over an axis of `size` pixels, in pixels.
///
/// All strided convolutions are 3×3 of stride 2. One that pads `before` its input looks
/// (1 − before) input cells further along for each of its outputs.
fn view_offset(size: usize, k: usize, padding: SamePadding) -> f64 {
    let (mut cells, mut first, mut step) = (size, 0.5, 1.0);
    for _ in 0..FINEST_STRIDES + k {
        let (before, _) = padding.axis(cells, 3, 2);
        first += (1.0 - before as f64) * step;
        cells = cells.div_ceil(2);
        step *= 2.0;
    }
    first + step * (cells as f64 - 1.0) / 2.0 - size as f64 / 2.0
}

/// (scale, aspect ratio) of each anchor of level `k`.
fn level_shapes(k: usize, third: f64) -> Vec<(f64, f64)> {
    let scale = |k: usize| SCALES[k.min(SCALES.len() - 1)];
    let own = scale(k);
    if k == 0 {
        return vec![(SMALLEST_SCALE, 1.0), (own, 2.0), (own, 0.5)];
    }
    let between = (own * scale(k + 1)).sqrt();
    vec![(own, 1.0), (own, 2.0), (own, 0.5), (own, 3.0), (own, third), (between, 1.0)]
}

impl Anchor {
    /// The box (x0, y0, x1, y1) in fractions of the frame that `code` (dx, dy, dw, dh) says.
    pub fn decode(&self, code: [f32; 4]) -> [f32; 4] {
        let [dx, dy, dw, dh] = code;
        let cx = dx / OFFSET_FACTOR * self.w + self.cx;
        let cy = dy / OFFSET_FACTOR * self.h + self.cy;
        let w = (dw / SIZE_FACTOR).min(MAX_LOG_GROWTH).exp() * self.w;
        let h = (dh / SIZE_FACTOR).min(MAX_LOG_GROWTH).exp() * self.h;
        [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
    }

    /// The code of a box (x0, y0, x1, y1) in fractions of the frame: the inverse of [`Anchor::decode`].
    pub fn encode(&self, [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
        let (w, h) = ((x1 - x0).max(f32::MIN_POSITIVE), (y1 - y0).max(f32::MIN_POSITIVE));
        [
            ((x0 + x1) / 2.0 - self.cx) / self.w * OFFSET_FACTOR,
            ((y0 + y1) / 2.0 - self.cy) / self.h * OFFSET_FACTOR,
            (w / self.w).ln() * SIZE_FACTOR,
            (h / self.h).ln() * SIZE_FACTOR,
        ]
    }

    /// The anchor as (x0, y0, x1, y1).
    pub fn corners(&self) -> [f32; 4] {
        let (w, h) = (self.w / 2.0, self.h / 2.0);
        [self.cx - w, self.cy - h, self.cx + w, self.cy + h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(n: usize) -> FrameSize {
        FrameSize::new(n, n)
    }

    #[test]
    fn counts_and_order_at_the_papers_size() {
        let levels = level_sizes(square(384));
        assert_eq!(levels, [24, 12, 6, 3, 2, 1].map(square));
        let all = anchors(&levels, square(384), &AnchorConfig::default(), SamePadding::Torch);
        assert_eq!(all.len(), 2892);
        let first = all[0];
        assert!((first.cx - 0.5 / 24.0).abs() < 1e-7 && (first.w - 0.1).abs() < 1e-7);
        assert_eq!(all[3].cy, first.cy, "columns run before rows");
        let last = all[all.len() - 1];
        assert!((last.w - 0.95f32.sqrt()).abs() < 1e-6, "√(0.95 · 1), got {}", last.w);
    }

    #[test]
    fn a_base_keeps_sizes_in_pixels() {
        let cfg = AnchorConfig { base: Some(square(300)), ..Default::default() };
        let levels = [square(1); 2];
        let fractions = anchors(&levels, square(300), &AnchorConfig::default(), SamePadding::Tf);
        for (a, f) in anchors(&levels, FrameSize::new(512, 768), &cfg, SamePadding::Tf).iter().zip(&fractions)
        {
            assert!((a.w * 768.0 - f.w * 300.0).abs() < 1e-4);
            assert!((a.h * 512.0 - f.h * 300.0).abs() < 1e-4);
        }
        assert_eq!(anchors(&levels, square(300), &cfg, SamePadding::Tf), fractions);
    }

    #[test]
    fn centres_follow_what_the_cells_see() {
        // Worked out by hand from the padding: pixels further than at 300, level by level.
        for (size, expected) in [
            (300, [0.0; 6]),
            (320, [2.0, 10.0, 10.0, 10.0, 10.0, 10.0]),
            (384, [2.0, 10.0, 10.0, 42.0, 42.0, 42.0]),
        ] {
            for (k, expected) in expected.into_iter().enumerate() {
                let got = view_offset(size, k, SamePadding::Tf) - view_offset(300, k, SamePadding::Tf);
                assert_eq!(got, expected, "{size}, level {k}");
            }
        }
    }

    #[test]
    fn encoding_is_the_inverse_of_decoding() {
        let anchor = Anchor { cx: 0.4, cy: 0.6, w: 0.2, h: 0.3 };
        assert_eq!(anchor.decode([0.0; 4]), anchor.corners());
        for code in [[1.0, -2.0, 0.5, 3.0], [-7.0, 0.1, -4.0, -0.2]] {
            let back = anchor.encode(anchor.decode(code));
            for (a, b) in back.iter().zip(code) {
                assert!((a - b).abs() < 1e-4, "{back:?} {code:?}");
            }
        }
        let wild = anchor.decode([0.0, 0.0, f32::MAX, f32::MAX]);
        assert!(wild.iter().all(|v| v.is_finite()), "{wild:?}");
    }
}
