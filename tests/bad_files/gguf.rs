//! Damaged GGUF files.

use std::fs;
use std::path::Path;

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::checkpoint::gguf::Gguf;
use pipo_wgpu::error::Result;

use super::{Case, put, remove, run};
use crate::common::fixture;

const NAME: &str = "model.gguf";

/// A file with one pair and two tensors, written by hand so that its places are known.
#[derive(Clone)]
struct Sketch {
    magic: [u8; 4],
    version: u32,
    tensors: u64,
    pairs: u64,
    pair: Vec<u8>,
    second: Described,
    data: usize,
}

/// The second tensor; the first is `a`, F32 `[8]` at 0.
#[derive(Clone)]
struct Described {
    name: &'static str,
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A pair of a type by its number.
fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [string(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

impl Sketch {
    fn new() -> Self {
        Sketch {
            magic: *b"GGUF",
            version: 3,
            tensors: 2,
            pairs: 1,
            pair: pair("general.alignment", 4, &64u32.to_le_bytes()),
            second: Described { name: "b", shape: vec![32, 2], kind: 2, offset: 64 },
            data: 64 + 36,
        }
    }

    fn write(&self, folder: &Path) {
        let mut bytes = [&self.magic[..], &self.version.to_le_bytes()].concat();
        bytes.extend(self.tensors.to_le_bytes());
        bytes.extend(self.pairs.to_le_bytes());
        bytes.extend(&self.pair);
        let first = Described { name: "a", shape: vec![8], kind: 0, offset: 0 };
        for tensor in [&first, &self.second] {
            bytes.extend(string(tensor.name));
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(64) + self.data, 0);
        put(folder, NAME, bytes);
    }
}

fn write(folder: &Path) {
    Sketch::new().write(folder);
}

fn rewrite(folder: &Path, change: impl FnOnce(&mut Sketch)) {
    let mut sketch = Sketch::new();
    change(&mut sketch);
    sketch.write(folder);
}

fn open(folder: &Path) -> Result<()> {
    Gguf::open(&folder.join(NAME)).map(|_| ())
}

fn cut(folder: &Path, bytes: usize) {
    let whole = fs::read(folder.join(NAME)).expect("readable");
    put(folder, NAME, &whole[..bytes]);
}

#[test]
fn every_damaged_gguf_file_is_refused() {
    let files: &[Case] = &[
        ("no file", |f| remove(f, NAME), "cannot open"),
        ("an empty file", |f| put(f, NAME, ""), "found only 0 bytes"),
        ("something else", |f| rewrite(f, |s| s.magic = *b"GGML"), "begins with `GGUF`"),
        ("version 1", |f| rewrite(f, |s| s.version = 1), "GGUF version 1 of"),
        ("version 4", |f| rewrite(f, |s| s.version = 4), "GGUF version 4 of"),
        ("big-endian", |f| rewrite(f, |s| s.version = 3u32.swap_bytes()), "big-endian"),
        ("many tensors", |f| rewrite(f, |s| s.tensors = 1 << 60), "claims 1152921504606846976 tensors"),
        ("many pairs", |f| rewrite(f, |s| s.pairs = 1 << 20), "claims 1048576 metadata pairs"),
        (
            "a long string",
            |f| rewrite(f, |s| s.pair = pair("k", 8, &(1u64 << 62).to_le_bytes())),
            "`k` claims 4611686018427387904 bytes",
        ),
        (
            "a string beyond the end",
            |f| rewrite(f, |s| s.pair = pair("k", 8, &4000u64.to_le_bytes())),
            "needs 4000 bytes where",
        ),
        (
            "a long array",
            |f| rewrite(f, |s| s.pair = pair("k", 9, &[4u64 | 1 << 60, 0].map(u64::to_le_bytes).concat())),
            "elements of `k`",
        ),
        ("an unknown value type", |f| rewrite(f, |s| s.pair = pair("k", 13, &[0; 4])), "`k` has type 13"),
        ("a third truth", |f| rewrite(f, |s| s.pair = pair("k", 7, &[2])), "truth value of `k` is 2"),
        (
            "not UTF-8",
            |f| rewrite(f, |s| s.pair = pair("k", 8, &[&1u64.to_le_bytes()[..], &[0xff]].concat())),
            "`k` is not UTF-8",
        ),
        (
            "a key twice",
            |f| {
                rewrite(f, |s| {
                    s.pairs = 2;
                    s.pair = [pair("k", 7, &[1]), pair("k", 7, &[1])].concat();
                });
            },
            "`k` appears twice",
        ),
        (
            "an odd alignment",
            |f| rewrite(f, |s| s.pair = pair("general.alignment", 4, &48u32.to_le_bytes())),
            "should be a power of two of at most 2^20, found 48",
        ),
        (
            "no alignment",
            |f| rewrite(f, |s| s.pair = pair("general.alignment", 4, &0u32.to_le_bytes())),
            "found 0",
        ),
        ("a cut header", |f| cut(f, 70), "bytes where the file has"),
        ("cut data", |f| rewrite(f, |s| s.data -= 1), "of which the file has 99"),
        ("an offset beyond the end", |f| rewrite(f, |s| s.second.offset = 1 << 40), "of which the file has"),
        (
            "an offset near 2^64",
            |f| {
                rewrite(f, |s| {
                    s.second = Described { offset: u64::MAX - 63, shape: vec![32, 9], ..s.second.clone() };
                });
            },
            "beyond the end of any",
        ),
        ("a crooked offset", |f| rewrite(f, |s| s.second.offset = 32), "no multiple of 64"),
        ("an overlap", |f| rewrite(f, |s| s.second.offset = 0), "`a` and `b` overlap"),
        ("a name twice", |f| rewrite(f, |s| s.second.name = "a"), "describes tensor `a` twice"),
        ("no name", |f| rewrite(f, |s| s.second.name = ""), "has 0 bytes"),
        ("an unknown type", |f| rewrite(f, |s| s.second.kind = 99), "GGUF type number 99"),
        ("a type of codebooks", |f| rewrite(f, |s| s.second.kind = 16), "GGUF type IQ2_XXS (16)"),
        ("half a block", |f| rewrite(f, |s| s.second.shape = vec![16, 4]), "not a multiple of the type's 32"),
        ("no columns", |f| rewrite(f, |s| s.second.shape = vec![0, 4]), "empty or absurdly large"),
        ("a huge shape", |f| rewrite(f, |s| s.second.shape = vec![1 << 40; 4]), "empty or absurdly large"),
        ("five dimensions", |f| rewrite(f, |s| s.second.shape = vec![32; 5]), "has 5 dimensions"),
    ];
    run(files, write, open);
}

#[test]
fn every_broken_split_is_refused() {
    fn part(number: u32) -> String {
        format!("split-{number:05}-of-00003.gguf")
    }
    fn copy(folder: &Path) {
        for number in 1..=3 {
            fs::copy(fixture("gguf").join(part(number)), folder.join(part(number))).expect("copies");
        }
    }
    fn replace(folder: &Path, number: u32, by: u32) {
        fs::copy(folder.join(part(by)), folder.join(part(number))).expect("copies");
    }
    fn open(folder: &Path) -> Result<()> {
        Gguf::open(&folder.join(part(1))).map(|_| ())
    }
    let files: &[Case] = &[
        ("a missing part", |f| remove(f, &part(2)), "is missing; download that file too"),
        ("parts in another order", |f| replace(f, 3, 2), "expected part 3 of 3, found part 2 of 3"),
        ("another part first", |f| replace(f, 1, 2), "its name should end in `-00002-of-00003.gguf`"),
    ];
    run(files, copy, open);
    let error = Gguf::open(&fixture("gguf").join(part(3))).expect_err("not the first").to_string();
    assert!(error.contains("it is part 3 of 3; give the first"), "{error}");
}

/// Changes a model's file.
fn edit(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(NAME);
    let mut bytes = fs::read(&path).expect("readable");
    change(&mut bytes);
    fs::write(path, bytes).expect("writable");
}

/// Where a key's name begins.
fn place_of(bytes: &[u8], key: &str) -> usize {
    bytes.windows(key.len()).position(|part| part == key.as_bytes()).expect("is there")
}

/// Puts a pair in front of the others, with the number of its type.
fn add_pair(bytes: &mut Vec<u8>, key: &str, kind: u32, value: &[u8]) {
    const COUNT: std::ops::Range<usize> = 16..24;
    const ALIGNMENT: usize = 32;
    let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    let mut pairs = [&text(key.as_bytes())[..], &kind.to_le_bytes(), value].concat();
    // What follows stays aligned.
    let filler = [&text(b"general.filler")[..], &8u32.to_le_bytes()].concat();
    let rest = (pairs.len() + filler.len() + 8).next_multiple_of(ALIGNMENT) - pairs.len() - filler.len() - 8;
    pairs.extend(filler.into_iter().chain(text(&vec![b'.'; rest])));
    let count = u64::from_le_bytes(bytes[COUNT].try_into().expect("8 bytes"));
    bytes[COUNT].copy_from_slice(&(count + 2).to_le_bytes());
    bytes.splice(COUNT.end..COUNT.end, pairs);
}

/// Metadata that were read as if they did not say so.
#[test]
fn metadata_that_contradict_each_other() {
    const FLOAT: u32 = 6;
    const FLAG: u32 = 7;
    let models: &[Case] = &[
        (
            "no number",
            |f| {
                edit(f, |bytes| {
                    let key = "llama.rope.freq_base";
                    let value = place_of(bytes, key) + key.len() + 4;
                    bytes[value..value + 4].copy_from_slice(&f32::NAN.to_le_bytes());
                });
            },
            "`llama.rope.freq_base` should be a finite number, found",
        ),
        (
            "no epsilon",
            |f| {
                edit(f, |bytes| {
                    let place = place_of(bytes, "llama.attention.layer_norm_rms_epsilon");
                    bytes[place] = b'L';
                });
            },
            "`llama.attention.layer_norm_rms_epsilon` is missing",
        ),
        (
            "what sees the future",
            |f| edit(f, |bytes| add_pair(bytes, "llama.attention.causal", FLAG, &[0])),
            "`llama.attention.causal` = false",
        ),
        (
            "two scalings",
            |f| edit(f, |bytes| add_pair(bytes, "llama.rope.scale_linear", FLOAT, &4f32.to_le_bytes())),
            "`llama.rope.scaling.factor` = a second one beside those of `rope_freqs.weight`",
        ),
    ];
    let copy = |folder: &Path| {
        fs::copy(fixture("gguf_models/llama3.gguf"), folder.join(NAME)).expect("copies");
        // Nothing is wrong with a further pair.
        edit(folder, |bytes| add_pair(bytes, "llama.attention.causal", FLAG, &[1]));
        Checkpoint::open(folder).expect("valid");
        fs::copy(fixture("gguf_models/llama3.gguf"), folder.join(NAME)).expect("copies");
    };
    run(models, copy, |folder| Checkpoint::open(folder).map(|_| ()));
}

/// Scaling is linear where its kind is not said.
#[test]
fn a_factor_without_a_kind_is_linear() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::copy(fixture("gguf_models/qwen2.gguf"), folder.path().join(NAME)).expect("copies");
    edit(folder.path(), |bytes| add_pair(bytes, "qwen2.rope.scaling.factor", 6, &4f32.to_le_bytes()));
    let config = Checkpoint::open(folder.path()).expect("valid").read_json("config.json").expect("readable");
    let scaling = &config.expect("is there")["rope_scaling"];
    assert_eq!(*scaling, serde_json::json!({"rope_type": "linear", "factor": 4.0}));
}
