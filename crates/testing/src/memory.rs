//! Whether something that is done over and over keeps memory.

use std::process::Command;

/// Says to a process of the test binary that it is the one which [`growth`] started.
const ALONE: &str = "ZOO_TESTING_ALONE";
/// Rounds before the first look, in which pools, caches and the allocator find their size.
const WARM_UP: usize = 50;

/// Runs the test `name` (its path as `--exact` takes it) in a process of its own, with one arena for the
/// allocator and two threads, and there `body`: other tests of the binary would share its memory.
///
/// # Panics
/// If the process fails; with its output.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let binary = std::env::current_exe().expect("a test has a binary");
    let output = Command::new(binary)
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .env("MALLOC_ARENA_MAX", "1")
        .env("RAYON_NUM_THREADS", "2")
        .output()
        .expect("a test can start its own binary");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name}, alone: {said}");
    assert!(said.contains("1 passed"), "{name} is not the test's path: {said}");
}

/// Bytes by which the process's resident memory grows over `rounds` of `work`, after some more to warm up;
/// `None` where the system does not say.
pub fn growth(rounds: usize, mut work: impl FnMut()) -> Option<i64> {
    (0..WARM_UP).for_each(|_| work());
    let before = resident()?;
    (0..rounds).for_each(|_| work());
    Some(resident()? - before)
}

/// Resident bytes, as Linux tells them.
fn resident() -> Option<i64> {
    const KIB: i64 = 1024;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * KIB)
}
