//! The pieces of Q-learning together: an attention network learns where to look.

use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use patchwork_det::qlearning::{
    BATCH, DISCOUNT, EpsilonGreedy, EpsilonSchedule, LEARNING_RATE, REPLAY_CAPACITY, Replay, TARGET_PERIOD,
    Transition, q_loss, reward, td_target,
};
use patchwork_det::{Attention, FrameSize, Grid};
use zoo_layers::MobileNetV2Config;

const FRAME: FrameSize = FrameSize::new(64, 64);
const CHANNELS: usize = 8;
const UPDATES: usize = 400;
/// The game is smaller than video by about this much: faster learning, a fresher target.
const HASTE: usize = 20;

/// The restored map of a frame whose only object lies in `cell`, `[CHANNELS, 2, 2]`.
fn map(cell: usize) -> Tensor {
    let values = (0..CHANNELS * 4).map(|i| if i % 4 == cell { 1.0f32 } else { 0.0 }).collect();
    Tensor::from_vec(values, (CHANNELS, 2, 2), &Device::Cpu).unwrap()
}

fn attention(weights: &VarMap) -> Attention {
    let vb = VarBuilder::from_varmap(weights, DType::F32, &Device::Cpu);
    let grid = Grid::new(2, 1).unwrap();
    Attention::new(&MobileNetV2Config::default(), CHANNELS, FRAME, grid, vb).unwrap()
}

/// Copies the learning network's weights into the target network's.
fn copy(from: &VarMap, to: &VarMap) {
    for (name, var) in to.data().lock().unwrap().iter() {
        var.set(&from.data().lock().unwrap()[name].as_tensor().copy().unwrap()).unwrap();
    }
}

#[test]
fn an_attention_network_learns_to_look_at_the_object() {
    let (weights, target_weights) = (VarMap::new(), VarMap::new());
    let (online, target) = (attention(&weights), attention(&target_weights));
    // The names' own values, so that every run starts from the same network; norms stay as they are.
    let mut learning = Vec::new();
    for (name, var) in weights.data().lock().unwrap().iter() {
        let values = zoo_parity::seeded::value(name, var.dims()).unwrap();
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
        if !name.contains("running_") {
            learning.push(var.clone());
        }
    }
    let params =
        ParamsAdamW { lr: LEARNING_RATE * HASTE as f64, weight_decay: 0.0, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(learning, params).unwrap();
    let mut replay = Replay::new(REPLAY_CAPACITY, 1);
    let mut explorer = EpsilonGreedy::new(2);
    let epsilon = EpsilonSchedule::new(UPDATES);
    let q_values = |net: &Attention, cell: usize| {
        let q = net.forward(&map(cell).unsqueeze(0).unwrap()).unwrap();
        q.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };

    let mut cell = 0;
    for update in 0..UPDATES {
        // The object is found, or not; then it jumps two cells on, or one at the end of each clip of 8.
        let action = explorer.choose(&q_values(&online, cell), epsilon.at(update));
        let done = update % 8 == 7;
        let next = (cell + if done { 1 } else { 2 }) % 4;
        replay.push(Transition {
            state: map(cell),
            action,
            reward: reward(1.0, if action == cell { 0.0 } else { 1.0 }),
            next_state: map(next),
            done,
        });
        cell = next;

        if update.is_multiple_of(TARGET_PERIOD / HASTE) {
            copy(&weights, &target_weights);
        }
        let batch = replay.sample(BATCH).unwrap();
        let next_q = target.forward(&batch.next_states).unwrap();
        let targets = td_target(&batch.rewards, &next_q, &batch.done, DISCOUNT).unwrap();
        let q = online.forward(&batch.states).unwrap();
        optimiser.backward_step(&q_loss(&q, &batch.actions, &targets).unwrap()).unwrap();
    }
    for cell in 0..4 {
        let values = q_values(&online, cell);
        let best = (0..4).max_by(|&a, &b| values[a].total_cmp(&values[b]));
        assert_eq!(best, Some(cell), "Q-values {values:?} of an object in cell {cell}");
    }
}
