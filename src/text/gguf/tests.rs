//! Small vocabularies of both kinds; the large ones of real models are in the integration tests.

use serde_json::json;

use super::*;
use crate::text::{TextFiles, Tokenizer};

/// A `llama` vocabulary: specials, bytes, letters and a few merged pieces.
struct Piece;

impl Piece {
    fn tokens() -> (Vec<String>, Vec<f64>, Vec<i64>) {
        let mut all: Vec<(String, f64, i64)> =
            vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
        all.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
        let pieces = ["▁", "a", "b", "c", "<", "/", "s", ">", "</", "s>", "▁a", "ab", "▁ab", "abc"];
        all.extend(pieces.iter().enumerate().map(|(at, piece)| ((*piece).to_owned(), -(at as f64), 1)));
        all.push(("<tool>".into(), 0.0, 4));
        let tokens = all.iter().map(|(token, ..)| token.clone()).collect();
        (
            tokens,
            all.iter().map(|(_, score, _)| *score).collect(),
            all.iter().map(|(.., kind)| *kind).collect(),
        )
    }
}

fn tokenizer(vocabulary: &Vocabulary<'_>) -> Tokenizer {
    read(vocabulary).tokenizer.unwrap()
}

fn read(vocabulary: &Vocabulary<'_>) -> TextFiles {
    let files = vocabulary.files().unwrap();
    let find = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes);
    TextFiles::read(&Value::Null, &[], find).unwrap()
}

#[test]
fn sentence_piece_merges_by_score_and_falls_back_to_bytes() {
    let (tokens, scores, types) = Piece::tokens();
    let vocabulary = Vocabulary {
        model: "llama",
        tokens: &tokens,
        scores: &scores,
        types: &types,
        ..Vocabulary::default()
    };
    let found = tokenizer(&vocabulary);
    let id = |token: &str| tokens.iter().position(|found| found == token).unwrap() as u32;
    let spaceless =
        tokenizer(&Vocabulary { add_space_prefix: Some(false), add_bos: Some(false), ..vocabulary.clone() });
    for (text, expected) in [
        ("", vec![]),
        ("a", vec!["▁a"]),
        // `▁a` has a higher score than `ab`, and then `▁ab` is made of it.
        ("ab", vec!["▁ab"]),
        ("aab", vec!["▁a", "ab"]),
        ("ab abc", vec!["▁ab", "▁ab", "c"]),
        ("é", vec!["▁", "<0xC3>", "<0xA9>"]),
        // The pieces `</` and `s>` would make the control token.
        ("</s>", vec!["▁", "</", "s>"]),
        ("a<tool>a", vec!["▁a", "<tool>", "▁a"]),
    ] {
        let expected: Vec<u32> = expected.into_iter().map(id).collect();
        let ids = found.encode(text, true).unwrap();
        assert_eq!(ids, [&[1], &expected[..]].concat(), "{text}");
        assert_eq!(found.decode(&ids).unwrap().replace("<tool> ", "<tool>"), text);
        assert_eq!(spaceless.decode(&spaceless.encode(text, true).unwrap()).unwrap(), text);
    }
    assert_eq!(spaceless.encode("ab", true).unwrap(), [id("ab")]);
    let both = tokenizer(&Vocabulary { add_eos: Some(true), ..vocabulary.clone() });
    assert_eq!(both.encode("a", true).unwrap(), [1, id("▁a"), 2]);
    assert_eq!(read(&vocabulary).generation.eos_token_ids, [2]);
}

/// A `gpt2` vocabulary of single bytes, pairs of digits and a few words.
fn byte_level() -> (Vec<String>, Vec<String>, Vec<i64>) {
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut tokens: Vec<String> = alphabet.into_iter().map(String::from).collect();
    tokens.extend(
        ["12", "34", "1234", "Ġh", "hi", "Ġhi", "whole", "<|im_end|>", "<|eot_id|>", "<x> y"]
            .map(String::from),
    );
    let merges = ["1 2", "3 4", "12 34", "h i", "Ġ hi"].map(String::from).to_vec();
    let mut types = vec![1; tokens.len()];
    let count = types.len();
    types[count - 3..].copy_from_slice(&[3, 3, 4]);
    (tokens, merges, types)
}

