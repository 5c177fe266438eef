//! The constants that each shader is compiled with: its kernel's own, over a table of what is asked of it.

use pipo_wgpu::gpu::{Facts, Shader};
use pipo_wgpu::kernels::matvec_core::{Groups, Tile};
use pipo_wgpu::kernels::{self, Activation, CacheKind, Constant, Matrix, Shape, attention, attention_decode};
use pipo_wgpu::quant::WeightKind;

/// A shader as it is compiled.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) shader: Shader,
    pub(super) constants: Vec<Constant>,
    /// Whether only adapters with more than WebGPU's default limits are given it.
    pub(super) large: bool,
}

const KINDS: [WeightKind; 8] = WeightKind::ALL;
/// Those that come in all sizes here.
const USUAL: [WeightKind; 4] = [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32];
const CACHES: [CacheKind; 3] = [CacheKind::F32, CacheKind::F16, CacheKind::Q8];
const ACTIVATIONS: [Activation; 5] =
    [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::ReluSquared];
/// Columns: the least, an odd number, and those of a large model.
const COLS: [u32; 3] = [1, 33, 14_336];
/// Query heads, key heads and values of a head.
const HEADS: [(u32, u32, u32); 5] = [(6, 2, 64), (12, 4, 64), (32, 8, 128), (3, 1, 10), (8, 1, 256)];
/// For matrices: on GPUs and CPUs, and the ends of what tuning may choose.
const SHAPES: [Shape; 5] = [
    Shape { rows_each: 2, row_lanes: 1, col_lanes: 32 },
    Shape { rows_each: 4, row_lanes: 8, col_lanes: 1 },
    Shape { rows_each: 1, row_lanes: 1, col_lanes: 1 },
    Shape { rows_each: 1, row_lanes: 1, col_lanes: 128 },
    Shape { rows_each: 4, row_lanes: 2, col_lanes: 16 },
];
/// The same for matrices of int8 activations.
const TILES: [Tile; 5] = [
    Tile { rows_each: 4, row_lanes: 4, col_lanes: 32, unroll: 1 },
    Tile { rows_each: 4, row_lanes: 8, col_lanes: 1, unroll: 1 },
    Tile { rows_each: 1, row_lanes: 1, col_lanes: 128, unroll: 4 },
    Tile { rows_each: 2, row_lanes: 8, col_lanes: 16, unroll: 2 },
    Tile { rows_each: 4, row_lanes: 2, col_lanes: 8, unroll: 2 },
];
const ATTENTION: [attention::Shape; 3] = [
    attention::Shape { threads: 256, parts: 8, read_ahead: true, splits: 16 },
    attention::Shape { threads: 256, parts: 8, read_ahead: true, splits: 1 },
    attention::Shape { threads: 64, parts: 1, read_ahead: false, splits: 1 },
];

pub(super) const ATTENTION_DECODE: attention_decode::Spec = attention_decode::Spec {
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    rotary_dim: 128,
    cache: CacheKind::F16,
    window: None,
    scale: 0.125,
    softcap: None,
    context: 4096,
    int8: true,
    norm_eps: 1e-6,
};

/// A card with all that kernels ask for.
fn card() -> Facts {
    let mut facts = Facts::assumed();
    facts.info.subgroup_min_size = 32;
    facts
}

/// A plain product, and one with all that can be added to it.
fn matrices() -> Vec<Matrix> {
    let plain = Matrix::new(4096, 14_336);
    let part = Matrix { y_stride: 96, y_offset: 32, accumulate: true, bias: true, ..Matrix::new(33, 65) };
    vec![plain, part, Matrix::new(1, 1), Matrix::new(151_936, 4096)]
}

/// Collects variants.
struct List(Vec<Variant>);

impl List {
    fn add(&mut self, shader: Shader, constants: Vec<Constant>) {
        self.0.push(Variant { shader, constants, large: false });
    }

