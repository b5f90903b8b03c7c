//! From one frame's scores to the next one's: Section 3.2, Figure 3.
//!
//! All maps have an eighth of the frame's rows and columns; the frame itself in that size is called `low`. Scores have one
//! channel a class.

mod delay_kernels;
mod edges;
mod guiding_net;
mod intra_net;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Candidate, Outside, channel_shares, varying_conv2d, warp};
use zoo_layers::{Statistics, layer_span};

pub use delay_kernels::{DelayKernels, KernelSize};
pub use edges::{EdgeMode, edge_map};
pub use guiding_net::GuidingNet;
pub use intra_net::IntraNet;

use crate::config::PropagationConfig;
use crate::flow::FLOW_DIVISOR;

/// Keeps the division by the weights' sum apart from 0 / 0.
const SHARES_EPS: f64 = 1e-9;

/// S⁻: the scores `before`, `[B, C, h, w]`, where the flow says that each pixel came from (Equation 1).
///
/// `flow`: `[B, 2, h, w]`, in the flow net's units. What comes from outside the frame is zero in all classes.
///
/// # Errors
/// If the shapes differ, or the operands are not floats on the CPU.
pub fn warp_scores(before: &Tensor, flow: &Tensor) -> Result<Tensor> {
    let _span = layer_span("warp");
    warp(before, &(flow / FLOW_DIVISOR)?, Outside::Zeros)
}

/// What a frame's propagation gives, step by step. All are `[B, ·, h, w]`.
#[derive(Debug, Clone)]
pub struct Propagated {
    /// f: the intra-frame net's scores.
    pub intra: Tensor,
    /// E: one where the warped labels change.
    pub edges: Tensor,
    /// w: each pixel's share of each candidate: S⁻, the moved S⁻ (one for each kernel of the bank), f.
    pub weights: Tensor,
    /// S: the frame's scores.
    pub scores: Tensor,
}

/// The nets and the bank between S⁻ and S.
#[derive(Debug, Clone)]
pub struct Propagation {
    kernels: DelayKernels,
    intra: IntraNet,
    guide: GuidingNet,
    edge_mode: EdgeMode,
    classes: usize,
}

impl Propagation {
    /// For so many classes. `vb` holds `intra_net` and `guide`; the kernels are the ideal ones.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &PropagationConfig, classes: usize, vb: VarBuilder) -> Result<Self> {
        let kernels = DelayKernels::ideal(cfg.kernel_size);
        let candidates = kernels.count() + 2;
        Ok(Self {
            intra: IntraNet::new(classes, vb.pp("intra_net").pp("intra_net"))?,
            guide: GuidingNet::new(classes, candidates, vb.pp("guide"))?,
            kernels,
            edge_mode: cfg.edge_mode,
            classes,
        })
    }

    /// Folds norms and packs weights. Inference only.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.intra.prepare()?;
        self.guide.prepare()
    }

    /// What the norms normalise by.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.intra.set_statistics(statistics);
        self.guide.set_statistics(statistics);
    }

    /// Takes other delay kernels of the same size.
    ///
    /// # Errors
    /// If there are fewer or more of them.
    pub fn set_kernels(&mut self, kernels: DelayKernels) -> Result<()> {
        if kernels.size() != self.kernels.size() {
            bail!("delay kernels: expected a bank of {:?}, got {:?}", self.kernels.size(), kernels.size())
        }
        self.kernels = kernels;
        Ok(())
    }

    /// The delay kernels.
    pub fn kernels(&self) -> &DelayKernels {
        &self.kernels
    }

    /// `low`: an eighth of the frame, `[B, 3, h, w]`, as the intra-frame net was trained with; `warped`: S⁻.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, low: &Tensor, warped: &Tensor) -> Result<Propagated> {
        let intra = self.intra.forward(low)?;
        let edges = self.edges(warped)?;
        let weights = self.weights(&intra, &edges)?;
        let scores = self.filter(warped, &weights, &intra)?;
        Ok(Propagated { intra, edges, weights, scores })
    }

    /// E of the warped scores, `[B, 1, h, w]`.
    ///
    /// # Errors
    /// As [`edge_map`].
    pub fn edges(&self, warped: &Tensor) -> Result<Tensor> {
        edge_map(warped, self.edge_mode)
    }

    /// w: what the guiding net makes of f and E, as shares of their sum, `[B, kernels + 2, h, w]`; all zero where it
    /// gives nothing.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn weights(&self, intra: &Tensor, edges: &Tensor) -> Result<Tensor> {
        channel_shares(&self.guide.forward(intra, edges)?, SHARES_EPS)
    }

    /// `S(c, p) = Σ_d w_d(p) · candidate_d(c, p)`: guided dynamic filtering, Equation 2. `weights`:
    /// `[B, kernels + 2, h, w]` for S⁻ itself, the kernels' results and f.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn filter(&self, warped: &Tensor, weights: &Tensor, intra: &Tensor) -> Result<Tensor> {
        let _span = layer_span("filtering");
        let (weights, candidates) = self.kernels.merge(weights)?;
        varying_conv2d(warped, &weights, intra, &candidates)
    }

    /// Counts the layers for frames of which an eighth is `low`.
    pub fn cost(&self, low: FrameSize, tally: &mut Tally) {
        self.intra.cost(low, tally);
        self.guide.cost(low, tally);
        self.kernels.cost(low, self.classes, tally);
    }

    /// φ.
    pub fn intra_net(&self) -> &IntraNet {
        &self.intra
    }

    /// G.
    pub fn guiding_net(&self) -> &GuidingNet {
        &self.guide
    }
}

/// The candidate that stays where it is.
const STAY: Candidate = Candidate::Shift { down: 0, right: 0 };
