//! Each kernel against an f64 reference, one module a kernel, and what holds for all shaders.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that fails")]

mod attending;
mod choices;
mod clip;
mod common;
mod products;

mod activate;
mod activate_q8;
mod argmax;
mod attention;
mod attention_coop;
mod attention_decode;
mod attention_join;
mod attention_merge;
mod attention_prefill;
mod draw;
mod embed;
mod experts_down;
mod experts_exact;
mod experts_gated;
mod experts_sort;
mod experts_sum;
mod experts_sum_q8;
mod glu;
mod glu_q8;
mod latent_heads;
mod layer_norm;
mod layer_norm_q8;
mod matmul_coop;
mod matmul_exact;
mod matmul_few;
mod matmul_int8;
mod matvec_exact;
mod matvec_gated;
mod matvec_int8;
mod matvec_residual;
mod narrow_heads;
mod prenorm_q8;
mod qk_norm;
mod quantize_q8;
mod reorder;
mod rms_norm;
mod rms_norm_q8;
mod rope_store;
mod route;
mod router;
mod router_route;
mod select_rows;
mod shaders;
mod softcap;
mod timing;
mod widen_q8;
