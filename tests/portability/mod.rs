//! Every variant of every shader translates into what each of wgpu's backends compiles; needs no GPU.

mod backends;
mod variants;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, BuiltIn, Module};
use pipo_wgpu::gpu::{Facts, Shader};
use pipo_wgpu::kernels::Constant;
use rayon::prelude::*;

use backends::{BACKENDS, Backend};
use variants::{Variant, variants};

/// What every variant may use: the core language, and the packing of halves.
const EVERYWHERE: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
/// WebGPU's default limits, which every adapter has.
const WORKGROUP_BYTES_MAX: u32 = 16 << 10;
const THREADS_MAX: u32 = 256;
const STORAGE_BUFFERS_MAX: usize = 8;

/// A shader that not every adapter can run.
struct Beyond {
    /// The file's stem.
    shader: &'static str,
    /// What it uses beyond [`EVERYWHERE`]; backends that lack it are in [`backends::LACKS`].
    needs: Capabilities,
    /// The shader that does its work everywhere else.
    fallback: &'static str,
}

/// All of them. A shader that is not here must translate for every backend.
const BEYOND: &[Beyond] = &[
    Beyond {
        shader: "attention_coop",
        needs: Capabilities::SHADER_FLOAT16
            .union(Capabilities::COOPERATIVE_MATRIX)
            .union(Capabilities::SUBGROUP),
        fallback: "attention_prefill",
    },
    Beyond { shader: "attention_decode", needs: Capabilities::SUBGROUP, fallback: "attention" },
    // It binds more buffers, and its barriers reach beyond a workgroup.
    Beyond { shader: "router_route", needs: Capabilities::empty(), fallback: "router" },
    Beyond {
        shader: "matmul_few",
        needs: Capabilities::SHADER_FLOAT16.union(Capabilities::COOPERATIVE_MATRIX),
        fallback: "matmul_int8",
    },
    Beyond {
        shader: "matmul_coop",
        needs: Capabilities::SHADER_FLOAT16.union(Capabilities::COOPERATIVE_MATRIX),
        fallback: "matmul_int8",
    },
];

fn beyond(shader: &str) -> Option<&'static Beyond> {
    BEYOND.iter().find(|beyond| beyond.shader == shader)
}

/// A parsed shader, valid with the given capabilities.
fn parse(shader: Shader, capabilities: Capabilities) -> Result<(Module, ModuleInfo), String> {
    parse_with(shader, &[], capabilities)
}

/// The same with constants, which decide whether tables of weight kinds stand in front.
fn parse_with(
    shader: Shader,
    constants: &[Constant],
    capabilities: Capabilities,
) -> Result<(Module, ModuleInfo), String> {
    let text = shader.text(constants);
    let module = naga::front::wgsl::parse_str(&text).map_err(|error| error.emit_to_string(&text))?;
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|error| error.emit_to_string(&text))?;
    Ok((module, info))
}

/// A variant as a backend meets it: with numbers for its constants, and again valid.
fn finished(variant: &Variant, needs: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let (module, info) = parse_with(variant.shader, &variant.constants, EVERYWHERE | needs)?;
    let constants = variant.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let main = Some((naga::ShaderStage::Compute, "main"));
    let (module, _) = naga::back::pipeline_constants::process_overrides(&module, &info, main, &constants)
        .map_err(|error| error.to_string())?;
    let module = module.into_owned();
    let info = Validator::new(ValidationFlags::all(), EVERYWHERE | needs).validate(&module);
    Ok((module, info.map_err(|error| format!("{error:?}"))?))
}

/// What is wrong with a variant.
fn problems(variant: &Variant) -> Vec<String> {
    let beyond = beyond(variant.shader.name);
    let needs = beyond.map_or(Capabilities::empty(), |beyond| beyond.needs);
    let (module, info) = match finished(variant, needs) {
        Ok(finished) => finished,
        Err(error) => return vec![error],
    };
    let mut problems = Vec::new();
    if beyond.is_none() && !variant.large {
        problems.extend(above_the_limits(&module));
    }
    for backend in BACKENDS.into_iter().filter(|backend| backend.lacks(needs).is_none()) {
        problems.extend(backend.translate(&module, &info).err().map(|error| format!("{backend:?}: {error}")));
    }
    problems
}

/// What a module takes that not every adapter has.
fn above_the_limits(module: &Module) -> Option<String> {
    let [x, y, z] = module.entry_points[0].workgroup_size;
    let threads = x * y * z;
    let mut layouts = naga::proc::Layouter::default();
    layouts.update(module.to_ctx()).unwrap();
    let variables = || module.global_variables.iter().map(|(_, variable)| variable);
    let shared = variables().filter(|variable| variable.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|variable| layouts[variable.ty].size).sum();
    let storage =
        variables().filter(|variable| matches!(variable.space, AddressSpace::Storage { .. })).count();
    let fits = threads <= THREADS_MAX && bytes <= WORKGROUP_BYTES_MAX && storage <= STORAGE_BUFFERS_MAX;
    (!fits).then(|| format!("{threads} threads, {bytes} bytes for them, {storage} storage buffers"))
}

