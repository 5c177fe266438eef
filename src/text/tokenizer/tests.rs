//! What a loaded tokenizer does with texts, ids and files.

use super::fixtures::{BOS, EOS, byte_level_json, load, sentence_piece_json};
use super::*;
use crate::text::StreamDecoder;
use serde_json::json;
use std::path::{Path, PathBuf};

#[test]
fn text_survives_the_round_trip() {
    let texts = ["", "ab", " ab", "a  b", "é", "日本 😀!", "line\nline\t", "</s>", "a<s>b"];
    for json in [sentence_piece_json(), byte_level_json()] {
        let tokenizer = load(&json);
        for text in texts {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{ids:?}");
            let with_special = tokenizer.encode(text, true).unwrap();
            assert_eq!(with_special[0], BOS);
            assert_eq!(with_special[1..], ids);
        }
    }
}

#[test]
fn a_start_that_the_config_asks_for_comes_once() {
    let llama = json!({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "bos_token": "<s>"});
    let mut nested = llama.clone();
    nested["bos_token"] = json!({"content": "<s>"});
    let mut other = llama.clone();
    other["tokenizer_class"] = json!("PreTrainedTokenizerFast");
    let mut bare = byte_level_json();
    bare["post_processor"] = Value::Null;
    for (tokenizer, config, starts) in [
        (&bare, &llama, 1),
        (&bare, &nested, 1),
        (&bare, &other, 0),
        (&bare, &json!({}), 0),
        (&byte_level_json(), &llama, 1),
    ] {
        let ids = load(tokenizer).with_config(config).unwrap().encode("ab", true).unwrap();
        assert_eq!(
            (ids.len(), ids.iter().filter(|id| **id == BOS).count()),
            (2 + starts, starts),
            "{config}"
        );
    }
    let mut wrong = llama;
    wrong["bos_token"] = json!("<start>");
    let problem = load(&bare).with_config(&wrong).unwrap_err().to_string();
    assert!(problem.contains("`<start>`"), "{problem}");
}

#[test]
fn control_tokens_in_text_stay_text() {
    for json in [sentence_piece_json(), byte_level_json()] {
        let tokenizer = load(&json);
        for text in ["</s>", "a</s>b", "<s><s>", "a <s>"] {
            let ids = tokenizer.encode(text, false).unwrap();
            assert!(!ids.contains(&EOS) && !ids.contains(&BOS), "{text}: {ids:?}");
        }
        assert_eq!(tokenizer.token_id("</s>"), Some(EOS));
    }
}

#[test]
fn a_vocabulary_that_smuggles_control_tokens_is_refused() {
    let mut json = sentence_piece_json();
    let words: Value = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3});
    json["model"] = json!({"type": "WordLevel", "vocab": words, "unk_token": "<unk>"});
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    let tokenizer = load(&json);
    assert_eq!(tokenizer.encode("hello <unk> there", true).unwrap(), [BOS, 3, 0, 0]);
    let problem = tokenizer.encode("hello </s>", true).unwrap_err().to_string();
    assert!(problem.contains("`</s>`") && problem.contains("control token 2"), "{problem}");
}

