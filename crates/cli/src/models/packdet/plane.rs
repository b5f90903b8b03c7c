//! `--show-plane`: Figure 4 of the paper.

use anyhow::Result;
use candle_core::Tensor;
use packdet::{BoxUnits, PackDet};
use zoo_core::{FrameSize, Image};
use zoo_vision::draw;

use crate::exit::Usage;

/// Maps of the plane that are shown, by the net's names.
const SHOWN: [(&str, &str); 2] = [("fe_reduction", "the plane, packed"), ("fe", "behind the long head")];

/// Whether the model has a plane.
pub fn check(model: &PackDet) -> Result<()> {
    match model.net().config().head.is_packed() {
        true => Ok(()),
        false => Err(Usage::error("--show-plane: this net packs nothing, there is no plane")),
    }
}

/// How strongly the channels answer at each cell of the plane, before and behind the long head's convolutions: the mean of
/// their sizes, from black for none to white for the strongest.
pub fn pictures(model: &PackDet, image: &Image) -> Result<Vec<(Image, &'static str)>> {
    let (xs, _) = model.input(image)?;
    let mut maps: Vec<(Tensor, &'static str)> = Vec::new();
    zoo_kernels::on_pool(|| {
        model.net().forward_probed(&xs, BoxUnits::Pixels, &mut |name, ys| {
            if let Some((_, title)) = SHOWN.iter().find(|(shown, _)| *shown == name) {
                maps.push((ys.abs()?.mean(1)?.squeeze(0)?, title));
            }
            Ok(())
        })
    })?;
    let picture = |(map, title): (Tensor, &'static str)| {
        let (height, width) = map.dims2()?;
        let values: Vec<f32> = map.flatten_all()?.to_vec1()?;
        let strongest = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let levels = values.iter().map(|value| value / strongest);
        Ok((draw::levels(FrameSize::new(height, width), levels)?, title))
    };
    maps.into_iter().map(picture).collect()
}
