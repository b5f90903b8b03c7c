//! `zoo run patchwork-det` under the paper's own name.

fn main() -> std::process::ExitCode {
    zoo_cli::patchwork_det()
}
