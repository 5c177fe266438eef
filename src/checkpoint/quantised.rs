//! Finds matrices that were quantised by others in a folder of safetensors, by its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use ::safetensors::Dtype;
use serde_json::Value;

use super::fp8::Fp8;
use super::int4::{Coding, Int4, Scheme};
use super::mxfp4::Mxfp4;
use super::safetensors::{Shard, TensorInfo};
use super::{Form, order_name};
use crate::error::{Error, Result};
use crate::quant::WeightKind;

/// Keys of `config.json` that say how weights were quantised.
pub(super) const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// Words along a side of a matrix of codes.
const SIDES: RangeInclusive<u64> = 1..=1 << 28;

type Tensors = BTreeMap<String, TensorInfo>;

/// What a configuration says of its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Method {
    Int(Coding),
    Fp8(Option<[u64; 2]>),
    Mxfp4,
}

/// Replaces the parts of quantised matrices by the matrices, and returns the names of what may be
/// left over.
///
/// # Errors
/// [`Error::Unsupported`] for methods and options that are not read, else what is wrong.
pub(super) fn combine(
    path: &Path,
    config: &Value,
    shards: &[Shard],
    tensors: &mut Tensors,
) -> Result<BTreeSet<String>> {
    let mut idle = BTreeSet::new();
    match method(path, config)? {
        None => {}
        Some(Method::Int(coding)) => int(shards, tensors, &coding, &mut idle)?,
        Some(Method::Mxfp4) => mxfp4(shards, tensors)?,
        Some(Method::Fp8(blocks)) => fp8(shards, tensors, blocks, &mut idle)?,
    }
    Ok(idle)
}

fn method(path: &Path, config: &Value) -> Result<Option<Method>> {
    let unsupported = |key: &str, value: &Value| {
        Error::Unsupported(format!("`quantization_config.{key}` = {value} in {}", path.display()))
    };
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let flag = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let is_gptq = config.get("desc_act").is_some();
    let coding = |scheme: Scheme, bits: u64, has_zeros: bool| {
        let key = if config.get("group_size").is_some() { "group_size" } else { "q_group_size" };
        let group = group_size(config.get(key)).ok_or_else(|| unsupported(key, &config[key]))?;
        let is_scattered = flag("desc_act", false);
        Ok::<_, Error>(Method::Int(Coding { scheme, bits: bits as u32, group, is_scattered, has_zeros }))
    };
    Ok(match text("quant_method").or(is_gptq.then_some("gptq")) {
        Some("gptq") => {
            let zero_plus = match text("checkpoint_format").unwrap_or("gptq") {
                "gptq" => 1,
                "gptq_v2" => 0,
                _ => return Err(unsupported("checkpoint_format", &config["checkpoint_format"])),
            };
            let dynamic = config.get("dynamic").filter(|v| v.as_object().is_some_and(|map| !map.is_empty()));
            if let Some(value) = dynamic {
                return Err(unsupported("dynamic", value));
            }
            match number("bits") {
                Some(bits @ (4 | 8)) => Some(coding(Scheme::Gptq { zero_plus }, bits, !flag("sym", true))?),
                _ => return Err(unsupported("bits", &config["bits"])),
            }
        }
        Some("awq") => {
            let version = text("version").unwrap_or("gemm").to_lowercase();
            if version != "gemm" {
                return Err(unsupported("version", &config["version"]));
            }
            match number("bits").or(number("w_bit")) {
                Some(4) | None => Some(coding(Scheme::Awq, 4, flag("zero_point", true))?),
                _ => return Err(unsupported("bits", &config["bits"])),
            }
        }
        Some("mxfp4") => Some(Method::Mxfp4),
        Some("compressed-tensors") => compressed(config, &unsupported)?,
        Some("fp8" | "fbgemm_fp8") => {
            let sides = config.get("weight_block_size").and_then(Value::as_array);
            let sides = sides.map(|sides| [0, 1].map(|i| sides.get(i).and_then(Value::as_u64).unwrap_or(0)));
            if let Some(value) = config.get("fmt").filter(|fmt| *fmt != "e4m3") {
                return Err(unsupported("fmt", value));
            }
            Some(Method::Fp8(sides))
        }
        Some(_) => return Err(unsupported("quant_method", &config["quant_method"])),
        None if config.is_null() || config == &Value::Bool(false) => None,
        None => return Err(unsupported("quant_method", &Value::Null)),
    })
}

/// Columns of a row that share a scale, where that is said: 0 for all; `None` for what is no such number.
fn group_size(value: Option<&Value>) -> Option<Option<u64>> {
    match value {
        None => Some(None),
        Some(Value::Null) => Some(Some(0)),
        Some(value) if value.as_i64() == Some(-1) => Some(Some(0)),
        Some(value) => value.as_u64().filter(|size| *size > 0).map(Some),
    }
}

