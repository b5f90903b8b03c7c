//! `zoo run gsvnet-seg` under the paper's own name.

fn main() -> std::process::ExitCode {
    zoo_cli::gsvnet_seg()
}
