//! The binary `coterie`: see `coterie --help`.

fn main() -> std::process::ExitCode {
    coterie_runtime::run(std::env::args_os())
}
