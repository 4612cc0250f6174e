//! The `calgate` program: see `calgate --help`.

use std::process::ExitCode;

/// A request makes some fifteen allocations, most of them in hyper.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    calgate::cli::main()
}
