//! The `bailiwick` command.

use std::process::ExitCode;

// A gateway allocates and frees small pieces on every core at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bailiwick::cli::run(std::env::args_os())
}
