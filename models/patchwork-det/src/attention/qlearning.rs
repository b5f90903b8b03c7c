//! Q-learning of the attention network, everything else frozen.
//!
//! The paper's abstract and introduction say that the windows are chosen by Q-learning, with rewards
//! made for detection and for segmentation; they and the supplement give no formula and no number.
//! What follows is Q-learning with a target network and a replay memory, as in Mnih et al.,
//! "Human-level control through deep reinforcement learning", Nature 2015, with numbers of our choice.
//!
//! The state is the restored map after a step, the action the window of the next frame, the reward
//! how much the step improved the frame's task loss over holding the old predictions. An update draws
//! [`BATCH`] transitions, forms their targets with [`td_target`], and takes a step of Adam at
//! [`LEARNING_RATE`] on [`q_loss`]; every [`TARGET_PERIOD`] updates the target network becomes a copy
//! of the one that learns. The crate has no training loop, but `tests/it/qlearning.rs` plays one
//! through on a small game.

use candle_core::{D, DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::loss::huber;
use crate::policy::SplitMix;

/// γ: what a reward is worth a frame later. Our choice: windows come round within some ten frames.
pub const DISCOUNT: f64 = 0.9;
/// Updates between two copies of the network into its target. Our choice.
pub const TARGET_PERIOD: usize = 1000;
/// Transitions that the replay memory holds. Our choice: 0.6 GB of f32 maps of 384×384
/// frames, where consecutive transitions share theirs.
pub const REPLAY_CAPACITY: usize = 4096;
/// Transitions of one update. Our choice.
pub const BATCH: usize = 32;
/// Adam's step size. Our choice.
pub const LEARNING_RATE: f64 = 1e-4;

/// r = ℓ(hold) − ℓ(step), clipped to −1..1: the frame's task loss with the predictions from before
/// the step, minus the loss after it. For detection ℓ is [`crate::loss::ssd_loss`]; for segmentation
/// 1 − J of the mask, or its mean cross-entropy. Our choice.
pub fn reward(hold: f64, step: f64) -> f64 {
    (hold - step).clamp(-1.0, 1.0)
}

/// One experience.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The restored map after step t, `[C, H/32, W/32]`.
    pub state: Tensor,
    /// The window of frame t + 1.
    pub action: usize,
    /// Its reward.
    pub reward: f64,
    /// The restored map after step t + 1.
    pub next_state: Tensor,
    /// Whether the clip ended there.
    pub done: bool,
}

/// A ring of the latest experiences.
#[derive(Debug, Clone)]
pub struct Replay {
    capacity: usize,
    at: usize,
    kept: Vec<Transition>,
    rng: SplitMix,
}

/// A batch of transitions as tensors.
#[derive(Debug, Clone)]
pub struct ReplayBatch {
    /// `[B, C, h, w]`.
    pub states: Tensor,
    /// `[B]`, u32.
    pub actions: Tensor,
    /// `[B]`.
    pub rewards: Tensor,
    /// `[B, C, h, w]`.
    pub next_states: Tensor,
    /// `[B]`, 1 where the clip ended.
    pub done: Tensor,
}

impl Replay {
    /// Holds up to `capacity` transitions and samples by `seed`.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self { capacity: capacity.max(1), at: 0, kept: Vec::new(), rng: SplitMix::new(seed) }
    }

    /// Adds a transition, in place of the oldest one when full.
    pub fn push(&mut self, transition: Transition) {
        match self.kept.get_mut(self.at) {
            Some(oldest) => *oldest = transition,
            None => self.kept.push(transition),
        }
        self.at = (self.at + 1) % self.capacity;
    }

    /// Transitions held.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// `n` transitions drawn uniformly, with repetition.
    ///
    /// # Errors
    /// If none is held, or their maps differ in shape.
    pub fn sample(&mut self, n: usize) -> Result<ReplayBatch> {
        let Self { kept, rng, .. } = self;
        let drawn: Vec<&Transition> = (0..n).filter_map(|_| kept.get(rng.below(kept.len()))).collect();
        let Some(first) = drawn.first() else { bail!("replay: no transition to sample from") };
        let (device, dtype) = (first.state.device(), first.state.dtype());
        let column = |value: fn(&Transition) -> f64| {
            Tensor::from_vec(drawn.iter().map(|&t| value(t)).collect::<Vec<_>>(), n, device)?.to_dtype(dtype)
        };
        let actions = drawn.iter().map(|t| t.action as u32).collect::<Vec<_>>();
        Ok(ReplayBatch {
            states: Tensor::stack(&drawn.iter().map(|t| &t.state).collect::<Vec<_>>(), 0)?,
            actions: Tensor::from_vec(actions, n, device)?,
            rewards: column(|t| t.reward)?,
            next_states: Tensor::stack(&drawn.iter().map(|t| &t.next_state).collect::<Vec<_>>(), 0)?,
            done: column(|t| f64::from(u8::from(t.done)))?,
        })
    }
}

/// y = r + γ · max Q_target(s′), r alone where the clip ended. `next_q`: `[B, |A|]` of the target
/// network; no gradient passes.
///
/// # Errors
/// If sizes do not agree.
pub fn td_target(rewards: &Tensor, next_q: &Tensor, done: &Tensor, discount: f64) -> Result<Tensor> {
    let best = next_q.detach().max(D::Minus1)?;
    let goes_on = done.affine(-1.0, 1.0)?;
    Ok((rewards + (best * goes_on)?.affine(discount, 0.0)?)?.detach())
}

