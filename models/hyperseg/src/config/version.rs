use std::fmt;

use serde::{Deserialize, Serialize};

/// The generation of the authors' code that a checkpoint was made with. They differ in more than names:
/// see the model card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// VOC's: context head of full width, legacy division, blocks whose halo is the neighbours'.
    #[serde(rename = "v0_1")]
    V0_1,
    /// As [`Version::V1_0`], but for a division that drops what is left over.
    #[serde(rename = "v0_2")]
    V0_2,
    /// Algorithm 1; every level reads the signal from its first channel on.
    #[serde(rename = "v1_0")]
    V1_0,
    /// Algorithm 1; the fine levels share a weight mapping, and each mapping reads its own channels.
    #[serde(rename = "v1_0_unify")]
    V1_0Unify,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_1, Self::V0_2, Self::V1_0, Self::V1_0Unify];

    /// As the authors' modules are called: `hyperseg_v1_0` without the front.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_1 => "v0_1",
            Self::V0_2 => "v0_2",
            Self::V1_0 => "v1_0",
            Self::V1_0Unify => "v1_0_unify",
        }
    }

    /// The version of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// Whether each weight mapping reads channels of its own. In the other two versions the running
    /// offset is lost in a recursion, and all of them start at the first channel: weights trained so
    /// depend on it.
    pub fn offsets_run(self) -> bool {
        matches!(self, Self::V0_1 | Self::V1_0Unify)
    }

    /// Whether the logits are resized to the image where the last level is smaller.
    pub(crate) fn resizes_logits(self) -> bool {
        self != Self::V0_1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
