//! The fuzz target that this binary is named after.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use pipo_wgpu_fuzz::fuzzing::bundle::Bundle;
use pipo_wgpu_fuzz::fuzzing::mutate::{self, Rng};
use pipo_wgpu_fuzz::fuzzing::targets;

thread_local! {
    /// Where inputs are written that are read as files.
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().expect("a folder"));
}

/// What becomes an error is no failure.
fn spare_caught_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !pipo_wgpu::text::is_caught() {
            hook(info);
        }
    }));
}

fuzz_target!(init: spare_caught_panics(), |data: &[u8]| {
    let bundle = Bundle::parse(data);
    FOLDER.with_borrow(|folder| targets::by_name(env!("CARGO_BIN_NAME")).run(&bundle, folder.path()));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = Rng::new(seed.into());
    // libFuzzer knows which bytes were compared with which.
    if rng.once_in(6) {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut bundle = Bundle::parse(&data[..size]);
    mutate::mutate(&mut bundle, targets::by_name(env!("CARGO_BIN_NAME")).words, &mut rng);
    let bytes = bundle.bytes();
    if bytes.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
});
