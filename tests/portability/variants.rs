//! The constants that each shader is compiled with: its kernel's own, over a table of what is asked of it.

use pipo_wgpu::gpu::Shader;
use pipo_wgpu::kernels::{self, Activation, CacheKind, Constant, Matrix, Shape, attention};
use pipo_wgpu::quant::WeightKind;

/// A shader as it is compiled.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) shader: Shader,
    pub(super) constants: Vec<Constant>,
}

const KINDS: [WeightKind; 4] = [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32];
const CACHES: [CacheKind; 3] = [CacheKind::F32, CacheKind::F16, CacheKind::Q8];
const ACTIVATIONS: [Activation; 4] =
    [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu];
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
const ATTENTION: [attention::Shape; 3] = [
    attention::Shape { threads: 256, parts: 8, read_ahead: true, splits: 16 },
    attention::Shape { threads: 256, parts: 8, read_ahead: true, splits: 1 },
    attention::Shape { threads: 64, parts: 1, read_ahead: false, splits: 1 },
];

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
        self.0.push(Variant { shader, constants });
    }
}

/// Every variant of every shader.
pub(super) fn variants() -> Vec<Variant> {
    let mut list = List(Vec::new());
    pointwise(&mut list);
    norms(&mut list);
    products(&mut list);
    attentions(&mut list);
    list.0
}

fn pointwise(list: &mut List) {
    use kernels::{activate, activate_q8, argmax, embed, glu, glu_q8, quantize_q8, select_rows, widen_q8};
    for cols in COLS {
        for activation in ACTIVATIONS {
            list.add(activate::SHADER, activate::constants(&activate::Spec { cols, activation }));
            list.add(activate_q8::SHADER, activate_q8::constants(&activate_q8::Spec { cols, activation }));
            list.add(glu::SHADER, glu::constants(&glu::Spec { cols, activation }));
            list.add(glu_q8::SHADER, glu_q8::constants(&glu_q8::Spec { cols, activation }));
        }
        list.add(argmax::SHADER, argmax::constants(&argmax::Spec { cols }));
        list.add(quantize_q8::SHADER, quantize_q8::constants(&quantize_q8::Spec { cols }));
        list.add(widen_q8::SHADER, widen_q8::constants(&widen_q8::Spec { cols }));
        list.add(select_rows::SHADER, select_rows::constants(&select_rows::Spec { cols }));
        for (kind, yes) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            let spec = embed::Spec {
                kind,
                rows: embed::Rows::all(32_000),
                cols,
                indexed: yes,
                scale: 1.0,
                accumulate: yes,
            };
            list.add(embed::SHADER, embed::constants(&spec));
        }
    }
}

fn norms(list: &mut List) {
    use kernels::{layer_norm, layer_norm_q8, rms_norm, rms_norm_q8};
    let eps = 1e-5;
    for cols in COLS {
        list.add(rms_norm::SHADER, rms_norm::constants(&rms_norm::Spec { cols, eps }));
        list.add(rms_norm_q8::SHADER, rms_norm_q8::constants(&rms_norm_q8::Spec { cols, eps }));
        for (weight, bias) in [(true, true), (true, false), (false, false)] {
            let spec = layer_norm::Spec { cols, weight, bias, eps };
            list.add(layer_norm::SHADER, layer_norm::constants(&spec));
            let spec = layer_norm_q8::Spec { cols, weight, bias, eps };
            list.add(layer_norm_q8::SHADER, layer_norm_q8::constants(&spec));
        }
    }
}

fn products(list: &mut List) {
    use kernels::{matmul_coop, matmul_exact, matmul_int8, matvec_exact, matvec_int8};
    for (matrix, kind) in matrices().into_iter().flat_map(|matrix| KINDS.map(|kind| (matrix, kind))) {
        let is_int8 = matches!(kind, WeightKind::W4 | WeightKind::W8);
        list.add(matmul_exact::SHADER, matmul_exact::constants(&matmul_exact::Spec { matrix, kind }));
        if is_int8 {
            list.add(matmul_int8::SHADER, matmul_int8::constants(&matmul_int8::Spec { matrix, kind }));
            list.add(matmul_coop::SHADER, matmul_coop::constants(&matmul_coop::Spec { matrix, kind }));
        }
        for (number, shape) in SHAPES.into_iter().enumerate() {
            // Every number of tokens with some shape, every shape with some number.
            let tokens_per_group = [1, 8, 2, 4, 1][number];
            let spec = matvec_exact::Spec { matrix, kind, shape, tokens_per_group };
            list.add(matvec_exact::SHADER, matvec_exact::constants(&spec));
            if is_int8 {
                let spec = matvec_int8::Spec { matrix, kind, shape, tokens_per_group };
                list.add(matvec_int8::SHADER, matvec_int8::constants(&spec));
            }
        }
    }
}

fn attentions(list: &mut List) {
    use kernels::{attention_merge, rope_store};
    for ((heads, kv_heads, head_dim), cache) in HEADS.into_iter().flat_map(|h| CACHES.map(|c| (h, c))) {
        for rotary_dim in [0, head_dim] {
            let spec = rope_store::Spec { heads, kv_heads, head_dim, rotary_dim, cache };
            list.add(rope_store::SHADER, rope_store::constants(&spec));
        }
        for (shape, window) in ATTENTION.into_iter().flat_map(|shape| [(shape, None), (shape, Some(4096))]) {
            let spec = attention::Spec { heads, kv_heads, head_dim, cache, window, scale: 0.125 };
            list.add(attention::SHADER, attention::constants(&spec, shape));
        }
        let spec = attention_merge::Spec { heads, head_dim, splits: 16 };
        list.add(attention_merge::SHADER, attention_merge::constants(&spec));
    }
}
