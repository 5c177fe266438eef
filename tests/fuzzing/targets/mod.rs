//! What is done with an input: everything that the program does with such a file before weights move.
//!
//! A body may refuse its input with an error of one line. It must not panic, take long, take much memory,
//! or accept what contradicts itself.

mod config;
mod lists;
mod serving;
mod speech;
mod text;
mod weights;

use std::cell::Cell;
use std::path::Path;

use pipo_wgpu::error::Error;

use super::bundle::Bundle;
use super::meter::{self, Taken};

/// A parser of outside data.
pub struct Target {
    pub name: &'static str,
    /// Reads an input, whose files may be written into the folder.
    pub body: fn(&Bundle, &Path),
    /// Bytes that it may take, beside 256 for each of the input's.
    pub bytes_max: usize,
    /// Spellings that readers look for.
    pub words: &'static [&'static str],
}

/// Processor time that an input may take, in seconds. The longest are templates that run out of fuel.
const SECONDS_MAX: f64 = 10.0;
/// Bytes that may be taken for each byte of an input: a list of empty lists is that bad.
const BYTES_EACH: usize = 256;

const MIB: usize = 1 << 20;

pub const TARGETS: [Target; 15] = [
    Target { name: "safetensors", body: weights::folder, bytes_max: 16 * MIB, words: WEIGHT_WORDS },
    Target { name: "quantised", body: weights::folder, bytes_max: 16 * MIB, words: WEIGHT_WORDS },
    Target { name: "gguf", body: weights::gguf, bytes_max: 48 * MIB, words: GGUF_WORDS },
    Target { name: "packed", body: weights::packed, bytes_max: 48 * MIB, words: WEIGHT_WORDS },
    Target { name: "config", body: config::config, bytes_max: 64 * MIB, words: CONFIG_WORDS },
    Target { name: "generation", body: config::generation, bytes_max: MIB, words: GENERATION_WORDS },
    Target { name: "tokenizer", body: text::tokenizer, bytes_max: 48 * MIB, words: TOKENIZER_WORDS },
    // What a template may hold, and 200 bytes for each of 8 MiB that are cut into tokens.
    Target {
        name: "template",
        body: text::template,
        bytes_max: (256 + 8 * 220) * MIB,
        words: TEMPLATE_WORDS,
    },
    Target { name: "http", body: serving::body, bytes_max: 512 * MIB, words: HTTP_WORDS },
    Target { name: "grammar", body: serving::grammar, bytes_max: 256 * MIB, words: GRAMMAR_WORDS },
    Target { name: "calls", body: speech::calls, bytes_max: 16 * MIB, words: CALL_WORDS },
    Target { name: "batch", body: lists::batch, bytes_max: 8 * MIB, words: HTTP_WORDS },
    Target { name: "bench", body: lists::bench, bytes_max: 8 * MIB, words: BENCH_WORDS },
    Target { name: "hub", body: lists::hub, bytes_max: 8 * MIB, words: HUB_WORDS },
    Target { name: "sizes", body: lists::sizes, bytes_max: 8 * MIB, words: SIZE_WORDS },
];

/// The target of a name.
pub fn by_name(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

impl Target {
    /// Reads an input and holds it to what every input has to keep.
    ///
    /// # Panics
    /// Where it does not.
    pub fn run(&self, bundle: &Bundle, folder: &Path) -> Taken {
        let taken = meter::measure(|| (self.body)(bundle, folder));
        let most = self.bytes_max + BYTES_EACH * bundle.size();
        assert!(taken.bytes <= most, "{}: {} bytes were taken, {most} may be", self.name, taken.bytes);
        assert!(taken.seconds <= SECONDS_MAX, "{}: it took {} s", self.name, taken.seconds);
        taken
    }
}

thread_local! {
    /// Refusals so far.
    static REFUSALS: Cell<usize> = const { Cell::new(0) };
}

/// How often this thread's readers have refused something.
pub fn refusals() -> usize {
    REFUSALS.get()
}

/// Of a reader whose input this is.
fn refused(error: &Error) {
    REFUSALS.set(REFUSALS.get() + 1);
    told(error);
}

/// A refusal says something, and not too much.
fn told(error: &Error) {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "says nothing");
    // What a user typed may be quoted whole.
    assert!(text.len() < 1 << 18, "a refusal of {} bytes", text.len());
}

