//! A progress bar on standard error, where that is a terminal; elsewhere nothing.

use indicatif::{ProgressBar, ProgressStyle};

/// Counts frames.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` steps, or a counter where their number is not known.
    pub fn new(total: Option<usize>, what: &str) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total as u64),
            None => ProgressBar::no_length(),
        };
        let template = match total {
            Some(_) => "{msg} {bar:30} {pos}/{len} {eta}",
            None => "{msg} {spinner} {pos}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(bar.with_style(style).with_message(what.to_owned()))
    }

    /// One more is done.
    pub fn step(&self) {
        self.0.inc(1);
    }

    /// Writes to the terminal without the bar in between.
    pub fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
