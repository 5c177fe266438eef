//! Decoders as most families have them: what a block consists of is data, put together here.

use super::decoder::{Activation, Decoder, Function, Op, Positions, QkNorm, QkNormEach, Unit};
use super::experts::{Experts, Gate, Mixture, Names as ExpertNames, Routing};
use super::latent::{Latent, LatentAttention};
use super::parts::{Head, LayerNorm, Part, Projection, UnitBuilder, add_head, tables};
use super::rope::Rope;
use super::sizes::Sizes;
use crate::pack::layout::{Affine, Source, TensorSpec};
use crate::quant::WeightKind;

/// A family's model: everything that tells its blocks from other families'.
pub(super) struct Blueprint {
    pub(super) sizes: Sizes,
    /// What the names of the blocks' tensors begin with, before the block's number.
    pub(super) layers: &'static str,
    pub(super) norms: Norms,
    /// Queries, keys and values.
    pub(super) qkv: Vec<Part>,
    /// Whether they have biases.
    pub(super) qkv_bias: bool,
    /// What queries, keys and values are held between, with its negative.
    pub(super) clip_qkv: Option<f32>,
    pub(super) qk_norm: Option<QkNorms>,
    /// Latent attention instead of queries, keys and values.
    pub(super) latent: Option<Latent>,
    /// The way back from attention, and whether it has a bias.
    pub(super) out: Part,
    pub(super) out_bias: bool,
    /// What attention scores are held below.
    pub(super) softcap: Option<f32>,
    /// The tensor of a score for each head that has no value.
    pub(super) sinks: Option<&'static str>,
    /// By block.
    pub(super) attentions: Vec<Attention>,
    pub(super) ropes: Vec<Rope>,
    pub(super) mlp: Mlp,
    /// Experts instead of the MLP.
    pub(super) sparse: Option<Sparse>,
    /// The embedding table's name.
    pub(super) embed_tokens: &'static str,
    pub(super) embed_scale: f32,
    /// Learned positions, and the row of the first.
    pub(super) positions: Option<(TensorSpec, u32)>,
    pub(super) head: Ending,
}

/// How a block attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Attention {
    /// Which of the ropes turns its queries and keys, if any.
    pub(super) rope: Option<usize>,
    /// Positions that a token sees, itself included; all if none.
    pub(super) window: Option<u32>,
    /// Factor on the scores.
    pub(super) scale: f32,
}

/// How a norm is computed.
#[derive(Clone, Copy, Debug)]
pub(super) enum NormKind {
    /// By the root of the mean square; `plus` is added to the weights, which are stored without.
    Rms { plus: f32 },
    /// By mean and variance.
    Layer { weight: bool, bias: bool },
}

/// The norms of a block, by their modules' names, and the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norms {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    /// Of what attention reads; without it, it reads the stream.
    pub(super) before_attention: Option<&'static str>,
    /// Of what attention adds to the stream.
    pub(super) behind_attention: Option<&'static str>,
    /// Of what the MLP reads. Without it, it reads what attention does if they are `parallel`, or
    /// else the stream.
    pub(super) before_mlp: Option<&'static str>,
    /// Of what the MLP adds to the stream.
    pub(super) behind_mlp: Option<&'static str>,
    /// Whether attention and MLP read the same stream, not one after the other.
    pub(super) parallel: bool,
    /// The last one's full name.
    pub(super) last: &'static str,
}

/// Norms of queries and keys.
pub(super) struct QkNorms {
    pub(super) kind: NormKind,
    pub(super) each: QkNormEach,
    pub(super) eps: f32,
    /// The modules whose weights, and biases, make up the vectors one after the other, with the
    /// shape of each; all of the queries', then all of the keys'.
    pub(super) modules: Vec<(String, Vec<u32>)>,
    /// Leading values of a head that are stored as neighbouring pairs.
    pub(super) paired: u32,
}

/// A block's MLP.
pub(super) struct Mlp {
    /// Gates and values in turn, or values alone.
    pub(super) up: Vec<Part>,
    pub(super) gated: bool,
    pub(super) function: Function,
    pub(super) down: Part,
    /// Whether its matrices have biases.
    pub(super) bias: bool,
}

/// Mixtures of experts instead of some blocks' MLPs.
pub(super) struct Sparse {
    pub(super) experts: Experts,
    pub(super) routing: Routing,
    pub(super) gate: Gate,
    /// Whether routers and experts have biases.
    pub(super) bias: bool,
    pub(super) names: ExpertNames,
    /// Which blocks have one.
    pub(super) blocks: Vec<bool>,
}