/// compressed-tensors: one group of settings for all matrices.
fn compressed(config: &Value, unsupported: &dyn Fn(&str, &Value) -> Error) -> Result<Option<Method>> {
    let mut all = config.get("config_groups").and_then(Value::as_object).into_iter().flatten();
    let first = all.next().map_or(&Value::Null, |(_, group)| &group["weights"]);
    let same = ["num_bits", "type", "symmetric", "strategy", "group_size", "block_structure"];
    if let Some((name, _)) = all.find(|(_, group)| same.iter().any(|key| group["weights"][key] != first[key]))
    {
        return Err(unsupported("config_groups", &Value::from(format!("{name} differs from the others"))));
    }
    let bits = first.get("num_bits").and_then(Value::as_u64);
    let kind = first.get("type").and_then(Value::as_str).unwrap_or("int");
    match (config.get("format").and_then(Value::as_str), kind, bits) {
        (Some("pack-quantized"), "int", Some(bits @ (4 | 8))) => {
            let size = &first["group_size"];
            let group = group_size(Some(size)).ok_or_else(|| unsupported("group_size", size))?;
            // Without an order, or in a static one, columns are where they were.
            let order = &first["actorder"];
            let is_scattered = *order == true || ["group", "dynamic"].iter().any(|name| *order == *name);
            let has_zeros = first["symmetric"] == false;
            let bits = bits as u32;
            Ok(Some(Method::Int(Coding { scheme: Scheme::Compressed, bits, group, is_scattered, has_zeros })))
        }
        (Some("float-quantized" | "naive-quantized"), "float", Some(8)) => {
            let sides = first.get("block_structure").and_then(Value::as_array);
            Ok(Some(Method::Fp8(
                sides.map(|sides| [0, 1].map(|i| sides.get(i).and_then(Value::as_u64).unwrap_or(0))),
            )))
        }
        (Some("pack-quantized"), ..) => Err(unsupported("num_bits", &first["num_bits"])),
        _ => Err(unsupported("format", &config["format"])),
    }
}

/// Matrices of whole codes.
fn int(shards: &[Shard], tensors: &mut Tensors, coding: &Coding, idle: &mut BTreeSet<String>) -> Result<()> {
    let Coding { scheme, bits, .. } = *coding;
    let ending = if scheme == Scheme::Compressed { ".weight_packed" } else { ".qweight" };
    let modules: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(ending)).map(str::to_owned).collect();
    for module in modules {
        let mut take = |part: &str| tensors.remove(&format!("{module}.{part}"));
        let missing = |part: &str| {
            let problem =
                format!("`{module}{ending}` stands there without `{module}.{part}`; get the files again");
            Error::file(shards[0].path(), problem)
        };
        let codes = take(&ending[1..]).ok_or_else(|| missing("qweight"))?;
        // A side that the file has no bytes for may be any number.
        if codes.shape.len() != 2 || codes.shape.iter().any(|side| !SIDES.contains(side)) {
            let problem =
                format!("`{module}{ending}` has shape {:?}, no matrix; get the files again", codes.shape);
            return Err(Error::file(shards[codes.shard].path(), problem));
        }
        let [scales, zeros_name, columns_name] = match scheme {
            Scheme::Compressed => ["weight_scale", "weight_zero_point", "weight_g_idx"],
            _ => ["scales", "qzeros", "g_idx"],
        };
        let scales = take(scales).ok_or_else(|| missing(scales))?;
        let (zeros, columns) = (take(zeros_name), take(columns_name));
        if coding.has_zeros && zeros.is_none() {
            return Err(missing(zeros_name));
        }
        let per_word = u64::from(32 / bits);
        let (rows, cols) = match scheme {
            Scheme::Gptq { .. } => (codes.cols(), codes.rows() * per_word),
            Scheme::Awq => (codes.cols() * per_word, codes.rows()),
            Scheme::Compressed => {
                let shape = take("weight_shape").ok_or_else(|| missing("weight_shape"))?;
                let sides = integers(shards, &shape)?;
                match sides[..] {
                    [rows, cols] if rows > 0 && cols > 0 => (rows as u64, cols as u64),
                    _ => {
                        let problem = format!("`{module}.weight_shape` is {sides:?}, not two sides");
                        return Err(Error::file(shards[0].path(), problem));
                    }
                }
            }
        };
        let group_of = columns.map(|info| columns_of(shards, &module, &info, cols)).transpose()?;
        let groups = if scheme == Scheme::Compressed { scales.cols() } else { scales.rows() };
        // Some tools write zeros where columns are as they were.
        let group_of = group_of.filter(|groups_of| groups == 1 || groups_of.iter().any(|group| *group != 0));
        if coding.is_scattered && groups > 1 && group_of.is_none() {
            return Err(missing(columns_name));
        }
        let name = format!("{module}.weight");
        let (bytes, shard) = (codes.bytes.clone(), codes.shard);
        let matrix = Int4 {
            scheme,
            bits,
            rows,
            cols,
            codes,
            scales,
            zeros,
            group_of: Vec::new(),
            order: None,
            kind: WeightKind::W8,
            is_symmetric: false,
        };
        let matrix = matrix.finish(&name, shards, (coding.group, group_of))?;
        if let Some(order) = &matrix.order {
            let (name, bytes) = (order_name(&name), bytes.clone());
            let form = Form::Order(order.clone());
            idle.insert(name.clone());
            tensors.insert(name, TensorInfo { dtype: Dtype::F32, shape: vec![cols], bytes, shard, form });
        }
        let form = Form::Int4(Box::new(matrix));
        tensors.insert(name, TensorInfo { dtype: Dtype::F32, shape: vec![rows, cols], bytes, shard, form });
        let bias = format!("{module}.bias");
        // Some tools give every matrix a bias.
        if tensors.get(&bias).map_or(Ok(false), |info| is_zero(shards, info))? {
            idle.insert(bias);
        }
    }
    Ok(())
}

