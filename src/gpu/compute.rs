//! Compiled compute pipelines, and dispatches with their bind groups made once.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::{Binding, Gpu, PipelineCache, trusted};
use crate::error::{Error, Result};

/// WGSL that stands in front of every shader.
const PRELUDE: &str = concat!(
    include_str!("../../shaders/prelude.wgsl"),
    include_str!("../../shaders/weights.wgsl"),
    include_str!("../../shaders/functions.wgsl")
);
/// What stands behind that: for weight kinds whose codes a table explains, and for all else.
const TABLES: &str = include_str!("../../shaders/tables.wgsl");
const NO_TABLES: &str = include_str!("../../shaders/no_tables.wgsl");
/// The constant that says a weight kind, and the number from which on kinds have tables.
const KIND: &str = "KIND";
const KIND_WITH_TABLE: f64 = 7.0;

/// A shader file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shader {
    /// The file's stem.
    pub name: &'static str,
    /// The file's text, without the prelude.
    pub source: &'static str,
}

impl Hash for Shader {
    /// Names differ; texts are long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Shader {
    /// The text that is compiled with some constants: the file's `enable` directives, the prelude,
    /// tables if a weight kind has any, the rest.
    pub fn text(&self, constants: &[(&str, f64)]) -> String {
        self.text_with(has_tables(constants.iter().copied()))
    }

