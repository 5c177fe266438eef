//! Rotary position embedding: the angle of every dimension pair at every position.
//!
//! Su et al., RoFormer (arXiv 2104.09864); the `linear` and `llama3` scalings are those of
//! Hugging Face Transformers' `modeling_rope_utils`.

use std::f64::consts::TAU;

use super::config::Fields;
use crate::error::Result;

/// The rotation speeds of a model's dimension pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per position, one for each pair; `[rotary_dim / 2]`.
    pub inverse_frequencies: Vec<f32>,
}

/// What may stand in `rope_scaling` or `rope_parameters`; anything else would turn some pairs
/// otherwise than here.
const PARAMETERS: [&str; 8] = [
    "rope_theta",
    "rope_type",
    "type",
    "partial_rotary_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
];

impl Rope {
    /// Reads `rope_theta` with `rope_scaling` (old spelling) or `rope_parameters` (new spelling).
    ///
    /// # Errors
    /// For a scaling that is not implemented, or a missing or absurd parameter.
    pub fn from_config(fields: &Fields, rotary_dim: u32) -> Result<Rope> {
        let scaling = match fields.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => fields.object("rope_scaling")?,
        };
        let theta = match &scaling {
            Some(s) if s.get("rope_theta").is_some() => s.positive("rope_theta")?,
            _ => fields.positive_or("rope_theta", 10_000.0)?,
        };
        let mut rope = Rope::plain(theta, rotary_dim);
        if let Some(scaling) = scaling {
            scaling.refuse_unless(&[("partial_rotary_factor", 1.0.into())])?;
            rope.scale(&scaling)?;
            scaling.refuse_others(&PARAMETERS)?;
        }
        Ok(rope)
    }

    /// Leading values of a head that are rotated.
    pub fn rotary_dim(&self) -> u32 {
        2 * self.inverse_frequencies.len() as u32
    }

    /// Unscaled speeds: `theta ^ (-2 i / rotary_dim)`.
    pub fn plain(theta: f64, rotary_dim: u32) -> Rope {
        let speed = |i: u32| {
            // In f32, as Transformers does it: the oracles' own rounding is part of the model.
            let exponent = (2 * i) as f32 / rotary_dim as f32;
            1.0 / (theta as f32).powf(exponent)
        };
        Rope { inverse_frequencies: (0..rotary_dim / 2).map(speed).collect() }
    }

    fn scale(&mut self, scaling: &Fields) -> Result<()> {
        let key = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = match scaling.get(key) {
            Some(_) => scaling.text(key)?,
            None => "default".into(),
        };
        match kind.as_str() {
            "default" => {}
            "linear" => {
                let factor = scaling.positive("factor")? as f32;
                self.inverse_frequencies.iter_mut().for_each(|f| *f /= factor);
            }
            "llama3" => {
                let llama3 = Llama3::read(scaling)?;
                self.inverse_frequencies.iter_mut().for_each(|f| *f = llama3.scale(*f));
            }
            _ => return Err(scaling.unsupported(key, &kind.into())),
        }
        Ok(())
    }

    /// Cosine and sine for every pair at one position, interleaved; appended to `out`.
    pub fn angles(&self, position: u32, out: &mut Vec<f32>) {
        for speed in &self.inverse_frequencies {
            // The product is rounded to f32 as in Transformers; the rest is exact.
            let angle = f64::from(position as f32 * speed);
            out.extend([angle.cos() as f32, angle.sin() as f32]);
        }
    }
}

/// Llama 3.1's scaling: long wavelengths are slowed, short ones kept, those between blended.
struct Llama3 {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original_context: f64,
}

impl Llama3 {
    fn read(scaling: &Fields) -> Result<Self> {
        let llama3 = Llama3 {
            factor: scaling.positive("factor")?,
            low_freq_factor: scaling.positive("low_freq_factor")?,
            high_freq_factor: scaling.positive("high_freq_factor")?,
            original_context: scaling.positive("original_max_position_embeddings")?,
        };
        if llama3.high_freq_factor <= llama3.low_freq_factor {
            return Err(scaling.absurd(format!(
                "rope's `high_freq_factor` should be greater than `low_freq_factor`, found {} and {}",
                llama3.high_freq_factor, llama3.low_freq_factor
            )));
        }
        Ok(llama3)
    }

    fn scale(&self, speed: f32) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rope(config: &serde_json::Value) -> Result<Rope> {
        let fields = Fields::new("config.json".as_ref(), config).unwrap();
        Rope::from_config(&fields, 8)
    }

    #[test]
    fn old_and_new_spelling_agree() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
        let old = json!({"rope_theta": 5000.0, "rope_scaling": scaling});
        let mut parameters = scaling.clone();
        parameters["rope_theta"] = json!(5000.0);
        let new = json!({"rope_parameters": parameters});
        assert_eq!(rope(&old).unwrap(), rope(&new).unwrap());
        assert_ne!(rope(&old).unwrap(), rope(&json!({"rope_theta": 5000.0})).unwrap());
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
    fn unknown_scalings_are_refused_by_name() {
        let error = rope(&json!({"rope_scaling": {"type": "yarn", "factor": 4}})).unwrap_err();
        assert!(error.to_string().contains("`rope_scaling.type` = \"yarn\""), "{error}");
    }
}
