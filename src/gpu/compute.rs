//! Compiled compute pipelines, and dispatches with their bind groups made once.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Binding, Gpu};
use crate::error::{Error, Result};

/// WGSL that stands in front of every shader.
const PRELUDE: &str = include_str!("../../shaders/prelude.wgsl");

/// A shader file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// The file's stem.
    pub name: &'static str,
    /// The file's text, without the prelude.
    pub source: &'static str,
}

impl Shader {
    /// The text that is compiled: the prelude, then the file.
    pub fn text(&self) -> String {
        format!("{PRELUDE}\n{}", self.source)
    }
}

/// How many workgroups a dispatch has, as far as it depends on the number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Workgroups that do not depend on the number of tokens; spread over x and y.
    pub groups: u32,
    /// Tokens that one workgroup serves; they are spread over z.
    pub tokens_each: u32,
}

/// The most workgroups WebGPU allows in one dimension.
const DIMENSION_MAX: u32 = 65_535;

impl Grid {
    /// Workgroups in x, y and z for a number of tokens. Shaders fold x and y with the prelude's
    /// `group_index` and drop what lies beyond `groups`.
    pub fn size(&self, tokens: u32) -> [u32; 3] {
        let y = self.groups.div_ceil(DIMENSION_MAX).max(1);
        [self.groups.div_ceil(y), y, tokens.div_ceil(self.tokens_each)]
    }
}

/// One compute dispatch, ready to be encoded any number of times.
#[derive(Clone, Debug)]
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    grid: Grid,
}

impl Dispatch {
    /// Appends the dispatch for a number of tokens to a compute pass.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32) {
        let [x, y, z] = self.grid.size(tokens);
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

type Constants = Vec<(&'static str, u64)>;

/// The pipelines compiled so far, one for each shader and set of constants.
pub struct Pipelines {
    gpu: Arc<Gpu>,
    modules: HashMap<&'static str, wgpu::ShaderModule>,
    ready: HashMap<(&'static str, Constants), wgpu::ComputePipeline>,
}

impl Pipelines {
    /// An empty set for one device.
    pub fn new(gpu: &Arc<Gpu>) -> Self {
        Pipelines { gpu: Arc::clone(gpu), modules: HashMap::new(), ready: HashMap::new() }
    }

    /// The device that the pipelines belong to.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Prepares a dispatch: compiles the shader with its `override` constants unless that was
    /// done before, and binds `bindings` to group 0 in order.
    ///
    /// # Errors
    /// [`Error::Gpu`] when the shader, a constant or a binding is refused.
    pub fn dispatch(
        &mut self,
        shader: Shader,
        constants: &[(&'static str, f64)],
        bindings: &[Binding<'_>],
        grid: Grid,
    ) -> Result<Dispatch> {
        let pipeline = self.pipeline(shader, constants)?;
        let entries: Vec<_> = (0..)
            .zip(bindings)
            .map(|(binding, b)| wgpu::BindGroupEntry { binding, resource: b.resource() })
            .collect();
        let scope = self.gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(shader.name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        refuse(pollster::block_on(scope.pop()), shader.name)?;
        Ok(Dispatch { pipeline, bind_group, grid })
    }

    /// How many pipelines were compiled.
    pub fn compiled(&self) -> usize {
        self.ready.len()
    }

    fn pipeline(
        &mut self,
        shader: Shader,
        constants: &[(&'static str, f64)],
    ) -> Result<wgpu::ComputePipeline> {
        let key = constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
        let key = (shader.name, key);
        if let Some(pipeline) = self.ready.get(&key) {
            return Ok(pipeline.clone());
        }
        let device = &self.gpu.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.modules.entry(shader.name).or_insert_with(|| {
            device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(shader.name),
                source: wgpu::ShaderSource::Wgsl(shader.text().into()),
            })
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name),
            layout: None,
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants,
                // Every shader writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        refuse(pollster::block_on(scope.pop()), shader.name)?;
        self.ready.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

fn refuse(error: Option<wgpu::Error>, shader: &str) -> Result<()> {
    error.map_or(Ok(()), |error| {
        let message = super::one_line(&error.to_string());
        Err(Error::Gpu(format!("the shader `{shader}` was refused: {message}")))
    })
}
