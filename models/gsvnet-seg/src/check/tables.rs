//! Table 2: the counts of the nets built here. `zoo info gsvnet-seg` puts the paper's beside them.
//!
//! The paper's "parameters" are bytes, four a value, in millions; its "FLOPs" are multiply–accumulates, to which come
//! two operations for each value out of a batch norm and one for each out of a ReLU ([`operations`]).

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Serialize;
use zoo_core::{Cost, Tally};

use super::operations;
use crate::config::{KeyframeScale, Preset, Schedule};
use crate::{Error, GsvNet, Result};

/// What a key frame and the frames after it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The key frames' net on a key frame.
    pub key: Cost,
    /// A frame between key frames.
    pub between: Cost,
    /// The key frame's multiply–accumulates with the operations of its norms and ReLUs.
    pub key_operations: u64,
    /// Those of a frame between key frames.
    pub between_operations: u64,
}

impl Counts {
    /// Counts a preset's nets at the paper's size; they are built for the purpose.
    ///
    /// # Errors
    /// If they cannot be built.
    pub fn of(preset: Preset, scale: KeyframeScale) -> Result<Self> {
        let schedule = Schedule { scale, ..Schedule::default() };
        let net = GsvNet::new(&preset.config(), schedule, VarBuilder::zeros(DType::F32, &Device::Cpu))
            .map_err(|source| Error::Candle { context: "building a net to count it", source })?;
        let (mut key, mut between) = (Tally::new(), Tally::new());
        net.key_cost(preset.size(), &mut key);
        net.propagation_cost(preset.size(), &mut between);
        Ok(Self {
            key: key.total(),
            between: between.total(),
            key_operations: operations(&key),
            between_operations: operations(&between),
        })
    }

    /// The mean over an interval.
    pub fn average(&self, interval: usize) -> f64 {
        let (key, between) = (self.key_operations as f64, self.between_operations as f64);
        (key + (interval as f64 - 1.0) * between) / interval as f64
    }
}
