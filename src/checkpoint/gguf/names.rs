//! What GGUF calls tensors and what Hugging Face calls them, by architecture.

/// Pairs of a GGUF tensor's name within its block and Hugging Face's; `.weight` and `.bias` follow, but
/// for Hugging Face's names that end with `!`.
pub(super) type Pairs = &'static [(&'static str, &'static str)];

/// The names of an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// Outside blocks.
    pub(super) outer: Pairs,
    /// What stands before a block's number.
    pub(super) layers: &'static str,
    /// Within blocks.
    pub(super) block: Pairs,
    /// Within blocks, of tensors that hold one matrix for each expert; Hugging Face's names have the
    /// expert's number where `{}` is.
    pub(super) experts: Pairs,
}

const OUTER: Pairs =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Llama's, Qwen's and most others'.
pub(super) const LLAMA: Names = Names {
    outer: OUTER,
    layers: "model.layers.",
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("ffn_gate_inp", "mlp.gate"),
        ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
        ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
        ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ],
    experts: &[
        ("ffn_gate_exps", "mlp.experts.{}.gate_proj"),
        ("ffn_up_exps", "mlp.experts.{}.up_proj"),
        ("ffn_down_exps", "mlp.experts.{}.down_proj"),
    ],
};

/// Llama with experts.
pub(super) const MIXTRAL: Names = Names {
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate_inp", "block_sparse_moe.gate"),
    ],
    experts: &[
        ("ffn_gate_exps", "block_sparse_moe.experts.{}.w1"),
        ("ffn_up_exps", "block_sparse_moe.experts.{}.w3"),
        ("ffn_down_exps", "block_sparse_moe.experts.{}.w2"),
        // Old files have a tensor for each, with the number behind.
        ("ffn_gate", "block_sparse_moe.experts.{}.w1"),
        ("ffn_up", "block_sparse_moe.experts.{}.w3"),
        ("ffn_down", "block_sparse_moe.experts.{}.w2"),
    ],
    ..LLAMA
};

/// DeepSeek-V2 and V3.
pub(super) const DEEPSEEK2: Names = Names {
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_q_a", "self_attn.q_a_proj"),
        ("attn_q_a_norm", "self_attn.q_a_layernorm"),
        ("attn_q_b", "self_attn.q_b_proj"),
        ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
        ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
        ("attn_kv_b", "self_attn.kv_b_proj"),
        ("attn_k_b", "self_attn.k_b_proj"),
        ("attn_v_b", "self_attn.v_b_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("ffn_gate_inp", "mlp.gate"),
        ("exp_probs_b", "mlp.gate.e_score_correction_bias!"),
        ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
        ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
    ],
    ..LLAMA
};

/// gpt-oss.
pub(super) const GPT_OSS: Names = Names {
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_sinks", "self_attn.sinks!"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_gate_inp", "mlp.router"),
    ],
    ..LLAMA
};

/// GPT-NeoX.
pub(super) const GPT_NEOX: Names = Names {
    outer: &[
        ("token_embd", "gpt_neox.embed_in"),
        ("output_norm", "gpt_neox.final_layer_norm"),
        ("output", "embed_out"),
    ],
    layers: "gpt_neox.layers.",
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_qkv", "attention.query_key_value"),
        ("attn_output", "attention.dense"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.dense_h_to_4h"),
        ("ffn_down", "mlp.dense_4h_to_h"),
    ],
    experts: &[],
};

