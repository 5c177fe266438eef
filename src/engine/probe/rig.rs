//! Operands as large as a model's whose values mean nothing, to time kernels on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::gpu::{Buffer, Dispatch, Gpu, Pipelines, Stopwatch};
use crate::kernels::attention_decode::Layout;
use crate::kernels::matvec_core::{self, Groups, Operation, Tile};
use crate::kernels::{Activation, CacheKind, ExactArgs, Int8Args, Matrix, Shape, TOKENS_PER_GROUP_MAX};
use crate::kernels::{attention, attention_decode, attention_merge, matmul_coop, matmul_few, matmul_int8};
use crate::kernels::{matvec_exact, matvec_gated, matvec_int8, matvec_residual};
use crate::quant::{GROUP, WeightKind, groups};

/// A word of two halves of about 0.01.
const SCALES: u32 = 0x211f_211f;
/// About 0.0078, and 1, as f32.
const SMALL: u32 = 0x3c00_0000;
const ONE: u32 = 0x3f80_0000;
/// The most dispatches of one pass.
const COUNT_MAX: usize = 1 << 12;

/// One product's operands.
pub struct Product {
    /// The product.
    pub matrix: Matrix,
    /// How the weights are coded.
    pub kind: WeightKind,
    /// Tokens that are multiplied.
    pub tokens: u32,
    /// Codes and scales.
    copies: Arc<[[Buffer; 2]]>,
    step: Buffer,
    bias: Buffer,
    x: Buffer,
    x_codes: Buffer,
    x_scales: Buffer,
    squares: Buffer,
    y: Buffer,
    /// The next norm's weight, and where its input's groups go.
    norm: Buffer,
    out: Buffer,
}

