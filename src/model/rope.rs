//! Rotary position embedding: the angle of every dimension pair at every position.
//!
//! Su et al., RoFormer (arXiv 2104.09864); the scalings are those of Hugging Face Transformers'
//! `modeling_rope_utils`, in the same precision: the oracles' own rounding is part of a model.

use super::config::{CONTEXT_MAX, Fields, HEAD_DIM_MAX};
use super::rope_scaling::{Llama3, Yarn};
use crate::error::{Error, Result};

/// The rotation speeds of a model's dimension pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per position, one for each pair; `[rotary_dim / 2]`.
    pub inverse_frequencies: Vec<f32>,
    /// Factor on cosines and sines.
    pub attention_factor: f32,
    /// What happens to longer texts.
    pub longer: Longer,
}

/// What happens to texts beyond some length.
#[derive(Clone, Debug, PartialEq)]
pub enum Longer {
    /// Nothing: there is no such length.
    Same,
    /// Transformers would change the speeds of all positions again and again; here there is none.
    Refused {
        /// Positions that there are.
        positions: u32,
    },
    /// All positions of a text that is longer turn at other speeds.
    Other {
        /// The longest text that turns at the usual speeds.
        positions: u32,
        /// The other speeds.
        inverse_frequencies: Vec<f32>,
    },
}

/// What a rotation is where the configuration does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct RopeDefaults {
    /// The base of the speeds.
    pub(super) theta: f64,
    /// The share of a head that is rotated; `None` where the family always rotates all of it.
    pub(super) partial: Option<f64>,
    pub(super) head_dim: u32,
    pub(super) context_max: u32,
}

/// What may stand in `rope_scaling` or `rope_parameters`; anything else would turn some pairs
/// otherwise than here.
const PARAMETERS: [&str; 16] = [
    "rope_theta",
    "rope_type",
    "type",
    "partial_rotary_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
];

impl Rope {
    /// Reads `rope_theta` and `partial_rotary_factor` with `rope_scaling` (old spelling) or
    /// `rope_parameters` (new spelling).
    ///
    /// # Errors
    /// For a scaling that is not implemented, or a missing or absurd parameter.
    pub(super) fn from_config(fields: &Fields, defaults: &RopeDefaults) -> Result<Rope> {
        let scaling = match fields.object("rope_scaling")? {
            Some(scaling) if !scaling.is_empty() => Some(scaling),
            _ => fields.object("rope_parameters")?,
        };
        Rope::read(fields, scaling.as_ref(), defaults)
    }

    /// The same with the scaling from elsewhere.
    pub(super) fn read(fields: &Fields, scaling: Option<&Fields>, defaults: &RopeDefaults) -> Result<Rope> {
        let place = |key: &str| scaling.filter(|scaling| scaling.get(key).is_some()).unwrap_or(fields);
        let theta = place("rope_theta").positive_or("rope_theta", defaults.theta)?;
        let place = place("partial_rotary_factor");
        let rotary_dim = match defaults.partial {
            None => {
                place.refuse_unless(&[("partial_rotary_factor", 1.0.into())])?;
                defaults.head_dim
            }
            Some(share) => {
                let share = place.number_or("partial_rotary_factor", share)?;
                rotary_dim(place, share, defaults.head_dim)?
            }
        };
        let mut rope = Rope::plain(theta, rotary_dim);
        if let Some(scaling) = scaling {
            rope.scale(fields, scaling, (theta, defaults))?;
            scaling.refuse_others(&PARAMETERS)?;
        }
        match rope.is_finite() {
            true => Ok(rope),
            false => Err(fields.absurd(format!(
                "the parameters of its rope contradict each other: with `rope_theta` = {theta}, positions would turn \
                 queries by what is no number; get the file again"
            ))),
        }
    }

    /// Whether the angles of all positions and the factor on what is rotated are numbers.
    fn is_finite(&self) -> bool {
        let longer = match &self.longer {
            Longer::Other { inverse_frequencies, .. } => &inverse_frequencies[..],
            _ => &[],
        };
        let speeds = self.inverse_frequencies.iter().chain(longer);
        let last = CONTEXT_MAX as f32;
        speeds.chain([&self.attention_factor]).all(|number| (number * last).is_finite())
    }

    /// Leading values of a head that are rotated.
    pub fn rotary_dim(&self) -> u32 {
        2 * self.inverse_frequencies.len() as u32
    }