/// The group of each column; none where they are in order and a number for all would say the same.
fn columns_of(shards: &[Shard], module: &str, info: &TensorInfo, cols: u64) -> Result<Vec<u32>> {
    let found = integers(shards, info)?;
    let groups: Option<Vec<u32>> = found.iter().map(|group| u32::try_from(*group).ok()).collect();
    groups.filter(|groups| groups.len() as u64 == cols).ok_or_else(|| {
        let problem = format!(
            "the groups of the columns of `{module}` are {} numbers, some perhaps negative, for {cols} \
             columns; get the file again",
            found.len()
        );
        Error::file(shards[info.shard].path(), problem)
    })
}

/// A tensor of whole numbers.
fn integers(shards: &[Shard], info: &TensorInfo) -> Result<Vec<i64>> {
    let bytes = shards[info.shard].whole(info)?;
    match info.dtype {
        Dtype::I32 => {
            Ok(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect())
        }
        Dtype::I64 => {
            let whole = |b: &[u8]| b.try_into().map_or(0, i64::from_le_bytes);
            Ok(bytes.chunks_exact(8).map(whole).collect())
        }
        other => {
            let problem = format!("expected whole numbers beside a quantised matrix, found dtype {other}");
            Err(Error::file(shards[info.shard].path(), problem))
        }
    }
}

fn is_zero(shards: &[Shard], info: &TensorInfo) -> Result<bool> {
    Ok(shards[info.shard].whole(info)?.iter().all(|byte| *byte == 0))
}

/// Matrices of 4-bit floats.
fn mxfp4(shards: &[Shard], tensors: &mut Tensors) -> Result<()> {
    let names: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix("_blocks")).map(str::to_owned).collect();
    for name in names {
        let [codes, scales] = ["blocks", "scales"].map(|part| tensors.remove(&format!("{name}_{part}")));
        let (Some(codes), Some(scales)) = (codes, scales) else {
            let problem =
                format!("`{name}_blocks` stands there without `{name}_scales`; get the files again");
            return Err(Error::file(shards[0].path(), problem));
        };
        let (bytes, shard) = (codes.bytes.clone(), codes.shard);
        let (matrices, shape) = Mxfp4::new(&name, shards, codes, scales)?;
        let form = Form::Mxfp4(Box::new(matrices));
        tensors.insert(name, TensorInfo { dtype: Dtype::F32, shape, bytes, shard, form });
    }
    Ok(())
}

/// Matrices of 8-bit floats.
fn fp8(
    shards: &[Shard],
    tensors: &mut Tensors,
    blocks: Option<[u64; 2]>,
    idle: &mut BTreeSet<String>,
) -> Result<()> {
    let is_float8 = |info: &TensorInfo| info.dtype == Dtype::F8_E4M3;
    let names: Vec<String> =
        tensors.iter().filter(|(_, info)| is_float8(info)).map(|(name, _)| name.clone()).collect();
    for name in names {
        let scales = ["_scale_inv", "_scale"].map(|ending| format!("{name}{ending}"));
        let [inverse, scale] = scales.map(|name| tensors.remove(&name));
        let codes = tensors.get(&name).cloned();
        let (Some(codes), Some(scales)) = (codes, inverse.or(scale)) else {
            let problem = format!("`{name}` has 8-bit floats but no `{name}_scale`; get the files again");
            return Err(Error::file(shards[0].path(), problem));
        };
        let (bytes, shard, shape) = (codes.bytes.clone(), codes.shard, codes.shape.clone());
        let form = Form::Fp8(Box::new(Fp8::new(&name, shards, codes, scales, blocks)?));
        tensors.insert(name, TensorInfo { dtype: Dtype::F32, shape, bytes, shard, form });
    }
    // Of activations, which are not quantised here that way.
    let endings = [".input_scale", ".input_global_scale", ".k_scale", ".v_scale", ".activation_scale"];
    idle.extend(tensors.keys().filter(|name| endings.iter().any(|e| name.ends_with(e))).cloned());
    Ok(())
}
