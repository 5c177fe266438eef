//! Writes the seeds of a target into a folder, for libFuzzer's corpus: `seeds TARGET FOLDER`.

use std::env::args;
use std::fs;
use std::path::Path;

use pipo_wgpu_fuzz::fuzzing::seeds;

fn main() {
    let (Some(target), Some(folder)) = (args().nth(1), args().nth(2)) else {
        panic!("usage: seeds TARGET FOLDER");
    };
    fs::create_dir_all(&folder).expect("a folder");
    for (number, seed) in seeds::of(&target).iter().chain(&seeds::regressions(&target)).enumerate() {
        fs::write(Path::new(&folder).join(format!("seed-{number:03}")), seed.bytes()).expect("writable");
    }
}
