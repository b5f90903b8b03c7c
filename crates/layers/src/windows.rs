use candle_core::{Result, Tensor, bail};
use zoo_kernels::channels_last;

/// How a map is cut into square windows whose tokens attend to each other: row by row, with zeros where
/// the last windows stick out to the right and below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    side: usize,
    /// `[B, C, H, W]`
    map: [usize; 4],
}

impl Windows {
    /// Windows of `side` × `side` over maps shaped like `xs`, `[B, C, H, W]`.
    ///
    /// # Errors
    /// If the side is 0 or `xs` is not a map.
    pub fn of(xs: &Tensor, side: usize) -> Result<Self> {
        match xs.dims() {
            &[b, c, h, w] if side > 0 => Ok(Self { side, map: [b, c, h, w] }),
            dims => bail!("windows: expected [B, C, H, W] and a side of at least 1, got {dims:?} and {side}"),
        }
    }

    /// Windows down and across.
    pub fn grid(&self) -> (usize, usize) {
        let [_, _, h, w] = self.map;
        (h.div_ceil(self.side), w.div_ceil(self.side))
    }

    /// The windows of `xs` as sequences: `[B · windows, side², C]`.
    ///
    /// # Errors
    /// If `xs` has another shape.
    pub fn split(&self, xs: &Tensor) -> Result<Tensor> {
        let (Self { side, map }, (down, across)) = (*self, self.grid());
        if xs.dims() != map {
            bail!("windows: expected {map:?}, got {:?}", xs.dims())
        }
        let [b, c, h, w] = map;
        channels_last(xs)?
            .pad_with_zeros(1, 0, down * side - h)?
            .pad_with_zeros(2, 0, across * side - w)?
            .reshape(&[b, down, side, across, side, c])?
            .transpose(2, 3)?
            .reshape((b * down * across, side * side, c))
    }

    /// The map of what [`Windows::split`] gave, of as many channels as the tokens have; what stuck out is
    /// cut off.
    ///
    /// # Errors
    /// If `tokens` are not those of such windows.
    pub fn join(&self, tokens: &Tensor) -> Result<Tensor> {
        let (Self { side, map }, (down, across)) = (*self, self.grid());
        let [b, _, h, w] = map;
        match tokens.dims() {
            &[windows, n, c] if windows == b * down * across && n == side * side => tokens
                .reshape(&[b, down, across, side, side, c])?
                .transpose(2, 3)?
                .reshape((b, down * side, across * side, c))?
                .narrow(1, 0, h)?
                .narrow(2, 0, w)?
                .permute((0, 3, 1, 2)),
            dims => {
                let (windows, n) = (b * down * across, side * side);
                bail!("windows: expected [{windows}, {n}, C], got {dims:?}")
            }
        }
    }
}
