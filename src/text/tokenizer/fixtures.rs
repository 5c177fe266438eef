//! Tiny tokenizers, made as JSON so that they pass through the same door as real ones.

use super::{Tokenizer, Value};
use serde_json::json;

pub(crate) const BOS: u32 = 1;
pub(crate) const EOS: u32 = 2;

fn control_tokens() -> Value {
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!([token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")])
}

fn template() -> Value {
    json!({"type": "TemplateProcessing",
           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})
}

fn vocabulary(pieces: &[String]) -> Value {
    let control = ["<unk>", "<s>", "</s>"].map(String::from);
    control.iter().chain(pieces).enumerate().map(|(id, piece)| (piece.clone(), json!(id))).collect()
}

/// SentencePiece as Llama 2 has it: `▁` for spaces, byte fallback, leading space stripped.
pub(crate) fn sentence_piece_json() -> Value {
    let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>"));
    let letters = ["▁", "a", "b", "c", "▁a", "▁ab", "ab", "é", "<", "s", ">", "/"].map(String::from);
    let pieces: Vec<String> = bytes.chain(letters).collect();
    let truncation = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json!({"version": "1.0", "truncation": truncation,
           "padding": null, "added_tokens": control_tokens(),
           "normalizer": {"type": "Sequence", "normalizers": [
               {"type": "Prepend", "prepend": "▁"},
               {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
           "pre_tokenizer": null, "post_processor": template(),
           "decoder": {"type": "Sequence", "decoders": [
               {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
               {"type": "ByteFallback"}, {"type": "Fuse"},
               {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
           "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
               "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
               "vocab": vocabulary(&pieces), "merges": ["▁ a", "a b", "▁ ab"]}})
}

/// Byte-level BPE as GPT-2 and Llama 3 have it, without merges: one id a byte.
pub(crate) fn byte_level_json() -> Value {
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let pieces: Vec<String> = alphabet.into_iter().map(String::from).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": control_tokens(),
           "normalizer": null, "pre_tokenizer": byte_level, "post_processor": template(), "decoder": byte_level,
           "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
               "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
               "vocab": vocabulary(&pieces), "merges": []}})
}

pub(crate) fn load(json: &Value) -> Tokenizer {
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}
