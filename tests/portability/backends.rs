//! Translates a module the way wgpu's backends do before their drivers compile it.

use std::io::Write;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use naga::back::{glsl, hlsl, msl, spv, wgsl};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, IndexableLength};
use naga::valid::{Capabilities, ModuleInfo};
use naga::{AddressSpace, ArraySize, Module, ShaderStage, Type, TypeInner};

/// A language that a backend of wgpu hands to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// Vulkan 1.1's SPIR-V 1.3.
    SpirV,
    /// Direct3D 12 with the system's own compiler.
    Hlsl50,
    /// Direct3D 12 with `dxcompiler.dll`.
    Hlsl64,
    /// Metal on macOS 11.
    Msl23,
    /// OpenGL ES 3.1.
    Essl310,
    /// OpenGL 4.3.
    Glsl430,
    /// Browsers.
    Wgsl,
}

/// All of them.
pub(super) const BACKENDS: [Backend; 7] = [
    Backend::SpirV,
    Backend::Hlsl50,
    Backend::Hlsl64,
    Backend::Msl23,
    Backend::Essl310,
    Backend::Glsl430,
    Backend::Wgsl,
];

/// What wgpu does not offer on a backend, with the reason: shaders that need it have a fallback there.
pub(super) const LACKS: [(Backend, Capabilities, &str); 10] = [
    (Backend::Hlsl50, Capabilities::SUBGROUP, "wave operations came with shader model 6.0"),
    (Backend::Hlsl50, Capabilities::SHADER_FLOAT16, "16-bit types came with shader model 6.2"),
    (Backend::Hlsl50, Capabilities::COOPERATIVE_MATRIX, "HLSL has no cooperative matrices"),
    (Backend::Hlsl64, Capabilities::COOPERATIVE_MATRIX, "HLSL has no cooperative matrices"),
    (Backend::Msl23, Capabilities::COOPERATIVE_MATRIX, "Metal's are 8x8, ours 16x16"),
    (Backend::Essl310, NOT_ON_GL, "wgpu's GL backend offers neither"),
    (Backend::Glsl430, NOT_ON_GL, "wgpu's GL backend offers neither"),
    (Backend::Essl310, Capabilities::COOPERATIVE_MATRIX, "GLSL has them only with Vulkan"),
    (Backend::Glsl430, Capabilities::COOPERATIVE_MATRIX, "GLSL has them only with Vulkan"),
    (Backend::Wgsl, Capabilities::COOPERATIVE_MATRIX, "an extension of naga's"),
];
const NOT_ON_GL: Capabilities = Capabilities::SUBGROUP.union(Capabilities::SHADER_FLOAT16);

/// What wgpu asks for unless it is told to trust the shader.
const CHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Restrict,
    buffer: BoundsCheckPolicy::Restrict,
    image_load: BoundsCheckPolicy::ReadZeroSkipWrite,
    binding_array: BoundsCheckPolicy::Unchecked,
};

impl Backend {
    /// Why a shader with these needs cannot run there, if it cannot.
    pub(super) fn lacks(self, needs: Capabilities) -> Option<&'static str> {
        let found = LACKS.iter().find(|(backend, lacks, _)| *backend == self && lacks.intersects(needs));
        found.map(|(_, _, reason)| *reason)
    }

    /// Translates a module without overrides, whose entry point is `main`.
    pub(super) fn translate(self, module: &Module, info: &ModuleInfo) -> Result<(), String> {
        // A writer stops where it has no words for something.
        let written = catch_unwind(AssertUnwindSafe(|| self.write(module, info)));
        written.unwrap_or_else(|_| Err("naga's writer panicked".into()))
    }

    fn write(self, module: &Module, info: &ModuleInfo) -> Result<(), String> {
        let text = match self {
            Backend::SpirV => return spirv(module, info),
            Backend::Hlsl50 => hlsl_text(module, info, hlsl::ShaderModel::V5_0),
            Backend::Hlsl64 => hlsl_text(module, info, hlsl::ShaderModel::V6_4),
            Backend::Msl23 => msl_text(module, info),
            Backend::Essl310 => glsl_text(module, info, glsl::Version::new_gles(310)),
            Backend::Glsl430 => glsl_text(module, info, glsl::Version::Desktop(430)),
            Backend::Wgsl => wgsl_text(module, info),
        }?;
        // What is written for a missing feature is sometimes nothing at all.
        if text.is_empty() { Err("nothing was written".into()) } else { Ok(()) }
    }
}

