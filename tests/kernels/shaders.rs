//! Every shader is valid, portable WGSL, and shaders, kernels and tests pair up by stem.

use std::collections::BTreeSet;
use std::path::Path;

/// Files that are no shaders by themselves: what stands in front of others.
const PARTS: [&str; 33] = [
    "prelude",
    "matvec_groups",
    "matvec_codes",
    "matvec_dot",
    "matvec_core",
    "matvec_stage",
    "matvec_rstd",
    "attention_result",
    "attention_rows",
    "attention_team",
    "attention_tile",
    "experts_home",
    "experts_rows",
    "attention_coop_tile",
    "attention_coop_row",
    "matmul_halves",
    "weights",
    "functions",
    "tables",
    "no_tables",
    "route_slots",
    "attention_no_sinks",
    "attention_sinks",
    "attention_decode_sinks",
    "attention_no_norms",
    "attention_norms",
    "experts_scales",
    "route_choice",
    "router_row",
    "groups_q8",
    "prenorm_groups",
    "rank",
    "draw_kept",
];

/// The files that say which buffers beside its own a shader binds, in all ways in which they are put
/// together.
fn choices(stem: &str) -> &'static [&'static [&'static str]] {
    match stem {
        "attention" | "attention_prefill" | "attention_coop" => {
            &[&["attention_no_sinks"], &["attention_sinks"]]
        }
        "attention_decode" => &[
            &["attention_no_sinks", "attention_no_norms"],
            &["attention_decode_sinks", "attention_no_norms"],
            &["attention_no_sinks", "attention_norms"],
        ],
        _ => &[&[]],
    }
}

/// The files between the prelude and a shader.
fn parts(stem: &str) -> &'static [&'static str] {
    match stem {
        "argmax" => &["rank"],
        "quantize_q8" | "activate_q8" | "glu_q8" => &["groups_q8"],
        "prenorm_q8" | "experts_sum_q8" => &["groups_q8", "prenorm_groups"],
        "draw" => &["rank", "draw_kept"],
        "attention_coop" => &PARTS[13..15],
        "matmul_coop" | "matmul_few" => &PARTS[15..16],
        "matvec_int8" => &PARTS[2..7],
        "matvec_gated" => &PARTS[1..7],
        "matvec_residual" => &PARTS[1..6],
        "attention_decode" => &PARTS[7..10],
        "attention_join" => &PARTS[7..8],
        "attention_prefill" => &PARTS[10..11],
        "route" => &["route_slots", "route_choice"],
        "router" => &["router_row"],
        "router_route" => &["router_row", "route_slots", "route_choice"],
        "experts_exact" => &["experts_home"],
        "experts_down" => {
            &["matvec_codes", "experts_home", "experts_scales", "experts_rows", "matvec_core", "matvec_stage"]
        }
        "experts_gated" => &[
            "matvec_codes",
            "experts_home",
            "experts_scales",
            "experts_rows",
            "matvec_core",
            "matvec_stage",
            "matvec_rstd",
            "matvec_groups",
        ],
        _ => &[],
    }
}

fn stems(folder: &str, extension: &str, except: &[&str]) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|stem| !except.contains(&stem.as_str()))
        .collect()
}

#[test]
fn shaders_kernels_and_tests_pair_up() {
    let shaders = stems("shaders", "wgsl", &PARTS);
    assert_eq!(shaders, stems("src/kernels", "rs", &["mod", "experts", "matvec_core", "sizes"]));
    assert_eq!(
        shaders,
        stems(
            "tests/kernels",
            "rs",
            &["mod", "attending", "choices", "common", "products", "shaders", "timing"]
        )
    );
}

#[test]
fn every_shader_is_valid_and_portable() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let read = |stem: &str| std::fs::read_to_string(folder.join(format!("{stem}.wgsl"))).unwrap();
    let is_directive = |line: &&str| line.starts_with("enable ");
    for stem in stems("shaders", "wgsl", &[]) {
        assert!(read(&stem).starts_with("// "), "{stem}: the first line gives the purpose");
    }
    let all = stems("shaders", "wgsl", &PARTS);
    for (stem, chosen) in all.iter().flat_map(|stem| choices(stem).iter().map(move |part| (stem, *part))) {
        let parts: String = ["prelude", "weights", "functions", "tables"]
            .iter()
            .chain(parts(stem))
            .chain(chosen)
            .map(|part| read(part))
            .collect();
        let file = read(stem);
        let (directives, rest): (Vec<_>, Vec<_>) = file.lines().partition(is_directive);
        let text = format!("{}\n{parts}{}", directives.join("\n"), rest.join("\n"));
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{stem}: {}", error.emit_to_string(&text)));
        // The packing of halves is all that is used beyond the core language.
        let mut capabilities =
            naga::valid::Capabilities::default() | naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        if !directives.is_empty() {
            // Kernels beyond it are chosen where an adapter has what they take.
            capabilities |=
                naga::valid::Capabilities::SHADER_FLOAT16 | naga::valid::Capabilities::COOPERATIVE_MATRIX;
        }
        if ["attention_coop", "attention_decode"].contains(&stem.as_str()) {
            capabilities |= naga::valid::Capabilities::SUBGROUP;
        }
        let flags = naga::valid::ValidationFlags::all();
        let mut validator = naga::valid::Validator::new(flags, capabilities);
        validator.validate(&module).unwrap_or_else(|error| panic!("{stem}: {}", error.emit_to_string(&text)));
        let storage = module.global_variables.iter();
        let storage = storage.filter(|(_, v)| matches!(v.space, naga::AddressSpace::Storage { .. }));
        // Where adapters do not have one more, sinks and norms are left to other kernels.
        let has_more = chosen.iter().any(|part| ["attention_decode_sinks", "attention_norms"].contains(part));
        let most = if has_more || stem == "router_route" { 9 } else { 8 };
        assert!(storage.count() <= most, "{stem}: more storage buffers than every adapter has");
    }
}
