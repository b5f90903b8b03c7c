//! Maps as rows: image by image, map by map, cell by cell.

use candle_core::{Result, Tensor, bail};

use super::TrueBox;

/// Maps `[B, K · width, h, w]` as `[B · rows, width]`, K rows a cell, all maps of an image behind one another.
pub(super) fn rows(maps: &[Tensor], width: usize) -> Result<Tensor> {
    let flat = maps.iter().map(|map| {
        let (b, channels, h, w) = map.dims4()?;
        if width == 0 || channels % width != 0 {
            bail!("flattening a map: {channels} channels are not rows of {width}")
        }
        map.permute((0, 2, 3, 1))?.reshape((b, h * w * (channels / width), width))
    });
    Tensor::cat(&flat.collect::<Result<Vec<_>>>()?, 1)?.flatten(0, 1)
}

/// The rows that are chosen; `[0, …]` is not asked of candle.
pub(super) fn chosen(rows: &Tensor, which: &[u32]) -> Result<Tensor> {
    rows.index_select(&Tensor::new(which, rows.device())?, 0)
}

/// The label of an object's class in the losses: 0 is none.
pub(super) fn label(truth: &TrueBox, classes: usize) -> Result<i32> {
    if truth.class >= classes {
        bail!(
            "targets: an object is of class {}, but there are {classes} (0 to {})",
            truth.class,
            classes.saturating_sub(1)
        )
    }
    Ok(truth.class as i32 + 1)
}

/// One list of objects an image.
pub(super) fn check_images(images: usize, truth: &[Vec<TrueBox>]) -> Result<()> {
    if truth.len() != images {
        bail!("targets: {images} images, but objects of {}", truth.len())
    }
    Ok(())
}

/// Four values a row, `[N, 4]`.
pub(crate) fn fours(rows: &[[f32; 4]], like: &Tensor) -> Result<Tensor> {
    Tensor::from_slice(rows.as_flattened(), (rows.len(), 4), like.device())?.to_dtype(like.dtype())
}
