//! Runs language models larger than the GPU's memory, on any vendor's GPU, through wgpu.

pub mod checkpoint;
pub mod cli;
pub mod engine;
pub mod error;
pub mod gpu;
pub mod kernels;
pub mod model;
pub mod os;
pub mod pack;
pub mod pipeline;
pub mod plan;
pub mod quant;
pub mod sampler;
pub mod session;
pub mod size;
pub mod text;
pub mod trace;
