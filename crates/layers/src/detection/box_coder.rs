use serde::{Deserialize, Serialize};

/// Boxes as differences from anchors: offsets of the centre in anchor sides, and logs of the sides' ratios, each times a
/// weight (Girshick et al., "Rich Feature Hierarchies for Accurate Object Detection", 2014, Appendix C).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxCoder {
    /// Factors of dx, dy, dw, dh in a code.
    pub weights: [f32; 4],
    /// Corners are pixels that belong to the box: sides are x1 − x0 + 1.
    pub plus_one: bool,
}

impl BoxCoder {
    /// Largest log growth that is decoded, ln(1000 / 16), so that a wild output cannot overflow.
    pub const MAX_LOG_GROWTH: f32 = 4.135_166_6;
    /// maskrcnn-benchmark's for RetinaNet.
    pub const DETECTRON: Self = Self { weights: [10.0, 10.0, 5.0, 5.0], plus_one: true };
    /// torchvision's for RetinaNet.
    pub const TORCHVISION: Self = Self { weights: [1.0; 4], plus_one: false };

    fn extra(&self) -> f32 {
        if self.plus_one { 1.0 } else { 0.0 }
    }

    /// Width, height and centre.
    fn sides(&self, [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
        let (w, h) = (x1 - x0 + self.extra(), y1 - y0 + self.extra());
        [w, h, x0 + 0.5 * w, y0 + 0.5 * h]
    }

    /// The box (x0, y0, x1, y1) that `code` (dx, dy, dw, dh) says of an anchor.
    pub fn decode(&self, anchor: [f32; 4], code: [f32; 4]) -> [f32; 4] {
        let [w, h, cx, cy] = self.sides(anchor);
        let ([dx, dy, dw, dh], [wx, wy, ww, wh]) = (code, self.weights);
        let (cx, cy) = (dx / wx * w + cx, dy / wy * h + cy);
        let w = (dw / ww).min(Self::MAX_LOG_GROWTH).exp() * w;
        let h = (dh / wh).min(Self::MAX_LOG_GROWTH).exp() * h;
        let (w_half, h_half) = (0.5 * w, 0.5 * h);
        [cx - w_half, cy - h_half, cx + w_half - self.extra(), cy + h_half - self.extra()]
    }

    /// The code of a box for an anchor, the inverse of [`BoxCoder::decode`]. Sides of 0 or less have no code: what comes
    /// out is not finite then.
    pub fn encode(&self, anchor: [f32; 4], bbox: [f32; 4]) -> [f32; 4] {
        let ([w, h, cx, cy], [bw, bh, bcx, bcy]) = (self.sides(anchor), self.sides(bbox));
        let [wx, wy, ww, wh] = self.weights;
        [wx * (bcx - cx) / w, wy * (bcy - cy) / h, ww * (bw / w).ln(), wh * (bh / h).ln()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_by_hand() {
        // An anchor of 20 × 10 pixels at centre (20, 25), with the pixel; a box twice as wide, moved by (5, −2).
        let anchor = [10.0, 20.0, 29.0, 29.0];
        let code = BoxCoder::DETECTRON.encode(anchor, [5.0, 18.0, 44.0, 27.0]);
        assert_eq!(code[0..2], [10.0 * 5.0 / 20.0, 10.0 * -2.0 / 10.0]);
        assert!((code[2] - 5.0 * 2f32.ln()).abs() < 1e-6 && code[3].abs() < 1e-6, "{code:?}");
        assert_eq!(BoxCoder::DETECTRON.decode(anchor, [0.0; 4]), anchor);
        let plain = BoxCoder::TORCHVISION.decode([10.0, 20.0, 30.0, 30.0], [0.25, -0.2, 2f32.ln(), 0.0]);
        for (got, expected) in plain.iter().zip([5.0, 18.0, 45.0, 28.0]) {
            assert!((got - expected).abs() < 1e-4, "{plain:?}");
        }
    }

    #[test]
    fn encoding_is_the_inverse_of_decoding() {
        let anchor = [-18.0, -8.0, 25.0, 15.0];
        for coder in [BoxCoder::DETECTRON, BoxCoder::TORCHVISION] {
            for code in [[1.0, -2.0, 0.5, 3.0], [-7.0, 0.1, -1.0, -0.2]] {
                let back = coder.encode(anchor, coder.decode(anchor, code));
                assert!(back.iter().zip(code).all(|(a, b)| (a - b).abs() < 1e-4), "{back:?} {code:?}");
            }
        }
    }

    #[test]
    fn wild_codes_stay_finite() {
        let wild = BoxCoder::DETECTRON.decode([0.0, 0.0, 9.0, 9.0], [0.0, 0.0, f32::MAX, 1e9]);
        assert!(wild.iter().all(|v| v.is_finite()), "{wild:?}");
        assert!((wild[2] - wild[0] + 1.0 - 10.0 * 62.5).abs() < 1e-2, "1000/16 times as large: {wild:?}");
    }
}