    fn text_with(&self, tables: bool) -> String {
        let is_directive = |line: &&str| line.starts_with("enable ");
        let directives = self.source.lines().filter(is_directive);
        let rest = self.source.lines().filter(|line| !is_directive(line));
        let tables = if tables { TABLES } else { NO_TABLES };
        let lines = directives.chain(PRELUDE.lines()).chain(tables.lines()).chain(rest);
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// Whether the constants say a weight kind with a table.
fn has_tables<'a>(mut constants: impl Iterator<Item = (&'a str, f64)>) -> bool {
    constants.any(|(name, value)| name == KIND && value >= KIND_WITH_TABLE)
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

/// One compute dispatch, prepared to be encoded any number of times.
#[derive(Clone, Debug)]
pub struct Dispatch {
    prepared: Arc<OnceLock<Prepared>>,
    grid: Grid,
}

/// What a dispatch is made of once its pipeline is compiled.
#[derive(Debug)]
struct Prepared {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
}

impl Dispatch {
    /// Appends the dispatch for a number of tokens to a compute pass.
    ///
    /// # Panics
    /// Before [`Pipelines::finish`], where the pipelines were [`Pipelines::deferred`].
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32) {
        let prepared = self.prepared.get().expect("deferred pipelines are finished before they run");
        let [x, y, z] = self.grid.size(tokens);
        pass.set_pipeline(&prepared.pipeline);
        pass.set_bind_group(0, &prepared.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

type Constants = Vec<(&'static str, u64)>;
/// A pipeline: its shader, and the bits of its constants.
type Key = (Shader, Constants);

/// The module that a pipeline is made of.
fn module_of((shader, constants): &Key) -> (Shader, bool) {
    (*shader, has_tables(constants.iter().map(|(name, bits)| (*name, f64::from_bits(*bits)))))
}

/// A dispatch whose pipeline is yet to be compiled.
struct Waiting {
    key: Key,
    bindings: Vec<(wgpu::Buffer, Range<u64>)>,
    dispatch: Arc<OnceLock<Prepared>>,
}

/// The pipelines compiled so far, one for each shader and set of constants.
pub struct Pipelines {
    gpu: Arc<Gpu>,
    /// With tables of weight kinds, or without.
    modules: HashMap<(Shader, bool), wgpu::ShaderModule>,
    ready: HashMap<Key, wgpu::ComputePipeline>,
    waiting: Vec<Waiting>,
    deferred: bool,
}

impl Pipelines {
    /// An empty set for one device.
    pub fn new(gpu: &Arc<Gpu>) -> Self {
        Pipelines {
            gpu: Arc::clone(gpu),
            modules: HashMap::new(),
            ready: HashMap::new(),
            waiting: Vec::new(),
            deferred: false,
        }
    }

    /// The same, but nothing is compiled before [`Pipelines::finish`], and then all together.
    pub fn deferred(gpu: &Arc<Gpu>) -> Self {
        Pipelines { deferred: true, ..Pipelines::new(gpu) }
    }

    /// The device that the pipelines belong to.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Prepares a dispatch: compiles the shader with its `override` constants unless that was
    /// done before or is deferred, and binds `bindings` to group 0 in order.
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
        let key = (shader, constants.iter().map(|(name, value)| (*name, value.to_bits())).collect());
        let bindings = bindings.iter().map(|b| (b.buffer.clone(), b.range.clone())).collect();
        let prepared = Arc::default();
        self.waiting.push(Waiting { key, bindings, dispatch: Arc::clone(&prepared) });
        if !self.deferred {
            self.prepare()?;
        }
        Ok(Dispatch { prepared, grid })
    }

    /// Compiles what was deferred, on all of the processor's cores, and keeps it for the next
    /// start.
    ///
    /// # Errors
    /// [`Error::Gpu`] for the first dispatch whose shader, constants or bindings are refused.
    pub fn finish(&mut self) -> Result<()> {
        self.prepare()?;
        if let Some(cache) = self.gpu.pipeline_cache() {
            cache.save();
        }
        Ok(())
    }

    /// How many pipelines were compiled.
    pub fn compiled(&self) -> usize {
        self.ready.len()
    }

    fn prepare(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let keys = waiting.iter().map(|waiting| waiting.key.clone());
        let keys = first_of_each(keys.filter(|key| !self.ready.contains_key(key)));
        let shaders = keys.iter().map(module_of);
        let shaders = first_of_each(shaders.filter(|shader| !self.modules.contains_key(shader)));
        let modules = self.each(&shaders, |(shader, tables)| self.module(*shader, *tables))?;
        self.modules.extend(shaders.into_iter().zip(modules));
        let compiled = self.each(&keys, |key| self.pipeline(key))?;
        self.ready.extend(keys.into_iter().zip(compiled));
        for Waiting { key, bindings, dispatch } in &waiting {
            let pipeline = self.ready[key].clone();
            let bind_group = self.bind(key.0, &pipeline, bindings)?;
            // Each cell is made for one waiting dispatch and filled here alone.
            let _ = dispatch.set(Prepared { pipeline, bind_group });
        }
        Ok(())
    }

    /// Does the same for each item, side by side where the backend lets several threads compile;
    /// the first item's error counts, whichever came first.
    fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        make: impl Fn(&T) -> Result<R> + Send + Sync,
    ) -> Result<Vec<R>> {
        // OpenGL's one context goes from thread to thread, and waits for it end in a panic.
        if items.len() < 2 || self.gpu.facts.info.backend == wgpu::Backend::Gl {
            return items.iter().map(make).collect();
        }
        let made: Vec<_> = items.par_iter().map(make).collect();
        made.into_iter().collect()
    }

    fn module(&self, shader: Shader, tables: bool) -> Result<wgpu::ShaderModule> {
        self.checked(shader, || {
            let source = wgpu::ShaderSource::Wgsl(shader.text_with(tables).into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(shader.name), source };
            trusted::shader_module(&self.gpu.device, shader.name, descriptor)
        })
    }

    fn pipeline(&self, key: &Key) -> Result<wgpu::ComputePipeline> {
        let (shader, constants) = key;
        let constants: Vec<_> = constants.iter().map(|(name, bits)| (*name, f64::from_bits(*bits))).collect();
        self.checked(*shader, || {
            self.gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(shader.name),
                layout: None,
                module: &self.modules[&module_of(key)],
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    // Every shader writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                },
                cache: self.gpu.pipeline_cache().map(PipelineCache::raw),
            })
        })
    }

    fn bind(
        &self,
        shader: Shader,
        pipeline: &wgpu::ComputePipeline,
        bindings: &[(wgpu::Buffer, Range<u64>)],
    ) -> Result<wgpu::BindGroup> {
        let resources =
            bindings.iter().map(|(buffer, range)| Binding { buffer, range: range.clone() }.resource());
        let entries =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let entries: Vec<_> = entries.collect();
        self.checked(shader, || {
            self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(shader.name),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            })
        })
    }

    /// Makes something of a shader's; an error names the shader.
    fn checked<R>(&self, shader: Shader, make: impl FnOnce() -> R) -> Result<R> {
        let scope = self.gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        refuse(pollster::block_on(scope.pop()), shader.name).map(|()| made)
    }
}

/// The items without repetitions, in order.
fn first_of_each<T: Clone + Eq + Hash>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

fn refuse(error: Option<wgpu::Error>, shader: &str) -> Result<()> {
    error.map_or(Ok(()), |error| {
        let message = super::one_line(&error.to_string());
        Err(Error::Gpu(format!("the shader `{shader}` was refused: {message}")))
    })
}
