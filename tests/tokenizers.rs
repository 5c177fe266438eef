//! Tokenizers of real models, from GGUF and from tokenizer.json, against what llama.cpp recorded.

use std::path::Path;
use std::process::Command;

use pipo_wgpu::checkpoint::gguf::Gguf;
use pipo_wgpu::cli::vocabulary::text_files;
use pipo_wgpu::text::{TextFiles, Tokenizer};
use serde_json::Value;

use super::common::shared;

/// The archive of vocabularies, unpacked; says loudly when there is none or `tar` cannot read it.
fn unpacked() -> Option<tempfile::TempDir> {
    let archive = shared("tokenizers.tar.xz")?;
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("tar").arg("xf").arg(&archive).arg("-C").arg(folder.path()).status();
    if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("SKIPPED: tar cannot unpack {} ({done:?})", archive.display());
        return None;
    }
    Some(folder)
}

fn from_gguf(path: &Path) -> Tokenizer {
    let gguf = Gguf::open(path).unwrap();
    let files = text_files(gguf.metadata()).unwrap();
    let find = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes);
    TextFiles::read(&Value::Null, &[], find).unwrap().tokenizer.unwrap()
}

fn from_json(path: &Path) -> Tokenizer {
    Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

/// Texts and the ids that llama.cpp gives them, without any around them.
fn vectors(inputs: &Path) -> Vec<(String, Vec<u32>)> {
    let texts = std::fs::read_to_string(inputs).unwrap();
    let ids = std::fs::read_to_string(inputs.with_extension("out")).unwrap();
    let texts = texts.split("\n__ggml_vocab_test__\n").map(str::to_owned);
    let ids = ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    texts.zip(ids).collect()
}

#[test]
fn real_vocabularies_give_the_recorded_ids() {
    let Some(folder) = unpacked() else { return };
    let path = |name: &str| folder.path().join("tokenizers").join(name);
    for (model, recorded) in [
        ("gguf/ggml-vocab-llama-spm.gguf", "gguf/ggml-vocab-llama-spm.gguf"),
        ("gguf/ggml-vocab-gpt-2.gguf", "gguf/ggml-vocab-gpt-2.gguf"),
        ("gguf/ggml-vocab-falcon.gguf", "gguf/ggml-vocab-falcon.gguf"),
        ("gpt2/tokenizer.json", "gpt2/ggml-vocab-gpt-2.gguf"),
        ("llama3/tokenizer.json", "llama3/ggml-vocab-llama-bpe.gguf"),
        ("qwen2.5/tokenizer.json", "qwen2.5/ggml-vocab-qwen2.gguf"),
    ] {
        let tokenizer =
            if model.ends_with("gguf") { from_gguf(&path(model)) } else { from_json(&path(model)) };
        let cases = vectors(&path(&format!("{recorded}.inp")));
        assert!(cases.len() > 20);
        for (text, expected) in cases {
            let ids = tokenizer.encode(&text, false).unwrap();
            assert_eq!(ids, expected, "{model}: {text:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{model}");
        }
    }
}
