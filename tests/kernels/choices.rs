//! What tests of kernels of experts share: records of random experts, routes, products in f64.

use super::common::*;
use super::glu::{activation, activation_bound};
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::experts::{Gate, Records, Stack};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::WeightKind;

/// Sizes of a problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) kind: WeightKind,
    pub(crate) experts: usize,
    pub(crate) chosen: usize,
    /// Whether one more is summed than there are experts.
    pub(crate) shared: bool,
    pub(crate) tokens: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) bias: bool,
}

/// A matrix of each expert, and who chose them.
pub(crate) struct Choices {
    pub(crate) sizes: Sizes,
    pub(crate) records: Records,
    /// Bytes of all records.
    home: Vec<u8>,
    /// By expert: the matrix `[rows, cols]`, then the biases.
    values: Vec<Vec<f64>>,
    biases: Vec<Vec<f64>>,
    /// By token and choice.
    pub(crate) chosen: Vec<Vec<u32>>,
    pub(crate) weights: Vec<Vec<f32>>,
    /// Slots counted from 1.
    pub(crate) slots: Vec<u32>,
}

/// Buffers of a problem.
pub(crate) struct Placed {
    home: Buffer,
    slots: Buffer,
    routes: Buffer,
}

impl Placed {
    pub(crate) fn stack(&self) -> Stack<'_> {
        Stack { home: self.home.all(), slots: self.slots.all(), routes: self.routes.all() }
    }
}

fn section(record: &mut Vec<u8>, bytes: &[u8]) -> u64 {
    record.resize(record.len().next_multiple_of(256), 0);
    let start = record.len();
    record.extend(bytes);
    start as u64
}

impl Choices {
    pub(crate) fn new(seed: u64, sizes: Sizes) -> Self {
        let mut random = Random::new(seed);
        let Sizes { kind, experts, chosen, shared, tokens, rows, cols, bias } = sizes;
        let (mut home, mut values, mut biases, mut places) = (vec![], vec![], vec![], [0; 4]);
        for _ in 0..experts {
            // Something else stands in front, as another matrix does.
            let mut record = vec![0xaa; 300];
            let made = weights(&mut random, kind, rows, cols);
            let (codes_at, scales_at) =
                (section(&mut record, &made.codes), section(&mut record, &made.scales));
            let added = random.units(rows);
            let bias_at = section(&mut record, bytemuck::cast_slice(&added));
            record.resize(record.len().next_multiple_of(256), 0);
            places = [record.len() as u64, codes_at, scales_at, bias_at];
            home.extend(record);
            values.push(made.values);
            biases.push(added.iter().map(|b| if bias { f64::from(*b) } else { 0.0 }).collect());
        }
        let mut choose = || {
            let mut all: Vec<u32> = (0..experts as u32).collect();
            (0..chosen).map(|_| all.remove(random.bits() as usize % all.len())).collect()
        };
        let picked: Vec<Vec<u32>> = (0..tokens).map(|_| choose()).collect();
        let choices = chosen + usize::from(shared);
        let weights = (0..tokens).map(|_| random.units(choices)).collect();
        let [record_bytes, codes_at, scales_at, bias_at] = places;
        let records = Records {
            first: 0,
            count: experts as u32,
            record_bytes,
            codes_at,
            scales_at,
            bias_at: bias.then_some(bias_at),
            kind,
            cached: false,
            far: false,
            chosen: chosen as u32,
            choices: choices as u32,
            tile: 1,
            room: 0,
        };
        Choices { sizes, records, home, values, biases, chosen: picked, weights, slots: vec![0; experts] }
    }

    /// Puts copies of some experts into slots, and spoils them at home.
    pub(crate) fn cache(&mut self, experts: &[usize]) {
        self.records.cached = true;
        for (slot, expert) in experts.iter().enumerate() {
            self.slots[*expert] = slot as u32 + 1;
        }
    }

    /// Choices come sorted by expert, so many in a tile at most.
    pub(crate) fn sort(&mut self, tile: u32) {
        self.records.tile = tile;
        self.records.room = (self.sizes.tokens * self.sizes.chosen + 5).next_multiple_of(4) as u32;
    }

    /// Only the records from `first` on are bound.
    pub(crate) fn window(&mut self, first: usize, count: usize) {
        (self.records.first, self.records.count) = (first as u32, count as u32);
    }

