//! One decoder whose differences are data: from `config.json` to units and operations.
//!
//! A family (see `families`) reads its configuration with [`config::Fields`] and says what its blocks
//! consist of (`blocks`), which makes a [`Decoder`]: sizes, the units with their tensors, and for each
//! unit a list of operations on named activations. The engine runs that list; no family has a forward
//! function.

mod activation;
mod blocks;
pub mod config;
pub mod decoder;
pub mod dummy;
pub mod experts;
mod families;
pub mod kinds;
pub mod latent;
mod options;
mod parts;
mod qk_norm;
pub mod rope;
mod rope_scaling;
mod sizes;

use std::path::Path;

use serde_json::Value;

pub use decoder::{Activation, Decoder, Function, Limits, Op, QkNorm, QkNormEach, Tensor, Unit};

use families::{cohere, deepseek, falcon, gemma, gpt, gpt_oss, llama, olmo, opt, phi, sparse};

pub use kinds::Kinds;

use crate::error::{Error, Result};
use crate::quant::WeightKind;

/// Describes the model of a `config.json`, its matrices coded as `weights`.
///
/// # Errors
/// [`Error::Unsupported`] for a family or option that is not implemented, [`Error::File`] for a
/// missing or absurd value; `path` is named in both.
pub fn describe(path: &Path, config: &Value, weights: WeightKind) -> Result<Decoder> {
    let fields = config::Fields::new(path, config)?;
    let family = fields.text("model_type")?;
    let blueprint = match family.as_str() {
        "llama" => llama::llama(&fields),
        "mistral" => llama::mistral(&fields),
        "ministral" => llama::ministral(&fields),
        "qwen2" => llama::qwen2(&fields),
        "qwen3" => llama::qwen3(&fields),
        "granite" => llama::granite(&fields),
        "smollm3" => llama::smollm3(&fields),
        "gemma" => gemma::gemma(&fields),
        "gemma2" => gemma::gemma2(&fields),
        "gemma3_text" => gemma::gemma3_text(&fields),
        "gemma3" => gemma::gemma3(&fields),
        "phi" => phi::phi(&fields),
        "phi3" => phi::phi3(&fields),
        "olmo" => olmo::olmo(&fields),
        "olmo2" => olmo::olmo2(&fields),
        "cohere" => cohere::cohere(&fields),
        "cohere2" => cohere::cohere2(&fields),
        "stablelm" => cohere::stablelm(&fields),
        "falcon" => falcon::falcon(&fields),
        "gpt2" => gpt::gpt2(&fields, weights),
        "gpt_neox" => gpt::gpt_neox(&fields),
        "gpt_oss" => gpt_oss::gpt_oss(&fields),
        "deepseek_v2" => deepseek::deepseek_v2(&fields),
        "deepseek_v3" => deepseek::deepseek_v3(&fields),
        "mixtral" => sparse::mixtral(&fields),
        "qwen2_moe" => sparse::qwen2_moe(&fields),
        "qwen3_moe" => sparse::qwen3_moe(&fields),
        "olmoe" => sparse::olmoe(&fields),
        "opt" => return opt::describe(&fields, weights),
        other => Err(Error::Unsupported(format!(
            "the model family `{other}` of {}; this version runs {}",
            path.display(),
            FAMILIES.join(", ")
        ))),
    };
    Ok(blueprint?.decoder(weights))
}

/// The values of `model_type` that run.
pub const FAMILIES: [&str; 29] = [
    "cohere",
    "cohere2",
    "deepseek_v2",
    "deepseek_v3",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "granite",
    "llama",
    "ministral",
    "mistral",
    "mixtral",
    "olmo",
    "olmo2",
    "olmoe",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "stablelm",
];
