//! Stochastic gradient descent with momentum. candle-nn's has none.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var, bail};
use serde::{Deserialize, Serialize};

/// The options of [`Sgd`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// What is left of a step's direction in the next one.
    pub momentum: f64,
    /// Whether a step looks ahead by its momentum, as Nesterov's does.
    pub nesterov: bool,
    /// This much of each value is added to its gradient.
    pub weight_decay: f64,
}

/// Stochastic gradient descent as PyTorch's `SGD` has it, each variable with a rate of its own.
///
/// With g the gradient and the decayed value: v ← momentum · v + g, which is g in the first step, and the value moves by
/// −rate · v, or −rate · (g + momentum · v) with Nesterov's momentum.
#[derive(Debug)]
pub struct Sgd {
    cfg: SgdConfig,
    variables: Vec<Variable>,
}

#[derive(Debug)]
struct Variable {
    var: Var,
    rate: f64,
    velocity: Option<Tensor>,
}

impl Sgd {
    /// Without variables.
    ///
    /// # Errors
    /// If an option is negative or not finite, or Nesterov's momentum is 0.
    pub fn new(cfg: SgdConfig) -> Result<Self> {
        let SgdConfig { momentum, nesterov, weight_decay } = cfg;
        if !is_amount(momentum) || !is_amount(weight_decay) || nesterov && momentum == 0.0 {
            bail!(
                "SGD: expected momentum and weight decay of at least 0, and a momentum for Nesterov's, got {cfg:?}"
            )
        }
        Ok(Self { cfg, variables: Vec::new() })
    }

    /// Takes variables that learn at `rate`.
    ///
    /// # Errors
    /// If the rate is negative or not finite.
    pub fn with(mut self, vars: impl IntoIterator<Item = Var>, rate: f64) -> Result<Self> {
        if !is_amount(rate) {
            bail!("SGD: expected a learning rate of at least 0, got {rate}")
        }
        self.variables.extend(vars.into_iter().map(|var| Variable { var, rate, velocity: None }));
        Ok(self)
    }

    /// The variables and their rates.
    pub fn variables(&self) -> impl Iterator<Item = (&Var, f64)> {
        self.variables.iter().map(|variable| (&variable.var, variable.rate))
    }

    /// One step, at `factor` times the rates: what [`Schedule::factor`](crate::Schedule::factor) gives. Variables without
    /// a gradient stay as they are.
    ///
    /// # Errors
    /// If candle cannot compute a value.
    pub fn step(&mut self, gradients: &GradStore, factor: f64) -> Result<()> {
        let SgdConfig { momentum, nesterov, weight_decay } = self.cfg;
        for Variable { var, rate, velocity } in &mut self.variables {
            let Some(gradient) = gradients.get(var.as_tensor()) else { continue };
            let value = var.as_detached_tensor();
            let mut direction = gradient.detach();
            if weight_decay > 0.0 {
                direction = (direction + (&value * weight_decay)?)?;
            }
            if momentum > 0.0 {
                let next = match velocity {
                    Some(last) => ((&*last * momentum)? + &direction)?,
                    None => direction.clone(),
                };
                direction = if nesterov { (direction + (&next * momentum)?)? } else { next.clone() };
                *velocity = Some(next);
            }
            var.set(&(value - (direction * (*rate * factor))?)?)?;
        }
        Ok(())
    }
}

fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