    /// One that adapters are given if their limits allow it.
    fn add_tiled(&mut self, shader: Shader, constants: Vec<Constant>, tile: &Tile, tokens_per_group: u32) {
        let large = !tile.fits(tokens_per_group, &wgpu::Limits::default());
        self.0.push(Variant { shader, constants, large });
    }
}

/// Every variant of every shader.
pub(super) fn variants() -> Vec<Variant> {
    let mut list = List(Vec::new());
    pointwise(&mut list);
    norms(&mut list);
    qk_norms(&mut list);
    products(&mut list);
    fused_products(&mut list);
    attentions(&mut list);
    experts(&mut list);
    list.0
}

fn experts(list: &mut List) {
    use kernels::experts::{Gate, Records};
    use kernels::{
        experts_down, experts_exact, experts_gated, experts_sort, experts_sum, experts_sum_q8, latent_heads,
        narrow_heads, route, router, router_route,
    };
    let clamped = Gate::Clamped { alpha: 1.702, limit: 7.0 };
    for (kind, cached, gate) in [
        (WeightKind::W4, false, Gate::SwiGlu),
        (WeightKind::W4, true, clamped),
        (WeightKind::W8, true, Gate::SwiGlu),
        (WeightKind::F16, false, clamped),
        (WeightKind::F32, true, Gate::SwiGlu),
    ] {
        let bias_at = (gate == clamped).then_some(1 << 16);
        let records = Records {
            first: 32,
            count: 32,
            record_bytes: 2_654_208,
            codes_at: 0,
            scales_at: 1 << 20,
            bias_at,
            kind,
            cached,
            far: kind == WeightKind::W4,
            chosen: 8,
            choices: 9,
            tile: 1,
            room: 0,
        };
        let (width, cols, strides) = (768, 2048, [2048, 9 * 2048]);
        let shape = Shape { rows_each: 2, row_lanes: 1, col_lanes: 32 };
        for gate in [None, Some(gate)] {
            let spec = experts_exact::Spec { records, width, cols, gate, strides, shape };
            list.add(experts_exact::SHADER, experts_exact::constants(&spec));
        }
        if kind.is_coded() {
            let tile = Tile { rows_each: 4, row_lanes: 16, col_lanes: 8, unroll: 1 };
            let eps = cached.then_some(1e-5);
            let spec = experts_gated::Spec { records, width, cols, gate, eps, tile };
            list.add_tiled(experts_gated::SHADER, experts_gated::constants(&spec), &tile, 1);
            let spec = experts_down::Spec { records, rows: 2048, cols: 768, tile };
            list.add_tiled(experts_down::SHADER, experts_down::constants(&spec), &tile, 1);
            let records = Records { tile: 8, room: 4096, far: false, ..records };
            let spec = experts_gated::Spec { records, width, cols, gate, eps, tile };
            list.add_tiled(experts_gated::SHADER, experts_gated::constants(&spec), &tile, 8);
            let spec = experts_down::Spec { records, rows: 2048, cols: 768, tile };
            list.add_tiled(experts_down::SHADER, experts_down::constants(&spec), &tile, 8);
        }
    }
    list.add(experts_sum::SHADER, experts_sum::constants(&experts_sum::Spec { cols: 2048, choices: 8 }));
    let heads = [(192, 128, 64, 128, true), (64, 16, 16, 64, false)];
    for (width, nope, rope, value, paired) in heads {
        let spec = latent_heads::Spec { heads: 16, width, nope, rope, value, paired, apart: !paired };
        list.add(latent_heads::SHADER, latent_heads::constants(&spec));
        let spec = narrow_heads::Spec { heads: 16, width, kept: value };
        list.add(narrow_heads::SHADER, narrow_heads::constants(&spec));
    }
    let sum = experts_sum_q8::Spec { cols: 2048, choices: 9 };
    list.add(experts_sum_q8::SHADER, experts_sum_q8::constants(&sum));
    for (rows, bias) in [(128, false), (61, true)] {
        let spec = router::Spec { rows, cols: 2048, bias, eps: 1e-6 };
        list.add(router::SHADER, router::constants(&spec));
    }
    for scoring in [route::Scoring::Softmax, route::Scoring::Sigmoid, route::Scoring::SoftmaxOfChosen] {
        let grouped = scoring == route::Scoring::Sigmoid;
        let spec = route::Spec {
            experts: 256,
            chosen: 8,
            scoring,
            corrected: grouped,
            n_group: if grouped { 8 } else { 1 },
            topk_group: if grouped { 4 } else { 1 },
            best: 2,
            normalise: grouped,
            scale: 2.5,
            shared_gate: !grouped,
            slots: if grouped { 64 } else { 0 },
            counts: !grouped,
        };
        list.add(route::SHADER, route::constants(&spec));
        let rows = spec.experts + u32::from(spec.shared_gate);
        let router = router::Spec { rows, cols: 2048, bias: grouped, eps: 1e-6 };
        let both = router_route::Spec { router, route: spec };
        list.add(router_route::SHADER, router_route::constants(&both));
        let spec = experts_sort::Spec { experts: 256, chosen: 8, choices: 9, tile: 8, room: 4096 };
        list.add(experts_sort::SHADER, experts_sort::constants(&spec));
    }
}

