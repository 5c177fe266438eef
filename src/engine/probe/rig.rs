//! Operands as large as a model's whose values mean nothing, to time kernels on.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Dispatch, Gpu, Stopwatch};
use crate::kernels::{CacheKind, ExactArgs, Int8Args, Matrix, attention};
use crate::quant::{WeightKind, groups};

/// A word of two halves of about 0.01.
const SCALES: u32 = 0x211f_211f;
/// How often a time is taken; the least counts.
const REPEATS: usize = 3;
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
    copies: Vec<[Buffer; 2]>,
    step: Buffer,
    bias: Buffer,
    x: Buffer,
    x_codes: Buffer,
    x_scales: Buffer,
    y: Buffer,
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
        let matrix = Matrix::new(rows, cols);
        let (codes, scales) = (kind.code_bytes(rows, cols), kind.scale_bytes(rows, cols));
        let copies = rotated_bytes / (codes + scales) + 1;
        let copy = |_| Ok([filled(gpu, codes, None)?, filled(gpu, scales.max(16), Some(SCALES))?]);
        let x_groups = u64::from(tokens) * u64::from(groups(cols));
        Ok(Product {
            matrix,
            kind,
            tokens,
            copies: (0..copies).map(copy).collect::<Result<_>>()?,
            step: uploaded(gpu, &[tokens, tokens, 0, 0])?,
            bias: filled(gpu, u64::from(rows) * 4, Some(0))?,
            x: filled(gpu, x_groups * 128, Some(0x3c00_0000))?,
            x_codes: filled(gpu, x_groups * 32, None)?,
            x_scales: filled(gpu, x_groups * 8, Some(0x3c00_0000))?,
            y: filled(gpu, u64::from(tokens) * u64::from(matrix.y_stride) * 4, Some(0))?,
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

    /// For kernels of int8 activations, by each copy of the weights.
    pub fn int8(&self) -> impl Iterator<Item = Int8Args<'_>> {
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

    /// For kernels of f32 activations, by each copy of the weights.
    pub fn exact(&self) -> impl Iterator<Item = ExactArgs<'_>> {
        self.copies.iter().map(|[codes, scales]| ExactArgs {
            step: self.step.all(),
            codes: codes.all(),
            scales: scales.all(),
            bias: self.bias.all(),
            x: self.x.all(),
            y: self.y.all(),
        })
    }
}

/// One token's attention to a context.
pub struct Context {
    /// Heads, and how the cache is kept.
    pub spec: attention::Spec,
    /// Positions that are seen.
    pub positions: u32,
    buffers: [Buffer; 5],
    /// What splits of the context leave to be joined.
    parts: Buffer,
}

impl Context {
    /// Takes memory for a context, split at most `splits_max` times.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(gpu: &Gpu, spec: attention::Spec, positions: u32, splits_max: u32) -> Result<Self> {
        let width = u64::from((spec.heads + 2 * spec.kv_heads) * spec.head_dim) * 4;
        let cache = u64::from(positions) * spec.cache.row_bytes(spec.kv_heads * spec.head_dim);
        let parts = attention::split_bytes(spec.heads, spec.head_dim, splits_max, 1);
        let fill = Some(if spec.cache == CacheKind::F16 { SCALES } else { 0x3c00_0000 });
        let buffers = [
            uploaded(gpu, &[1, 1, 0, 0])?,
            uploaded(gpu, &[0, positions - 1, 0, 0, u32::MAX, 0, 0, 0])?,
            filled(gpu, width, Some(0x3c00_0000))?,
            filled(gpu, cache, fill)?,
            filled(gpu, width, Some(0))?,
        ];
        Ok(Context { spec, positions, buffers, parts: filled(gpu, parts, Some(0))? })
    }

    /// Bytes of keys and values that are read.
    pub fn cache_bytes(&self) -> u64 {
        2 * u64::from(self.positions) * self.spec.cache.row_bytes(self.spec.kv_heads * self.spec.head_dim)
    }

    /// The kernel's operands; `split` for a context in several parts.
    pub fn args(&self, split: bool) -> attention::Args<'_> {
        let [step, rows, qkv, cache, y] = self.buffers.each_ref().map(Buffer::all);
        let y = if split { self.parts.all() } else { y };
        attention::Args { step, rows, qkv, cache_k: cache.clone(), cache_v: cache, y }
    }

    /// The uniform `Step`, the split parts and where they are joined.
    pub fn merge(&self) -> [Binding<'_>; 3] {
        [self.buffers[0].all(), self.parts.all(), self.buffers[4].all()]
    }
}

/// Seconds of one dispatch among many, which take turns, in passes of at least `pass_seconds`.
///
/// # Errors
/// When the GPU fails.
pub fn seconds_each(
    gpu: &Gpu,
    watch: &mut Stopwatch,
    dispatches: &[Dispatch],
    tokens: u32,
    pass_seconds: f64,
) -> Result<f64> {
    let mut count = dispatches.len();
    let mut time = |count: usize| watch.seconds(gpu, dispatches, tokens, count);
    let mut seconds = time(count)?;
    while seconds < pass_seconds && count < COUNT_MAX {
        let wanted = count as f64 * 1.2 * pass_seconds / seconds.max(1e-6);
        count = (wanted as usize).clamp(count * 2, COUNT_MAX);
        seconds = time(count)?;
    }
    for _ in 1..REPEATS {
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
    Ok(buffer)
}

fn uploaded(gpu: &Gpu, words: &[u32]) -> Result<Buffer> {
    let buffer = filled(gpu, words.len() as u64 * 4, Some(0))?;
    gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
    Ok(buffer)
}
