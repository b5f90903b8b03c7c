//! What Winograd's filtering changes in the logits of nets with seeded weights: the table of `docs/performance.md`.
//!
//! ```text
//! cargo run --release -p zoo-layers --example winograd_rounding
//! ```
#![allow(clippy::print_stdout, reason = "the table")]

use candle_core::{D, DType, Device, Result, Tensor};
use zoo_kernels::without_winograd;
use zoo_layers::{Architecture, Classifier, ResNetConfig};
use zoo_parity::seeded;

const CLASSES: usize = 1000;

fn main() -> Result<()> {
    println!("| net | input | largest difference of a logit, over the largest logit | five best classes |");
    println!("|---|---|---|---|");
    for (name, cfg) in [("ResNet-18", ResNetConfig::resnet18()), ("ResNet-50", ResNetConfig::resnet50())] {
        for side in [224, 384] {
            let shape = [1, 3, side, side];
            let xs =
                seeded::input("xs", &shape).and_then(|xs| Ok(Tensor::from_vec(xs, &shape, &Device::Cpu)?));
            let xs = xs.map_err(candle_core::Error::wrap)?;
            let logits = || {
                let vb = seeded::var_builder(None, DType::F32, &Device::Cpu);
                let mut net = Classifier::new(Architecture::ResNet(cfg), CLASSES, vb)?;
                net.prepare()?;
                net.forward(&xs)
            };
            let (with, without) = (logits()?, without_winograd(logits)?);
            let best = |logits: &Tensor| {
                logits.arg_sort_last_dim(false)?.narrow(D::Minus1, 0, 5)?.flatten_all()?.to_vec1::<u32>()
            };
            let same = if best(&with)? == best(&without)? { "the same" } else { "not the same" };
            let largest = |xs: Tensor| xs.abs()?.max_all()?.to_scalar::<f32>();
            let difference = largest((&with - &without)?)? / largest(without)?;
            println!("| {name}, seeded weights | seeded, {side}×{side} | {difference:.1e} | {same} |");
        }
    }
    Ok(())
}
