use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};
use zoo_kernels::position_map;

/// Position maps that are kept: six levels at two sizes of images. Whoever uses more sizes in turn
/// computes them anew.
const KEPT: usize = 12;

/// The position maps of the sizes seen last. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Positions(Arc<Mutex<Vec<Tensor>>>);

impl Positions {
    /// [`position_map`] for maps like `xs`, `[B, 2, H, W]`.
    pub(super) fn like(&self, xs: &Tensor) -> Result<Tensor> {
        let (b, _, h, w) = xs.dims4()?;
        let (dtype, device) = (xs.dtype(), xs.device());
        // A panic elsewhere leaves whole tensors.
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |map: &Tensor| {
            map.dims()[2..] == [h, w] && map.dtype() == dtype && map.device().same_device(device)
        };
        let found = maps.iter().position(fits);
        let map = match found {
            Some(at) => maps.remove(at),
            None => position_map(h, w, dtype, device)?,
        };
        maps.push(map.clone());
        let surplus = maps.len().saturating_sub(KEPT);
        maps.drain(..surplus);
        drop(maps);
        map.broadcast_as((b, 2, h, w))
    }
}