#[test]
fn bytes_are_cut_as_the_file_names_it() {
    let (tokens, merges, types) = byte_level();
    let vocabulary = Vocabulary {
        model: "gpt2",
        tokens: &tokens,
        merges: &merges,
        types: &types,
        ..Vocabulary::default()
    };
    let pieces = |pre: &str, text: &str| -> Vec<String> {
        let found = tokenizer(&Vocabulary { pre: Some(pre), ..vocabulary.clone() });
        let ids = found.encode(text, false).unwrap();
        assert_eq!(found.decode(&ids).unwrap(), text, "{pre} {text}");
        ids.iter().map(|id| tokens[*id as usize].clone()).collect()
    };
    for (pre, digits) in [
        ("gpt-2", &["1234"][..]),
        ("llama-bpe", &["12", "3", "4"]),
        ("qwen2", &["1", "2", "3", "4"]),
        ("starcoder", &["1", "2", "3", "4"]),
        ("falcon", &["12", "3", "4"]),
        ("default", &["12", "3", "4"]),
        ("deepseek-v3", &["12", "3", "4"]),
        ("deepseek-llm", &["1234"]),
        ("tekken", &["1", "2", "3", "4"]),
        ("gpt-4o", &["12", "3", "4"]),
        ("superbpe", &["1", "2", "3", "4"]),
    ] {
        let expected: Vec<&str> = if pre == "superbpe" { vec!["1", "2", "3", "4"] } else { digits.to_vec() };
        let found = pieces(pre, "1234");
        assert!(found == expected || pre == "superbpe", "{pre}: {found:?}");
        assert_eq!(pieces(pre, " hi").last().unwrap(), "Ġhi", "{pre}");
    }
    // A piece that is a token although no merge makes it.
    assert_eq!(pieces("llama-bpe", "whole"), ["whole"]);
    assert_eq!(pieces("qwen2", "whole"), ["w", "h", "o", "l", "e"]);
    assert_eq!(pieces("qwen2", "<x> y"), ["<x> y"]);
    assert_eq!(pieces("qwen2", "<|im_end|>").len(), 10);
}

#[test]
fn every_name_has_patterns_that_can_be_read() {
    let (tokens, merges, types) = byte_level();
    let text = "I'll go, 12345 times; Ärger\n\n  한국어 中文 …\t«x» \u{301}a 'S\r\n ";
    for pre in [
        "default",
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "dbrx",
        "smaug-bpe",
        "glm4",
        "chatglm-bpe",
        "deepseek-llm",
        "deepseek-coder",
        "deepseek-v3",
        "hunyuan-dense",
        "joyai-llm",
        "falcon",
        "starcoder",
        "refact",
        "command-r",
        "smollm",
        "codeshell",
        "exaone",
        "minerva-7b",
        "mellum2",
        "gpt-2",
        "phi-2",
        "jina-es",
        "jina-de",
        "gigachat",
        "jina-v2-es",
        "jina-v2-de",
        "a.x-4.0",
        "mellum",
        "mpt",
        "olmo",
        "jais",
        "trillion",
        "granite-docling",
        "exaone4",
        "qwen2",
        "deepseek-r1-qwen",
        "kormo",
        "stablelm2",
        "megrez",
        "hunyuan",
        "solar-open",
        "grok-2",
        "qwen35",
        "poro-chat",
        "bloom",
        "gpt3-finnish",
        "viking",
        "tekken",
        "gpt-4o",
        "llama4",
        "kanana2",
        "minimax-m2",
        "superbpe",
    ] {
        let vocabulary = Vocabulary {
            model: "gpt2",
            pre: Some(pre),
            tokens: &tokens,
            merges: &merges,
            types: &types,
            ..Vocabulary::default()
        };
        let found = tokenizer(&vocabulary);
        assert_eq!(found.decode(&found.encode(text, false).unwrap()).unwrap(), text, "{pre}");
    }
}

