//! Looking at a picture more than once: sizes, mirror images.

use serde::{Deserialize, Serialize};

use crate::config::{ResizeRule, Resizing};
use crate::{Error, Result};

/// Further looks at each picture, whose boxes are suppressed together (test-time augmentation). None by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Views {
    /// Whether each look has a mirrored one beside it, the usual one too.
    pub mirrored: bool,
    /// Further short sides.
    pub short_sides: Vec<usize>,
    /// The longest long side of these.
    pub long_side: usize,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub resizing: Resizing,
    pub mirrored: bool,
}

impl Views {
    /// The authors': short sides of 400 to 1200 in steps of 100 beside the usual one of 800, long ones up to 2000, each
    /// mirrored too. Twenty times the cost and more.
    pub fn paper() -> Self {
        let short_sides = vec![400, 500, 600, 700, 900, 1000, 1100, 1200];
        Self { mirrored: true, short_sides, long_side: 2000 }
    }

    /// The looks, the usual one first.
    pub(crate) fn looks(&self, usual: Resizing) -> Vec<Look> {
        let further = |&short: &usize| Resizing { short, long: self.long_side, ..usual };
        let sizes = std::iter::once(usual).chain(self.short_sides.iter().map(further));
        let both = |resizing| {
            let mirrored = self.mirrored.then_some(Look { resizing, mirrored: true });
            std::iter::once(Look { resizing, mirrored: false }).chain(mirrored)
        };
        sizes.flat_map(both).collect()
    }

    /// Whether pictures can be looked at so.
    ///
    /// # Errors
    /// If a side cannot be resized to.
    pub fn validate(&self) -> Result<()> {
        for &short in &self.short_sides {
            Resizing { short, long: self.long_side, rule: ResizeRule::MaskrcnnBenchmark }
                .validate()
                .map_err(|error| Error::Config(format!("a further look: {error}")))?;
        }
        Ok(())
    }
}
