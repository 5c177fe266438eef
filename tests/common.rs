//! What several topics share: the device, fixtures packed on the fly, engines over them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::engine::{self, Engine, Options, Weights};
use pipo_wgpu::error::Result;
use pipo_wgpu::gpu::{AdapterChoice, Gpu};
use pipo_wgpu::model::{self, Decoder};
use pipo_wgpu::pack::{self, Packed, Watch};
use pipo_wgpu::plan::{self, Budget, Plan, Rates};
use pipo_wgpu::quant::WeightKind;
use serde_json::Value;

/// One device for all tests.
pub fn gpu() -> &'static Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Gpu::open(&AdapterChoice::Best).expect("tests need a Vulkan adapter; run make test"))
}

/// A fixture of this repository.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file beside the repository that only some machines have; says loudly when it is missing.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not on this machine", path.display());
    None
}

/// A fixture packed into memory-mapped form, with its description.
pub struct Model {
    pub decoder: Decoder,
    pub packed: Arc<Packed>,
    /// Deletes the packed file at the end.
    _folder: tempfile::TempDir,
}

impl Model {
    pub fn new(folder: &Path, kind: WeightKind) -> Model {
        Model::changed(folder, kind, |_| {})
    }

    /// A checkpoint's matrices as they are.
    pub fn own(path: &Path) -> Model {
        let checkpoint = Checkpoint::open(path).unwrap();
        let config = checkpoint.read_json("config.json").unwrap().unwrap();
        let plain = model::describe(path, &config, WeightKind::W4).unwrap();
        let kinds = model::Kinds::of(&checkpoint, &plain).unwrap();
        Model::changed(path, kinds.base, |decoder| decoder.adapt(&kinds).unwrap())
    }

    /// The same with a change to its description before it is packed.
    pub fn changed(folder: &Path, kind: WeightKind, change: impl FnOnce(&mut Decoder)) -> Model {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let config = checkpoint.read_json("config.json").unwrap().unwrap_or(Value::Null);
        let mut decoder = model::describe(&folder.join("config.json"), &config, kind).unwrap();
        change(&mut decoder);
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("model.safetensors");
        pack::write(&path, &decoder.packed_units(), &checkpoint, &[], Watch::NONE).unwrap();
        let packed = Arc::new(Packed::open(&path).unwrap());
        Model { decoder, packed, _folder: temporary }
    }

    /// A plan for `options` within a budget.
    pub fn plan(&self, options: &Options, budget: &Budget) -> Result<Plan> {
        self.plan_on(gpu(), options, budget)
    }

    /// An engine by a plan.
    pub fn engine(&self, plan: Plan, options: &Options) -> Engine {
        self.engine_on(gpu(), plan, options)
    }

    /// An engine with everything resident.
    pub fn resident(&self, options: &Options) -> Engine {
        self.resident_on(gpu(), options)
    }

    /// The same on another device than the tests' own.
    pub fn resident_on(&self, gpu: &Arc<Gpu>, options: &Options) -> Engine {
        let budget = Budget { vram_bytes: 256 << 20, threads: 1, ..Budget::default() };
        self.engine_on(gpu, self.plan_on(gpu, options, &budget).unwrap(), options)
    }

    fn plan_on(&self, gpu: &Gpu, options: &Options, budget: &Budget) -> Result<Plan> {
        let rates = Rates { link: 1e9, direct: None, kernel: 1e10, unit_seconds: 1e-5, ..Rates::default() };
        plan::plan(&engine::demand(&self.decoder, &gpu.facts, options, true), budget, &rates)
    }

    pub fn engine_on(&self, gpu: &Arc<Gpu>, plan: Plan, options: &Options) -> Engine {
        let weights = Weights::new(Arc::clone(&self.packed), &self.decoder).unwrap();
        Engine::load(gpu, self.decoder.clone(), &weights, plan, options, |_| {}).unwrap()
    }
}
