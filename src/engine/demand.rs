//! What a model needs, for the planner.

use super::{CacheKind, Options, cache, experts, flow::Flow, program, table, vectors, workspace};
use crate::gpu::Facts;
use crate::kernels::{matmul_coop, matmul_few, matvec_core};
use crate::model::{Decoder, Unit};
use crate::plan::{Demand, UnitDemand};
use crate::quant::WeightKind;

/// How keys and values are kept.
pub fn cache_kind(decoder: &Decoder, options: &Options) -> CacheKind {
    let float = WeightKind::F32;
    let all_float = decoder.units.iter().flat_map(|u| &u.spec.tensors).all(|t| t.kind == float);
    let default = if options.exact || all_float { CacheKind::F32 } else { CacheKind::F16 };
    options.cache.unwrap_or(default)
}

/// Bytes that attention of a decode pass needs besides its result.
pub(super) fn attention_bytes(decoder: &Decoder, facts: &Facts, options: &Options) -> u64 {
    let (cache, batch) = (cache_kind(decoder, options), options.work.batch);
    let shapes = options.shapes_on(facts);
    let kept = (cache, shapes.attention_decode);
    let joined = program::attention_bytes(decoder, facts, kept, (options.cache_rows, batch));
    workspace::split_bytes(decoder, shapes.attention.splits, batch).max(joined.unwrap_or(0))
}

/// Whether matrices read activations as halves.
pub(super) fn reads_halves(facts: &Facts, options: &Options) -> bool {
    !options.exact && matmul_coop::runs_on(facts)
}

/// The most tokens of passes that matvecs serve, where there are matrix units: on an H200, matvecs
/// take 6.8 ms of an 8B model with 16 tokens and tiles 9.4 ms, with 32 about 13 and 11.3 ms.
const MATVEC_TOKENS_MAX: u32 = 24;

/// Whether decode passes have too many tokens for matvecs, and go through tiles.
pub(super) fn tiles_decode(facts: &Facts, options: &Options) -> bool {
    reads_halves(facts, options) && options.work.batch > MATVEC_TOKENS_MAX
}

/// What the planner needs to know about a model.
pub fn demand(decoder: &Decoder, facts: &Facts, options: &Options, all_logits: bool) -> Demand {
    let batch = options.work.batch.max(1);
    let unit = |unit: &Unit| {
        let binding_bytes = facts.limits.max_storage_buffer_binding_size;
        let experts = experts::demand(decoder, unit, (batch, options.exact, binding_bytes));
        UnitDemand { name: unit.spec.name.clone(), bytes: unit.spec.bytes(), experts }
    };
    let flow = Flow::new(decoder, options.exact);
    let row_bytes = cache_kind(decoder, options).row_bytes(decoder.cache_width());
    Demand {
        units: decoder.units.iter().map(unit).collect(),
        caches: decoder.blocks as usize,
        cache_bytes: cache::block_bytes(options.cache_rows, row_bytes),
        cache_reads: decoder.heads / decoder.kv_heads.max(1),
        on_gpu: options.on_gpu,
        tokens_per_read: match tiles_decode(facts, options) {
            true => matmul_few::TOKENS_MAX,
            false => matvec_core::TOKENS_PER_GROUP_MAX,
        },
        fixed_bytes: workspace::fixed_bytes(
            decoder,
            attention_bytes(decoder, facts, options),
            options.work.batch,
        ) + decoder.units.iter().map(vectors::bytes).sum::<u64>()
            + experts::bytes(decoder),
        table_bytes: table::bytes(decoder),
        token_bytes: workspace::token_bytes(decoder, &flow, reads_halves(facts, options)),
        selected_bytes: workspace::selected_bytes(decoder, &flow),
        tokens_max: options.cache_rows,
        all_logits,
        work: options.work,
    }
}
