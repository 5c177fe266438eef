//! GGUF files as the `gguf` Python package writes them; see `fixtures/make_gguf.py`.

use std::collections::BTreeSet;

use pipo_wgpu::checkpoint::gguf::{BlockType, Gguf, Value};

use crate::common::fixture;

fn blocks() -> Gguf {
    Gguf::open(&fixture("gguf/blocks.gguf")).unwrap()
}

#[test]
fn every_block_type_gives_the_python_package_s_bits() {
    let gguf = blocks();
    let mut seen = BTreeSet::new();
    for (name, tensor) in gguf.tensors().filter(|(name, _)| !name.ends_with(".expected")) {
        let expected = gguf.tensor(&format!("{name}.expected")).unwrap();
        assert_eq!(tensor.block_type.to_string(), name);
        assert_eq!((tensor.shape.as_slice(), expected.block_type), (&[2, 512][..], BlockType::F32));
        let (mut found, mut wanted) = (Vec::new(), Vec::new());
        gguf.read_rows(tensor, 0..2, &mut found).unwrap();
        gguf.read_rows(expected, 0..2, &mut wanted).unwrap();
        let differs = found.iter().zip(&wanted).position(|(a, b)| a.to_bits() != b.to_bits());
        let places = differs.map(|at| (at, found[at], wanted[at]));
        assert_eq!((found.len(), places), (1024, None), "{name}");
        // One row alone is the same.
        gguf.read_rows(tensor, 1..2, &mut found).unwrap();
        assert_eq!(found, wanted[512..], "{name}");
        seen.insert(tensor.block_type);
    }
    assert_eq!(seen, BlockType::all().collect());
}

#[test]
fn metadata_of_every_type_is_read() {
    let gguf = blocks();
    let m = gguf.metadata();
    for (key, value) in
        [("a.u8", 200), ("a.u16", 60_000), ("a.u32", 4_000_000_000), ("a.u64", 18 * 10u64.pow(18))]
    {
        assert_eq!(m.unsigned(key).unwrap(), Some(value), "{key}");
    }
    for (key, value) in
        [("a.i8", -100), ("a.i16", -30_000), ("a.i32", -2_000_000_000), ("a.i64", -9 * 10i64.pow(18))]
    {
        assert_eq!(m.get(key), Some(&Value::Signed(value)), "{key}");
    }
    assert_eq!(m.number("a.f32").unwrap(), Some(0.15625));
    assert_eq!(m.number("a.f64").unwrap(), Some(1e300));
    assert_eq!(m.number("a.i8").unwrap(), Some(-100.0));
    assert_eq!(m.flag("a.bool").unwrap(), Some(true));
    assert_eq!(m.string("a.string").unwrap(), Some("naïve 🦀"));
    assert_eq!(m.strings("a.strings").unwrap().unwrap(), ["", "<s>", "▁the"]);
    assert_eq!(m.integers("a.integers").unwrap().unwrap(), [1, -2, 3]);
    assert_eq!(m.integers("a.bytes").unwrap().unwrap(), [0, 255]);
    assert_eq!(m.floats("a.floats").unwrap().unwrap(), [0.5, -1.25]);
    assert_eq!(m.flags("a.flags").unwrap().unwrap(), [true, false]);
    assert_eq!(m.string("a.nothing").unwrap(), None);
    assert!(m.string("a.u8").unwrap_err().to_string().contains("`a.u8` should be a string, found 200"));
    assert!(m.unsigned("a.i8").is_err() && m.strings("a.floats").is_err() && m.flag("a.u8").is_err());
}

#[test]
fn split_files_are_one_model() {
    let gguf = Gguf::open(&fixture("gguf/split-00001-of-00003.gguf")).unwrap();
    assert_eq!(gguf.metadata().string("general.architecture").unwrap(), Some("fixture"));
    let names: Vec<_> = gguf.tensors().map(|(name, _)| name).collect();
    assert_eq!(names, ["vector.1", "vector.2", "vector.3"]);
    for (tensor, value) in gguf.tensors().map(|(_, tensor)| tensor).zip([1.0, 2.0, 3.0]) {
        let mut row = Vec::new();
        gguf.read_rows(tensor, 0..1, &mut row).unwrap();
        assert_eq!(row, [value; 40]);
    }
}
