//! Command-line entry point: turns the result into an exit code.
fn main() {}