    /// Unscaled speeds: `theta ^ (-2 i / rotary_dim)`.
    pub fn plain(theta: f64, rotary_dim: u32) -> Rope {
        let inverse_frequencies = periods(theta, rotary_dim).map(|period| 1.0 / period).collect();
        Rope { inverse_frequencies, attention_factor: 1.0, longer: Longer::Same }
    }

    fn scale(&mut self, fields: &Fields, scaling: &Fields, at: (f64, &RopeDefaults)) -> Result<()> {
        let (theta, defaults) = at;
        let key = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = match scaling.get(key) {
            Some(_) => scaling.text(key)?,
            None => "default".into(),
        };
        let original = || {
            const KEY: &str = "original_max_position_embeddings";
            let place = if fields.get(KEY).is_some() { fields } else { scaling };
            place.size_or(KEY, 1..=CONTEXT_MAX, defaults.context_max)
        };
        match kind.as_str() {
            "default" => {}
            "linear" => {
                let factor = scaling.positive("factor")? as f32;
                self.inverse_frequencies.iter_mut().for_each(|f| *f /= factor);
            }
            // Without effect up to the length that the model was made for.
            "dynamic" => {
                scaling.positive("factor")?;
                self.longer = Longer::Refused { positions: defaults.context_max };
            }
            "llama3" => {
                let llama3 = Llama3::read(scaling, original()?)?;
                self.inverse_frequencies.iter_mut().for_each(|f| *f = llama3.scale(*f));
            }
            "yarn" => {
                let yarn = Yarn::read(scaling, original()?, defaults.context_max)?;
                self.attention_factor = yarn.attention_factor as f32;
                let rotary_dim = self.rotary_dim();
                self.inverse_frequencies = yarn.scale(theta, rotary_dim, periods(theta, rotary_dim));
            }
            "longrope" | "su" => self.scale_long(scaling, original()?, (theta, defaults.context_max))?,
            _ => return Err(scaling.unsupported(key, &kind.into())),
        }
        Ok(())
    }

    /// LongRoPE (Ding et al., arXiv 2402.13753): one list of factors for short texts, one for long.
    fn scale_long(
        &mut self,
        scaling: &Fields,
        original: u32,
        (theta, context_max): (f64, u32),
    ) -> Result<()> {
        let rotary_dim = self.rotary_dim();
        let speeds = |key: &str| {
            let factors = scaling.numbers(key, (rotary_dim / 2) as usize)?;
            let speed = |(period, factor): (f32, f64)| 1.0 / (factor as f32 * period);
            Ok::<Vec<f32>, Error>(periods(theta, rotary_dim).zip(factors).map(speed).collect())
        };
        let ratio = f64::from(context_max) / f64::from(original);
        let factor = scaling.positive_or("factor", ratio)?;
        let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / f64::from(original).ln()).sqrt() };
        self.attention_factor = scaling.positive_or("attention_factor", usual)? as f32;
        let inverse_frequencies = speeds("long_factor")?;
        self.inverse_frequencies = speeds("short_factor")?;
        self.longer = Longer::Other { positions: original, inverse_frequencies };
        Ok(())
    }

    /// The longest text that turns at the usual speeds, if longer ones turn at others.
    pub fn turning_point(&self) -> Option<u32> {
        match self.longer {
            Longer::Other { positions, .. } => Some(positions),
            _ => None,
        }
    }

    /// Cosine and sine for every pair at one position of a text, which may be a long one,
    /// interleaved; appended to `out`.
    ///
    /// # Errors
    /// At a position of a text that is too long to be turned.
    pub fn angles(&self, position: u32, is_long: bool, out: &mut Vec<f32>) -> Result<()> {
        let speeds = match &self.longer {
            Longer::Refused { positions } if position >= *positions => {
                return Err(Error::Unsupported(format!(
                    "a text longer than the {positions} positions of this model, whose `dynamic` rope would \
                     turn all of them otherwise then"
                )));
            }
            Longer::Other { inverse_frequencies, .. } if is_long => inverse_frequencies,
            _ => &self.inverse_frequencies,
        };
        for speed in speeds {
            // The product is rounded to f32 as in Transformers; the rest is exact.
            let angle = f64::from(position as f32 * speed);
            out.extend([angle.cos() as f32, angle.sin() as f32].map(|v| v * self.attention_factor));
        }
        Ok(())
    }
}

