//! The zoo command and one short demo binary a paper.
//!
//! The binaries only call the functions here; a model is one file (or folder) in `models` and one
//! line in its list.

mod args;
mod commands;
mod exit;
mod host;
mod layer_times;
mod models;
mod output;
mod progress;
mod scene;
mod session;
mod table;
mod view_args;

use std::process::ExitCode;

use clap::Parser;

/// The command `zoo`.
pub fn zoo() -> ExitCode {
    let zoo = commands::Zoo::parse();
    exit::start_log(zoo.verbose, zoo.command.measures_layers());
    exit::code(commands::run(&zoo.command, zoo.verbose > 0))
}

/// The demo binary `gsvnet-seg`.
pub fn gsvnet_seg() -> ExitCode {
    let demo = models::gsvnet::Demo::parse();
    exit::start_log(demo.verbose, false);
    exit::code(demo.run())
}

/// The demo binary `hyperseg`.
pub fn hyperseg() -> ExitCode {
    let demo = models::hyperseg::Demo::parse();
    exit::start_log(demo.verbose, false);
    exit::code(demo.run())
}

/// The demo binary `packdet`.
pub fn packdet() -> ExitCode {
    let demo = models::packdet::Demo::parse();
    exit::start_log(demo.verbose, false);
    exit::code(demo.run())
}

/// The demo binary `patchwork-det`.
pub fn patchwork_det() -> ExitCode {
    let demo = models::patchwork::Demo::parse();
    exit::start_log(demo.verbose, false);
    exit::code(demo.run())
}
