//! Truncated, mistyped, missing and lying files: each is refused with its own single line.

mod families;
mod folders;
mod gguf;
mod packed;
pub(crate) mod quantised;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use pipo_wgpu::error::Result;
use serde_json::Value;

/// What is done to a valid input, and a part of the message it must cause.
type Case = (&'static str, fn(&Path), &'static str);

/// Damages a fresh input for every case and compares the outcome.
fn run(cases: &[Case], make: fn(&Path), read: fn(&Path) -> Result<()>) {
    for (name, damage, expected) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make(folder.path());
        read(folder.path()).expect("valid before the damage");
        damage(folder.path());
        let message = match read(folder.path()) {
            Ok(()) => panic!("{name}: was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains('\n'), "{name}: more than one line: {message}");
    }
}

fn weights(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

fn put(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(name), content).expect("writable");
}

fn remove(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).expect("removable");
}

/// Cuts or grows the weights.
fn resize(folder: &Path, change: i64) {
    let file = OpenOptions::new().write(true).open(weights(folder)).expect("writable");
    let size = file.metadata().expect("readable").len();
    file.set_len(size.checked_add_signed(change).expect("not negative")).expect("resizable");
}

/// Overwrites the header length.
fn claim(folder: &Path, length: u64) {
    let mut bytes = fs::read(weights(folder)).expect("readable");
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    put(folder, "model.safetensors", bytes);
}

/// Replaces the header's JSON, keeping the data; a shorter one is padded to the old length.
fn rewrite_header(folder: &Path, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let bytes = fs::read(weights(folder)).expect("readable");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut header = edit(bytes[8..8 + length].to_vec());
    header.resize(header.len().max(length), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&header);
    file.extend_from_slice(&bytes[8 + length..]);
    put(folder, "model.safetensors", file);
}

/// Where a tensor is in the bytes of a `model.safetensors`.
fn tensor_place(bytes: &[u8], tensor: &str) -> std::ops::Range<usize> {
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).expect("JSON");
    let offset = |end: usize| header[tensor]["data_offsets"][end].as_u64().expect("a number") as usize;
    data + offset(0)..data + offset(1)
}

/// Edits the header as JSON.
fn edit_header(folder: &Path, edit: impl FnOnce(&mut Value)) {
    rewrite_header(folder, |header| {
        let mut value = serde_json::from_slice(&header).expect("valid JSON");
        edit(&mut value);
        value.to_string().into_bytes()
    });
}
