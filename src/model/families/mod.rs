//! The families, each a reading of its own `config.json`.

pub(super) mod cohere;
pub(super) mod deepseek;
pub(super) mod falcon;
pub(super) mod gemma;
pub(super) mod gpt;
pub(super) mod gpt_oss;
pub(super) mod llama;
pub(super) mod olmo;
pub(super) mod opt;
pub(super) mod phi;
pub(super) mod sparse;
