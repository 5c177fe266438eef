//! In which form activations pass from one operation to the next: floats, int8 groups, or both.
//!
//! There is one buffer of int8 groups. A matrix that reads them is preceded by a quantisation of
//! its input, unless the buffer holds that already: because another matrix read it last, or
//! because a norm or an activation function that nobody reads as floats wrote it directly.

use crate::model::{Activation, Decoder, Op};
use crate::pack::layout::TensorSpec;

/// How one operation reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Its input must be quantised just before it.
    pub(super) quantize_input: bool,
    /// It writes int8 groups, and no floats.
    pub(super) int8_output: bool,
}

/// The forms of all operations of a decoder.
pub(super) struct Flow {
    /// `[units][ops]`.
    forms: Vec<Vec<Form>>,
}

impl Flow {
    /// Decides for a decoder, with int8 activations unless everything is to be exact.
    pub(super) fn new(decoder: &Decoder, exact: bool) -> Self {
        let ops = decoder.units.iter().flat_map(|unit| unit.ops.iter().map(move |op| (unit, op)));
        let reads_int8 = |op: &Op, tensors: &[TensorSpec]| match op {
            Op::Linear { weight, .. } => is_int8(&tensors[*weight], exact),
            Op::ExpertsIn(stack) => is_int8(&tensors[stack.gate_up()], exact),
            Op::ExpertsOut(stack) => is_int8(&tensors[stack.down()], exact),
            _ => false,
        };
        let ops: Vec<_> = ops.map(|(unit, op)| (op, reads_int8(op, &unit.spec.tensors))).collect();
        let mut forms = decide(&ops).into_iter();
        let of_unit = |count| forms.by_ref().take(count).collect();
        Flow { forms: decoder.units.iter().map(|unit| unit.ops.len()).map(of_unit).collect() }
    }

    /// Whether anything writes floats to an activation.
    pub(super) fn has_floats(&self, decoder: &Decoder, activation: Activation) -> bool {
        let units = decoder.units.iter().zip(&self.forms);
        let mut ops = units.flat_map(|(unit, forms)| unit.ops.iter().zip(forms));
        activation == decoder.embedded()
            || ops.any(|(op, form)| op.output() == activation && !form.int8_output)
    }

    /// The form of an operation.
    pub(super) fn of(&self, unit: usize, op: usize) -> Form {
        self.forms[unit][op]
    }
}

/// Whether a matrix is multiplied with int8 activations.
pub(super) fn is_int8(tensor: &TensorSpec, exact: bool) -> bool {
    !exact && tensor.kind.is_coded()
}

/// Decides for operations in order, each with whether it reads int8 groups.
fn decide(ops: &[(&Op, bool)]) -> Vec<Form> {
    let mut held = None;
    let mut forms = Vec::new();
    for (i, &(op, reads_int8)) in ops.iter().enumerate() {
        let quantize_input = reads_int8 && held != Some(op.input());
        if reads_int8 {
            held = Some(op.input());
        }
        if held == Some(op.output()) {
            held = None;
        }
        let int8_output = has_int8_form(op) && is_read_as_int8_alone(op.output(), &ops[i + 1..]);
        if int8_output {
            held = Some(op.output());
        }
        forms.push(Form { quantize_input, int8_output });
    }
    forms
}

/// Whether there is a kernel that writes an operation's result as int8 groups.
fn has_int8_form(op: &Op) -> bool {
    match op {
        Op::RmsNorm { add, .. } => !add,
        Op::LayerNorm { .. } | Op::Glu(_) | Op::Activate(_) | Op::SharedGlu(_) | Op::ExpertsIn(_) => true,
        _ => false,
    }
}