fn pointwise(list: &mut List) {
    use kernels::{
        activate, activate_q8, argmax, clip, draw, embed, glu, glu_q8, quantize_q8, select_rows, softcap,
        widen_q8,
    };
    for cols in COLS {
        for activation in ACTIVATIONS {
            list.add(activate::SHADER, activate::constants(&activate::Spec { cols, activation }));
            list.add(activate_q8::SHADER, activate_q8::constants(&activate_q8::Spec { cols, activation }));
            list.add(glu::SHADER, glu::constants(&glu::Spec { cols, activation }));
            list.add(glu_q8::SHADER, glu_q8::constants(&glu_q8::Spec { cols, activation }));
        }
        for joins in [false, true] {
            list.add(argmax::SHADER, argmax::constants(&argmax::Spec { cols, joins }));
        }
        list.add(draw::SHADER, draw::constants(&draw::Spec { cols, threads: 256 }));
        list.add(quantize_q8::SHADER, quantize_q8::constants(&quantize_q8::Spec { cols }));
        list.add(widen_q8::SHADER, widen_q8::constants(&widen_q8::Spec { cols }));
        list.add(clip::SHADER, clip::constants(&clip::Spec { cols, limit: 8.0 }));
        list.add(softcap::SHADER, softcap::constants(&softcap::Spec { cols, cap: 30.0 }));
        list.add(kernels::reorder::SHADER, kernels::reorder::constants(&kernels::reorder::Spec { cols }));
        list.add(select_rows::SHADER, select_rows::constants(&select_rows::Spec { cols }));
        for (kind, yes) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            let part = embed::Rows { first: 16_000, count: 16_000, is_last: false };
            let rows = if yes { part } else { embed::Rows::all(32_000) };
            let spec = embed::Spec { kind, rows, cols, indexed: yes, scale: 1.0, accumulate: yes };
            list.add(embed::SHADER, embed::constants(&spec));
        }
    }
}

fn norms(list: &mut List) {
    use kernels::{layer_norm, layer_norm_q8, rms_norm, rms_norm_q8};
    let eps = 1e-5;
    for cols in COLS {
        for accumulate in [false, true] {
            let spec = rms_norm::Spec { cols, eps, accumulate };
            list.add(rms_norm::SHADER, rms_norm::constants(&spec));
        }
        list.add(rms_norm_q8::SHADER, rms_norm_q8::constants(&rms_norm_q8::Spec { cols, eps }));
        for (weight, bias) in [(true, true), (true, false), (false, false)] {
            let spec = layer_norm::Spec { cols, weight, bias, eps };
            list.add(layer_norm::SHADER, layer_norm::constants(&spec));
            let spec = layer_norm_q8::Spec { cols, weight, bias, eps };
            list.add(layer_norm_q8::SHADER, layer_norm_q8::constants(&spec));
        }
    }
}

