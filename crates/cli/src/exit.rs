//! How a command ends: exit codes, error messages, the log.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr};
use std::process::ExitCode;

use anyhow::Error;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::layer_times::{LayerTimes, is_layer};

/// What a command came to, if it did not break off with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Success,
    /// Nothing was done, or a check failed.
    Failed,
    /// Some inputs failed, others were done.
    Partly,
}

/// A command line that asks for what cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Usage {
    /// As an error to return at once.
    pub fn error(message: impl Display) -> Error {
        Self(message.to_string()).into()
    }
}

/// Prints an error with its causes and gives the exit code: 0 done, 1 failed, 2 usage, 3 some
/// inputs failed.
pub fn code(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Partly) => ExitCode::from(3),
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {}", with_causes(&error)));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// The message, and each cause that it does not quote already.
pub fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
    }
    text
}

/// A line for the person at the terminal; results go to standard output instead.
pub fn note(text: impl Display) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(stderr(), "{text}");
}

/// Log lines on standard error: warnings, with `-v` what is loaded from where, with `-vv` everything.
/// `RUST_LOG` overrides. With `layers`, the time in each layer of a net is measured, too.
pub fn start_log(verbose: u8, layers: bool) {
    let level = match verbose {
        0 => "warn",
        1 => "warn,zoo=info,zoo_hub=info,zoo_cli=info,zoo_vision=info,hyperseg=info,patchwork_det=info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).without_time().with_target(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(layers.then(|| LayerTimes.with_filter(filter_fn(is_layer))))
        .init();
}
