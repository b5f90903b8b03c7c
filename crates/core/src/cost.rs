use serde::Serialize;

/// What one layer holds and does for one forward pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LayerCost {
    /// The layer's name in the checkpoint.
    pub name: String,
    /// Stored values: weights, biases, norm scales and shifts (not running statistics).
    pub params: u64,
    /// Those of them that are a batch norm's scales and shifts, which where it is frozen are not learned.
    pub norm_params: u64,
    /// Multiply–accumulate operations.
    pub macs: u64,
    /// Additions of a bias (one an output value); batch norm counts as folded into its convolution.
    pub bias_adds: u64,
    /// Additions of a skip connection.
    pub residual_adds: u64,
    /// Values that come out of it.
    pub outputs: u64,
    /// Values that a batch norm goes over: no operations once it is folded, but some papers count them.
    pub normed: u64,
    /// Values that an activation goes over, likewise.
    pub activated: u64,
}

/// Totals over layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    /// See [`LayerCost::params`].
    pub params: u64,
    /// See [`LayerCost::macs`].
    pub macs: u64,
    /// See [`LayerCost::bias_adds`].
    pub bias_adds: u64,
    /// See [`LayerCost::residual_adds`].
    pub residual_adds: u64,
}

impl Cost {
    /// 2·MAC + bias adds + residual adds: the floating-point operations of the pass, with batch norm
    /// folded and activations not counted.
    pub fn flops(&self) -> u64 {
        2 * self.macs + self.bias_adds + self.residual_adds
    }

    /// [`Cost::flops`] in millions.
    pub fn mflops(&self) -> f64 {
        self.flops() as f64 / 1e6
    }
}

impl std::ops::Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            params: self.params + other.params,
            macs: self.macs + other.macs,
            bias_adds: self.bias_adds + other.bias_adds,
            residual_adds: self.residual_adds + other.residual_adds,
        }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |a, b| a + b)
    }
}

/// Collects the layers' costs while a built net is walked in forward order.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    layers: Vec<LayerCost>,
}

impl Tally {
    /// An empty tally.
    pub const fn new() -> Self {
        Self { layers: Vec::new() }
    }

    /// Adds one layer.
    pub fn push(&mut self, layer: LayerCost) {
        self.layers.push(layer);
    }

    /// Adds the layers of another tally behind its own.
    pub fn append(&mut self, mut other: Self) {
        self.layers.append(&mut other.layers);
    }

    /// The layers so far, in forward order.
    pub fn layers(&self) -> &[LayerCost] {
        &self.layers
    }

    /// The sum of all layers.
    pub fn total(&self) -> Cost {
        self.layers
            .iter()
            .map(|l| Cost {
                params: l.params,
                macs: l.macs,
                bias_adds: l.bias_adds,
                residual_adds: l.residual_adds,
            })
            .sum()
    }
}
