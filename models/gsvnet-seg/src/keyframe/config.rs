use serde::{Deserialize, Serialize};

/// The nets for key frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyframeKind {
    /// SwiftNet on ResNet-18: "SN-R18" in Tables 1 and 3.
    SwiftnetR18,
    /// SwiftNet on ResNet-34. Not in the paper.
    SwiftnetR34,
    /// SwiftNet on MobileNetV2. Not in the paper.
    SwiftnetMobilenetV2,
    /// SwiftNet's variant that looks at three sizes of the image. In the authors' code, not in the paper's tables.
    SwiftnetR18Pyramid,
    /// BiSeNet on ResNet-18: "BN-R18" in Tables 1 and 3.
    BisenetR18,
    /// BiSeNet on Xception39: a part of the baselines of Section 4.
    BisenetX39,
}

impl KeyframeKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SwiftnetR18,
        Self::SwiftnetR34,
        Self::SwiftnetMobilenetV2,
        Self::SwiftnetR18Pyramid,
        Self::BisenetR18,
        Self::BisenetX39,
    ];

    /// As configurations spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SwiftnetR18 => "swiftnet-r18",
            Self::SwiftnetR34 => "swiftnet-r34",
            Self::SwiftnetMobilenetV2 => "swiftnet-mobilenet-v2",
            Self::SwiftnetR18Pyramid => "swiftnet-r18-pyramid",
            Self::BisenetR18 => "bisenet-r18",
            Self::BisenetX39 => "bisenet-x39",
        }
    }
}

/// A net for key frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyframeConfig {
    /// Which one.
    pub net: KeyframeKind,
    /// Classes that it scores: 19 of Cityscapes, 11 of CamVid.
    pub classes: usize,
    /// Whether a BiSeNet has the two further heads that its training asks for (Section 3.3 of its own paper). The
    /// other nets have none.
    #[serde(default, skip_serializing_if = "is_no")]
    pub auxiliary_heads: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_no(value: &bool) -> bool {
    !*value
}

impl KeyframeConfig {
    /// A net without auxiliary heads.
    pub const fn new(net: KeyframeKind, classes: usize) -> Self {
        Self { net, classes, auxiliary_heads: false }
    }
}
