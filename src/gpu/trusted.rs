//! Where wgpu wants a word that its checks can be left out: experimental features, proven shaders.
#![allow(unsafe_code)]

use super::Facts;

/// Shaders whose every index into workgroup memory and buffers is in range by construction, and
/// whose loops all end. The clamps that naga would add cost `matmul_coop` a fifth of its rate, and
/// its counters of loops keep drivers from unrolling those of attention.
const UNCHECKED: [&str; 6] = [
    "matmul_coop",
    "matmul_few",
    "attention_coop",
    "attention_decode",
    "attention_join",
    "attention_prefill",
];

/// What a device of this adapter needs for its features.
pub(super) fn experimental_features(facts: &Facts) -> wgpu::ExperimentalFeatures {
    if !facts.has_matrix_units() {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: cooperative matrices are the only experimental feature that is asked for, and one
    // kernel with its own tests the only user; it keeps to what wgpu documents of them.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Makes a shader module.
pub(super) fn shader_module(
    device: &wgpu::Device,
    name: &str,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    if !UNCHECKED.contains(&name) {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: see `UNCHECKED`; reads beyond a binding, which no size of a product leads to, would
    // still be caught by the driver, whose robust access stays on.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