/// Positions per radian of each pair.
fn periods(theta: f64, rotary_dim: u32) -> impl Iterator<Item = f32> {
    let exponent = move |i: u32| (2 * i) as f32 / rotary_dim as f32;
    (0..rotary_dim / 2).map(move |i| (theta as f32).powf(exponent(i)))
}

/// The values of a head that are rotated, of which some share is.
fn rotary_dim(fields: &Fields, share: f64, head_dim: u32) -> Result<u32> {
    // As Python's `int` does.
    let rotated = (f64::from(head_dim) * share).floor();
    if !(0.0..=f64::from(head_dim)).contains(&rotated) || rotated % 2.0 != 0.0 {
        return Err(fields.absurd(format!(
            "`partial_rotary_factor` should be from 0 to 1 and rotate an even number of a head's {head_dim} \
             columns, found {share}"
        )));
    }
    Ok((rotated as u32).min(HEAD_DIM_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rope(config: &Value) -> Result<Rope> {
        let fields = Fields::new("config.json".as_ref(), config).unwrap();
        let defaults = RopeDefaults { theta: 10_000.0, partial: Some(1.0), head_dim: 8, context_max: 64 };
        Rope::from_config(&fields, &defaults)
    }

    #[test]
    fn what_makes_no_rotation_is_refused() {
        let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1 << 20});
        let long = json!({
            "rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1],
            "original_max_position_embeddings": 1
        });
        let linear = json!({"rope_type": "linear", "factor": 1e-18});
        for (theta, scaling) in [(1.0, yarn), (1e4, long), (1e-18, linear)] {
            let problem =
                rope(&json!({"rope_theta": theta, "rope_scaling": scaling})).unwrap_err().to_string();
            assert!(problem.contains("contradict each other"), "{problem}");
        }
        for theta in [json!(1e300), json!(1e-300), json!(-1)] {
            let problem = rope(&json!({ "rope_theta": theta })).unwrap_err().to_string();
            assert!(problem.contains("`rope_theta` should be a positive number"), "{problem}");
        }
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
        let partial = rope(&json!({"partial_rotary_factor": 0.5})).unwrap();
        assert_eq!(partial.rotary_dim(), 4);
        assert_eq!(rope(&json!({"rope_parameters": {"partial_rotary_factor": 0.5}})).unwrap(), partial);
    }

    #[test]
    fn long_texts_turn_at_other_speeds() {
        let scaling = json!({"type": "longrope", "short_factor": [1, 1, 1, 2], "long_factor": [1, 2, 3, 4]});
        let rope = rope(&json!({"rope_scaling": scaling, "original_max_position_embeddings": 32})).unwrap();
        let angles = |is_long| {
            let mut angles = Vec::new();
            rope.angles(3, is_long, &mut angles).unwrap();
            angles
        };
        assert_eq!(rope.turning_point(), Some(32));
        assert_ne!(angles(false), angles(true));
        let factor = (1.0 + 2.0f64.ln() / 32.0f64.ln()).sqrt();
        assert!((f64::from(angles(false)[0]) - 3.0f64.cos() * factor).abs() < 1e-6);
    }

    #[test]
    fn dynamic_ropes_turn_as_usual_and_end() {
        let dynamic = rope(&json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})).unwrap();
        assert_eq!(dynamic.inverse_frequencies, Rope::plain(10_000.0, 8).inverse_frequencies);
        assert!(dynamic.angles(63, false, &mut Vec::new()).is_ok());
        let problem = dynamic.angles(64, true, &mut Vec::new()).unwrap_err().to_string();
        assert!(problem.contains("longer than the 64 positions"), "{problem}");
    }

    #[test]
    fn unknown_scalings_are_refused_by_name() {
        for (config, problem) in [
            (json!({"rope_scaling": {"type": "mrope"}}), "`rope_scaling.type` = \"mrope\""),
            (json!({"rope_parameters": {"rope_type": "default", "alpha": 2}}), "`rope_parameters.alpha` = 2"),
            (
                json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 1], "long_factor": [1, 1]}}),
                "`rope_scaling.long_factor` should be a list of 4 positive numbers",
            ),
            (json!({"partial_rotary_factor": 0.4}), "`partial_rotary_factor` should be from 0 to 1"),
            (json!({"partial_rotary_factor": 1.5}), "`partial_rotary_factor` should be from 0 to 1"),
        ] {
            let error = rope(&config).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}