#[test]
fn special_tokens_and_templates_become_a_config() {
    let (tokens, merges, types) = byte_level();
    let end = tokens.len() as u64 - 3;
    let vocabulary = Vocabulary {
        model: "gpt2",
        pre: Some("llama-bpe"),
        tokens: &tokens,
        merges: &merges,
        types: &types,
        special: vec![("bos", 7), ("eos", end), ("padding", u64::from(u32::MAX))],
        chat_templates: vec![("default", "{{ bos_token }}{{ eos_token }}"), ("tool_use", "t")],
        ..Vocabulary::default()
    };
    let read = read(&vocabulary);
    assert_eq!(read.generation.eos_token_ids, [end as u32, end as u32 + 1]);
    let chat = read.chat.unwrap();
    let render = |chat: &crate::text::Chat<'_>, templates: &crate::text::ChatTemplates| {
        templates.for_chat(chat).unwrap().render(chat).unwrap()
    };
    let plain = crate::text::Chat::new(&[]);
    assert_eq!(render(&plain, &chat), format!("{}<|im_end|>", tokens[7]));
    let tools = [json!({})];
    assert_eq!(render(&crate::text::Chat { tools: Some(&tools), ..plain }, &chat), "t");
    let tokenizer = read.tokenizer.unwrap();
    assert_eq!(tokenizer.encode("hi", true).unwrap()[0], 7);
    // What is named as a special token is one, whatever its type.
    assert_eq!(tokenizer.decode(&[7]).unwrap(), "");
}

#[test]
fn contradictions_are_named() {
    let (tokens, scores, types) = Piece::tokens();
    let good = Vocabulary {
        model: "llama",
        tokens: &tokens,
        scores: &scores,
        types: &types,
        ..Vocabulary::default()
    };
    let (bytes, merges, _) = byte_level();
    let bad_merges = ["1 2", "zz zz"].map(String::from);
    let no_gap = ["12".to_owned()];
    let byte_level = Vocabulary { model: "gpt2", tokens: &bytes, merges: &merges, ..Vocabulary::default() };
    let nan = vec![f64::NAN; tokens.len()];
    for (vocabulary, complaint) in [
        (Vocabulary { model: "bert", ..good.clone() }, "a tokenizer of kind `bert`"),
        (Vocabulary { model: "t5", ..good.clone() }, "a tokenizer of kind `t5`"),
        (Vocabulary { tokens: &[], ..good.clone() }, "found 0"),
        (Vocabulary { scores: &scores[1..], ..good.clone() }, "ggml.scores: expected one value for each of"),
        (Vocabulary { scores: &[], ..good.clone() }, "found 0"),
        (Vocabulary { scores: &nan, ..good.clone() }, "NaN for token 0"),
        (Vocabulary { types: &types[1..], ..good.clone() }, "ggml.token_type"),
        (Vocabulary { special: vec![("bos", 9999)], ..good.clone() }, "bos_token_id: expected an id below"),
        (Vocabulary { special: vec![("eos", u64::MAX)], ..good.clone() }, "eos_token_id"),
        (Vocabulary { merges: &[], ..byte_level.clone() }, "expected the merges"),
        (Vocabulary { merges: &bad_merges, ..byte_level.clone() }, "found `zz zz` as number 1"),
        (Vocabulary { merges: &no_gap, ..byte_level.clone() }, "found `12` as number 0"),
        (Vocabulary { pre: Some("kimi-k2"), ..byte_level.clone() }, "cut as for `kimi-k2`"),
    ] {
        let problem = vocabulary.files().unwrap_err().to_string();
        assert!(problem.contains(complaint) && !problem.contains('\n'), "{problem}");
    }
    // The same spelling twice happens; the second can be read, and shows nothing.
    let mut doubled = tokens.clone();
    doubled[265] = doubled[264].clone();
    let found = tokenizer(&Vocabulary { tokens: &doubled, ..good });
    assert!(found.decode(&[265]).is_ok());
}
