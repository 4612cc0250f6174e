//! The `calgate` program: see `calgate --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    calgate::cli::main()
}