impl Product {
    /// Takes memory: so many copies of the weights that they are larger than `rotated_bytes`
    /// together, because a model's next use of them finds them in no cache either.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(
        gpu: &Gpu,
        kind: WeightKind,
        sides: [u32; 2],
        tokens: u32,
        rotated_bytes: u64,
    ) -> Result<Self> {
        let [rows, cols] = sides;
        let (codes, scales) = (kind.code_bytes(rows, cols), kind.scale_bytes(rows, cols));
        let copies = rotated_bytes / (codes + scales) + 1;
        let copy = |_| Ok([filled(gpu, codes, None)?, filled(gpu, scales.max(16), Some(SCALES))?]);
        let copies: Vec<_> = (0..copies).map(copy).collect::<Result<_>>()?;
        Product::of(gpu, kind, Matrix::new(rows, cols), tokens, &copies.into())
    }

    /// The same weights with another number of tokens.
    ///
    /// # Errors
    /// When there is no memory for the tokens.
    pub fn with_tokens(&self, gpu: &Gpu, tokens: u32) -> Result<Self> {
        Product::of(gpu, self.kind, self.matrix, tokens, &self.copies)
    }

    fn of(
        gpu: &Gpu,
        kind: WeightKind,
        matrix: Matrix,
        tokens: u32,
        copies: &Arc<[[Buffer; 2]]>,
    ) -> Result<Self> {
        let Matrix { rows, cols, .. } = matrix;
        let x_groups = u64::from(tokens) * u64::from(groups(cols));
        Ok(Product {
            matrix,
            kind,
            tokens,
            copies: Arc::clone(copies),
            step: uploaded(gpu, &[tokens, tokens, 0, 0])?,
            bias: filled(gpu, u64::from(rows) * 4, Some(0))?,
            x: filled(gpu, x_groups * 128, Some(SMALL))?,
            x_codes: filled(gpu, x_groups * 32, None)?,
            x_scales: filled(gpu, x_groups * 8, Some(SMALL))?,
            squares: filled(gpu, x_groups * 4, Some(ONE))?,
            y: filled(gpu, u64::from(tokens) * u64::from(matrix.y_stride) * 4, Some(0))?,
            norm: filled(gpu, u64::from(rows) * 4, Some(ONE))?,
            out: filled(gpu, Groups { tokens, cols: rows }.bytes(), Some(0))?,
        })
    }

    /// Bytes of the weights that one product reads.
    pub fn weight_bytes(&self) -> u64 {
        let Matrix { rows, cols, .. } = self.matrix;
        self.kind.code_bytes(rows, cols) + self.kind.scale_bytes(rows, cols)
    }

    /// Multiplications and additions of one product.
    pub fn operations(&self) -> f64 {
        2.0 * f64::from(self.matrix.rows) * f64::from(self.matrix.cols) * f64::from(self.tokens)
    }

    /// Tokens that share a reading of the weights, where at most so many can.
    fn tokens_per_group(&self, most: u32) -> u32 {
        self.tokens.next_power_of_two().min(most)
    }

    fn int8(&self) -> impl Iterator<Item = Int8Args<'_>> {
        self.copies.iter().map(|[codes, scales]| Int8Args {
            step: self.step.all(),
            codes: codes.all(),
            scales: scales.all(),
            bias: self.bias.all(),
            x_codes: self.x_codes.all(),
            x_scales: self.x_scales.all(),
            y: self.y.all(),
        })
    }

    /// A decode pass's kernel, by each copy of the weights: the product alone, after a norm; with
    /// the residual stream and the next norm; or with a gate, of half the rows.
    ///
    /// # Errors
    /// When the device refuses the kernel.
    pub fn matvec(
        &self,
        pipelines: &mut Pipelines,
        operation: Operation,
        tile: Tile,
    ) -> Result<Vec<Dispatch>> {
        let Product { matrix, kind, tokens, .. } = *self;
        let Matrix { rows, cols, bias, .. } = matrix;
        let tokens_per_group = self.tokens_per_group(matvec_core::TOKENS_PER_GROUP_MAX);
        let tile = tile.for_tokens(operation, tokens_per_group);
        let eps = Some(1e-5);
        let dispatch = |int8: Int8Args<'_>| match operation {
            Operation::Int8 => {
                let spec = matvec_int8::Spec { matrix, kind, tile, tokens_per_group, eps };
                let args = matvec_int8::Args { int8, squares: self.squares.all() };
                matvec_int8::dispatch(pipelines, &spec, &args)
            }
            Operation::Residual => {
                let out = Groups { tokens, cols: rows };
                let spec = matvec_residual::Spec { rows, cols, bias, kind, tile, tokens_per_group, out };
                let args = matvec_residual::Args { int8, norm: self.norm.all(), out: self.out.all() };
                matvec_residual::dispatch(pipelines, &spec, &args)
            }
            Operation::Gated => {
                let (gated, activation, width) = (true, Activation::Silu, rows / 2);
                let spec = matvec_gated::Spec {
                    width,
                    cols,
                    gated,
                    activation,
                    bias,
                    eps,
                    kind,
                    tile,
                    tokens_per_group,
                };
                let Int8Args { step, codes, scales, bias, x_codes, x_scales, .. } = int8;
                let layout = Groups { tokens, cols: width };
                let args = matvec_gated::Args {
                    step,
                    codes,
                    scales,
                    bias,
                    x_codes,
                    x_scales,
                    squares: self.squares.all(),
                    out_codes: self.out.part(layout.codes()),
                    out_scales: self.out.part(layout.scales()),
                };
                matvec_gated::dispatch(pipelines, &spec, &args)
            }
        };
        self.int8().map(dispatch).collect()
    }

    /// The kernel of f32 activations for few tokens, by each copy of the weights.
    ///
    /// # Errors
    /// When the device refuses the kernel.
    pub fn matvec_exact(&self, pipelines: &mut Pipelines, shape: Shape) -> Result<Vec<Dispatch>> {
        let Product { matrix, kind, .. } = *self;
        let tokens_per_group = self.tokens_per_group(TOKENS_PER_GROUP_MAX);
        let spec = matvec_exact::Spec { matrix, kind, shape, tokens_per_group };
        let args = self.copies.iter().map(|[codes, scales]| ExactArgs {
            step: self.step.all(),
            codes: codes.all(),
            scales: scales.all(),
            bias: self.bias.all(),
            x: self.x.all(),
            y: self.y.all(),
        });
        args.map(|args| matvec_exact::dispatch(pipelines, &spec, &args)).collect()
    }

    /// A prefill pass's kernel, on matrix units where the adapter has them, by each copy of the
    /// weights.
    ///
    /// # Errors
    /// When the device refuses the kernel.
    pub fn matmul(&self, pipelines: &mut Pipelines) -> Result<Vec<Dispatch>> {
        let Product { matrix, kind, .. } = *self;
        if !matmul_coop::runs_on(&pipelines.gpu().facts) {
            let spec = matmul_int8::Spec { matrix, kind };
            return self.int8().map(|args| matmul_int8::dispatch(pipelines, &spec, &args)).collect();
        }
        let spec = matmul_coop::Spec { matrix, kind };
        self.halves().map(|args| matmul_coop::dispatch(pipelines, &spec, &args)).collect()
    }

    /// The kernel for few tokens on matrix units, by each copy of the weights; for more tokens than
    /// matvecs share weights among.
    ///
    /// # Errors
    /// When the device refuses the kernel.
    pub fn few(&self, pipelines: &mut Pipelines) -> Result<Vec<Dispatch>> {
        let Product { matrix, kind, tokens, .. } = *self;
        let spec = matmul_few::Spec { matrix, kind };
        self.halves().map(|args| matmul_few::dispatch(pipelines, &spec, tokens, &args)).collect()
    }

    fn halves(&self) -> impl Iterator<Item = matmul_coop::Args<'_>> {
        self.int8().map(|Int8Args { step, codes, scales, bias, y, .. }| {
            let (x, x_scales) = (self.x.all(), self.squares.all());
            matmul_coop::Args { step, codes, scales, bias, x, x_scales, y }
        })
    }
}

