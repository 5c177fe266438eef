//! Groups of 4-bit codes with whatever their kind keeps beside them, and how they stand for weights.

use half::f16;

use super::{FP4_VALUES, GROUP, IQ4_VALUES, WeightKind};

/// Weights of one group.
const WEIGHTS: usize = GROUP as usize;
/// Bits of the f32 scale that `W4Zero` keeps.
const SCALE_MASK: u32 = 0xffff_ff00;

/// One group of a kind with 4-bit codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Group4 {
    /// The scale: an f16 for `W4`, `W4Min` and `Iq4`; an f32 of at most 16 significant bits for
    /// `W4Zero`; [`scale_of_exponent`] for `Fp4`.
    pub scale: f32,
    /// The minimum of `W4Min`, an f16, or the zero of `W4Zero`, whole from 0 to 255; else 0.
    pub second: f32,
    /// The codes, 0 to 15.
    pub q: [u8; WEIGHTS],
}

/// Half of the power of two that a byte of MXFP4 stands for, so that [`FP4_VALUES`] are whole.
pub fn scale_of_exponent(code: u8) -> f32 {
    let code = u32::from(code);
    f32::from_bits(if code < 2 { 0x0020_0000 << code } else { (code - 1) << 23 })
}

/// The byte whose scale is the largest that is not above a positive number.
pub fn exponent_of(scale: f32) -> u8 {
    match scale.to_bits() {
        tiny if tiny < 0x0040_0000 => 0,
        bits => ((bits >> 23) as u8).saturating_add(1),
    }
}

impl Group4 {
    /// Whether the kind gives back the scale and the second number as they are.
    pub fn is_exact(&self, kind: WeightKind) -> bool {
        let is_half = |v: f32| f16::from_f32(v).to_f32() == v;
        match kind {
            WeightKind::W4 | WeightKind::Iq4 => is_half(self.scale),
            WeightKind::W4Min => is_half(self.scale) && is_half(self.second),
            WeightKind::W4Zero => {
                let is_short = self.scale.to_bits() & !SCALE_MASK == 0;
                is_short && (0.0..=255.0).contains(&self.second) && self.second.fract() == 0.0
            }
            WeightKind::Fp4 => self.scale > 0.0 && scale_of_exponent(exponent_of(self.scale)) == self.scale,
            _ => false,
        }
    }

    /// Writes the group, its scale and second number rounded to what the kind holds.
    ///
    /// # Panics
    /// If the kind has no 4-bit codes, or the slices are no group's.
    pub fn put(&self, kind: WeightKind, codes: &mut [u8], scales: &mut [u8]) {
        let half = |v: f32| f16::from_f32(v).to_le_bytes();
        match kind {
            WeightKind::W4 | WeightKind::Iq4 => scales.copy_from_slice(&half(self.scale)),
            WeightKind::W4Min => {
                scales[..2].copy_from_slice(&half(self.scale));
                scales[2..].copy_from_slice(&half(self.second));
            }
            WeightKind::W4Zero => {
                // Halfway up, so that cutting off rounds to the nearest.
                let scale = self.scale.to_bits().saturating_add(0x80) & SCALE_MASK;
                scales.copy_from_slice(&(scale | self.second as u32).to_le_bytes());
            }
            WeightKind::Fp4 => scales.copy_from_slice(&[exponent_of(self.scale)]),
            _ => panic!("{kind:?} has no 4-bit codes"),
        }
        for (j, code) in codes.iter_mut().enumerate() {
            *code = self.q[j] | self.q[j + WEIGHTS / 2] << 4;
        }
    }

    /// Reads a group.
    ///
    /// # Panics
    /// As [`Self::put`].
    pub fn take(kind: WeightKind, codes: &[u8], scales: &[u8]) -> Self {
        let half = |at: usize| f16::from_le_bytes([scales[at], scales[at + 1]]).to_f32();
        let (scale, second) = match kind {
            WeightKind::W4 | WeightKind::Iq4 => (half(0), 0.0),
            WeightKind::W4Min => (half(0), half(2)),
            WeightKind::W4Zero => {
                let word = u32::from_le_bytes([scales[0], scales[1], scales[2], scales[3]]);
                (f32::from_bits(word & SCALE_MASK), (word & !SCALE_MASK) as f32)
            }
            WeightKind::Fp4 => (scale_of_exponent(scales[0]), 0.0),
            _ => panic!("{kind:?} has no 4-bit codes"),
        };
        let q = std::array::from_fn(|j| codes[j % (WEIGHTS / 2)] >> (j / (WEIGHTS / 2) * 4) & 15);
        Group4 { scale, second, q }
    }

    /// The weights of the first columns, as many as `row` has.
    pub fn decode(&self, kind: WeightKind, row: &mut [f32]) {
        let Group4 { scale, second, q } = self;
        for (v, &q) in row.iter_mut().zip(q) {
            *v = match kind {
                WeightKind::W4Min => scale * f32::from(q) + second,
                WeightKind::W4Zero => scale * (f32::from(q) - second),
                WeightKind::Iq4 => scale * f32::from(IQ4_VALUES[usize::from(q)]),
                WeightKind::Fp4 => scale * f32::from(FP4_VALUES[usize::from(q)]),
                _ => scale * (f32::from(q) - 8.0),
            };
        }
    }
}

/// Codes a group by its extremes, of which the first `used` weights count; what files have is
/// moved, not coded again, so that this serves tests and what a file holds in another form.
pub(super) fn encode(kind: WeightKind, x: &[f32; WEIGHTS], used: usize) -> Group4 {
    let low = x[..used].iter().copied().fold(f32::INFINITY, f32::min);
    let high = x[..used].iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let extreme = if -low > high { low } else { high };
    let half = |v: f32| f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32();
    let (scale, second) = match kind {
        WeightKind::W4Min => (half((high - low) / 15.0), half(low)),
        WeightKind::W4Zero => {
            let (low, high) = (low.min(0.0), high.max(0.0));
            let scale = f32::from_bits(((high - low) / 15.0).to_bits().saturating_add(0x80) & SCALE_MASK);
            (scale, if scale > 0.0 { (-low / scale).round() } else { 8.0 })
        }
        WeightKind::Iq4 => (half(extreme / -127.0), 0.0),
        // The largest value of FP4, 6, has the exponent 2; the scale is half the power of two.
        _ => (scale_of_exponent(exponent_of(extreme.abs()).saturating_sub(3)), 0.0),
    };
    let nearest = |v: f32| {
        let mut best = (f32::INFINITY, 0);
        for q in 0..16 {
            let mut value = [0.0];
            Group4 { scale, second, q: [q; WEIGHTS] }.decode(kind, &mut value);
            let off = (value[0] - v).abs();
            if off < best.0 {
                best = (off, q);
            }
        }
        best.1
    };
    Group4 { scale, second, q: x.map(nearest) }
}
