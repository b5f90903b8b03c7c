//! `zoo run packdet` under the paper's own name.

fn main() -> std::process::ExitCode {
    zoo_cli::packdet()
}