/// What comes after the blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Name of the head's own matrix, unless it is the embedding table.
    pub(super) lm_head: Option<&'static str>,
    /// Name of the head's bias, if it has one.
    pub(super) bias: Option<&'static str>,
    /// Factor on the logits.
    pub(super) scale: f32,
    /// What logits are held below.
    pub(super) softcap: Option<f32>,
}

impl Ending {
    /// Just the matrix.
    pub(super) fn plain(tied: bool) -> Self {
        let lm_head = (!tied).then_some("lm_head.weight");
        Ending { lm_head, bias: None, scale: 1.0, softcap: None }
    }
}

impl Blueprint {
    /// The decoder, its matrices coded as `weights`.
    pub(super) fn decoder(self, weights: WeightKind) -> Decoder {
        let Sizes {
            hidden_size,
            intermediate_size,
            vocab_size,
            heads,
            kv_heads,
            head_dim,
            blocks,
            context_max,
        } = self.sizes;
        let mut units = Vec::new();
        for block in 0..blocks {
            units.push(self.attention(block, weights));
            match self.sparse.as_ref().filter(|sparse| sparse.blocks[block as usize]) {
                Some(sparse) => units.extend(self.mixture(sparse, block, weights).units()),
                None => units.push(self.mlp(block, weights)),
            }
        }
        let head = self.head(weights);
        let first_row = self.positions.as_ref().map(|(_, first_row)| *first_row);
        let mut decoder = Decoder {
            hidden_size,
            intermediate_size,
            vocab_size,
            heads,
            kv_heads,
            head_dim,
            blocks,
            context_max,
            embed_size: hidden_size,
            embed_scale: self.embed_scale,
            latent: self.latent,
            experts: self.sparse.map(|sparse| sparse.experts),
            ropes: self.ropes,
            positions: first_row.map(|first_row| Positions { tensor: 0, first_row }),
            embed: self.positions.map(|(table, _)| tables(vec![table])),
            table: Vec::new(),
            units,
        };
        add_head(&mut decoder, head);
        decoder
    }

    fn unit(&self, block: u32, weights: WeightKind) -> UnitBuilder {
        UnitBuilder::new(format!("{}.{block}", self.layers), weights)
    }

    /// Adds a norm by the family's kind.
    fn norm(&self, unit: &mut UnitBuilder, name: &str, [from, to]: [Activation; 2], add: bool) {
        let Norms { kind, eps, .. } = self.norms;
        let cols = self.sizes.hidden_size;
        match kind {
            NormKind::Rms { plus } => {
                let affine = Affine { times: 1.0, plus };
                unit.rms_norm(name, cols, [from, to], add, (eps, affine));
            }
            NormKind::Layer { weight, bias } => {
                assert!(!add, "norms by mean and variance are not added to anything");
                let affine = Affine::default();
                unit.layer_norm(&LayerNorm { name, cols, from, to, weight, bias, affine, eps });
            }
        }
    }

    fn attention(&self, block: u32, weights: WeightKind) -> Unit {
        use Activation::{Attended, Branch, Normed, Qkv, Residual};
        let mut unit = self.unit(block, weights);
        let Sizes { hidden_size, heads, head_dim, .. } = self.sizes;
        if let Some(latent) = self.latent {
            let Attention { rope, scale, .. } = self.attentions[block as usize];
            let norm = (self.norms.before_attention.expect("latent attention reads a norm"), self.norms.eps);
            let bias = self.out_bias;
            return LatentAttention { latent, block, hidden_size, norm, rope, scale, bias }.unit(unit);
        }
        let mut from = Residual;
        if let Some(name) = self.norms.before_attention {
            self.norm(&mut unit, name, [Residual, Normed], false);
            from = Normed;
        }
        unit.project(&Projection {
            name: "qkv_proj",
            parts: &self.qkv,
            bias: self.qkv_bias,
            from,
            cols: hidden_size,
            to: Qkv,
            add: false,
        });
        if let Some(norms) = &self.qk_norm {
            self.qk_norm(&mut unit, norms);
        }
        if let Some(limit) = self.clip_qkv {
            unit.op(Op::ClipQkv { limit });
        }
        let Attention { rope, window, scale } = self.attentions[block as usize];
        unit.op(Op::RopeStore { block, rope });
        let sinks = self.sinks.map(|name| {
            let name = format!("{}.{block}.{name}", self.layers);
            unit.vector("sinks", vec![Source::whole(name, &[heads])])
        });
        unit.op(Op::Attention { block, scale, window, softcap: self.softcap, sinks });
        if let Some(name) = self.norms.before_mlp.filter(|_| self.norms.parallel) {
            // The MLP's own, of the stream as it is before attention changes it.
            self.norm(&mut unit, name, [Residual, Normed], false);
        }
        let behind = self.norms.behind_attention;
        unit.project(&Projection {
            name: "o_proj",
            parts: std::slice::from_ref(&self.out),
            bias: self.out_bias,
            from: Attended,
            cols: heads * head_dim,
            to: if behind.is_some() { Branch } else { Residual },
            add: behind.is_none(),
        });
        if let Some(name) = behind {
            self.norm(&mut unit, name, [Branch, Residual], true);
        }
        unit.finish(format!("block.{block}.attention"))
    }