fn shader_files() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // The others are parts of these.
    let whole = paths.filter(|path| std::fs::read_to_string(path).unwrap().contains("\nfn main("));
    whole.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_variant_translates_for_every_backend() {
    let variants = variants();
    let named: BTreeSet<_> = variants.iter().map(|variant| variant.shader.name.to_owned()).collect();
    assert_eq!(named, shader_files(), "each shader has variants in tests/portability/variants.rs");
    let small = variants.iter().filter(|variant| !variant.large).map(|variant| variant.shader.name);
    let large = variants.iter().map(|variant| variant.shader.name);
    let small: BTreeSet<_> = small.collect();
    assert_eq!(small, large.collect(), "each has a variant within WebGPU's default limits");
    let found: Vec<_> = variants
        .par_iter()
        .flat_map_iter(|variant| {
            let about = |problem| format!("{} with {:?}: {problem}", variant.shader.name, variant.constants);
            problems(variant).into_iter().map(about)
        })
        .collect();
    let some = found.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(found.is_empty(), "{} of {}:\n{some}", found.len(), variants.len());
    if !backends::has_spirv_val() {
        eprintln!("SKIPPED: no spirv-val (Debian's spirv-tools) checks the SPIR-V");
    }
}

#[test]
fn what_not_every_adapter_has_is_declared_and_has_a_fallback() {
    let files = shader_files();
    for shader in variants().iter().map(|variant| variant.shader).collect::<HashSet<_>>() {
        let plain = parse(shader, EVERYWHERE);
        match beyond(shader.name) {
            None => drop(plain.unwrap_or_else(|error| panic!("{}: {error}", shader.name))),
            Some(beyond) => {
                let is_plain = plain.is_ok() && !beyond.needs.is_empty();
                assert!(!is_plain, "{}: it needs nothing beyond what every adapter has", shader.name);
                assert!(files.contains(beyond.fallback), "{}: no {}", shader.name, beyond.fallback);
                assert!(self::beyond(beyond.fallback).is_none(), "{} runs everywhere", beyond.fallback);
            }
        }
    }
}

/// Subgroups of 8 to 128 threads: a shader with subgroup operations asks how large they are.
#[test]
fn subgroups_may_have_any_size() {
    for variant in variants() {
        if parse(variant.shader, EVERYWHERE).is_ok() {
            continue;
        }
        let needs = beyond(variant.shader.name).map_or(Capabilities::all(), |beyond| beyond.needs);
        let without = EVERYWHERE | needs.difference(Capabilities::SUBGROUP);
        if parse(variant.shader, without).is_err() {
            let (module, _) = parse(variant.shader, EVERYWHERE | needs).unwrap();
            assert!(asks_for_subgroup_size(&module), "{} does not read subgroup_size", variant.shader.name);
        }
    }
}

/// Where subgroups may be too small for a kernel, the other one is taken.
#[test]
fn small_subgroups_get_the_kernel_without() {
    use pipo_wgpu::kernels::attention_decode::{Spec, is_supported};
    let mut facts = Facts::assumed();
    for size in [1, 4, 8, 16, 32, 64, 128] {
        facts.info.subgroup_min_size = size;
        for head_dim in [64, 96, 128, 256] {
            let spec = Spec { head_dim, ..variants::ATTENTION_DECODE };
            facts.features = wgpu::Features::SUBGROUP;
            let lanes = (head_dim / 8_u32).next_power_of_two();
            assert_eq!(is_supported(&facts, &spec), lanes <= size, "{head_dim} in {size}");
            facts.features = wgpu::Features::empty();
            assert!(!is_supported(&facts, &spec));
        }
    }
}

fn asks_for_subgroup_size(module: &Module) -> bool {
    let arguments = module.entry_points.iter().flat_map(|entry| &entry.function.arguments);
    let is_size = |binding: &naga::Binding| matches!(binding, naga::Binding::BuiltIn(BuiltIn::SubgroupSize));
    arguments.filter_map(|argument| argument.binding.as_ref()).any(is_size)
}

/// What measures the ceilings in `benches/kernels` runs on GPUs that few have.
#[test]
fn the_shaders_of_benches_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/kernels");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let shaders: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "wgsl")).collect();
    assert!(shaders.len() >= 4);
    for path in shaders {
        let source = std::fs::read_to_string(&path).unwrap().leak();
        let variant = Variant { shader: made_up(source), constants: Vec::new(), large: false };
        let rounds = if source.contains("override ROUNDS") { "ROUNDS" } else { "GROUPS" };
        let variant = Variant { constants: vec![(rounds, 8.0)], ..variant };
        let (module, info) =
            finished(&variant, Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Backend::SpirV
            .translate(&module, &info)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

fn made_up(source: &'static str) -> Shader {
    Shader { name: "made_up", source }
}

/// The checks above can fail.
#[test]
fn what_is_not_portable_is_seen() {
    const PLAIN: &str = "
        var<workgroup> tile: array<vec4<f32>, 1025>;
        @group(0) @binding(0) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {
            tile[i] = vec4<f32>(y[i]);
            y[i] = tile[i].x;
        }";
    const SUBGROUPS: &str = "
        @group(0) @binding(0) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {
            y[i] = subgroupAdd(y[i]);
        }";
    let variant = |source| Variant { shader: made_up(source), constants: Vec::new(), large: false };
    let wide = problems(&variant(PLAIN));
    assert!(wide.len() == 1 && wide[0].contains("16400 bytes"), "{wide:?}");
    let unknown = Variant { constants: vec![("NO_SUCH", 1.0)], ..variant(PLAIN) };
    assert!(problems(&unknown)[0].contains("NO_SUCH"));
    let undeclared = problems(&variant(SUBGROUPS));
    assert!(undeclared.len() == 1 && undeclared[0].contains("SUBGROUP"), "{undeclared:?}");
    let (module, info) = finished(&variant(SUBGROUPS), Capabilities::SUBGROUP).unwrap();
    assert!(!asks_for_subgroup_size(&module));
    assert!(Backend::SpirV.translate(&module, &info).is_ok());
    assert!(Backend::Essl310.lacks(Capabilities::SUBGROUP).is_some());
}