/// Whether an activation, until it is written again, is read, as int8 groups alone, and before the
/// buffer of groups is needed for another.
fn is_read_as_int8_alone(made: Activation, later: &[(&Op, bool)]) -> bool {
    let (mut is_read, mut is_held) = (false, true);
    for &(op, reads_int8) in later {
        let reads = op.input() == made;
        if (reads && !(reads_int8 && is_held)) || (op.updates() && op.output() == made) {
            return false;
        }
        is_read |= reads;
        is_held &= (reads || !reads_int8) && !has_int8_form(op);
        if op.output() == made {
            break;
        }
    }
    is_read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Function, describe, dummy};
    use crate::quant::WeightKind;
    use serde_json::json;

    /// One word an operation: `q` where its input is quantised before it, `8` where it writes
    /// groups.
    fn words(forms: impl IntoIterator<Item = Form>) -> String {
        let word = |form: Form| match (form.quantize_input, form.int8_output) {
            (false, false) => "-",
            (true, false) => "q",
            (false, true) => "8",
            (true, true) => "q8",
        };
        forms.into_iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn units(config: &serde_json::Value, kind: WeightKind, exact: bool) -> Vec<String> {
        let decoder = describe("config.json".as_ref(), config, kind).unwrap();
        Flow::new(&decoder, exact).forms.into_iter().map(words).collect()
    }

    #[test]
    fn families_quantise_as_little_as_they_can() {
        let llama = dummy::config("llama-125m").unwrap();
        let found = units(&llama, WeightKind::W4, false);
        // norm qkv rope attention out; norm gate_up glu down; select norm head, more of the head.
        assert_eq!(found[..2], ["8 - - - q", "8 - 8 -"]);
        assert_eq!(found[23..26], ["8 - 8 -", "- 8 -", "-"]);
        for (kind, exact) in [(WeightKind::W4, true), (WeightKind::F16, false)] {
            assert!(units(&llama, kind, exact).iter().all(|unit| !unit.contains(['q', '8'])));
        }
        let mut opt = dummy::config("opt-125m").unwrap();
        let found = units(&opt, WeightKind::W8, false);
        assert_eq!(found[..2], ["8 - - - q", "8 - 8 -"]);
        assert_eq!(found[24..26], ["- 8 -", "-"]);
        // Norms behind are read by matrices and by the sum, so they stay floats.
        opt["do_layer_norm_before"] = json!(false);
        opt["word_embed_proj_dim"] = json!(96);
        let found = units(&opt, WeightKind::W8, false);
        assert_eq!(found[..3], ["q", "q - - q -", "q 8 - -"]);
        assert_eq!(found[25], "- q q");
    }

    /// Attention and MLP side by side, as in GPT-NeoX: the norm's groups are overwritten by
    /// attention's before the MLP reads them, so that floats are needed.
    #[test]
    fn a_buffer_that_is_overwritten_is_filled_again() {
        use Activation::{Attended, Gated, Normed, Qkv, Residual, Up};
        let norm = Op::RmsNorm { from: Residual, to: Normed, add: false, weight: 0, eps: 1e-5 };
        let linear = |from, to, add| Op::Linear { from, weight: 0, bias: None, to, to_column: 0, add };
        let qkv = linear(Normed, Qkv, false);
        let attention = Op::Attention { block: 0, scale: 1.0, window: None, softcap: None, sinks: None };
        let (out, up) = (linear(Attended, Residual, true), linear(Normed, Up, false));
        let (activate, down) = (Op::Activate(Function::GeluErf), linear(Gated, Residual, true));
        let decide = |ops: &[(&Op, bool)]| words(decide(ops));
        let ops = [(&norm, false), (&qkv, true), (&attention, false), (&out, true)];
        let mlp = [(&up, true), (&activate, false), (&down, true)];
        assert_eq!(decide(&[&ops[..], &mlp].concat()), "- q - q q 8 -");
        let ops = [(&norm, false), (&activate, false), (&up, true), (&down, true)];
        assert_eq!(decide(&ops), "- - q q");
        // The other way round, nothing comes between.
        let ops = [(&norm, false), (&qkv, true), (&up, true), (&activate, false), (&down, true)];
        assert_eq!(decide(&ops), "8 - - 8 -");
        // One reader that wants floats is enough.
        let ops = [(&norm, false), (&qkv, true), (&up, false)];
        assert_eq!(decide(&ops), "- q -");
        // Nobody reads it before it is made again.
        assert_eq!(decide(&[(&norm, false), (&norm, false), (&qkv, true)]), "- 8 -");
    }
}
