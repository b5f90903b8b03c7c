use candle_core::{Result, Tensor};
use zoo_kernels::channels_last;

/// Maps `[B, C_i, H, W]` behind one another, `[B, ΣC_i, H, W]`, channels last in memory. Has gradients.
///
/// # Errors
/// If there is none, or their sizes differ.
pub fn concat_channels(maps: &[&Tensor]) -> Result<Tensor> {
    let maps = maps.iter().map(|map| channels_last(map)).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&maps, 3)?.permute((0, 3, 1, 2))
}
