//! How a GGUF file says that positions rotate queries and keys, in Hugging Face's words.

use serde_json::{Value as Json, json};

use super::Gguf;
use super::keys::Keys;
use crate::error::{Error, Result};

/// Positions that Llama 3 was trained on before it learned longer texts; files do not say it.
const LLAMA3_ORIGINAL: f64 = 8192.0;
/// Its `low_freq_factor` and `high_freq_factor`.
const LLAMA3_TURNS: [f64; 2] = [1.0, 4.0];
/// Relative difference of factors that are the same.
const SAME: f64 = 1e-4;
/// Factors of a head at most.
const FACTORS_MAX: u64 = 1024;

/// Copies base, width and scaling of rotation.
pub(super) fn copy(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    let base = keys.number("rope.freq_base")?;
    keys.set("rope_theta", base.unwrap_or(10_000.0));
    let heads = keys.needed("attention.head_count")?.max(1);
    let head_dim = keys.size("attention.key_length")?.unwrap_or(keys.needed("embedding_length")? / heads);
    let rotated = keys.size("rope.dimension_count")?.unwrap_or(head_dim);
    if rotated != head_dim {
        keys.set("partial_rotary_factor", rotated as f64 / head_dim as f64);
    }
    let scaled = scaling(keys)?;
    if let Some(scaling) = &scaled {
        keys.set("rope_scaling", scaling.clone());
    }
    let short = factors(gguf, "rope_factors_short.weight")?;
    let long = factors(gguf, "rope_factors_long.weight")?;
    match (short, long, factors(gguf, "rope_freqs.weight")?) {
        (Some(short), Some(long), None) => long_rope(keys, &short, &long),
        (None, None, Some(_)) if scaled.is_some() => {
            Err(keys.unsupported("rope.scaling.factor", "a second one beside those of `rope_freqs.weight`"))
        }
        (None, None, Some(factors)) => {
            let one = |factors: &[f64]| {
                json!({
                    "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
                    "attention_factor": 1.0, "original_max_position_embeddings": 1
                })
            };
            let scaling = llama3(&factors, base.unwrap_or(10_000.0), rotated);
            keys.set("rope_scaling", scaling.unwrap_or_else(|| one(&factors)));
            Ok(())
        }
        (None, None, None) => Ok(()),
        _ => Err(Error::file(gguf.path(), "its factors of rotation contradict each other; get it again")),
    }
}

fn scaling(keys: &Keys<'_>) -> Result<Option<Json>> {
    let factor = keys.number("rope.scaling.factor")?;
    let old = keys.number("rope.scale_linear")?;
    let original = keys.size("rope.scaling.original_context_length")?;
    let factor = factor.or(old).filter(|factor| *factor != 0.0);
    let kind = keys.text("rope.scaling.type")?.unwrap_or(if factor.is_some() { "linear" } else { "none" });
    // What it was said to be together with the factors of `longrope` is read there.
    keys.number("rope.scaling.attn_factor")?;
    match (kind, factor) {
        ("none" | "longrope", _) | (_, None) => Ok(None),
        ("linear", Some(1.0)) => Ok(None),
        ("linear", Some(factor)) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
        ("yarn", Some(factor)) => {
            let mut scaling = json!({"rope_type": "yarn", "factor": factor});
            if let Some(original) = original {
                scaling["original_max_position_embeddings"] = json!(original);
            }
            for (to, name) in [
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
                ("attention_factor", "rope.scaling.yarn_attn_factor"),
            ] {
                if let Some(number) = keys.number(name)? {
                    scaling[to] = json!(number);
                }
            }
            Ok(Some(scaling))
        }
        (other, _) => Err(keys.unsupported("rope.scaling.type", &format!("`{other}`"))),
    }
}

/// The elements of a vector of factors, if the file has it.
fn factors(gguf: &Gguf, name: &str) -> Result<Option<Vec<f64>>> {
    let first = format!("blk.0.{name}");
    let Some(tensor) = gguf.tensor(name).or_else(|| gguf.tensor(&first)) else { return Ok(None) };
    let mut row = Vec::new();
    if tensor.rows() != 1 || tensor.cols() > FACTORS_MAX {
        let problem = format!("tensor `{name}` has shape {:?}, where a vector is expected", tensor.shape);
        return Err(Error::file(gguf.path(), problem));
    }
    gguf.read_rows(tensor, 0..1, &mut row)?;
    if !row.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
        let problem = format!("tensor `{name}` has a factor that is not positive; get the file again");
        return Err(Error::file(gguf.path(), problem));
    }
    Ok(Some(row.iter().map(|factor| f64::from(*factor)).collect()))
}

fn long_rope(keys: &Keys<'_>, short: &[f64], long: &[f64]) -> Result<()> {
    let context = keys.needed("context_length")?;
    let original = keys.size("rope.scaling.original_context_length")?.unwrap_or(context);
    let mut scaling = json!({
        "rope_type": "longrope", "short_factor": short, "long_factor": long,
    });
    if let Some(factor) = keys.number("rope.scaling.attn_factor")? {
        scaling["attention_factor"] = json!(factor);
    }
    keys.set("rope_scaling", scaling);
    keys.set("original_max_position_embeddings", original);
    Ok(())
}

/// Llama 3's scaling, if it gives just these factors.
fn llama3(factors: &[f64], base: f64, rotated: u64) -> Option<Json> {
    let factor = factors.iter().copied().fold(0.0, f64::max);
    let [low, high] = LLAMA3_TURNS;
    let is_same = |(pair, found): (usize, &f64)| {
        let frequency = base.powf(-2.0 * pair as f64 / rotated as f64);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        let expected = if wavelength < LLAMA3_ORIGINAL / high {
            1.0
        } else if wavelength > LLAMA3_ORIGINAL / low {
            factor
        } else {
            let smooth = (LLAMA3_ORIGINAL / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        (found / expected - 1.0).abs() < SAME
    };
    (factors.len() as u64 * 2 == rotated && factors.iter().enumerate().all(is_same)).then(|| {
        json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": LLAMA3_ORIGINAL as u64
        })
    })
}