/// Falcon with one norm, and with two.
pub(super) const FALCON: Names = Names {
    outer: &[
        ("token_embd", "transformer.word_embeddings"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    layers: "transformer.h.",
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_qkv", "self_attention.query_key_value"),
        ("attn_output", "self_attention.dense"),
        ("ffn_up", "mlp.dense_h_to_4h"),
        ("ffn_down", "mlp.dense_4h_to_h"),
    ],
    experts: &[],
};
pub(super) const FALCON_NEW: Names = Names {
    block: &[
        ("attn_norm", "ln_mlp"),
        ("attn_norm_2", "ln_attn"),
        ("attn_qkv", "self_attention.query_key_value"),
        ("attn_output", "self_attention.dense"),
        ("ffn_up", "mlp.dense_h_to_4h"),
        ("ffn_down", "mlp.dense_4h_to_h"),
    ],
    ..FALCON
};

/// Those with norms on both sides: Gemma 2 and 3.
pub(super) const GEMMA2: Names = Names {
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    ..LLAMA
};

/// OLMo2, with norms behind alone.
pub(super) const OLMO2: Names = Names {
    block: &[
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    ..LLAMA
};

/// Phi-1 and 2.
pub(super) const PHI2: Names = Names {
    outer: &[
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.final_layernorm"),
        ("output", "lm_head"),
    ],
    layers: "model.layers.",
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.dense"),
        ("ffn_up", "mlp.fc1"),
        ("ffn_down", "mlp.fc2"),
    ],
    experts: &[],
};

/// Phi-3, whose queries, keys and values are one matrix, and gates and values another.
pub(super) const PHI3: Names = Names {
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    ..LLAMA
};

/// GPT-2.
pub(super) const GPT2: Names = Names {
    outer: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    layers: "transformer.h.",
    block: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    experts: &[],
};

/// StableLM, whose last norm has a bias like the others.
pub(super) const STABLELM: Names = LLAMA;

/// Command R.
pub(super) const COHERE: Names = LLAMA;

impl Names {
    /// Hugging Face's name of a tensor; `None` if the architecture has no such tensor.
    pub(super) fn of(&self, name: &str) -> Option<String> {
        let (stem, ending) = name.rsplit_once('.')?;
        if !["weight", "bias"].contains(&ending) {
            return None;
        }
        let find = |pairs: Pairs, stem: &str| pairs.iter().find(|(gguf, _)| *gguf == stem).map(|(_, hf)| *hf);
        let Some(rest) = stem.strip_prefix("blk.") else {
            return find(self.outer, stem).map(|hf| ended(hf, ending));
        };
        let (number, stem) = rest.split_once('.')?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let hf = find(self.block, stem).filter(|_| is_number)?;
        Some(format!("{}{number}.{}", self.layers, ended(hf, ending)))
    }

    /// Hugging Face's names of the matrices, or biases, of a tensor of `count` experts, or of the one
    /// expert whose number stands behind the name; `None` if it is no such tensor.
    pub(super) fn of_experts(&self, name: &str, count: u64) -> Option<Vec<String>> {
        let (stem, ending) = name.strip_prefix("blk.")?.rsplit_once('.')?;
        let (number, stem) = stem.split_once('.').filter(|_| ["weight", "bias"].contains(&ending))?;
        let find = |stem: &str| self.experts.iter().find(|(gguf, _)| *gguf == stem).map(|(_, hf)| *hf);
        let named = |hf: &str, expert: u64| {
            format!("{}{number}.{}", self.layers, ended(&hf.replace("{}", &expert.to_string()), ending))
        };
        number.parse::<u32>().ok()?;
        if let Some(hf) = find(stem).filter(|_| stem.ends_with("_exps")) {
            return Some((0..count).map(|expert| named(hf, expert)).collect());
        }
        let (stem, expert) = stem.rsplit_once('.')?;
        Some(vec![named(find(stem)?, expert.parse().ok()?)])
    }
}

/// A name with its ending, where it has one.
fn ended(hf: &str, ending: &str) -> String {
    hf.strip_suffix('!').map_or_else(|| format!("{hf}.{ending}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_and_outside_blocks() {
        let named = |name: &str| LLAMA.of(name);
        assert_eq!(named("blk.11.attn_q.bias").as_deref(), Some("model.layers.11.self_attn.q_proj.bias"));
        assert_eq!(named("output_norm.weight").as_deref(), Some("model.norm.weight"));
        assert_eq!(
            GEMMA2.of("blk.0.ffn_norm.weight").as_deref(),
            Some("model.layers.0.pre_feedforward_layernorm.weight")
        );
        assert_eq!(GPT_OSS.of("blk.3.attn_sinks.weight").as_deref(), Some("model.layers.3.self_attn.sinks"));
        assert_eq!(
            GPT_OSS.of_experts("blk.3.ffn_up_exps.bias", 2).unwrap_or_default(),
            ["model.layers.3.mlp.experts.0.up_proj.bias", "model.layers.3.mlp.experts.1.up_proj.bias"]
        );
        for other in ["blk.x.attn_q.weight", "blk.0.attn_z.weight", "attn_q.weight", "output", "output.scale"]
        {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