const WEIGHT_WORDS: &[&str] = &[
    "model.safetensors",
    "weight_map",
    "data_offsets",
    "shape",
    "dtype",
    "__metadata__",
    "I32",
    "F8_E4M3",
    ".weight_g_idx",
    ".g_idx",
    "gptq",
    "awq",
    "fp8",
    "mxfp4",
    "compressed-tensors",
    "checkpoint_format",
    "gptq_v2",
    "desc_act",
    "weight_block_size",
    "../model.safetensors",
    "num_nextn_predict_layers",
    "unit.",
    "file.",
    "w4zero",
    "fp4",
    "weights.json",
    "config.json",
];
const GGUF_WORDS: &[&str] = &[
    "general.architecture",
    "general.alignment",
    "split.count",
    "llama",
    "gpt2",
    "qwen2",
    "gemma3",
    "deepseek2",
    "gpt-oss",
    "falcon",
    "attention.key_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "yarn",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.chat_template",
    "tokenizer.ggml.bos_token_id",
    "<0x0A>",
    "rope_freqs.weight",
];
const CONFIG_WORDS: &[&str] = &[
    "head_dim",
    "num_key_value_heads",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "rope_scaling",
    "rope_parameters",
    "rope_type",
    "llama3",
    "yarn",
    "longrope",
    "dynamic",
    "linear",
    "short_factor",
    "long_factor",
    "original_max_position_embeddings",
    "sliding_window",
    "layer_types",
    "sliding_attention",
    "full_attention",
    "partial_rotary_factor",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_group",
    "topk_group",
    "n_routed_experts",
    "n_shared_experts",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "first_k_dense_replace",
    "decoder_sparse_step",
    "mlp_only_layers",
    "tie_word_embeddings",
    "word_embed_proj_dim",
    "text_config",
    "mixtral",
    "qwen3_moe",
    "deepseek_v3",
    "gpt_oss",
    "gemma3",
    "phi3",
    "falcon",
    "opt",
    "gpt2",
];
const GENERATION_WORDS: &[&str] = &[
    "eos_token_id",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "text_config",
];
const TOKENIZER_WORDS: &[&str] = &[
    "BPE",
    "WordPiece",
    "WordLevel",
    "Unigram",
    "byte_fallback",
    "merges",
    "vocab",
    "added_tokens",
    "Sequence",
    "Split",
    "Regex",
    "(?=a)*",
    "(a+)+$",
    "\\p{L}+",
    "ByteLevel",
    "Metaspace",
    "TemplateProcessing",
    "Replace",
    "Prepend",
    "NFKD",
    "CTC",
    "Precompiled",
    "ByteFallback",
    "Fuse",
    "Strip",
    "unk_token",
    "ignore_merges",
    "single_word",
    "normalized",
    "special",
    "Llama",
    "add_bos_token",
    "bos_token",
    "<|end|>",
    "▁",
    "Ġ",
];
const TEMPLATE_WORDS: &[&str] = &[
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ ",
    " }}",
    "{%- if ",
    "{% endif %}",
    "{% set x = ",
    " %}",
    "namespace(",
    "range(",
    "loop.index0",
    "tojson",
    " | ",
    "join",
    "replace(",
    "center(",
    "indent(",
    "list",
    "batch(",
    "slice(",
    " ~ ",
    " * ",
    " ** ",
    "[::-1]",
    "[-1:]",
    ".split(",
    "macro f(",
    "endmacro",
    "raise_exception(",
    "strftime_now(",
    "%Y",
    "tools",
    "documents",
    "add_generation_prompt",
    "content",
    "role",
    "tool_calls",
    "{% generation %}",
    "{% raw %}",
    "dict(",
    "lipsum(",
    "cycler(",
    "format(",
    "%1000000d",
    "9999999999",
    "wordwrap(",
    "sort",
    "groupby(",
    "recursive",
];
const HTTP_WORDS: &[&str] = &[
    "messages",
    "role",
    "content",
    "tools",
    "tool_choice",
    "required",
    "function",
    "parameters",
    "response_format",
    "json_schema",
    "schema",
    "guided_regex",
    "guided_json",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "logit_bias",
    "stop",
    "n",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "prompt",
    "echo",
    "seed",
    "temperature",
    "chat_template_kwargs",
    "continue_final_message",
    "reasoning_effort",
    "documents",
    "tool_calls",
    "arguments",
    "custom_id",
    "url",
    "/v1/completions",
    "/v1/chat/completions",
    "body",
    "method",
    "POST",
];
const GRAMMAR_WORDS: &[&str] = &[
    "type",
    "object",
    "array",
    "string",
    "integer",
    "number",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "date-time",
    "enum",
    "const",
    "anyOf",
    "allOf",
    "oneOf",
    "$ref",
    "#/$defs/a",
    "#",
    "$defs",
    "minimum",
    "maximum",
    "multipleOf",
    "(a|b)*",
    "a{1,1000000}",
    "[\\w]+",
    "(?i)",
    "start: ",
    "%json {",
    "%regex {",
    "%ignore /x/",
    "x-guidance",
    "<[0-9]>",
    "/[a-z]+/",
];
const CALL_WORDS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
    "{\"name\": \"f\", \"arguments\": {}}",
    "{\"name\": \"f\", \"parameters\": {}}",
    "<think>",
    "</think>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|start|>",
    "<|call|>",
    "analysis",
    "commentary to=functions.f",
    "final",
    "\\u00e9",
    "é",
    "\n",
];
const BENCH_WORDS: &[&str] = &[
    "model",
    "batch",
    "test",
    "tokens_per_second",
    "tokens_per_second_sd",
    "repetitions",
    "vram_budget_bytes",
    "n_depth",
    " @ ",
    "1e308",
    "messages",
    "role",
    "content",
];
const HUB_WORDS: &[&str] = &[
    "sha",
    "siblings",
    "rfilename",
    "lfs",
    "sha256",
    "size",
    "blobId",
    "../x",
    "model.safetensors.index.json",
    "config.json",
    "-00001-of-00002.gguf",
    "q4_k_m",
    ".gguf",
    ".safetensors",
    "tokenizer.model",
];
const SIZE_WORDS: &[&str] =
    &["GiB", "MB", "k", ".", "e9", "/s", "GB/s", "٣", "org/name", ":Q4_K_M", "--vram", "99999999999", "-"];