    fn qk_norm(&self, unit: &mut UnitBuilder, norms: &QkNorms) {
        let (plus, centred, has_bias) = match norms.kind {
            NormKind::Rms { plus } => (plus, false, false),
            NormKind::Layer { bias, .. } => (0.0, true, bias),
        };
        let head_dim = self.sizes.head_dim;
        let order = super::parts::pairs_apart(head_dim, norms.paired);
        let sources = |what: &str, affine: Affine| {
            let source = |(module, shape): &(String, Vec<u32>)| Source {
                rows: 0..shape.iter().product(),
                order,
                affine,
                ..Source::whole(unit.named(module, what), shape)
            };
            norms.modules.iter().map(source).collect::<Vec<_>>()
        };
        let weights = sources("weight", Affine { times: 1.0, plus });
        let biases = has_bias.then(|| sources("bias", Affine::default()));
        let weight = unit.vector("qk_norm", weights);
        let bias = biases.map(|biases| unit.vector("qk_norm.bias", biases));
        unit.op(Op::QkNorm(QkNorm { weight, bias, centred, each: norms.each, eps: norms.eps }));
    }

    fn mlp(&self, block: u32, weights: WeightKind) -> Unit {
        use Activation::{Branch, GateUp, Gated, Normed, Residual, Up};
        let mut unit = self.unit(block, weights);
        let Sizes { hidden_size, intermediate_size, .. } = self.sizes;
        let norms = &self.norms;
        let mut from = if norms.parallel && norms.before_attention.is_some() { Normed } else { Residual };
        if let Some(name) = norms.before_mlp.filter(|_| !norms.parallel) {
            self.norm(&mut unit, name, [Residual, Normed], false);
            from = Normed;
        }
        let Mlp { up, gated, function, down, bias } = &self.mlp;
        let (name, to) = if *gated { ("gate_up_proj", GateUp) } else { ("up_proj", Up) };
        let cols = hidden_size;
        unit.project(&Projection { name, parts: up, bias: *bias, from, cols, to, add: false });
        unit.op(if *gated { Op::Glu(*function) } else { Op::Activate(*function) });
        unit.project(&Projection {
            name: "down_proj",
            parts: std::slice::from_ref(down),
            bias: *bias,
            from: Gated,
            cols: intermediate_size,
            to: if norms.behind_mlp.is_some() { Branch } else { Residual },
            add: norms.behind_mlp.is_none(),
        });
        if let Some(name) = norms.behind_mlp {
            self.norm(&mut unit, name, [Branch, Residual], true);
        }
        unit.finish(format!("block.{block}.mlp"))
    }

    fn mixture<'a>(&self, sparse: &'a Sparse, block: u32, weights: WeightKind) -> Mixture<'a> {
        Mixture {
            layers: self.layers,
            block,
            hidden_size: self.sizes.hidden_size,
            norm: self.norms.before_mlp.expect("what experts read is normed"),
            eps: self.norms.eps,
            experts: &sparse.experts,
            names: sparse.names,
            routing: sparse.routing,
            gate: sparse.gate,
            bias: sparse.bias,
            kind: weights,
        }
    }

    fn head<'a>(&self, weights: WeightKind) -> Head<'a> {
        let mut before = UnitBuilder::new("", weights);
        before.op(Op::Select);
        let (cols, Norms { kind, eps, last, .. }) = (self.sizes.hidden_size, self.norms);
        let (from, to) = (Activation::Selected, Activation::Normed);
        // A factor on the logits is one on what the last norm leaves.
        let Ending { lm_head, bias, scale: times, softcap } = self.head;
        match kind {
            NormKind::Rms { plus } => {
                let affine = Affine { times, plus: plus * times };
                before.rms_norm(last, cols, [from, to], false, (eps, affine));
            }
            NormKind::Layer { weight, bias } => {
                assert!(weight || times == 1.0, "a factor on logits needs a weight to go into");
                let affine = Affine { times, plus: 0.0 };
                before.layer_norm(&LayerNorm { name: last, cols, from, to, weight, bias, affine, eps });
            }
        }
        Head { before, from: to, embed_tokens: self.embed_tokens, lm_head, bias, softcap }
    }
}
