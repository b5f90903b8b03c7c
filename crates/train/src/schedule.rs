//! Learning rates over the steps of a training.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the learning rate falls once the warm-up is over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Decay {
    /// Not at all.
    Constant,
    /// (1 − t/T)^power.
    Poly {
        /// Steps of the whole training, warm-up included.
        total: usize,
        /// 1 is a straight line.
        power: f64,
    },
    /// Half a cosine, from 1 to `floor`.
    Cosine {
        /// Steps of the whole training, warm-up included.
        total: usize,
        /// Where it ends, as a share of the rate.
        floor: f64,
    },
    /// Times `factor` every so many steps.
    Step {
        /// Steps between two falls; at least 1.
        every: usize,
        /// What is left of the rate after one.
        factor: f64,
    },
    /// Times `factor` at each of two steps, which count from the beginning, warm-up included.
    Falls {
        /// The steps.
        at: [usize; 2],
        /// What is left of the rate after each.
        factor: f64,
    },
}

/// The learning rate of each step, as a share of the optimiser's own.
///
/// A step is whatever the training counts: batches, or epochs. Without a warm-up the formulas are the usual ones with
/// t = step; after one, t and T count from its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps in which the rate rises in a straight line, (step + 1) / (warmup + 1); the one after them is at 1.
    pub warmup: usize,
    /// The share during all of these steps, instead of the rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flat: Option<f64>,
    /// What comes then.
    pub decay: Decay,
}

impl Schedule {
    /// Without a warm-up.
    pub const fn new(decay: Decay) -> Self {
        Self { warmup: 0, flat: None, decay }
    }

    /// Sets [`Schedule::warmup`].
    #[must_use]
    pub const fn with_warmup(self, steps: usize) -> Self {
        Self { warmup: steps, ..self }
    }

    /// Sets [`Schedule::warmup`] to steps that are all at one share.
    #[must_use]
    pub const fn with_flat_warmup(self, steps: usize, share: f64) -> Self {
        Self { warmup: steps, flat: Some(share), ..self }
    }

    /// The share at a step, counted from 0. From the last step on it stays as it is.
    pub fn factor(&self, step: usize) -> f64 {
        let Some(after) = step.checked_sub(self.warmup) else {
            return self.flat.unwrap_or((step as f64 + 1.0) / (self.warmup as f64 + 1.0));
        };
        let done = |total: usize| match total.saturating_sub(self.warmup) {
            0 => 1.0,
            steps => (after as f64 / steps as f64).min(1.0),
        };
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Poly { total, power } => (1.0 - done(total)).powf(power),
            Decay::Cosine { total, floor } => floor + (1.0 - floor) * (1.0 + (PI * done(total)).cos()) / 2.0,
            Decay::Step { every, factor } => factor.powf((after / every.max(1)) as f64),
            Decay::Falls { at, factor } => {
                factor.powi(at.iter().filter(|&&fall| step >= fall).count() as i32)
            }
        }
    }

    /// The learning rate at a step, where `base` is the optimiser's.
    pub fn rate(&self, base: f64, step: usize) -> f64 {
        base * self.factor(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(schedule: Schedule, expected: &[(usize, f64)]) {
        for &(step, factor) in expected {
            let got = schedule.factor(step);
            assert!((got - factor).abs() < 1e-12, "{schedule:?}, step {step}: {got}, expected {factor}");
        }
    }

    #[test]
    fn polynomials_end_at_zero() {
        let poly = |power| Schedule::new(Decay::Poly { total: 100, power });
        near(poly(1.0), &[(0, 1.0), (25, 0.75), (100, 0.0), (500, 0.0)]);
        near(poly(2.0), &[(0, 1.0), (50, 0.25), (90, 0.01)]);
        near(poly(0.9), &[(50, 0.535_886_731_268_146_6), (99, 0.015_848_931_924_611_134)]);
        near(
            poly(1.0).with_warmup(20),
            &[(0, 1.0 / 21.0), (19, 20.0 / 21.0), (20, 1.0), (60, 0.5), (100, 0.0)],
        );
    }

    #[test]
    fn a_cosine_ends_at_its_floor() {
        let cosine = Schedule::new(Decay::Cosine { total: 90, floor: 0.1 });
        near(cosine, &[(0, 1.0), (30, 0.1 + 0.9 * 0.75), (45, 0.55), (90, 0.1), (91, 0.1)]);
        near(cosine.with_warmup(10), &[(4, 5.0 / 11.0), (10, 1.0), (50, 0.55), (90, 0.1)]);
    }

    #[test]
    fn steps_fall_at_once() {
        // GSVNet's: × 0.992 every 100 iterations.
        let steps = Schedule::new(Decay::Step { every: 100, factor: 0.992 });
        near(steps, &[(0, 1.0), (99, 1.0), (100, 0.992), (250, 0.992 * 0.992)]);
        near(steps.with_warmup(3), &[(2, 0.75), (3, 1.0), (102, 1.0), (103, 0.992)]);
        near(Schedule::new(Decay::Step { every: 0, factor: 0.5 }), &[(0, 1.0), (2, 0.25)]);
    }

    #[test]
    fn falls_count_from_the_beginning() {
        // maskrcnn-benchmark's: a third for 500 steps, a tenth of the rest from 60,000 and 80,000 on.
        let falls = Schedule::new(Decay::Falls { at: [60_000, 80_000], factor: 0.1 });
        let third = 1.0 / 3.0;
        near(
            falls.with_flat_warmup(500, third),
            &[
                (0, third),
                (499, third),
                (500, 1.0),
                (59_999, 1.0),
                (60_000, 0.1),
                (80_000, 0.01),
                (90_000, 0.01),
            ],
        );
        near(falls.with_warmup(1), &[(0, 0.5), (1, 1.0)]);
    }

    #[test]
    fn odd_numbers_stay_finite() {
        let constant = Schedule::new(Decay::Constant).with_warmup(1);
        near(constant, &[(0, 0.5), (1, 1.0), (usize::MAX, 1.0)]);
        for total in [0, 1, 5] {
            near(
                Schedule::new(Decay::Poly { total, power: 0.9 }).with_warmup(5),
                &[(4, 5.0 / 6.0), (5, 0.0)],
            );
        }
        assert_eq!(constant.rate(0.02, 0), 0.01);
    }

    #[test]
    fn settings_survive_json() {
        let schedule = Schedule::new(Decay::Cosine { total: 7, floor: 0.0 }).with_warmup(2);
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(text, r#"{"warmup":2,"decay":{"cosine":{"total":7,"floor":0.0}}}"#);
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
}
