//! Seeded nets and images.

use candle_core::{DType, Device, Tensor};
use gsvnet_seg::{KeyframeConfig, KeyframeKind, KeyframeNet};
use zoo_parity::{Gain, seeded};

/// Factors that keep Xception39's deep chain of linear filters from growing without bound.
fn gain(kind: KeyframeKind) -> Vec<Gain> {
    match kind {
        KeyframeKind::BisenetX39 => vec![Gain::Prefix("context_path.layer".to_owned(), 0.5)],
        _ => vec![],
    }
}

/// A net for `classes` classes with seeded weights.
pub fn net(kind: KeyframeKind, classes: usize) -> KeyframeNet {
    net_of(kind, classes, DType::F32)
}

/// The same in another float type.
pub fn net_of(kind: KeyframeKind, classes: usize, dtype: DType) -> KeyframeNet {
    let weights = seeded::var_builder_with_gain(gain(kind), dtype, &Device::Cpu);
    KeyframeNet::new(&KeyframeConfig::new(kind, classes), weights).unwrap()
}

/// The same, prepared.
pub fn prepared(kind: KeyframeKind, classes: usize) -> KeyframeNet {
    let mut net = net(kind, classes);
    net.prepare().unwrap();
    net
}

/// Images of seeded noise.
pub fn images(batch: usize, height: usize, width: usize) -> Tensor {
    crate::support::noise("images", &[batch, 3, height, width])
}