/// One token's attention to a context.
pub struct Context {
    /// Heads, and how the cache is kept.
    pub spec: attention::Spec,
    /// Positions that are seen.
    pub positions: u32,
    step: Buffer,
    rows: Buffer,
    qkv: Buffer,
    cache_k: Buffer,
    cache_v: Buffer,
    y: Buffer,
    scales: Buffer,
    /// What splits of the context leave to be joined.
    parts: Buffer,
}

impl Context {
    /// Takes memory for a context, split by [`attention`] at most `splits_max` times, and in any shape
    /// of [`attention_decode`] that is worth trying.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(gpu: &Gpu, spec: attention::Spec, positions: u32, splits_max: u32) -> Result<Self> {
        let width = u64::from((spec.heads + 2 * spec.kv_heads) * spec.head_dim) * 4;
        let cache = u64::from(positions) * spec.cache.row_bytes(spec.kv_heads * spec.head_dim);
        let decode = decode_spec(&spec, positions);
        let scratch = |shape| Layout::new(&gpu.facts, &decode, shape).scratch_bytes(&decode, 1);
        let scratch = attention_decode::Shape::candidates(&gpu.facts).into_iter().map(scratch).max();
        let parts =
            attention::split_bytes(spec.heads, spec.head_dim, splits_max, 1).max(scratch.unwrap_or(0));
        let fill = Some(if spec.cache == CacheKind::F16 { SCALES } else { SMALL });
        Ok(Context {
            spec,
            positions,
            step: uploaded(gpu, &[1, 1, 0, 0])?,
            // A `Row` that sees all before it.
            rows: uploaded(gpu, &[0, positions - 1, 0, 0, u32::MAX, 0, 0, 0])?,
            qkv: filled(gpu, width, Some(SMALL))?,
            cache_k: filled(gpu, cache, fill)?,
            cache_v: filled(gpu, cache, fill)?,
            y: filled(gpu, width, Some(0))?,
            scales: filled(gpu, width, Some(0))?,
            parts: filled(gpu, parts, Some(0))?,
        })
    }

    /// Bytes of keys and values that are read.
    pub fn cache_bytes(&self) -> u64 {
        2 * u64::from(self.positions) * self.spec.cache.row_bytes(self.spec.kv_heads * self.spec.head_dim)
    }

    /// A decode pass's own kernel, which rotates and stores as well: its dispatches in order;
    /// `None` where the adapter lacks what it needs.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn decode(
        &self,
        pipelines: &mut Pipelines,
        shape: attention_decode::Shape,
    ) -> Result<Option<Vec<Dispatch>>> {
        let spec = decode_spec(&self.spec, self.positions);
        if !attention_decode::is_supported(&pipelines.gpu().facts, &spec) {
            return Ok(None);
        }
        let args = attention_decode::Args {
            step: self.step.all(),
            rows: self.rows.all(),
            angles: self.qkv.all(),
            qkv: self.qkv.all(),
            cache_k: self.cache_k.all(),
            cache_v: self.cache_v.all(),
            parts: self.parts.all(),
            y: self.y.all(),
            scales: self.scales.all(),
            sinks: None,
            norms: None,
        };
        attention_decode::dispatch(pipelines, &spec, shape, &args).map(Some)
    }

    /// The kernels of any pass for one token, in order.
    ///
    /// # Errors
    /// When the device refuses them.
    pub fn attention(&self, pipelines: &mut Pipelines, shape: attention::Shape) -> Result<Vec<Dispatch>> {
        let (spec, splits, step, parts, y) =
            (self.spec, shape.splits, self.step.all(), self.parts.all(), self.y.all());
        let args = attention::Args {
            step: step.clone(),
            rows: self.rows.all(),
            qkv: self.qkv.all(),
            cache_k: self.cache_k.all(),
            cache_v: self.cache_v.all(),
            y: if splits > 1 { parts.clone() } else { y.clone() },
            sinks: None,
        };
        let mut dispatches = vec![attention::dispatch_shaped(pipelines, &spec, shape, &args)?];
        if splits > 1 {
            let spec = attention_merge::Spec { heads: spec.heads, head_dim: spec.head_dim, splits };
            let args = attention_merge::Args { step, parts, y };
            dispatches.push(attention_merge::dispatch(pipelines, &spec, &args)?);
        }
        Ok(dispatches)
    }
}

