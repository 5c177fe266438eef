//! The loaded model: runs passes over the units, resident or streamed.
//!
//! Everything is made when the model is loaded: buffers, pipelines, and for each unit (and each
//! ring slot it can come to lie in) a list of prepared dispatches. A pass walks the units in
//! order; for a unit that travels it encodes the list that reads the slot of the ring's next ticket,
//! leases the ticket, submits, and releases it. Nothing else differs between resident and
//! streamed units, so their results are the same bit for bit.

mod blame;
mod cache;
mod carrier;
mod chain;
mod demand;
mod experts;
mod flow;
mod fuse;
mod inputs;
mod less;
mod pass;
pub mod probe;
mod program;
mod synthetic;
mod table;
mod timing;
mod vectors;
mod walk;
mod weights;
mod workspace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::gpu::{Dispatch, Facts, Gpu, Pipelines};
pub use crate::kernels::CacheKind;
pub use crate::kernels::draw::Choice;
use crate::kernels::{Shapes, attention_decode, router_route};
use crate::model::{Activation, Decoder};
use crate::pipeline::{Loader, Route};
use crate::plan::{Home, Plan, Work};
use crate::trace::Trace;

pub use crate::plan::LONG_PASS;
use cache::Caches;
use carrier::{Carrier, Homes};
use chain::Chains;
pub use chain::{CHAINS_MAX, PASSES_MAX, not_finite};
use demand::reads_halves;
pub use demand::{cache_kind, demand};
use experts::ExpertTables;
use flow::Flow;
use fuse::{Fusible, Fusion};
pub use less::{Planned, Tell};
pub use pass::{Class, Ids, Pass, PassToken};
use program::{Norms, Program, UnitMemory};
use table::Table;
use timing::UnitTimer;
use vectors::Vectors;
pub use weights::Weights;
use workspace::Workspace;

/// Choices that are not the planner's.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Use f32 activations everywhere.
    pub exact: bool,
    /// How keys and values are kept; if not said, f32 where all else is exact, or else f16.
    pub cache: Option<CacheKind>,
    /// Rows of the KV cache: the sum of all sequences' contexts.
    pub cache_rows: u32,
    /// How travelling units reach GPU memory.
    pub route: Route,
    /// What the model is to do; a decode pass has at most `work.batch` tokens.
    pub work: Work,
    /// Whether the GPU chooses tokens: then passes may follow each other without the CPU.
    pub on_gpu: bool,
    /// Where the timeline is recorded.
    pub trace: Trace,
    /// What kernels are laid out in, as [`probe::tune`] found; by the kind of adapter if not said.
    /// Two shapes may round differently.
    pub shapes: Option<Shapes>,
}

impl Options {
    /// What kernels are laid out in on an adapter.
    pub fn shapes_on(&self, facts: &Facts) -> Shapes {
        self.shapes.unwrap_or_else(|| Shapes::for_adapter(facts))
    }
}

/// The most sequences that one engine decodes together.
pub const BATCH_MAX: u32 = 256;

/// Sizes that fix the workspace.
struct Sizes {
    chunk: u32,
    selected: u32,
    cache: CacheKind,
    /// Bytes that attention of a decode pass needs besides its result.
    attention_bytes: u64,
    /// Whether matrices read activations as halves.
    halves: bool,
    /// The most tokens of a decode pass.
    batch: u32,
}

/// What passes have cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// Passes.
    pub passes: u64,
    /// Weight bytes that travelled for them.
    pub streamed_bytes: u64,
    /// Bytes of experts at home in host memory that they found in slots of GPU memory.
    pub slot_bytes: u64,
    /// Bytes of keys and values that travelled to the GPU for them.
    pub cache_bytes: u64,
    /// Time spent waiting for weights to arrive.
    pub waiting: Duration,
}

impl Costs {
    /// What has been added since an earlier reading.
    pub fn since(&self, earlier: &Costs) -> Costs {
        Costs {
            passes: self.passes - earlier.passes,
            streamed_bytes: self.streamed_bytes - earlier.streamed_bytes,
            slot_bytes: self.slot_bytes - earlier.slot_bytes,
            cache_bytes: self.cache_bytes - earlier.cache_bytes,
            waiting: self.waiting - earlier.waiting,
        }
    }
}

/// A model ready to run.
pub struct Engine {
    gpu: Arc<Gpu>,
    decoder: Decoder,
    plan: Plan,
    workspace: Workspace,
    caches: Caches,
    programs: Vec<UnitPrograms>,
    embed: Vec<Dispatch>,
    /// What follows it in decode passes.
    first_norm: Option<Dispatch>,
    /// For what the last pass chose, where the embedding table can be read by kernels.
    embed_chosen: Vec<Dispatch>,
    argmax: [Dispatch; 2],
    /// In its place where a token is drawn.
    draw: [Dispatch; 1],
    /// Whether the last pass has such a token.
    draws: bool,
    chains: Chains,
    ring: Option<Loader>,
    next_ticket: u64,
    weights: Weights,
    names: Arc<[String]>,
    timer: Option<UnitTimer>,
    trace: Trace,
    selected: u32,
    /// Positions of the selected tokens.
    positions: Vec<u32>,
    batch: u32,
    costs: Costs,
    tables: ExpertTables,
    /// Bytes of units of experts that travel in prefill passes alone.
    in_place_bytes: u64,
    /// Keeps weights at home alive: bind groups refer to them.
    _homes: Homes,
    _vectors: Vec<Option<Vectors>>,
    _table: Option<Table>,
}

