//! The golden cases that `zoo parity` runs for this crate.

mod keyframe;
mod pipeline;
mod propagation;

use zoo_parity::{Case, Tolerance};

/// Maps on the way, and results that are scores.
const MAPS: Tolerance = Tolerance::Golden { max_rel_absmax: 1e-4, mean_rel_absmax: 1e-5 };
/// Positions in pixels round otherwise than those between −1 and 1 of the code that made the file: where all positions
/// have the same fraction, all values are off alike.
const WARPED: Tolerance = Tolerance::Golden { max_rel_absmax: 4e-6, mean_rel_absmax: 4e-6 };

/// The cases of this crate. Nets run as the loaders leave them, batch norm folded, if `prepared`; otherwise as they are
/// built.
pub fn cases(prepared: bool) -> Vec<Case> {
    vec![
        keyframe::case(prepared),
        propagation::light_flow(prepared),
        propagation::flownet_s(prepared),
        propagation::warp(),
        propagation::guided_filter(prepared),
        pipeline::case(prepared),
    ]
}