/// The same attention for a decode pass's own kernel.
fn decode_spec(spec: &attention::Spec, context: u32) -> attention_decode::Spec {
    let attention::Spec { heads, kv_heads, head_dim, cache, window, scale, softcap } = *spec;
    attention_decode::Spec {
        heads,
        kv_heads,
        head_dim,
        rotary_dim: head_dim,
        cache,
        window,
        scale,
        softcap,
        context,
        int8: head_dim.is_multiple_of(GROUP),
        norm_eps: 0.0,
    }
}

/// How long to look at a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Seconds of one pass at least.
    pub pass_seconds: f64,
    /// How often a pass is timed; the least time counts.
    pub repeats: usize,
    /// Time for which the kernel runs beforehand: a GPU's clock takes a while to rise.
    pub warm: Duration,
}

/// Seconds of one dispatch among many, which take turns.
///
/// # Errors
/// When the GPU fails.
pub fn seconds_each(
    gpu: &Gpu,
    watch: &mut Stopwatch,
    dispatches: &[Dispatch],
    tokens: u32,
    look: Look,
) -> Result<f64> {
    let mut count = dispatches.len();
    let mut time = |count: usize| watch.seconds(gpu, dispatches, tokens, count);
    let mut seconds = time(count)?;
    while seconds < look.pass_seconds && count < COUNT_MAX {
        let wanted = count as f64 * 1.2 * look.pass_seconds / seconds.max(1e-6);
        count = (wanted as usize).clamp(count * 2, COUNT_MAX.max(count * 2));
        seconds = time(count)?;
    }
    let start = Instant::now();
    while start.elapsed() < look.warm {
        seconds = seconds.min(time(count)?);
    }
    for _ in 1..look.repeats {
        seconds = seconds.min(time(count)?);
    }
    Ok(seconds / count as f64)
}

/// A buffer that repeats a word, or random ones if none.
///
/// # Errors
/// When there is no memory for it.
pub fn filled(gpu: &Gpu, bytes: u64, word: Option<u32>) -> Result<Buffer> {
    use wgpu::BufferUsages as Usage;
    const PIECE_BYTES: usize = 4 << 20;
    let bytes = bytes.max(16).next_multiple_of(4);
    let usage = Usage::STORAGE | Usage::UNIFORM | Usage::COPY_DST;
    let usage = if bytes > 1 << 10 { usage - Usage::UNIFORM } else { usage };
    let buffer = gpu.buffer("timed kernels", bytes, usage)?;
    let mut state = 1_u32;
    let mut random = || {
        // A linear congruence's upper half (Numerical Recipes).
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let high = state >> 16;
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        high << 16 | state >> 16
    };
    let len = (bytes as usize).min(PIECE_BYTES) / 4;
    let piece: Vec<u32> = (0..len).map(|_| word.unwrap_or_else(&mut random)).collect();
    let piece: &[u8] = bytemuck::cast_slice(&piece);
    for at in (0..bytes).step_by(PIECE_BYTES) {
        let len = (bytes - at).min(PIECE_BYTES as u64) as usize;
        gpu.queue.write_buffer(&buffer, at, &piece[..len]);
    }
    gpu.queue.submit([]);
    Ok(buffer)
}

fn uploaded(gpu: &Gpu, words: &[u32]) -> Result<Buffer> {
    let buffer = filled(gpu, words.len() as u64 * 4, Some(0))?;
    gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
    Ok(buffer)
}