/// A unit's programs.
struct UnitPrograms {
    /// The unit's number, and the block whose KV cache it uses.
    cache: Option<(usize, u32)>,
    /// One for each ring slot in which the unit can come to lie; none where it is resident.
    in_slot: Vec<Program>,
    /// For weights that kernels read where they live: in GPU memory, or pinned.
    at_home: Option<Program>,
}

impl UnitPrograms {
    /// The program that needs no ring, if a pass of this class has one.
    fn without_ring(&self, class: Class) -> Option<&Program> {
        // Many tokens read weights many times: pinned ones travel first.
        self.at_home.as_ref().filter(|_| self.in_slot.is_empty() || class == Class::Decode)
    }
}

impl Engine {
    /// Takes all memory, compiles all kernels and loads the resident units. `progress` hears the
    /// bytes loaded so far.
    ///
    /// # Errors
    /// When the GPU or the packed model fails.
    ///
    /// # Panics
    /// If the plan has units on disk beside such that kernels read in place, which the planner never does.
    pub fn load(
        gpu: &Arc<Gpu>,
        decoder: Decoder,
        weights: &Weights,
        plan: Plan,
        options: &Options,
        mut progress: impl FnMut(u64),
    ) -> Result<Engine> {
        let mixed = plan.direct && plan.homes.contains(&Home::Disk);
        assert!(!mixed, "a plan whose kernels read units in place has none on disk: tickets would not fit");
        let shapes = options.shapes_on(&gpu.facts);
        log::info!("kernel shapes: {shapes:?}");
        let sizes = Sizes {
            chunk: plan.chunk,
            selected: plan.selected,
            cache: cache_kind(&decoder, options),
            attention_bytes: demand::attention_bytes(&decoder, &gpu.facts, options),
            halves: reads_halves(&gpu.facts, options),
            batch: options.work.batch,
        };
        let flow = Flow::new(&decoder, options.exact);
        let workspace = Workspace::new(gpu, &decoder, &flow, &sizes)?;
        let row_bytes = sizes.cache.row_bytes(decoder.cache_width());
        let caches = Caches::new(gpu, &decoder, &plan, options, row_bytes)?;
        let names: Arc<[String]> = decoder.units.iter().map(|u| u.spec.name.clone()).collect();
        let carrier = Carrier { gpu, decoder: &decoder, weights, plan: &plan, options };
        let homes = carrier.load_homes(&mut progress)?;
        let ring = carrier.start_ring(&homes)?;
        let mut pipelines = Pipelines::deferred(gpu);
        let context = options.cache_rows;
        let kept = (sizes.cache, shapes.attention_decode);
        let attends = program::attention_bytes(&decoder, &gpu.facts, kept, (context, sizes.batch)).is_some();
        let tiles_decode = demand::tiles_decode(&gpu.facts, options);
        let head_norms = attention_decode::bind_one_more(&gpu.facts);
        let routes = sizes.batch == 1 && router_route::is_supported(&gpu.facts);
        let fusible = Fusible { norms: !tiles_decode, attention: attends, head_norms, routes };
        let fusion = Fusion::new(&decoder, &flow, options.exact, fusible);
        let tables = ExpertTables::new(gpu, &decoder, &plan)?;
        let vectors = |unit: usize| {
            let is_far = plan.direct && plan.homes[unit] == Home::Host;
            let elsewhere = plan.homes[unit] != Home::Vram && fusion.has_norms();
            (is_far || elsewhere).then(|| Vectors::new(gpu, &decoder, weights, unit)).transpose()
        };
        let vectors: Vec<_> = (0..decoder.units.len()).map(vectors).collect::<Result<_>>()?;
        let norms = |unit: usize| {
            let (sections, vectors) = (weights.sections(unit), vectors[unit].as_ref());
            let resident = homes.buffer(unit).filter(|_| plan.homes[unit] == Home::Vram);
            let buffer = vectors.map(Vectors::buffer).or(resident)?;
            Some(UnitMemory { buffer, sections, vectors })
        };
        let norms = Norms((0..decoder.units.len()).map(norms).collect());
        let builder = program::Builder {
            decoder: &decoder,
            workspace: &workspace,
            caches: &caches,
            flow: &flow,
            fusion: &fusion,
            tables: &tables,
            norms: &norms,
            exact: options.exact,
            cache: sizes.cache,
            shapes,
            tiles_decode,
            batch: sizes.batch,
            context,
        };
        let mut programs = Vec::new();
        for (unit, home) in plan.homes.iter().enumerate() {
            let sections = weights.sections(unit);
            let mut build = |buffer, vectors: Option<&Vectors>| {
                let memory = UnitMemory { buffer, sections, vectors };
                builder.unit(&mut pipelines, unit, &memory)
            };
            let is_direct = *home == Home::Host && plan.direct;
            let kept = homes.buffer(unit).filter(|_| is_direct || *home == Home::Vram);
            let copied = vectors[unit].as_ref().filter(|_| is_direct);
            let at_home = kept.map(|buffer| build(buffer, copied)).transpose()?;
            let slots = ring.iter().filter(|_| *home != Home::Vram).flat_map(Loader::slots);
            let in_slot = slots.map(|slot| build(slot, None)).collect::<Result<_>>()?;
            let cache = cache::block_of(&decoder.units[unit]).map(|block| (unit, block));
            programs.push(UnitPrograms { cache, in_slot, at_home });
        }
        let first_norm = builder.first_norm(&mut pipelines)?;
        let embed = builder.embed(&mut pipelines, None)?;
        let table = plan.table.map(|home| Table::new(gpu, &decoder, weights, home)).transpose()?;
        let embed_chosen = match &table {
            Some(table) => builder.embed(&mut pipelines, Some((table, &homes)))?,
            None => Vec::new(),
        };
        let chains = Chains::new(gpu, options.work.batch)?;
        let argmax = builder.argmax(&mut pipelines)?;
        let draw = [builder.draw(&mut pipelines)?];
        let timer = match options.trace.is_on() {
            true => UnitTimer::new(gpu, decoder.units.len(), &options.trace)?,
            false => None,
        };
        let start = Instant::now();
        pipelines.finish()?;
        log::info!("{} pipelines compiled in {:.3} s", pipelines.compiled(), start.elapsed().as_secs_f64());
        let (ours, drivers) = (gpu.account().bytes(), gpu.driver_vram_bytes());
        log::info!("GPU memory: {ours} bytes by our books, {drivers:?} by the driver's");
        let is_read = |unit: usize| plan.direct && plan.homes[unit] == Home::Host;
        let in_place = decoder.units.iter().enumerate().filter(|(unit, _)| is_read(*unit));
        let in_place = in_place.filter(|(_, unit)| experts::stack_of(unit).is_some());
        let in_place_bytes = in_place.map(|(_, unit)| unit.spec.bytes()).sum();
        Ok(Engine {
            gpu: Arc::clone(gpu),
            decoder,
            plan,
            workspace,
            caches,
            programs,
            embed,
            first_norm,
            embed_chosen,
            argmax,
            draw,
            draws: false,
            chains,
            ring,
            next_ticket: 0,
            weights: weights.clone(),
            names,
            timer,
            trace: options.trace.clone(),
            selected: 0,
            positions: Vec::new(),
            batch: options.work.batch,
            costs: Costs::default(),
            tables,
            in_place_bytes,
            _homes: homes,
            _vectors: vectors,
            _table: table,
        })
    }

