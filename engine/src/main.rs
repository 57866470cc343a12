//! The `harborseal` command: parses and dispatches, nothing else.

/// Fast and steady under many threads; its blocks stay out of the packet path all the same (no allocation per packet).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    harborseal::cli::main()
}