/// What searches the text for each token that it does not know would take minutes here.
#[test]
fn what_is_not_known_takes_no_longer_for_each_token() {
    let mut json = sentence_piece_json();
    let vocab = json!([["[UNK]", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["a", -1.0], [" ", -1.0]]);
    json["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab});
    json["added_tokens"][0]["content"] = json!("[UNK]");
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    let tokenizer = load(&json);
    let start = std::time::Instant::now();
    assert_eq!(tokenizer.encode(&"qa ".repeat(600_000), false).unwrap(), [0, 3].repeat(600_000));
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
    let problem = tokenizer.encode("qa </s> [UNK]", false).unwrap_err().to_string();
    assert!(problem.contains("`</s>`") && problem.contains("control token 2"), "{problem}");
    // However it is spelt, it stands for what is not known, in messages too.
    assert_eq!(tokenizer.encode("a [UNK]", false).unwrap(), [3, 0]);
    assert_eq!(tokenizer.encode_marked("a qa").unwrap(), [3, 0, 3]);
}

#[test]
fn truncation_in_the_file_is_ignored() {
    let text = "c".repeat(100);
    assert_eq!(load(&sentence_piece_json()).encode(&text, false).unwrap().len(), 101);
}

#[test]
fn bad_files_are_refused() {
    let mut empty = byte_level_json();
    empty["model"]["vocab"] = json!({});
    empty["added_tokens"] = json!([]);
    empty["post_processor"] = Value::Null;
    for (bytes, complaint) in [
        (b"".to_vec(), "cannot be read"),
        (b"{".to_vec(), "cannot be read"),
        (b"{}".to_vec(), "cannot be read"),
        (b"\xff\xfe".to_vec(), "cannot be read"),
        (br#"{"version":"1.0","model":{"type":"Riddle"}}"#.to_vec(), "cannot be read"),
        (empty.to_string().into_bytes(), "no tokens"),
    ] {
        let problem = Tokenizer::from_bytes(&bytes).unwrap_err().to_string();
        assert!(problem.contains(complaint) && !problem.contains('\n'), "{problem}");
    }
}

#[test]
fn ids_beyond_the_vocabulary_are_named() {
    check_ids(&[0, 9], 10).unwrap();
    check_ids(&[], 0).unwrap();
    let problem = check_ids(&[3, 10, 11], 10).unwrap_err().to_string();
    assert!(
        problem.contains("token 2") && problem.contains("id 10") && problem.contains("ends at 9"),
        "{problem}"
    );
}

fn fixture(relative: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(relative);
    if !path.exists() {
        eprintln!("SKIPPED: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids_of(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn agrees_with_the_recorded_transformers_cases() {
    let Some(folder) = fixture("tests/fixtures/tokenizer") else { return };
    let tokenizer = Tokenizer::from_bytes(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    let recorded = read_json(&folder.join("cases.json"));
    let cases = recorded.as_array().or_else(|| recorded["cases"].as_array()).unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let (ids, plain) = (ids_of(&case["ids"]), ids_of(&case["ids_no_special"]));
        if tokenizer.control.iter().any(|(_, control)| plain.contains(control)) {
            // Transformers lets text become control tokens; here it has to stay text.
            let ours = tokenizer.encode(text, false).unwrap();
            assert!(tokenizer.control.iter().all(|(_, control)| !ours.contains(control)), "{ours:?}");
            assert_eq!(tokenizer.decode(&ours).unwrap(), text);
        } else {
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), plain, "{text:?}");
        }
        assert_eq!(tokenizer.decode(&ids).unwrap(), case["decoded"].as_str().unwrap());
        // Transformers waits for a clean end of all bytes; ours shows each character at once.
        let theirs: Vec<String> = serde_json::from_value(case["stream"].clone()).unwrap();
        let mut stream = StreamDecoder::new(&tokenizer, &[]).unwrap();
        let (mut shown, mut shown_there) = (String::new(), String::new());
        for (&id, piece) in ids.iter().zip(theirs) {
            shown.push_str(&stream.push(id).unwrap().unwrap_or_default());
            shown_there.push_str(&piece);
            assert!(shown.starts_with(&shown_there), "{text:?}");
        }
        assert_eq!(shown, case["decoded"].as_str().unwrap());
        assert_eq!(stream.flush().unwrap(), None);
    }
}

#[test]
fn agrees_with_transformers_on_trained_models() {
    for name in ["stories260K/stories260K", "babyllama/babyllama_tok105"] {
        let folder = name.split('/').next().unwrap();
        let Some(path) = fixture(&format!("../shared/models/{folder}/hf/tokenizer.json")) else {
            continue;
        };
        let Some(truth) = fixture(&format!("../shared/models/{name}_hf.json")) else { continue };
        let tokenizer = Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap();
        for case in read_json(&truth)["cases"].as_array().unwrap() {
            let prompt = case["prompt"].as_str().unwrap();
            assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids_of(&case["prompt_ids"]), "{prompt:?}");
        }
    }
}

#[test]
fn texts_have_a_length_that_is_read() {
    let tokenizer = load(&byte_level_json());
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    let problem = tokenizer.encode(&long, true).unwrap_err().to_string();
    assert!(problem.contains("8388609 bytes") && problem.contains("at most 8388608"), "{problem}");
    let problem = tokenizer.encode_marked(&long).unwrap_err().to_string();
    assert!(problem.contains("8388609 bytes") && problem.contains("shorten"), "{problem}");
    // What marks a control token counts as what it stands for.
    let text = "</s>".repeat(100);
    let marked = tokenizer.controls.mark_spellings(&text, Writer::User);
    assert!(marked.len() > text.len());
    assert_eq!(tokenizer.controls.unmarked_bytes(&marked), text.len());
}

#[test]
fn large_texts_are_cut_one_at_a_time() {
    let tokenizer = load(&byte_level_json());
    let (held, other) = (tokenizer.large.lock().unwrap(), tokenizer.clone());
    let large = std::thread::spawn(move || other.encode(&"a".repeat(ALONE_BYTES + 1), false));
    // Small ones go on meanwhile.
    for _ in 0..50 {
        tokenizer.encode("ab", false).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(!large.is_finished());
    drop(held);
    assert_eq!(large.join().unwrap().unwrap().len(), ALONE_BYTES + 1);
}
