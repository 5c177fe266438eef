//! What a packed file's header says about its units, and the checks that make it trustworthy.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::layout::{TensorSpec, UnitSpec};
use crate::quant::WeightKind;

/// Metadata key of the layout's version.
pub const VERSION_KEY: &str = "pipo-wgpu";
/// The version that this build writes and reads.
pub const VERSION: &str = "1";
/// Metadata key of the manifest.
pub const MANIFEST_KEY: &str = "manifest";
/// The largest tensor that is believed, 1 TiB.
pub const TENSOR_BYTES_MAX: u64 = 1 << 40;

/// The units in execution order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The units in execution order.
    pub units: Vec<ManifestUnit>,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestUnit {
    /// Name, e.g. `block.0.mlp`.
    pub name: String,
    /// xxh3-64 of the unit's bytes, padding included, as 16 hexadecimal digits.
    pub xxh3: String,
    /// Its tensors as stored.
    pub tensors: Vec<TensorInfo>,
}

/// One tensor of a packed unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Name within the unit, e.g. `qkv_proj`.
    pub name: String,
    /// How the weights are coded.
    pub kind: WeightKind,
    /// Rows; 1 for a vector.
    pub rows: u32,
    /// Columns before padding to whole groups.
    pub cols: u32,
}

impl Manifest {
    /// Describes units whose checksums are not known yet.
    pub(super) fn new(units: &[UnitSpec]) -> Self {
        let tensor =
            |t: &TensorSpec| TensorInfo { name: t.name.clone(), kind: t.kind, rows: t.rows, cols: t.cols };
        let unit = |unit: &UnitSpec| ManifestUnit {
            name: unit.name.clone(),
            xxh3: checksum_hex(0),
            tensors: unit.tensors.iter().map(tensor).collect(),
        };
        Manifest { units: units.iter().map(unit).collect() }
    }

    /// Names the first thing about the units that cannot be true.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for unit in &self.units {
            if !names.insert(&unit.name) {
                return Err(format!("two units are named `{}`", unit.name));
            }
            unit.check().map_err(|problem| format!("unit `{}`: {problem}", unit.name))?;
        }
        if self.units.is_empty() { Err("it has no units".into()) } else { Ok(()) }
    }
}

impl ManifestUnit {
    /// Names the first thing that cannot be true.
    fn check(&self) -> Result<(), String> {
        if self.xxh3.len() != 16 || self.checksum().is_none() {
            return Err(format!("its checksum `{}` is not 16 hexadecimal digits", self.xxh3));
        }
        let mut names = HashSet::new();
        for tensor in &self.tensors {
            let TensorInfo { name, rows, cols, kind } = tensor;
            if !names.insert(name) {
                return Err(format!("two tensors are named `{name}`"));
            }
            if *rows == 0 || *cols == 0 {
                return Err(format!("tensor `{name}` has shape [{rows}, {cols}], which is empty"));
            }
            // Four bytes a weight and 31 columns of padding at most.
            if (u128::from(*cols) + 31) * u128::from(*rows) * 4 > u128::from(TENSOR_BYTES_MAX) {
                return Err(format!(
                    "tensor `{name}` has shape [{rows}, {cols}] in {kind:?}, more than the \
                     {TENSOR_BYTES_MAX} bytes that are believed"
                ));
            }
        }
        Ok(())
    }

    /// The checksum as a number.
    pub(super) fn checksum(&self) -> Option<u64> {
        u64::from_str_radix(&self.xxh3, 16).ok()
    }

    /// The unit without its sources, for its layout.
    pub(super) fn spec(&self) -> UnitSpec {
        let tensor = |t: &TensorInfo| TensorSpec {
            name: t.name.clone(),
            rows: t.rows,
            cols: t.cols,
            kind: t.kind,
            sources: Vec::new(),
        };
        UnitSpec { name: self.name.clone(), tensors: self.tensors.iter().map(tensor).collect() }
    }
}

/// A checksum as it stands in a manifest: always 16 digits, so that it can be filled in last.
pub(super) fn checksum_hex(checksum: u64) -> String {
    format!("{checksum:016x}")
}
