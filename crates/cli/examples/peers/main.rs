//! Our side of the comparison in `scripts/peers`: builds nets and times them, asked line by line.
//!
//! | line on stdin | answer on stdout |
//! |---|---|
//! | `ready` | `ok` |
//! | `load CASE` | `ok`, the net being built and prepared, or `missing` where it is none of ours |
//! | `run N` | N times in milliseconds, separated by spaces |
//! | `save PATH` | `ok`, what is compared of the results being written there: f32, little endian, row-major |
//! | `peak` | the processor's FMA peak on as many threads, in GFLOP/s |
//!
//! Cases are those of [`nets::build`]. `RAYON_NUM_THREADS` sets the threads.
//!
//! ```text
//! cargo run --release -p zoo-cli --example peers <<< $'load mobilenet_v2:1x3x224x224\nrun 20'
//! ```
#![allow(clippy::print_stdout, reason = "the answers")]

mod nets;

use std::io::BufRead;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nets::Net;

fn main() -> Result<()> {
    zoo_kernels::keep_freed_memory();
    let mut net = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        println!("{}", answer(&mut net, &line).with_context(|| format!("answering '{line}'"))?);
    }
    Ok(())
}

fn answer(net: &mut Option<Net>, line: &str) -> Result<String> {
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
    let loaded = || net.as_ref().context("no net is loaded");
    match command {
        "ready" => Ok("ok".to_owned()),
        "load" => {
            *net = nets::build(argument)?;
            zoo_kernels::release_freed_memory();
            Ok(if net.is_some() { "ok" } else { "missing" }.to_owned())
        }
        "run" => {
            let runs: usize = argument.parse().context("expected a number of runs")?;
            let net = loaded()?;
            let times: Vec<String> =
                zoo_kernels::on_pool(|| (0..runs).map(|_| timed(net)).collect::<Result<_>>())?;
            Ok(times.join(" "))
        }
        "save" => {
            let net = loaded()?;
            let mut bytes = vec![];
            for ys in zoo_kernels::on_pool(&net.run)? {
                let values = (net.compared)(&ys)?.flatten_all()?.to_vec1::<f32>()?;
                bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
            }
            std::fs::write(argument, bytes).with_context(|| format!("writing {argument}"))?;
            Ok("ok".to_owned())
        }
        "peak" => Ok(format!("{:.1}", zoo_kernels::fma_peak(rayon::current_num_threads())?)),
        _ => bail!("expected ready, load, run, save or peak"),
    }
}

/// Milliseconds of one run.
fn timed(net: &Net) -> Result<String> {
    let start = Instant::now();
    std::hint::black_box((net.run)()?);
    Ok(format!("{:.4}", start.elapsed().as_secs_f64() * 1e3))
}
