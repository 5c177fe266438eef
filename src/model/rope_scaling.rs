//! How rotary speeds are scaled for contexts beyond those of training: Llama 3.1's way, and YaRN.

use std::f64::consts::TAU;

use super::config::Fields;
use crate::error::Result;

/// Llama 3.1's scaling: long wavelengths are slowed, short ones kept, those between blended.
pub(super) struct Llama3 {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original_context: f64,
}

impl Llama3 {
    pub(super) fn read(scaling: &Fields, original: u32) -> Result<Self> {
        let llama3 = Llama3 {
            factor: scaling.positive("factor")?,
            low_freq_factor: scaling.positive("low_freq_factor")?,
            high_freq_factor: scaling.positive("high_freq_factor")?,
            original_context: f64::from(original),
        };
        if llama3.high_freq_factor <= llama3.low_freq_factor {
            return Err(scaling.absurd(format!(
                "rope's `high_freq_factor` should be greater than `low_freq_factor`, found {} and {}",
                llama3.high_freq_factor, llama3.low_freq_factor
            )));
        }
        Ok(llama3)
    }

    pub(super) fn scale(&self, speed: f32) -> f32 {
        let wavelength = TAU / f64::from(speed);
        let turns = self.original_context / wavelength;
        if turns < self.low_freq_factor {
            (f64::from(speed) / self.factor) as f32
        } else if turns > self.high_freq_factor {
            speed
        } else {
            let span = self.high_freq_factor - self.low_freq_factor;
            let smooth = (turns - self.low_freq_factor) / span;
            let speed = f64::from(speed);
            ((1.0 - smooth) * speed / self.factor + smooth * speed) as f32
        }
    }
}

/// YaRN (Peng et al., arXiv 2309.00071): pairs that turn often within the original context keep
/// their speed, those that hardly turn are slowed, with a ramp between.
pub(super) struct Yarn {
    factor: f64,
    /// Turns within the original context from which on a pair keeps its speed, and below which it
    /// is slowed.
    turns: [f64; 2],
    original_context: f64,
    /// Whether the ramp's ends are whole pairs.
    truncate: bool,
    /// Factor on cosines and sines.
    pub(super) attention_factor: f64,
}

impl Yarn {
    pub(super) fn read(scaling: &Fields, original: u32, context_max: u32) -> Result<Self> {
        let original_context = f64::from(original);
        let factor = scaling.positive_or("factor", f64::from(context_max) / original_context)?;
        // Zero counts as not given.
        let given = |key: &str| scaling.number_or(key, 0.0).map(|number| Some(number).filter(|n| *n != 0.0));
        let sharpened = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        let usual = match (given("mscale")?, given("mscale_all_dim")?) {
            (Some(mscale), Some(all)) => sharpened(mscale) / sharpened(all),
            _ => sharpened(1.0),
        };
        let yarn = Yarn {
            factor,
            turns: [given("beta_fast")?.unwrap_or(32.0), given("beta_slow")?.unwrap_or(1.0)],
            original_context,
            truncate: scaling.flag_or("truncate", true)?,
            attention_factor: scaling.positive_or("attention_factor", usual)?,
        };
        if yarn.turns[0] < yarn.turns[1] || yarn.turns[1] <= 0.0 {
            return Err(scaling.absurd(format!(
                "rope's `beta_fast` should be no less than a positive `beta_slow`, found {} and {}",
                yarn.turns[0], yarn.turns[1]
            )));
        }
        Ok(yarn)
    }

    /// The speeds of pairs with these unscaled periods.
    pub(super) fn scale(&self, theta: f64, rotary_dim: u32, periods: impl Iterator<Item = f32>) -> Vec<f32> {
        let dim = f64::from(rotary_dim);
        // The pair that turns so often within the original context.
        let pair = |turns: f64| dim * (self.original_context / (turns * TAU)).ln() / (2.0 * theta.ln());
        let [mut low, mut high] = self.turns.map(pair);
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let speed = |(i, period): (u16, f32)| {
            let slowed = ((f32::from(i) - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let kept = 1.0 - slowed;
            1.0 / (self.factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
        };
        (0..).zip(periods).map(speed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fields(config: &Value) -> Fields {
        Fields::new("config.json".as_ref(), config).unwrap()
    }

    #[test]
    fn llama3_keeps_fast_pairs_and_slows_slow_ones() {
        let llama3 =
            Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
        assert_eq!(llama3.scale(1.0), 1.0);
        assert_eq!(llama3.scale(1e-4), 1e-4 / 8.0);
        let between = llama3.scale(0.0015);
        assert!(between > 0.0015 / 8.0 && between < 0.0015, "{between}");
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_slows_slow_ones() {
        let yarn = Yarn::read(&fields(&json!({"factor": 4.0})), 4096, 16_384).unwrap();
        assert!((yarn.attention_factor - (0.1 * 4.0f64.ln() + 1.0)).abs() < 1e-12);
        let periods = || (0..64u16).map(|i| 10_000f32.powf(f32::from(i) / 64.0));
        let speeds = yarn.scale(10_000.0, 128, periods());
        let ratio: Vec<_> = speeds.iter().zip(periods()).map(|(speed, period)| speed * period).collect();
        assert!((ratio[0] - 1.0).abs() < 1e-6 && (ratio[63] - 0.25).abs() < 1e-6, "{ratio:?}");
        assert!(ratio.windows(2).all(|w| w[0] >= w[1] - 1e-6), "{ratio:?}");
        assert!(ratio[30] < 1.0 && ratio[40] > 0.25, "{ratio:?}");
    }

    #[test]
    fn yarn_attends_as_it_is_told() {
        let factor = |config: Value| Yarn::read(&fields(&config), 32, 64).unwrap().attention_factor;
        assert_eq!(factor(json!({"factor": 0.5})), 1.0);
        assert_eq!(factor(json!({"factor": 2.0, "attention_factor": 0.7})), 0.7);
        let both = factor(json!({"factor": 2.0, "mscale": 1.0, "mscale_all_dim": 1.0}));
        assert_eq!(both, 1.0);
        // The factor comes from the lengths where it is not given.
        assert_eq!(factor(json!({})), factor(json!({"factor": 2.0, "mscale": 3.0})));
        let absurd = Yarn::read(&fields(&json!({"factor": 2.0, "beta_fast": 1, "beta_slow": 2})), 32, 64);
        assert!(absurd.is_err());
    }
}
