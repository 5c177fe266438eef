//! The one integration-test binary, its tests grouped by topic.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests stop at the first failure and say what they skip"
)]

mod bad_files;
mod cli;
mod common;
mod kernels;
mod oracles;
mod pack;
mod quantiser;
mod streaming;
mod tidy;
