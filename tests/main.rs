//! The one integration-test binary, its tests grouped by topic.

mod bad_files;
mod common;
mod kernels;
mod oracles;
mod pack;
mod quantiser;
mod streaming;
