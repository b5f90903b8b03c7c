//! The golden cases that `zoo parity` runs for this crate.

mod boxes;
#[cfg(feature = "train")]
mod losses;
mod preprocessing;

use zoo_parity::Case;

/// The cases of this crate. Nets run as the loaders leave them, prepared, if `prepared`; otherwise as they are built. Those
/// of losses need the feature `train`.
pub fn cases(_prepared: bool) -> Vec<Case> {
    let mut cases = boxes::cases();
    cases.push(preprocessing::case());
    #[cfg(feature = "train")]
    cases.extend(losses::cases());
    cases
}