    fn record(&self, expert: usize) -> std::ops::Range<usize> {
        let bytes = self.records.record_bytes as usize;
        expert * bytes..(expert + 1) * bytes
    }

    pub(crate) fn place(&self) -> Placed {
        let mut home = self.home.clone();
        let most = self.slots.iter().copied().max().unwrap_or(0) as usize;
        let mut slots = vec![0xbb_u8; (most * self.records.record_bytes as usize).max(16)];
        for (expert, slot) in self.slots.iter().enumerate().filter(|(_, slot)| **slot > 0) {
            slots[self.record(*slot as usize - 1)].copy_from_slice(&home[self.record(expert)]);
            home[self.record(expert)].fill(0xcc);
        }
        let first = self.records.first as usize;
        let bound = self.record(first).start..self.record(first + self.records.count as usize - 1).end;
        let home = upload(&home[bound]);
        let routes = if self.records.tile > 1 { self.tiles() } else { self.routes() };
        Placed { home, slots: upload(&slots), routes: upload(&routes) }
    }

    /// As the kernel `route` makes them.
    fn routes(&self) -> Vec<u32> {
        let mut words = vec![];
        for (chosen, weights) in self.chosen.iter().zip(&self.weights) {
            let route = |(i, weight): (usize, &f32)| {
                let expert = chosen.get(i).copied().unwrap_or(0);
                let slot = if i < chosen.len() { self.slots[expert as usize] } else { 0 };
                [expert, weight.to_bits(), slot, 0]
            };
            let mut row: Vec<_> = weights.iter().enumerate().flat_map(route).collect();
            row.resize(stride(4 * self.records.choices) as usize, 0);
            words.extend(row);
        }
        words
    }

    /// As the kernel `experts_sort` makes them.
    fn tiles(&self) -> Vec<u32> {
        let room = self.records.room as usize;
        let all: Vec<_> = (0..).zip(self.chosen.iter().flatten().copied()).collect();
        let (mut tiles, mut pairs) = (vec![], vec![]);
        for expert in 0..self.sizes.experts as u32 {
            let own: Vec<u32> = all.iter().filter(|(_, e)| *e == expert).map(|(pair, _)| *pair).collect();
            for part in own.chunks(self.records.tile as usize) {
                tiles.extend([expert, pairs.len() as u32, part.len() as u32, self.slots[expert as usize]]);
                pairs.extend(part);
            }
        }
        tiles.resize(4 * room, 0);
        pairs.resize(room, 0);
        [tiles, pairs].concat()
    }

    /// Whether a choice's expert is bound.
    pub(crate) fn is_bound(&self, expert: u32) -> bool {
        expert >= self.records.first && expert - self.records.first < self.records.count
    }

    /// The product of an expert's row with an input, and how far f32 sums of so many terms may be off.
    pub(crate) fn product(&self, expert: u32, row: usize, x: &[f64], terms: u32) -> (f64, f64) {
        let Sizes { cols, .. } = self.sizes;
        let w = &self.values[expert as usize][row * cols..][..cols];
        let bias = self.biases[expert as usize][row];
        let sum: f64 = w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias;
        let size: f64 = w.iter().zip(x).map(|(w, x)| (w * x).abs()).sum::<f64>() + bias.abs();
        (sum, size * f64::from(terms + 8) * ULP)
    }
}

/// What becomes of a gate and a value, each with how far it may be off.
pub(crate) fn gated(gate: Gate, (g, g_off): (f64, f64), (u, u_off): (f64, f64)) -> (f64, f64) {
    let (value, value_off, up) = match gate {
        Gate::SwiGlu => {
            let kind = pipo_wgpu::kernels::Activation::Silu;
            (activation(kind, g), activation_bound(kind, g) + 1.13 * g_off, u)
        }
        Gate::Clamped { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let g = g.min(limit);
            let value = g / (1.0 + (-alpha * g).exp());
            (value, value.abs() * 1e-5 + 1e-6 + 1.2 * g_off, u.clamp(-limit, limit) + 1.0)
        }
    };
    (
        value * up,
        value_off * (up.abs() + u_off) + value.abs() * u_off + (value * up).abs() * 2.0 * ULP + 1e-30,
    )
}

/// Both kinds of gates.
pub(crate) const GATES: [Gate; 2] = [Gate::SwiGlu, Gate::Clamped { alpha: 1.702, limit: 2.0 }];
