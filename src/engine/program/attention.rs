//! Dispatches of attention that is not fused: rotation with the write to the KV cache, then attention.

use super::{Builder, UnitMemory};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Pipelines};
use crate::kernels::{
    attention, attention_coop, attention_merge, attention_prefill, latent_heads, narrow_heads, rope_store,
};
use crate::model::{Activation, Decoder, Op};
use crate::pipeline::cache_ring::KeysValues;

impl Builder<'_> {
    /// Queries, keys and values of latent attention side by side.
    pub(super) fn latent_heads(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let latent = self.decoder.latent.as_ref().expect("a decoder with latent heads has their sizes");
        let spec = latent_heads::Spec {
            heads: latent.heads,
            width: self.decoder.head_dim,
            nope: latent.qk_nope_head_dim,
            rope: latent.qk_rope_head_dim,
            value: latent.v_head_dim,
            paired: latent.paired,
            apart: latent.apart,
        };
        let args = latent_heads::Args {
            step: self.step(false),
            queries: self.f32(Activation::Queries),
            keys_values: self.f32(Activation::KeysValues),
            key_rope: self.f32(Activation::KeyRope),
            y: self.f32(Activation::Qkv),
        };
        latent_heads::dispatch(pipelines, &spec, &args)
    }

    /// What latent attention gathered, without zeros.
    pub(super) fn narrow_heads(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let kept = self.decoder.latent.as_ref().map_or(self.decoder.head_dim, |latent| latent.v_head_dim);
        let spec = narrow_heads::Spec { heads: self.decoder.heads, width: self.decoder.head_dim, kept };
        let args = narrow_heads::Args {
            step: self.step(false),
            x: self.f32(Activation::Attended),
            y: self.f32(Activation::AttendedValues),
        };
        narrow_heads::dispatch(pipelines, &spec, &args)
    }

    pub(super) fn rope_store(
        &self,
        pipelines: &mut Pipelines,
        cache: &KeysValues,
        rope: Option<usize>,
    ) -> Result<Dispatch> {
        let d = self.decoder;
        let spec = rope_store::Spec {
            heads: d.heads,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            rotary_dim: rope.map_or(0, |rope| d.ropes[rope].rotary_dim()),
            cache: self.cache,
        };
        let args = rope_store::Args {
            step: self.step(false),
            rows: self.workspace.inputs.rows(),
            angles: self.workspace.inputs.angles(rope),
            qkv: self.f32(Activation::Qkv),
            cache_k: cache.keys(),
            cache_v: cache.values(),
        };
        rope_store::dispatch(pipelines, &spec, &args)
    }

    pub(super) fn attention_prefill(
        &self,
        pipelines: &mut Pipelines,
        cache: &KeysValues,
        op: &Op,
        memory: &UnitMemory<'_>,
    ) -> Result<Dispatch> {
        let (spec, args) = self.attends(cache, op, memory, self.f32(Activation::Attended));
        match attention_coop::is_supported(&pipelines.gpu().facts, &spec) {
            true => attention_coop::dispatch(pipelines, &spec, &args),
            false => attention_prefill::dispatch(pipelines, &spec, &args),
        }
    }

    pub(super) fn attention(
        &self,
        pipelines: &mut Pipelines,
        cache: &KeysValues,
        op: &Op,
        memory: &UnitMemory<'_>,
    ) -> Result<Vec<Dispatch>> {
        let d = self.decoder;
        let parts = self.workspace.attention_parts().filter(|_| self.shapes.attention.splits > 1);
        let y = self.f32(Activation::Attended);
        let (spec, args) = self.attends(cache, op, memory, parts.clone().unwrap_or(y.clone()));
        let mut dispatches = Vec::new();
        let last = match parts {
            None => {
                let shape = attention::Shape { splits: 1, ..self.shapes.attention };
                attention::dispatch_shaped(pipelines, &spec, shape, &args)?
            }
            Some(parts) => {
                let shape = self.shapes.attention;
                dispatches.push(attention::dispatch_shaped(pipelines, &spec, shape, &args)?);
                let splits = shape.splits;
                let spec = attention_merge::Spec { heads: d.heads, head_dim: d.head_dim, splits };
                let args = attention_merge::Args { step: self.step(false), parts, y };
                attention_merge::dispatch(pipelines, &spec, &args)?
            }
        };
        dispatches.push(last);
        Ok(dispatches)
    }

    /// What attention after a rotation depends on and is bound to.
    fn attends<'a>(
        &'a self,
        cache: &'a KeysValues,
        op: &Op,
        memory: &UnitMemory<'a>,
        y: Binding<'a>,
    ) -> (attention::Spec, attention::Args<'a>) {
        let Op::Attention { scale, window, softcap, sinks, .. } = *op else {
            unreachable!("{op:?} is no attention")
        };
        let Decoder { heads, kv_heads, head_dim, .. } = *self.decoder;
        let cache_kind = self.cache;
        let spec = attention::Spec { heads, kv_heads, head_dim, cache: cache_kind, window, scale, softcap };
        let args = attention::Args {
            step: self.step(false),
            rows: self.workspace.inputs.rows(),
            qkv: self.f32(Activation::Qkv),
            cache_k: cache.keys(),
            cache_v: cache.values(),
            y,
            sinks: sinks.map(|sinks| memory.codes(sinks)),
        };
        (spec, args)
    }
}
