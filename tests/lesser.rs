//! Devices with less than this machine's adapter offers, and the adapter through OpenGL.

use std::process::Command;
use std::sync::Arc;

use pipo_wgpu::gpu::{Gpu, Opening, Place, Reduced};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::trace::Trace;
use wgpu::Features;

use crate::builtin::story;
use crate::common::{Model, fixture};
use crate::oracles::{Expected, all_logits, greedy, options, relative_error};

/// Fixtures that between them use every kind of kernel; the first ones use most.
const MODELS: [&str; 4] = ["llama3_gqa", "opt", "llama_wide_head", "smol"];

fn open(reduced: Reduced) -> Arc<Gpu> {
    let opening = Opening { reduced: Some(reduced), ..Opening::default() };
    Gpu::open_as(&opening).expect("tests need a Vulkan adapter; run make test")
}

fn without(features: Features) -> Reduced {
    Reduced { without: features, ..Reduced::nothing() }
}

/// A way to have less, and whether a device still has what must not be there any more.
type Lesser = (&'static str, Reduced, fn(&Gpu) -> bool);

fn lesser() -> Vec<Lesser> {
    let timestamps = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
    let limits = Reduced { limits: wgpu::Limits::default(), ..Reduced::nothing() };
    vec![
        ("no subgroups", without(Features::SUBGROUP), |gpu| has(gpu, Features::SUBGROUP)),
        ("no f16", without(Features::SHADER_F16), |gpu| has(gpu, Features::SHADER_F16)),
        ("no timestamps", without(timestamps), |gpu| has(gpu, Features::TIMESTAMP_QUERY)),
        ("no pipeline cache", without(Features::PIPELINE_CACHE), |gpu| has(gpu, Features::PIPELINE_CACHE)),
        ("no places of its own", Reduced { places: false, ..Reduced::nothing() }, |gpu| {
            [Place::Pinned, Place::MappedVram, Place::Vram].into_iter().any(|place| gpu.has(place))
        }),
        ("least limits", limits, |gpu| !is_least(&gpu.facts.limits)),
        ("WebGPU", Reduced::to_webgpu(), |gpu| {
            !gpu.facts.features.is_empty() || !is_least(&gpu.device.limits()) || gpu.has(Place::Pinned)
        }),
    ]
}

fn has(gpu: &Gpu, features: Features) -> bool {
    gpu.facts.features.intersects(features) || gpu.device.features().intersects(features)
}

fn is_least(limits: &wgpu::Limits) -> bool {
    limits.max_compute_workgroup_storage_size == 16 << 10
        && limits.max_compute_invocations_per_workgroup == 256
        && limits.max_storage_buffers_per_shader_stage == 8
        && limits.max_storage_buffer_binding_size == 128 << 20
}

/// Transformers' logits, through both classes of kernels, and weights on a 4-bit grid.
fn check_fixtures(what: &str, gpu: &Arc<Gpu>, models: &[&str]) {
    let cases = models.iter().map(|name| (*name, WeightKind::F32, false));
    for (name, kind, exact) in cases.chain([("grid_q4", WeightKind::W4, true)]) {
        let (expected, model) = (Expected::new(name), Model::new(&fixture(name), kind));
        let mut engine = model.resident_on(gpu, &options(exact));
        let error =
            relative_error(&all_logits(&mut engine, &expected.ids("ids")), &expected.floats("logits"));
        assert!(error < 1e-3, "{what}, {name}: {error}");
        let want = expected.ids("greedy");
        assert_eq!(greedy(&mut engine, &expected.ids("ids"), want.len()), want, "{what}, {name}");
    }
    let (expected, model) = (Expected::new("grid_q4"), Model::new(&fixture("grid_q4"), WeightKind::W4));
    let found = all_logits(&mut model.resident_on(gpu, &options(false)), &expected.ids("ids"));
    let error = relative_error(&found, &expected.floats("logits"));
    assert!((1e-5..5e-2).contains(&error), "{what}, int8 activations: {error}");
}

#[test]
fn lesser_devices_give_transformers_logits() {
    let whole = open(Reduced::nothing());
    for (what, reduced, is_left) in lesser() {
        let gpu = open(reduced);
        assert!(!is_left(&gpu), "{what}: {:?}", gpu.facts);
        assert_eq!(gpu.facts.features, gpu.device.features() & gpu.facts.features, "{what}");
        assert!(whole.facts.features.contains(gpu.facts.features), "{what}");
        // One difference at a time changes few kernels.
        check_fixtures(what, &gpu, if what == "WebGPU" { &MODELS } else { &MODELS[..1] });
    }
}

/// What the test above looks for is there to be left out.
#[test]
fn this_adapter_has_what_is_left_out() {
    let whole = open(Reduced::nothing());
    if !whole.facts.is_software() {
        return;
    }
    for (what, _, is_left) in lesser().into_iter().filter(|(what, ..)| *what != "no f16") {
        assert!(is_left(&whole), "{what}");
    }
}

/// The least that a device can be, with weights that travel, and a timeline that it cannot fill.
#[test]
fn the_least_device_tells_the_golden_story() {
    let golden = std::fs::read_to_string(fixture("story/greedy.txt")).unwrap();
    let gpu = open(Reduced::to_webgpu());
    assert_eq!(story(&gpu, 8 << 20, true), (true, golden));
    let model = Model::new(&fixture("llama3_gqa"), WeightKind::F32);
    let trace = Trace::on();
    let mut engine = model.resident_on(&gpu, &pipo_wgpu::engine::Options { trace, ..options(false) });
    assert_eq!(greedy(&mut engine, &[1, 2, 3], 4).len(), 4);
}

/// wgpu's GL backend, here with Mesa's software renderer: compute shaders in GLSL, no place of
/// memory but wgpu's, no subgroups. None where a machine has no such driver.
fn opengl() -> Option<Arc<Gpu>> {
    let opening = Opening { backends: Some(wgpu::Backends::GL), ..Opening::default() };
    let opened = Gpu::open_as(&opening);
    if let Err(error) = &opened {
        eprintln!("SKIPPED: no OpenGL adapter (Debian's libegl1 and libgl1-mesa-dri): {error}");
    }
    let gpu = opened.ok()?;
    assert_eq!(gpu.facts.info.backend, wgpu::Backend::Gl);
    Some(gpu)
}

#[test]
fn opengl_tells_the_golden_story() {
    let Some(gpu) = opengl() else { return };
    let golden = std::fs::read_to_string(fixture("story/greedy.txt")).unwrap();
    assert_eq!(story(&gpu, 64 << 20, true), (false, golden));
    check_fixtures("OpenGL", &gpu, &MODELS);
}

/// Every kernel that needs no subgroups against its reference, by this program's own tests.
#[test]
fn opengl_passes_the_tests_of_kernels() {
    if opengl().is_none() {
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["equals_the_reference", "--skip", "in_every", "--skip", "attention_decode"]);
    let output = again.env("WGPU_BACKEND", "gl").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("running 0 tests"), "{text}");
}
