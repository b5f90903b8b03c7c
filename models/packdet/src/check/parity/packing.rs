use candle_core::{Device, Tensor};
use serde::Deserialize;
use zoo_kernels::pack_maps;
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use super::{frame_of, inputs};
use crate::plane::{Cell, Layout, Locations, Places};

/// PackOp and its tables.
pub(super) fn case() -> Case {
    Case::new(["packdet.packop"], Tolerance::Exact, outputs)
}

#[derive(Deserialize)]
struct PackConfig {
    layout: Layout,
}

fn outputs(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let PackConfig { layout } = golden.config()?;
    let maps = inputs(golden, "input", device)?;
    let finest = maps.first().ok_or("the file has no maps")?;
    let places = Places::packed(layout, frame_of(finest)?, Locations::Centres)?;
    let (grid, boxes) = (&places.grids[0], places.maps.iter().map(|map| map.at).collect::<Vec<_>>());
    let (h, w) = (grid.size.height, grid.size.width);
    let packed = pack_maps(&maps.iter().collect::<Vec<&Tensor>>(), &boxes, (h, w))?;
    let ranges = boxes
        .iter()
        .flat_map(|at| [at.left, at.top, at.left + at.width, at.top + at.height].map(|edge| edge as f64));
    let cells = |f: fn(&Cell) -> f64| grid.cells.iter().map(f);
    let mut outputs = Outputs::new();
    outputs.push("packed", &packed)?;
    outputs.push_values("ranges", &[boxes.len(), 4], ranges)?;
    let locations = grid.cells.iter().flat_map(|cell| [f64::from(cell.x), f64::from(cell.y)]);
    outputs.push_values("locations_map", &[h, w, 2], locations)?;
    outputs.push_values("scales_map", &[h, w], cells(|cell| f64::from(cell.level)))?;
    outputs.push_values("occupied", &[h, w], cells(|cell| f64::from(u8::from(cell.map.is_some()))))?;
    Ok(outputs)
}
