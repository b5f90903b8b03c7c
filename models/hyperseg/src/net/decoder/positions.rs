use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

/// Position maps that are kept: six levels at two sizes of images. Whoever uses more sizes in turn
/// computes them anew.
const KEPT: usize = 12;

/// Where each pixel lies: `[1, 2, H, W]`, first the column, then the row, each from −1 to 1 with both ends
/// (Section 3.2). One pixel alone lies at −1.
///
/// # Errors
/// If the device refuses the tensor.
pub fn position_map(height: usize, width: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let rows = along(height);
    let columns = along(width);
    let values: Vec<f32> = rows.iter().flat_map(|&y| columns.iter().flat_map(move |&x| [x, y])).collect();
    Tensor::from_vec(values, (1, height, width, 2), device)?.to_dtype(dtype)?.permute((0, 3, 1, 2))
}

fn along(count: usize) -> Vec<f32> {
    let step = 2.0 / count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| (i as f64 * step - 1.0) as f32).collect()
}

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