/// Mean Huber loss (δ = 1) between Q(s, a) and the targets. `q`: `[B, |A|]`, `actions`: `[B]` of u32.
///
/// # Errors
/// If sizes do not agree or an action does not exist.
pub fn q_loss(q: &Tensor, actions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let chosen = q.gather(&actions.to_dtype(DType::U32)?.unsqueeze(1)?, 1)?.squeeze(1)?;
    huber(&(chosen - targets)?)?.mean_all()
}

/// ε of ε-greedy exploration: from `start` to `end` in a straight line over the first half of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpsilonSchedule {
    /// At step 0.
    pub start: f64,
    /// From half of `steps` on.
    pub end: f64,
    /// Length of training.
    pub steps: usize,
}

impl EpsilonSchedule {
    /// 1 to 0.1: our choice.
    pub fn new(steps: usize) -> Self {
        Self { start: 1.0, end: 0.1, steps }
    }

    /// ε at a step.
    pub fn at(&self, step: usize) -> f64 {
        let half = (self.steps as f64 / 2.0).max(f64::MIN_POSITIVE);
        let passed = (step as f64 / half).min(1.0);
        self.start + (self.end - self.start) * passed
    }
}

/// ε-greedy choice: uniform with probability ε, otherwise the largest Q-value.
#[derive(Debug, Clone)]
pub struct EpsilonGreedy(SplitMix);

impl EpsilonGreedy {
    /// Reproducible by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix::new(seed))
    }

    /// An action among those that `q` has values for.
    pub fn choose(&mut self, q: &[f32], epsilon: f64) -> usize {
        if self.0.unit() < epsilon { self.0.below(q.len()) } else { crate::policy::argmax(q) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn transition(value: f64, done: bool) -> Transition {
        let map = |v: f64| Tensor::full(v as f32, (2, 1, 1), &Device::Cpu).unwrap();
        Transition {
            state: map(value),
            action: value as usize,
            reward: value,
            next_state: map(value + 0.5),
            done,
        }
    }

    #[test]
    fn rewards_are_clipped() {
        assert_eq!([reward(0.7, 0.2), reward(9.0, 1.0), reward(0.0, 5.0)], [0.7 - 0.2, 1.0, -1.0]);
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_samples_reproducibly() {
        let mut replay = Replay::new(3, 1);
        assert!(replay.sample(2).unwrap_err().to_string().contains("no transition"));
        for i in 0..5 {
            replay.push(transition(f64::from(i), i == 4));
        }
        assert_eq!(replay.len(), 3);
        let mut copy = replay.clone();
        let batch = replay.sample(200).unwrap();
        let rewards = batch.rewards.to_vec1::<f32>().unwrap();
        for value in [2.0, 3.0, 4.0] {
            let times = rewards.iter().filter(|&&r| r == value).count();
            assert!((40..100).contains(&times), "{value}: {times} of 200");
        }
        assert_eq!(copy.sample(200).unwrap().rewards.to_vec1::<f32>().unwrap(), rewards);
        for (i, reward) in rewards.iter().enumerate() {
            assert_eq!(batch.actions.to_vec1::<u32>().unwrap()[i], *reward as u32);
            assert_eq!(batch.done.to_vec1::<f32>().unwrap()[i], f32::from(u8::from(*reward == 4.0)));
        }
        assert_eq!(batch.states.dims(), [200, 2, 1, 1]);
        assert_eq!(
            batch.next_states.get(0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0],
            rewards[0] + 0.5
        );
    }

    #[test]
    fn targets_and_loss_by_hand() {
        let device = Device::Cpu;
        let tensor = |v: &[f64]| Tensor::from_slice(v, v.len(), &device).unwrap();
        let next_q = Tensor::new(&[[1.0f64, 3.0], [5.0, 2.0]], &device).unwrap();
        let targets = td_target(&tensor(&[0.5, -1.0]), &next_q, &tensor(&[0.0, 1.0]), 0.9).unwrap();
        let values = targets.to_vec1::<f64>().unwrap();
        assert!((values[0] - 3.2).abs() < 1e-12 && values[1] == -1.0, "{values:?}");

        let q = Var::new(&[[3.0f64, 9.0], [7.0, -1.5]], &device).unwrap();
        let actions = Tensor::new(&[0u32, 1], &device).unwrap();
        let loss = q_loss(&q, &actions, &targets).unwrap();
        // Differences −0.2 and −0.5: half their squares, averaged.
        assert!((loss.to_scalar::<f64>().unwrap() - (0.02 + 0.125) / 2.0).abs() < 1e-12);
        let grad = loss.backward().unwrap().get(&q).unwrap().to_vec2::<f64>().unwrap();
        assert!((grad[0][0] + 0.1).abs() < 1e-12 && (grad[1][1] + 0.25).abs() < 1e-12, "{grad:?}");
        assert_eq!((grad[0][1], grad[1][0]), (0.0, 0.0));
    }

    #[test]
    fn epsilon_falls_over_the_first_half() {
        let schedule = EpsilonSchedule::new(1000);
        for (step, expected) in [(0, 1.0), (250, 0.55), (500, 0.1), (900, 0.1)] {
            assert!((schedule.at(step) - expected).abs() < 1e-12, "step {step}");
        }
        assert!((EpsilonSchedule::new(0).at(1) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn exploration_follows_epsilon() {
        let mut greedy = EpsilonGreedy::new(3);
        let q = [0.0, 2.0, 1.0];
        assert!((0..50).all(|_| greedy.choose(&q, 0.0) == 1));
        let explored = (0..300).filter(|_| greedy.choose(&q, 1.0) != 1).count();
        assert!((150..250).contains(&explored), "two thirds of 300, got {explored}");
    }
}
