//! The one integration-test binary, its tests grouped by topic.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod bad_files;
mod batches;
mod builtin;
mod caches;
mod chains;
mod cli;
mod common;
mod determinism;
mod experts;
mod families;
mod faults;
mod fuzzing;
mod gguf;
mod gguf_models;
mod kernels;
mod lesser;
mod loader;
mod oracles;
mod pack;
mod pack_order;
mod plan;
mod portability;
mod published;
mod published_experts;
mod published_families;
mod quantised;
mod quantiser;
mod serving;
mod sessions;
mod starts;
mod streaming;
mod tidy;
mod tokenizers;
