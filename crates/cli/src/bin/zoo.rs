//! `zoo demo | run | info | bench | eval | convert | fetch | parity`.

fn main() -> std::process::ExitCode {
    zoo_cli::zoo()
}