fn qk_norms(list: &mut List) {
    use kernels::qk_norm::{self, Each};
    for (heads, kv_heads, head_dim) in HEADS {
        for (each, centred) in [(Each::Head, false), (Each::OwnHead, true), (Each::Whole, false)] {
            let spec = qk_norm::Spec { heads, kv_heads, head_dim, each, centred, bias: centred, eps: 1e-5 };
            list.add(qk_norm::SHADER, qk_norm::constants(&spec));
        }
    }
}

fn products(list: &mut List) {
    use kernels::{matmul_coop, matmul_exact, matmul_few, matmul_int8, matvec_exact, matvec_int8};
    let all = matrices().into_iter().flat_map(|matrix| KINDS.map(|kind| (matrix, kind)));
    // How a group is decoded does not depend on the matrix.
    for (matrix, kind) in all.filter(|(matrix, kind)| USUAL.contains(kind) || matrix.bias) {
        let is_int8 = kind.is_coded();
        list.add(matmul_exact::SHADER, matmul_exact::constants(&matmul_exact::Spec { matrix, kind }));
        if is_int8 {
            list.add(matmul_int8::SHADER, matmul_int8::constants(&matmul_int8::Spec { matrix, kind }));
            let spec = matmul_coop::Spec { matrix, kind };
            list.add(matmul_coop::SHADER, matmul_coop::constants(&spec));
            for tokens in [16, 32, 64] {
                list.add(matmul_few::SHADER, matmul_few::constants(&spec, tokens));
            }
        }
        for (number, shape) in SHAPES.into_iter().enumerate() {
            // Every number of tokens with some shape, every shape with some number.
            let tokens_per_group = [1, 8, 2, 4, 1][number];
            let spec = matvec_exact::Spec { matrix, kind, shape, tokens_per_group };
            list.add(matvec_exact::SHADER, matvec_exact::constants(&spec));
        }
        for (tile, tokens_per_group) in TILES.into_iter().zip([1, 8, 2, 4, 8]).filter(|_| is_int8) {
            for eps in [None, Some(1e-5)] {
                let spec = matvec_int8::Spec { matrix, kind, tile, tokens_per_group, eps };
                let constants = matvec_int8::constants(&spec);
                list.add_tiled(matvec_int8::SHADER, constants, &tile, tokens_per_group);
            }
        }
    }
}

/// Products with what follows them; each workgroup makes whole groups.
fn fused_products(list: &mut List) {
    use kernels::{matvec_gated, matvec_residual, prenorm_q8};
    for cols in COLS {
        list.add(prenorm_q8::SHADER, prenorm_q8::constants(&prenorm_q8::Spec { cols }));
    }
    let kinds = KINDS.map(|kind| (kind, kind == WeightKind::W4));
    for ((kind, bias), (row_lanes, col_lanes)) in kinds
        .into_iter()
        .filter(|(kind, _)| kind.is_coded())
        .flat_map(|kind| [(8, 64), (16, 16), (8, 1)].map(|lanes| (kind, lanes)))
    {
        let groups = [(4, 1), (4, 8), (4, 4)];
        for (rows_each, tokens_per_group) in
            groups.into_iter().filter(|(_, t)| USUAL.contains(&kind) || *t == 4)
        {
            let tile = Tile { rows_each, row_lanes, col_lanes, unroll: 1 };
            let (rows, cols) = (4096, 14_336);
            let out = Groups { tokens: 64, cols: rows };
            let spec = matvec_residual::Spec { rows, cols, bias, kind, tile, tokens_per_group, out };
            let constants = matvec_residual::constants(&spec);
            list.add_tiled(matvec_residual::SHADER, constants, &tile, tokens_per_group);
            let tile = Tile { row_lanes: 16, ..tile };
            for (gated, activation) in ACTIVATIONS.into_iter().map(|a| (a != Activation::Relu, a)) {
                let eps = gated.then_some(1e-5);
                let width = 14_336;
                let spec = matvec_gated::Spec {
                    width,
                    cols: 4096,
                    gated,
                    activation,
                    bias,
                    eps,
                    kind,
                    tile,
                    tokens_per_group,
                };
                let constants = matvec_gated::constants(&spec);
                list.add_tiled(matvec_gated::SHADER, constants, &tile, tokens_per_group);
            }
        }
    }
}

