//! The `windlass` binary: hand the arguments to the library, and its exit code to the system.

use std::process::ExitCode;

/// musl's own allocator serves one thread at a time; with lanes, health and compiler at once that shows.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    windlass::cli::main()
}
