//! Shared by the kernel tests: one device, buffers to and fro, seeded data, comparing.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use half::f16;
use pipo_wgpu::gpu::{AdapterChoice, Buffer, Dispatch, Gpu, Pipelines};
use pipo_wgpu::kernels::{Row, stride};
use pipo_wgpu::quant::{GROUP, WeightKind, groups};

/// Half the distance between 1 and the next f32: the relative error of one rounding.
pub(crate) const ULP: f64 = 1.0 / (1 << 24) as f64;

/// Words of a group in a q8 cache: the scale and the codes.
pub(crate) const Q8_WORDS: usize = 9;

/// What outputs hold before a kernel runs, so that nothing passes by not being written.
pub(crate) const POISON: f32 = 12345.678;

static GPU: LazyLock<Arc<Gpu>> = LazyLock::new(|| {
    let choice = std::env::var("PIPO_TEST_ADAPTER").unwrap_or_default();
    let choice = if choice.is_empty() { AdapterChoice::Best } else { choice.parse().unwrap() };
    Gpu::open(&choice).expect("the tests need an adapter")
});
static PIPELINES: LazyLock<Mutex<Pipelines>> = LazyLock::new(|| Mutex::new(Pipelines::new(&GPU)));

pub(crate) fn gpu() -> &'static Arc<Gpu> {
    &GPU
}

/// The shared pipelines; holding them also keeps tests from competing for the GPU.
pub(crate) fn pipelines() -> MutexGuard<'static, Pipelines> {
    PIPELINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer with this content.
pub(crate) fn upload<T: Pod>(data: &[T]) -> Buffer {
    let mut bytes = bytemuck::cast_slice(data).to_vec();
    bytes.resize(bytes.len().max(16).next_multiple_of(4), 0);
    use wgpu::BufferUsages as Usage;
    let usage = Usage::STORAGE | Usage::UNIFORM | Usage::COPY_DST | Usage::COPY_SRC;
    let buffer = gpu().buffer("test", bytes.len() as u64, usage).unwrap();
    gpu().queue.write_buffer(&buffer, 0, &bytes);
    buffer
}

/// The first `len` values of a buffer.
pub(crate) fn read<T: Pod>(buffer: &Buffer, len: usize) -> Vec<T> {
    let bytes = (len * size_of::<T>()) as u64;
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let copy = gpu().buffer("readback", bytes, usage).unwrap();
    let mut encoder = gpu().device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, bytes.next_multiple_of(4));
    gpu().queue.submit([encoder.finish()]);
    copy.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
    gpu().finish("a test").unwrap();
    let view = copy.slice(..).get_mapped_range().unwrap();
    bytemuck::pod_collect_to_vec(&view[..bytes as usize])
}

/// The uniform `Step` of a pass.
pub(crate) fn step(tokens: usize) -> Buffer {
    upload(&[tokens as u32, tokens as u32])
}

/// A token's `Row` with this id, position and cache start.
pub(crate) fn row(token: u32, position: u32, cache_start: u32) -> Row {
    Row::new(token, position, cache_start)
}

/// Runs one dispatch to its end.
pub(crate) fn run(dispatch: &Dispatch, tokens: usize) {
    let mut encoder = gpu().device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    dispatch.encode(&mut pass, tokens as u32);
    drop(pass);
    gpu().queue.submit([encoder.finish()]);
    gpu().finish("a test").unwrap();
}

/// Seeded numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn units(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }
}

/// Random activations `[tokens, stride(cols)]` with zero padding.
pub(crate) fn activations(random: &mut Random, tokens: usize, cols: usize) -> Vec<f32> {
    let values = random.units(tokens * cols);
    pad(&values, tokens, cols)
}

/// Values `[tokens, cols]` with each row padded with zeros to its stride.
pub(crate) fn pad(values: &[f32], tokens: usize, cols: usize) -> Vec<f32> {
    let stride = stride(cols as u32) as usize;
    let mut padded = vec![0.0; tokens * stride];
    for (to, from) in padded.chunks_mut(stride).zip(values.chunks(cols)) {
        to[..cols].copy_from_slice(from);
    }
    padded
}

