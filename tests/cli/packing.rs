//! `pack` and the cache: whole files or none, found again, and never trusted blindly.

use std::fs;

use super::{Outcome, Place, each};

const RUN: &str = "-p Hello -n 8 --temperature 0 --ignore-eos";

#[test]
fn a_packed_file_gives_the_text_of_its_folder() {
    each(&["w4", "w8", "f16", "f32"], |place, kind| {
        place.output(&format!("pack model packed/{kind}.safetensors --weights {kind}"));
        assert_eq!(place.names("packed"), [format!("{kind}.safetensors")], "nothing else is left");
        assert!(place.names("cache").is_empty(), "an explicit pack is not cached");
        let packed = place.output(&format!("run packed/{kind}.safetensors {RUN}"));
        assert_eq!(packed, place.output(&format!("run model --weights {kind} {RUN}")));
        // Beside its source, and once more over itself.
        for _ in 0..2 {
            place.output(&format!("pack model model/{kind}.packed --weights {kind}"));
        }
    });
}

/// One value of the last unit's weights is NaN, which shows only after most was written.
#[test]
fn a_failing_pack_leaves_what_was_there() {
    let place = Place::new();
    place.edit_bytes("model/model.safetensors", |bytes| {
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
    });
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/old", "precious");
    for dst in ["out/old", "out/new"] {
        place.run(&format!("pack model {dst}")).refused(dst, "NaN");
        assert_eq!(place.names("out"), ["old"], "{dst}");
        assert_eq!(fs::read(place.path("out/old")).unwrap(), b"precious");
    }
    place.run(&format!("run model {RUN}")).refused("run", "NaN");
    assert_eq!(place.names("cache"), [""; 0], "no part of a model stays in the cache");
}

#[test]
fn the_second_run_finds_the_first_ones_work() {
    let place = Place::new();
    let packs = |outcome: &Outcome| outcome.stderr.contains("packed into");
    let line = format!("run model {RUN}");
    let first = place.run(&line).succeeded(&line);
    assert!(packs(&first), "{}", first.stderr);
    let names = place.names("cache");
    let second = place.run(&line).succeeded(&line);
    assert!(!packs(&second), "{}", second.stderr);
    assert_eq!((second.stdout, place.names("cache")), (first.stdout, names.clone()));
    // Another kind, and another model in the same folder, are other entries.
    assert!(packs(&place.run(&format!("{line} --weights w8"))));
    assert_eq!(place.names("cache").len(), names.len() + 1);
    place.edit_json("config.json", |config| config["rms_norm_eps"] = 1e-4.into());
    assert!(packs(&place.run(&line)));
    assert_eq!(place.names("cache").len(), names.len() + 2);
}

/// Runs that start together all pack, and each takes whichever file is whole.
#[test]
fn runs_may_share_an_empty_cache() {
    let place = Place::new();
    let line = format!("run model {RUN}");
    let children: Vec<_> = (0..4).map(|_| place.command(&line).spawn().unwrap()).collect();
    let done =
        children.into_iter().map(|child| Outcome::of(child.wait_with_output().unwrap()).succeeded(&line));
    let texts: Vec<_> = done.map(|outcome| outcome.stdout).collect();
    assert!(!texts[0].is_empty() && texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(place.names("cache").len(), 1, "no part of a file is left");
}

#[test]
fn a_cut_off_cache_entry_is_made_again() {
    let place = Place::new();
    let line = format!("run model {RUN}");
    let text = place.output(&line);
    let entry = format!("cache/{}", place.names("cache")[0]);
    for length in [0, 5, 4096, 20_000] {
        place.edit_bytes(&entry, |bytes| bytes.truncate(length));
        let again = place.run(&line);
        assert_eq!(again.code, Some(0), "{length}: {}", again.stderr);
        assert_eq!(again.stdout, text, "{length}");
        assert!(again.stderr.contains("making it again"), "{length}: {}", again.stderr);
        assert_eq!(place.names("cache").len(), 1, "{length}");
    }
}

#[test]
fn a_flipped_bit_is_found_and_its_unit_named() {
    let place = Place::new();
    place.output("pack model packed");
    let flip = |bytes: &mut Vec<u8>| bytes[3 * 4096] ^= 1;
    place.edit_bytes("packed", flip);
    let line = format!("run packed {RUN}");
    place.run(&line).refused("a packed file", "unit `block.");
    place.output(&format!("{line} --no-verify"));
    place.edit_bytes("packed", flip);
    place.output(&line);

    place.output(&format!("run model {RUN}"));
    let entry = format!("cache/{}", place.names("cache")[0]);
    place.edit_bytes(&entry, flip);
    let damaged = place.run(&format!("run model {RUN}"));
    damaged.refused("a cache entry", "delete it and pack the model again");
    assert!(damaged.stderr.contains(&place.names("cache")[0]), "the path is named: {}", damaged.stderr);
}

#[test]
fn a_packed_file_is_packed_again_in_fewer_bits_alone() {
    let place = Place::new();
    place.output("pack model f16 --weights f16");
    place.output("pack f16 w8 --weights w8");
    place.output("pack w8 w4 --weights w4");
    // Halves hold the checkpoint's weights as they are, so that nothing is lost on the way to bytes.
    let texts = ["w8", "model --weights w8"].map(|model| place.output(&format!("run {model} {RUN}")));
    assert_eq!(texts[0], texts[1]);
    place.output(&format!("run w4 {RUN}"));
    place.run("pack w8 again").refused("no kind", "it is packed already; give --weights");
    place.run("pack w8 again --weights f16").refused("a finer kind", "would not become better");
    place.run("pack w8 again --weights w8").refused("the same kind", "would not become better");
    place.run("pack model/config.json again --weights w4").refused("no model", "config.json");
}

/// Files of others' making, with their codes as they are.
#[test]
fn a_gguf_file_and_a_gptq_folder_run_and_pack() {
    let place = Place::new();
    let models = [("gguf", "quantised/mixed.gguf"), ("gptq", "quantised/gptq_act")];
    for (name, path) in models {
        let path = crate::common::fixture(path);
        let line = |verb: &str| format!("{verb} --ids 3,9,27 -n 8 --temperature 0 --ignore-eos --print-ids");
        let path = path.display();
        let ran = place.output(&line(&format!("run {path}")));
        assert_eq!(ran.trim().split(',').count(), 8, "{ran}");
        place.output(&format!("pack {path} {name}.packed"));
        assert_eq!(place.output(&line(&format!("run {name}.packed"))), ran, "{name}");
        place
            .run(&format!("run {name}.packed -p a --weights w4"))
            .refused(name, "as its source had its weights");
        place.output(&format!("plan {path} --link 1GB/s --vram-rate 10GB/s --vram 64MiB"));
    }
}
