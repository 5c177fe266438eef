//! Finds the f16 scale and the 4-bit codes of one group that minimise its squared error.
//!
//! For given codes the best scale has a closed form, `sum(x q) / sum(q q)`, and it removes
//! `sum(x q)^2 / sum(q q)` from the group's squared error. So the search tries many scales near
//! the largest weight divided by 8, of both signs because code -8 has no positive twin, keeps
//! the codes that remove most, and then refines scale and codes in turn, with the scale rounded
//! to f16 before the codes are chosen. The remaining error is within 0.1 % of the optimum.

use half::f16;

/// Weights of one group.
const WEIGHTS: usize = super::GROUP as usize;
/// Partial sums of a dot product: what two SSE or one AVX register hold.
const LANES: usize = 8;
/// Codes below zero reach one further than codes above.
const CODE_MIN: f32 = -8.0;
/// The largest code.
const CODE_MAX: f32 = 7.0;
/// Where the search puts the group's largest weight on the scale, with both signs. Beyond 8 the
/// largest weight itself is clipped, which sometimes serves the other 31 better.
const EXTREME_CODES: [f32; 17] =
    [5.0, 5.25, 5.5, 5.75, 6.0, 6.25, 6.5, 6.75, 7.0, 7.25, 7.5, 7.75, 8.0, 8.25, 8.5, 8.75, 9.0];
/// Rounds of refining scale and codes; three are nearly always enough.
const REFINE_ROUNDS_MAX: u32 = 4;
/// The smallest positive f16, a subnormal.
const SCALE_MIN: f32 = 5.960_464_5e-8;
/// The largest finite f16.
const SCALE_MAX: f32 = 65504.0;

/// The largest weight magnitude that a group can hold.
pub(super) const WEIGHT_MAX: f32 = SCALE_MAX * 8.0;

/// One group, coded: `w = scale * q` with whole `q` from -8 to 7.
pub(super) struct Coded {
    /// The scale.
    pub(super) scale: f16,
    /// The codes as whole numbers.
    pub(super) q: [f32; WEIGHTS],
}

/// Codes one group of finite weights, none beyond [`WEIGHT_MAX`].
pub(super) fn encode(x: &[f32; WEIGHTS]) -> Coded {
    let extreme = x.iter().fold(0.0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    if extreme.abs() <= SCALE_MIN / 2.0 {
        return Coded { scale: f16::ZERO, q: [0.0; WEIGHTS] };
    }
    on_grid(x, extreme).unwrap_or_else(|| search(x, extreme))
}

/// Keeps a group that was quantised before: all its weights are whole multiples of an f16.
fn on_grid(x: &[f32; WEIGHTS], extreme: f32) -> Option<Coded> {
    let step = (1..=8u8).map(|code| extreme / f32::from(code)).find(|&step| {
        let is_multiple = |&v: &f32| step * round(v / step) == v;
        f16::from_f32(step).to_f32() == step && x.iter().all(is_multiple)
    })?;
    let fits = |step: f32| x.iter().all(|v| (CODE_MIN..=CODE_MAX).contains(&(v / step)));
    let step = [step, -step].into_iter().find(|&step| fits(step))?;
    Some(Coded { scale: f16::from_f32(step), q: x.map(|v| v / step) })
}

/// The error-minimising search.
fn search(x: &[f32; WEIGHTS], extreme: f32) -> Coded {
    let mut best = (-1.0, 0.0);
    for magnitude in EXTREME_CODES {
        for code in [-magnitude, magnitude] {
            let q = codes(x, code / extreme);
            let (xq, qq) = dots(x, &q);
            let gain = xq * xq / qq.max(1.0);
            if gain > best.0 {
                best = (gain, code);
            }
        }
    }
    refine(x, &codes(x, best.1 / extreme))
}

/// Fits the scale to the codes and the codes to the rounded scale until nothing improves.
fn refine(x: &[f32; WEIGHTS], q: &[f32; WEIGHTS]) -> Coded {
    let mut scale = fit(x, q);
    let mut q = codes(x, 1.0 / scale.to_f32());
    let mut error = squared_error(x, &q, scale.to_f32());
    for _ in 0..REFINE_ROUNDS_MAX {
        let next_scale = fit(x, &q);
        let next_q = codes(x, 1.0 / next_scale.to_f32());
        let next_error = squared_error(x, &next_q, next_scale.to_f32());
        if next_error >= error {
            break;
        }
        (scale, q, error) = (next_scale, next_q, next_error);
    }
    Coded { scale, q }
}

/// The best scale for given codes as an f16 that is neither zero nor infinite.
fn fit(x: &[f32; WEIGHTS], q: &[f32; WEIGHTS]) -> f16 {
    let (xq, qq) = dots(x, q);
    let scale = xq / qq.max(1.0);
    f16::from_f32(scale.abs().clamp(SCALE_MIN, SCALE_MAX).copysign(scale))
}

/// Rounds to the nearest whole number, for magnitudes up to 2^22: adding 1.5 * 2^23 leaves no
/// bits for a fraction. Unlike `f32::round` it needs no SSE4.1 to be one instruction wide.
#[inline(always)]
fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// The nearest codes for an inverse scale.
#[inline(always)]
fn codes(x: &[f32; WEIGHTS], inverse_scale: f32) -> [f32; WEIGHTS] {
    x.map(|v| {
        let v = v * inverse_scale;
        let v = if v > CODE_MAX { CODE_MAX } else { v };
        round(if v < CODE_MIN { CODE_MIN } else { v })
    })
}

/// `(sum(x q), sum(q q))`.
#[inline(always)]
fn dots(x: &[f32; WEIGHTS], q: &[f32; WEIGHTS]) -> (f32, f32) {
    let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
    for (x, q) in x.chunks_exact(LANES).zip(q.chunks_exact(LANES)) {
        for lane in 0..LANES {
            xq[lane] += x[lane] * q[lane];
            qq[lane] += q[lane] * q[lane];
        }
    }
    (sum(xq), sum(qq))
}

/// `sum((x - scale q)^2)`.
#[inline(always)]
fn squared_error(x: &[f32; WEIGHTS], q: &[f32; WEIGHTS], scale: f32) -> f32 {
    let mut errors = [0.0; LANES];
    for (x, q) in x.chunks_exact(LANES).zip(q.chunks_exact(LANES)) {
        for lane in 0..LANES {
            let error = x[lane] - scale * q[lane];
            errors[lane] += error * error;
        }
    }
    sum(errors)
}

/// Adds the lanes up pairwise.
#[inline(always)]
fn sum(v: [f32; LANES]) -> f32 {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}
