//! Which adapters there are, which one is best, and opening a device on it.

use super::trusted;
use super::vulkan::{self, Offers, TransferQueue};
use crate::error::{Error, Result};

/// How the user names an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// Discrete before integrated before software.
    #[default]
    Best,
    /// Position in the list of `pipo-wgpu devices`.
    Number(usize),
    /// Part of the adapter's name, in any case.
    Name(String),
}

impl std::str::FromStr for AdapterChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| AdapterChoice::Name(text.into()), AdapterChoice::Number))
    }
}

/// What an adapter is and can do, as far as decisions rest on it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The name, driver and kind that the driver reports.
    pub info: wgpu::AdapterInfo,
    /// The adapter's own limits, all of which are requested.
    pub limits: wgpu::Limits,
    /// The optional features that the adapter has, all of which are requested.
    pub features: wgpu::Features,
    /// Which routes weights can take.
    pub routes: Routes,
}

/// What an adapter offers beyond staging, which all have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Kernels can read pinned host memory.
    pub pinned: bool,
    /// The CPU can write GPU memory.
    pub mapped: bool,
    /// A queue of its own can copy beside the kernels.
    pub transfer: bool,
}

impl Routes {
    /// Each route, or why there is none.
    pub fn describe(&self) -> String {
        let has = |there: bool, route: &str, why: &str| match there {
            true => route.to_owned(),
            false => format!("no {route} ({why})"),
        };
        let dma = has(self.transfer && self.pinned, "dma", "no queue that only copies, or not Vulkan 1.2");
        let mapped = has(self.mapped, "mapped", "the CPU reaches less than 1 GiB of GPU memory");
        let direct = has(self.pinned, "direct", "kernels cannot be given host memory");
        format!("{direct}, {dma}, {mapped}, staged, write-buffer")
    }
}

/// Features that are used where an adapter has them; none is required.
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::PIPELINE_CACHE)
    .union(wgpu::Features::SUBGROUP);

/// Features that multiplying on matrix units takes, used together or not at all.
const MATRIX_UNITS: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

/// Threads of the subgroups that kernels on matrix units are written for.
const MATRIX_SUBGROUP: u32 = 32;

/// [`MATRIX_UNITS`] where an adapter multiplies 16 x 16 matrices of f16 into f32, in subgroups
/// that always have 32 threads.
fn matrix_units(adapter: &wgpu::Adapter) -> wgpu::Features {
    let info = adapter.get_info();
    let fits = |shape: &wgpu::CooperativeMatrixProperties| {
        [shape.m_size, shape.n_size, shape.k_size] == [16; 3]
            && shape.ab_type == wgpu::CooperativeScalarType::F16
            && shape.cr_type == wgpu::CooperativeScalarType::F32
    };
    let has = adapter.features().contains(MATRIX_UNITS)
        && [info.subgroup_min_size, info.subgroup_max_size] == [MATRIX_SUBGROUP; 2]
        && adapter.cooperative_matrix_properties().iter().any(fits);
    if has { MATRIX_UNITS } else { wgpu::Features::empty() }
}

/// Buffers larger than this get memory of their own, of just their size; the others share blocks.
/// wgpu's least. Larger blocks were seen to waste 5 % of a budget of 6 GiB.
const SHARED_BLOCK_BYTES: u64 = 4 << 20;

impl Facts {
    /// A common discrete card, for plans without one at hand.
    pub fn assumed() -> Self {
        Facts {
            info: wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan),
            limits: wgpu::Limits::default(),
            features: WANTED,
            routes: Routes { pinned: true, mapped: false, transfer: true },
        }
    }

    pub(super) fn of(adapter: &wgpu::Adapter) -> Self {
        Facts {
            info: adapter.get_info(),
            limits: adapter.limits(),
            features: (adapter.features() & WANTED) | matrix_units(adapter),
            routes: Offers::of(adapter).routes(),
        }
    }

    /// Whether kernels can multiply 16 x 16 matrices of f16 into f32, in subgroups of 32 threads.
    pub fn has_matrix_units(&self) -> bool {
        self.features.contains(MATRIX_UNITS)
    }

    /// Whether the "GPU" is the CPU.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Whether GPU memory is main memory.
    pub fn shares_ram(&self) -> bool {
        matches!(self.info.device_type, wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu)
    }

    /// One line: name, kind, backend and driver.
    pub fn describe(&self) -> String {
        let kind = match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let driver = format!("{} {}", self.info.driver, self.info.driver_info);
        format!("{} ({kind}, {}, {})", self.info.name, self.info.backend, driver.trim())
    }

    /// Lower is better: kind first, then how much of the engine's speed the backend allows.
    fn rank(&self) -> (u8, u8) {
        let kind = match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        let backend = match self.info.backend {
            wgpu::Backend::Vulkan | wgpu::Backend::Metal => 0,
            wgpu::Backend::Dx12 => 1,
            _ => 2,
        };
        (kind, backend)
    }
}

