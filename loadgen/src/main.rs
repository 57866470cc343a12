//! The `harborseal-loadgen` command: parses and dispatches, nothing else.

fn main() -> std::process::ExitCode {
    harborseal_loadgen::cli::main()
}