fn spirv(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        fake_missing_bindings: true,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        bounds_check_policies: CHECKED,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    let words = spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    if has_spirv_val() { validate(&words) } else { Ok(()) }
}

/// Whether Khronos' validator is installed.
pub(super) fn has_spirv_val() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| Command::new("spirv-val").arg("--version").output().is_ok())
}

fn validate(words: &[u32]) -> Result<(), String> {
    let mut command = Command::new("spirv-val");
    command.args(["--target-env", "vulkan1.1", "--uniform-buffer-standard-layout", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    child.stdin.take().unwrap().write_all(bytemuck::cast_slice(words)).map_err(|e| e.to_string())?;
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        // Debian 12's is older than cooperative matrices.
        false if said.contains("Invalid capability operand: 6022") => {
            eprintln!("SKIPPED: this spirv-val knows no cooperative matrices");
            Ok(())
        }
        false => Err(format!("spirv-val: {}", said.trim())),
    }
}

fn hlsl_text(module: &Module, info: &ModuleInfo, shader_model: hlsl::ShaderModel) -> Result<String, String> {
    let options = hlsl::Options {
        shader_model,
        fake_missing_bindings: true,
        // As Direct3D's number of workgroups needs it.
        special_constants_binding: Some(hlsl::BindTarget { space: 1, ..hlsl::BindTarget::default() }),
        ..hlsl::Options::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".into())) };
    let mut text = String::new();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    let entry_points = written.map_err(|e| e.to_string())?.entry_point_names;
    entry_points.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok(text)
}

fn msl_text(module: &Module, info: &ModuleInfo) -> Result<String, String> {
    let options = msl::Options {
        lang_version: (2, 3),
        fake_missing_bindings: true,
        bounds_check_policies: CHECKED,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, "main".into())),
        ..msl::PipelineOptions::default()
    };
    let (text, info) = msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
    info.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok(text)
}

fn glsl_text(module: &Module, info: &ModuleInfo, version: glsl::Version) -> Result<String, String> {
    // GL numbers uniform and storage buffers apart.
    let (mut uniforms, mut storages) = (0..=u8::MAX, 0..=u8::MAX);
    let binding_map = module.global_variables.iter().filter_map(|(_, variable)| {
        let slots = if variable.space == AddressSpace::Uniform { &mut uniforms } else { &mut storages };
        variable.binding.as_ref().zip(slots.next().filter(|_| variable.binding.is_some()))
    });
    let options = glsl::Options {
        version,
        binding_map: binding_map.map(|(binding, slot)| (*binding, slot)).collect(),
        zero_initialize_workgroup_memory: false,
        ..glsl::Options::default()
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: "main".into(),
        multiview: None,
    };
    let policies = BoundsCheckPolicies::default();
    let mut text = String::new();
    let writer = glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies);
    writer.map_err(|e| e.to_string())?.write().map_err(|e| e.to_string())?;
    Ok(text)
}

fn wgsl_text(module: &Module, info: &ModuleInfo) -> Result<String, String> {
    let module = &with_plain_sizes(module)?;
    let text = wgsl::write_string(module, info, wgsl::WriterFlags::empty()).map_err(|e| e.to_string())?;
    naga::front::wgsl::parse_str(&text).map_err(|error| error.emit_to_string(&text))?;
    Ok(text)
}

/// The module with numbers where arrays are as long as an override says: the writer of naga 30
/// drops the element's type there. (Browsers get the source as it is.)
fn with_plain_sizes(module: &Module) -> Result<Module, String> {
    let mut plain = module.clone();
    for (handle, ty) in module.types.iter() {
        let TypeInner::Array { base, size: size @ ArraySize::Pending(_), stride } = ty.inner else {
            continue;
        };
        let IndexableLength::Known(length) = size.resolve(module.to_ctx()).map_err(|e| e.to_string())? else {
            continue;
        };
        let size = ArraySize::Constant(NonZero::new(length).ok_or("an empty array")?);
        // No two types may be the same but for their names.
        let name = Some(format!("Sized{}", handle.index()));
        plain.types.replace(handle, Type { name, inner: TypeInner::Array { base, size, stride } });
    }
    Ok(plain)
}
