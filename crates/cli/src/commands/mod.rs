//! The subcommands of `zoo`.

pub mod bench;
mod convert;
mod demo;
pub mod eval;
mod fetch;
mod info;
mod parity;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::args::RunArgs;
use crate::exit::Outcome;
use crate::models;

/// The command line.
#[derive(Parser)]
#[command(
    name = "zoo",
    version,
    about = "Efficient vision models in Rust",
    after_help = "Results go to standard output, everything else to standard error.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some inputs failed."
)]
pub struct Zoo {
    #[command(subcommand)]
    pub command: Command,
    /// Say what is loaded from where (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What `zoo` can do.
#[derive(Subcommand)]
pub enum Command {
    /// Show a trained detector at work on real pictures; needs no network and no files
    Demo(demo::DemoArgs),
    /// Run a model on pictures and clips
    Run(Box<RunModel>),
    /// List models, or one of them with the paper's tables
    Info(info::InfoArgs),
    /// Time a model, or one operation (`zoo bench op depthwise`)
    Bench(bench::BenchArgs),
    /// Measure a model on labelled data, or on a clip against itself
    Eval(Box<eval::EvalArgs>),
    /// Make safetensors of a PyTorch checkpoint, without running what is in it
    Convert(convert::ConvertArgs),
    /// Fetch files from the Hugging Face Hub, and pin their commit and hashes
    Fetch(fetch::FetchArgs),
    /// Compare this machine's numbers with golden files (-v: every tensor, not only those that differ)
    Parity(parity::ParityArgs),
}

impl Command {
    /// Whether it wants to know the time in each layer.
    pub fn measures_layers(&self) -> bool {
        matches!(self, Self::Bench(args) if args.layers)
    }
}

/// `zoo run`.
#[derive(Args)]
pub struct RunModel {
    /// MODEL or MODEL/PRESET, as `zoo info` lists them
    model: String,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs a command.
pub fn run(command: &Command, verbose: bool) -> Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => {
            let chosen = models::find(&args.model)?;
            chosen.model.run(chosen.preset, &args.run)
        }
        Command::Info(args) => info::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Parity(args) => parity::run(args, verbose),
    }
}
