//! The `calgate` program: see `calgate --help`.

use std::process::ExitCode;

/// The system's allocator costs a request more time (see `Cargo.toml`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    calgate::cli::main()
}