fn attentions(list: &mut List) {
    use kernels::{
        attention_coop, attention_decode, attention_join, attention_merge, attention_prefill, rope_store,
    };
    for ((heads, kv_heads, head_dim), cache) in HEADS.into_iter().flat_map(|h| CACHES.map(|c| (h, c))) {
        for rotary_dim in [0, head_dim] {
            let spec = rope_store::Spec { heads, kv_heads, head_dim, rotary_dim, cache };
            list.add(rope_store::SHADER, rope_store::constants(&spec));
        }
        for (shape, window) in ATTENTION.into_iter().flat_map(|shape| [(shape, None), (shape, Some(4096))]) {
            let spec =
                attention::Spec { heads, kv_heads, head_dim, cache, window, scale: 0.125, softcap: None };
            // Heads with sinks are those with windows.
            let shader = window.map_or(attention::SHADER, |_| attention::SHADER_WITH_SINKS);
            list.add(shader, attention::constants(&spec, shape));
            let spec = attention_prefill::Spec {
                heads,
                kv_heads,
                head_dim,
                cache,
                window,
                scale: 0.125,
                softcap: None,
            };
            list.add(attention_prefill::SHADER, attention_prefill::constants(&spec));
        }
        for window in [None, Some(4096)] {
            let spec = attention_prefill::Spec {
                heads,
                kv_heads,
                head_dim,
                cache,
                window,
                scale: 0.125,
                softcap: None,
            };
            let shader = window.map_or(attention_prefill::SHADER, |_| attention_prefill::SHADER_WITH_SINKS);
            list.add(shader, attention_prefill::constants(&spec));
            if attention_coop::fits(&spec) {
                let shader = window.map_or(attention_coop::SHADER, |_| attention_coop::SHADER_WITH_SINKS);
                list.add(shader, attention_coop::constants(&spec));
            }
        }
        for (threads, splits, joins) in [(128, 1, true), (128, 32, true), (384, 16, true), (128, 8, false)] {
            let layout = attention_decode::Layout { threads, splits, tiles_min: 2, joins };
            let int8 = head_dim.is_multiple_of(32);
            let window = Some(4096).filter(|_| joins);
            let rotary_dim = if joins { head_dim } else { 0 };
            let spec = attention_decode::Spec {
                heads,
                kv_heads,
                head_dim,
                rotary_dim,
                cache,
                window,
                int8,
                ..ATTENTION_DECODE
            };
            if attention_decode::is_supported(&card(), &spec) {
                let shader = window.map_or(attention_decode::SHADER, |_| attention_decode::SHADER_WITH_SINKS);
                list.add(shader, attention_decode::constants(&spec, &layout));
                let shader = attention_decode::SHADER_WITH_NORMS;
                list.add(shader, attention_decode::constants(&spec, &layout));
                list.add(attention_join::SHADER, attention_join::constants(&spec, &layout));
            }
        }
        let spec = attention_merge::Spec { heads, head_dim, splits: 16 };
        list.add(attention_merge::SHADER, attention_merge::constants(&spec));
    }
}
