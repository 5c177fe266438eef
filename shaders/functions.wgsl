// Functions of one value that several shaders use: what activations and scores become.

// A value held softly between a cap and its negative; NaN gives NaN.
fn soft_capped(x: f32, cap: f32) -> f32 {
    // Beyond that the hyperbolic tangent is 1, which not every driver knows.
    return select(x, cap * tanh(clamp(x / cap, -15.0, 15.0)), x == x);
}

// A score that is NaN unless finite, held below a cap unless that is 0.
fn settled_score(score: f32, cap: f32) -> f32 {
    let bits = bitcast<u32>(score) & 0x7fffffffu;
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    if cap == 0.0 {
        return score;
    }
    return soft_capped(score, cap);
}

// Activation functions as `override ACTIVATION` gives them.
const SILU: u32 = 0u;
const GELU_TANH: u32 = 1u;
const GELU_ERF: u32 = 2u;
const RELU: u32 = 3u;
const RELU_SQUARED: u32 = 4u;

// The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26).
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let p = fma(fma(fma(fma(1.061405429, t, -1.453152027), t, 1.421413741), t, -0.284496736), t, 0.254829592);
    return sign(x) * (1.0 - p * t * exp(-x * x));
}

// The larger of x and 0. By its bits, because compilers turn comparisons into a maximum that loses
// NaN.
fn relu(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return select(x, 0.0, bits >= 0x80000000u && bits <= 0x80000000u + INFINITY_BITS);
}

// An activation function of one value; NaN gives NaN.
fn activation(kind: u32, x: f32) -> f32 {
    switch kind {
        case SILU: { return x / (1.0 + exp(-x)); }
        // 0.5 (1 + tanh u) is the logistic function of 2u, which cannot overflow to NaN.
        case GELU_TANH: { return x / (1.0 + exp(-1.5957691216 * x * (1.0 + 0.044715 * x * x))); }
        case GELU_ERF: { return 0.5 * x * (1.0 + erf(x * 0.70710678118)); }
        case RELU: { return relu(x); }
        default: { return relu(x) * relu(x); }
    }
}
