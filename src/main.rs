//! Command-line entry point: turns the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipo_wgpu::cli::main()
}
