//! The machine that a measurement was made on.

use std::fs;
use std::thread::available_parallelism;

use serde::Serialize;

/// What has to stand beside a time for it to mean anything.
#[derive(Debug, Serialize)]
pub struct Host {
    /// The processor's name, or `unknown`.
    pub cpu: String,
    /// Logical cores of the machine.
    pub cores: usize,
    /// Threads that were used.
    pub threads: usize,
    /// What the sources were at, or `unknown`.
    pub commit: &'static str,
}

impl Host {
    /// This machine.
    pub fn current() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            commit: env!("ZOO_COMMIT"),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, threads, commit } = self;
        write!(f, "CPU {cpu}, {threads} of {cores} threads, commit {commit}")
    }
}

/// The most memory that this process ever held, in MiB, where the system says so.
pub fn peak_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Lets [`peak_memory`] begin anew from what the process holds now; whether the system does that.
pub fn restart_peak_memory() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}