/// Every adapter with compute shaders, best first.
pub fn list_adapters() -> Vec<Facts> {
    enumerate(None).iter().map(Facts::of).collect()
}

/// Adapters of the platform's own APIs, or, where there are none, of OpenGL. `WGPU_BACKEND` names
/// others.
fn enumerate(backends: Option<wgpu::Backends>) -> Vec<wgpu::Adapter> {
    let named = backends.or_else(wgpu::Backends::from_env);
    let tries = named.map_or(vec![wgpu::Backends::PRIMARY, wgpu::Backends::SECONDARY], |b| vec![b]);
    tries.into_iter().map(enumerate_on).find(|found| !found.is_empty()).unwrap_or_default()
}

fn enumerate_on(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // Debug information in shaders is SPIR-V that older validation layers do not know; WGPU_DEBUG=1
    // asks for it all the same.
    descriptor.flags.remove(wgpu::InstanceFlags::DEBUG);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor { backends, ..descriptor.with_env() });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.retain(|a| {
        let flags = a.get_downlevel_capabilities().flags;
        flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    adapters.sort_by_cached_key(|a| Facts::of(a).rank());
    adapters
}

pub(super) fn choose(choice: &AdapterChoice, backends: Option<wgpu::Backends>) -> Result<wgpu::Adapter> {
    let adapters = enumerate(backends);
    let names: Vec<_> = adapters.iter().map(|a| a.get_info().name).collect();
    if adapters.is_empty() {
        return Err(Error::NoAdapter(
            "no GPU adapter was found; install a Vulkan driver (for software rendering on \
             Debian or Ubuntu: apt-get install mesa-vulkan-drivers)"
                .into(),
        ));
    }
    let named = |part: &str| {
        let part = part.to_lowercase();
        names.iter().position(|name| name.to_lowercase().contains(&part))
    };
    let index = match choice {
        AdapterChoice::Best => Some(0),
        // `4090` is no place in any list, but part of a name.
        AdapterChoice::Number(n) if *n >= names.len() => named(&n.to_string()),
        AdapterChoice::Number(n) => Some(*n),
        AdapterChoice::Name(part) => named(part),
    };
    let index = index.ok_or_else(|| {
        let wanted = match choice {
            AdapterChoice::Number(n) => format!("number {n}"),
            AdapterChoice::Name(part) => format!("named like `{part}`"),
            AdapterChoice::Best => String::new(),
        };
        let list = names.iter().enumerate().map(|(i, n)| format!("{i}: {n}"));
        let list = list.collect::<Vec<_>>().join(", ");
        Error::NoAdapter(format!("no adapter {wanted}; there are {list}"))
    })?;
    Ok(adapters.into_iter().nth(index).expect("the index was checked against the list"))
}

pub(super) fn open_device(
    adapter: &wgpu::Adapter,
    facts: &Facts,
    offers: &Offers,
) -> Result<(wgpu::Device, wgpu::Queue, Vec<TransferQueue>)> {
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("pipo-wgpu"),
        required_features: facts.features,
        required_limits: facts.limits.clone(),
        experimental_features: trusted::experimental_features(facts),
        memory_hints: wgpu::MemoryHints::Manual {
            suballocated_device_memory_block_size: SHARED_BLOCK_BYTES..SHARED_BLOCK_BYTES,
        },
        trace: wgpu::Trace::Off,
    };
    if let Some(opened) = vulkan::open_device(adapter, facts, offers, &descriptor) {
        match opened {
            Ok(opened) => return Ok(opened),
            Err(error) => log::warn!("no transfer queue: {error}"),
        }
    }
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|error| Error::Gpu(format!("{} gave no device: {error}", facts.describe())))?;
    Ok((device, queue, Vec::new()))
}
