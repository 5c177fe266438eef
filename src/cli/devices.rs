//! The verb `devices`: which adapters there are and what they offer.

use serde_json::json;

use crate::cli::args::DevicesArgs;
use crate::cli::output::Output;
use crate::error::{Error, Result};
use crate::gpu::{Facts, list_adapters};
use crate::size;

/// Runs the verb.
///
/// # Errors
/// When there is no adapter, or the output cannot be written.
pub fn run(args: &DevicesArgs) -> Result<()> {
    let adapters = list_adapters();
    let mut output = Output::stdout();
    if args.json {
        let list: Vec<_> = adapters.iter().map(as_json).collect();
        return output.line(&serde_json::Value::from(list).to_string());
    }
    if adapters.is_empty() {
        return Err(Error::NoAdapter("no GPU adapter was found; install a Vulkan driver".into()));
    }
    for (number, facts) in adapters.iter().enumerate() {
        let limits = &facts.limits;
        output.line(&format!(
            "{number}: {}\n   binds {} at once, workgroups of {} threads and {}, subgroups of {} to {}\n   {}",
            facts.describe(),
            size::format(limits.max_storage_buffer_binding_size),
            limits.max_compute_invocations_per_workgroup,
            size::format(limits.max_compute_workgroup_storage_size.into()),
            facts.info.subgroup_min_size,
            facts.info.subgroup_max_size,
            offers(facts),
        ))?;
        output.line(&format!("   routes: {}", facts.routes.describe()))?;
    }
    Ok(())
}

/// Optional features, each with what it is for.
const OFFERS: [(wgpu::Features, &str); 2] = [
    (wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS, "GPU times on the timeline"),
    (wgpu::Features::SUBGROUP, "subgroup operations"),
];

fn offers(facts: &Facts) -> String {
    let text = OFFERS.iter().map(|(feature, what)| {
        format!("{}{what}", if facts.features.contains(*feature) { "" } else { "no " })
    });
    text.collect::<Vec<_>>().join(", ")
}

fn as_json(facts: &Facts) -> serde_json::Value {
    json!({
        "name": facts.info.name,
        "type": format!("{:?}", facts.info.device_type),
        "backend": facts.info.backend.to_string(),
        "driver": format!("{} {}", facts.info.driver, facts.info.driver_info).trim(),
        "binding_bytes_max": facts.limits.max_storage_buffer_binding_size,
        "buffer_bytes_max": facts.limits.max_buffer_size,
        "subgroup_min_size": facts.info.subgroup_min_size,
        "subgroup_max_size": facts.info.subgroup_max_size,
        "pinned_host_memory": facts.routes.pinned,
        "mapped_vram": facts.routes.mapped,
        "transfer_queue": facts.routes.transfer,
        "timestamps": facts.features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS),
    })
}