/// The values without padding, after checking that the padding is zero.
pub(crate) fn unpad(padded: &[f32], cols: usize) -> Vec<f32> {
    let rows = padded.chunks(stride(cols as u32) as usize);
    rows.flat_map(|row| {
        assert!(row[cols..].iter().all(|v| v.to_bits() == 0), "the padding was written to");
        row[..cols].to_vec()
    })
    .collect()
}

/// An output `[tokens, stride(cols)]` with poison in its columns and zeros in its padding.
pub(crate) fn poisoned(tokens: usize, cols: usize) -> Buffer {
    upload(&pad(&vec![POISON; tokens * cols], tokens, cols))
}

/// A coded matrix and what its codes stand for.
pub(crate) struct Weights {
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<u8>,
    /// `[rows, cols]`.
    pub(crate) values: Vec<f64>,
    /// The sizes of what each is the sum of, `[rows, cols]`.
    pub(crate) sizes: Vec<f64>,
}

/// A random matrix of any kind, coded as `pipo_wgpu::quant` says.
pub(crate) fn weights(random: &mut Random, kind: WeightKind, rows: usize, cols: usize) -> Weights {
    let mut w = Weights { codes: vec![], scales: vec![], values: vec![], sizes: vec![] };
    for _ in 0..rows {
        let mut row = vec![];
        for group in 0..groups(cols as u32) as usize {
            let valid = (cols - group * GROUP as usize).min(GROUP as usize);
            code_group(random, kind, valid, &mut w, &mut row);
        }
        w.values.extend(row[..cols].iter().map(|(value, _)| value));
        w.sizes.extend(row[..cols].iter().map(|(_, size)| size));
    }
    w
}

/// Appends a group to the matrix, and its values and their sizes to the row.
fn code_group(
    random: &mut Random,
    kind: WeightKind,
    valid: usize,
    w: &mut Weights,
    row: &mut Vec<(f64, f64)>,
) {
    let n = GROUP as usize;
    let scale = 0.01 + random.unit().abs() * 0.1;
    let half = f16::from_f32(scale);
    let code =
        |random: &mut Random, low: i32, high: i32| low + (random.bits() % (high - low + 1) as u64) as i32;
    let mut put = |value: f64| row.push((value, value.abs()));
    if kind.is_nibbles() {
        let q: Vec<_> = (0..n).map(|i| if i < valid { code(random, 0, 15) } else { 8 }).collect();
        w.codes.extend((0..n / 2).map(|j| (q[j] | q[j + n / 2] << 4) as u8));
        let (scales, values) = stand_for(random, kind, scale, &q);
        w.scales.extend(scales);
        row.extend(values);
        return;
    }
    match kind {
        WeightKind::W8 => {
            let q: Vec<_> = (0..n).map(|i| if i < valid { code(random, -128, 127) } else { 0 }).collect();
            w.codes.extend(q.iter().map(|q| *q as u8));
            w.scales.extend(half.to_le_bytes());
            q.iter().for_each(|q| put(half.to_f64() * f64::from(*q)));
        }
        WeightKind::F16 => {
            let v = (0..n).map(|i| if i < valid { f16::from_f32(random.unit()) } else { f16::ZERO });
            for v in v.collect::<Vec<_>>() {
                w.codes.extend(v.to_le_bytes());
                put(v.to_f64());
            }
        }
        _ => {
            for i in 0..n {
                let v = if i < valid { random.unit() } else { 0.0 };
                w.codes.extend(v.to_le_bytes());
                put(v.into());
            }
        }
    }
}

