//! What kernels of experts share: where records lie, what is in them, and what becomes of gates.

use super::{Constant, route};
use crate::gpu::Binding;
use crate::quant::WeightKind;

/// What an expert makes of a gate and a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// `silu(gate) * up`.
    SwiGlu,
    /// `gate * logistic(alpha * gate) * (up + 1)` of `gate` up to `limit`, and of `up` from `-limit`
    /// to `limit`.
    Clamped {
        /// Steepness.
        alpha: f32,
        /// Where both end.
        limit: f32,
    },
}

/// A matrix of each expert's record, and where the records are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Records {
    /// The first expert that is bound.
    pub first: u32,
    /// How many are.
    pub count: u32,
    /// Bytes from one record to the next; a multiple of 16, as are the following.
    pub record_bytes: u64,
    /// Where in a record the matrix's codes are.
    pub codes_at: u64,
    /// Its scales.
    pub scales_at: u64,
    /// Its bias, if it has one.
    pub bias_at: Option<u64>,
    /// How the weights are coded.
    pub kind: WeightKind,
    /// Whether copies of some records are in slots.
    pub cached: bool,
    /// Whether they are read over the link, where requests should be long. Changes no result.
    pub far: bool,
    /// Experts of a token.
    pub chosen: u32,
    /// What is summed for each token: the experts, and perhaps one that all share.
    pub choices: u32,
    /// Choices that share one reading of an expert: 1, 2, 4 or 8. From 2 on they come sorted by expert.
    /// Never changes a value.
    pub tile: u32,
    /// As in [`super::experts_sort::Spec`], where they are sorted.
    pub room: u32,
}

impl Records {
    pub(super) fn constants(&self, gate: Gate) -> Vec<Constant> {
        let vectors = |bytes: u64| {
            assert!(bytes.is_multiple_of(16), "{self:?}");
            (bytes / 16) as f64
        };
        let (number, alpha, limit) = match gate {
            Gate::SwiGlu => (0.0, 1.0, 1.0),
            Gate::Clamped { alpha, limit } => (1.0, alpha, limit),
        };
        vec![
            ("FIRST", self.first.into()),
            ("COUNT", self.count.into()),
            ("RECORD", vectors(self.record_bytes)),
            ("CODES_AT", vectors(self.codes_at)),
            ("SCALES_AT", vectors(self.scales_at)),
            ("BIAS_AT", vectors(self.bias_at.unwrap_or(0))),
            ("BIAS", u32::from(self.bias_at.is_some()).into()),
            ("CACHED", u32::from(self.cached).into()),
            ("CHOSEN", self.chosen.into()),
            ("ROUTES", route::routes_stride(self.choices).into()),
            ("SORTED", u32::from(self.tile > 1).into()),
            ("PAIRS_AT", self.room.into()),
            ("GATE", number),
            ("ALPHA", alpha.into()),
            ("LIMIT", limit.into()),
        ]
    }
}

/// Where records are, and who chose them.
#[derive(Clone, Debug)]
pub struct Stack<'a> {
    /// Records of the experts from [`Records::first`] on.
    pub home: Binding<'a>,
    /// Copies of records in slots; anything where there are none.
    pub slots: Binding<'a>,
    /// What [`route`] makes, or [`super::experts_sort`] where choices are sorted.
    pub routes: Binding<'a>,
}