    /// The model's description.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The plan it runs by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The device it runs on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The most tokens of a decode pass, one for each sequence.
    pub fn decode_tokens_max(&self) -> u32 {
        self.batch
    }

    /// What passes have cost so far: of experts, what kernels have read by their own count.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn costs(&mut self) -> Result<Costs> {
        let experts = self.tables.read_bytes(&self.gpu)?;
        self.costs.streamed_bytes += experts.far;
        self.costs.slot_bytes += experts.in_slots;
        Ok(self.costs)
    }

    /// Says whether the sequence whose position 0 has the given cache row is longer than
    /// [`Decoder::turning_point`], so that all of its positions are turned otherwise: all those that
    /// were read before that was said must be read again.
    pub fn set_long(&mut self, cache_start: u32, is_long: bool) {
        self.workspace.inputs.set_long(cache_start, is_long);
    }

    /// Says how the tokens of the sequence whose position 0 has the given cache row are drawn, for
    /// [`Engine::chosen`] and chains; if not at all, the likeliest ones are taken.
    pub fn set_choice(&mut self, cache_start: u32, choice: Option<Choice>) {
        self.workspace.inputs.set_choice(cache_start, choice);
    }

    /// Copies the first rows of the sequence whose position 0 has the cache row `from` to those of
    /// another; whether it could. Between passes alone: what the last pass found is lost.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn copy_rows(&mut self, from: u32, to: u32, rows: u32) -> Result<bool> {
        let between = self.workspace.activation(Activation::Logits);
        let copied = cache::Copied { from, to, rows };
        let mut encoder = self.gpu.encoder("shared beginning");
        let could = self.caches.copy_rows(&copied, (between, between.size()), &mut encoder);
        if could {
            self.gpu.queue.submit([encoder.finish()]);
            self.gpu.check()?;
        }
        Ok(could)
    }

    /// Forgets the sequence whose position 0 has the given cache row: where KV caches live in host
    /// memory, its rows need not travel any more.
    pub fn forget(&mut self, cache_start: u32) {
        self.caches.forget(cache_start);
    }
}