/// What a group of 4-bit codes has beside them, of about this scale, and its values with their sizes.
fn stand_for(random: &mut Random, kind: WeightKind, scale: f32, q: &[i32]) -> (Vec<u8>, Vec<(f64, f64)>) {
    const FP4: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    const IQ4: [i32; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let half = f16::from_f32(scale);
    let of_half = |codes: &dyn Fn(i32) -> i32| {
        let values = q.iter().map(|q| half.to_f64() * f64::from(codes(*q)));
        (half.to_le_bytes().to_vec(), values.map(|v| (v, v.abs())).collect())
    };
    match kind {
        WeightKind::W4Min => {
            let low = f16::from_f32(random.unit());
            let value = |q: &i32| {
                let product = half.to_f64() * f64::from(*q);
                // The sum is an f32.
                (f64::from((product + low.to_f64()) as f32), product + low.to_f64().abs())
            };
            ([half.to_le_bytes(), low.to_le_bytes()].concat(), q.iter().map(value).collect())
        }
        WeightKind::W4Zero => {
            let (bits, zero) = (scale.to_bits() & !0xff, (random.bits() % 17) as i32);
            let scale = f64::from(f32::from_bits(bits));
            let value = |q: &i32| (scale * f64::from(q - zero), scale * f64::from(q + zero));
            ((bits | zero as u32).to_le_bytes().to_vec(), q.iter().map(value).collect())
        }
        WeightKind::Fp4 => {
            let exponent = 120 + random.bits() as u8 % 9;
            let scale = 2.0f64.powi(i32::from(exponent) - 127);
            let value = |q: &i32| {
                let size = scale * FP4[*q as usize % 8];
                (if *q < 8 { size } else { -size }, size)
            };
            (vec![exponent], q.iter().map(value).collect())
        }
        WeightKind::Iq4 => of_half(&|q| IQ4[q as usize]),
        _ => of_half(&|q| q - 8),
    }
}

/// What int8 activations stand for, `[tokens, stride(cols)]`, after checking their sums.
pub(crate) fn dequantised(codes: &[u32], scales: &[[f32; 2]]) -> Vec<f64> {
    let codes: &[i8] = bytemuck::cast_slice(codes);
    let groups = codes.chunks(GROUP as usize).zip(scales);
    groups
        .flat_map(|(codes, [scale, sum])| {
            assert_eq!(codes.iter().map(|c| f32::from(*c)).sum::<f32>(), *sum, "a sum of codes");
            codes.iter().map(|c| f64::from(*scale) * f64::from(*c)).collect::<Vec<_>>()
        })
        .collect()
}

/// The largest magnitude of each of a q8 cache row's groups.
pub(crate) fn q8_peaks(row: &[f64]) -> Vec<f64> {
    row.chunks(GROUP as usize).map(|group| group.iter().fold(0.0, |peak: f64, v| peak.max(v.abs()))).collect()
}

/// What a q8 cache's rows of `width` values stand for, after checking that their padding is zero.
pub(crate) fn q8_values(words: &[u32], width: usize) -> Vec<f64> {
    let row_words = width.div_ceil(GROUP as usize) * Q8_WORDS;
    let rows = words.chunks(row_words).map(|row| {
        let groups = row.chunks(Q8_WORDS).flat_map(|group| {
            let codes: &[i8] = bytemuck::cast_slice(&group[1..]);
            let scale = f64::from(f32::from_bits(group[0]));
            codes.iter().map(move |c| scale * f64::from(*c)).collect::<Vec<_>>()
        });
        let row: Vec<_> = groups.collect();
        assert!(row[width..].iter().all(|v| *v == 0.0 || v.is_nan()), "padding was not zero");
        row[..width].to_vec()
    });
    rows.collect::<Vec<_>>().concat()
}

/// Where the first value is that is further from what is wanted than its bound; NaN always is.
pub(crate) fn first_miss(got: &[f32], want: &[f64], bound: &[f64]) -> Option<String> {
    assert_eq!(got.len(), want.len());
    assert_eq!(got.len(), bound.len());
    let miss = |i: &usize| {
        let off = (f64::from(got[*i]) - want[*i]).abs();
        off.is_nan() || off > bound[*i]
    };
    let describe = |i| format!("value {i}: {} instead of {} +- {:e}", got[i], want[i], bound[i]);
    (0..got.len()).find(miss).map(describe)
}

/// Checks that all values lie within their bounds.
pub(crate) fn assert_close(got: &[f32], want: &[f64], bound: &[f64], what: &str) {
    if let Some(miss) = first_miss(got, want, bound) {
        panic!("{what}: {miss}");
    }
}

/// The bits, to compare floats exactly.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
