//! What operations read and write: the activations that live in GPU memory during a pass.

/// An activation that lives in GPU memory during a pass, f32 `[tokens, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Embedding rows where they are narrower or wider than the stream; `[tokens, embed_size]`.
    Embedded,
    /// The stream that blocks add to; `[tokens, hidden_size]`.
    Residual,
    /// The rows of the residual whose logits are wanted; `[selected, hidden_size]`.
    Selected,
    /// A norm's output; `[tokens, hidden_size]`.
    Normed,
    /// Queries, keys and values side by side; `[tokens, (heads + 2 * kv_heads) * head_dim]`.
    Qkv,
    /// What queries are made from in latent attention; `[tokens, q_lora_rank]`.
    QueryLatent,
    /// Its norm; as wide.
    QueryLatentNormed,
    /// Queries of latent attention; `[tokens, heads * (qk_nope_head_dim + qk_rope_head_dim)]`.
    Queries,
    /// What keys and values are made from in latent attention; `[tokens, kv_lora_rank]`.
    KeyLatent,
    /// Its norm; as wide.
    KeyLatentNormed,
    /// What all keys share in latent attention; `[tokens, qk_rope_head_dim]`.
    KeyRope,
    /// Keys and values of latent attention; `[tokens, heads * (qk_nope_head_dim + v_head_dim)]`.
    KeysValues,
    /// What latent attention gathered, without zeros; `[tokens, heads * v_head_dim]`.
    AttendedValues,
    /// What attention gathered; `[tokens, heads * head_dim]`.
    Attended,
    /// Gate and up projections side by side; `[tokens, 2 * intermediate_size]`.
    GateUp,
    /// The up projection of an MLP without gates; `[tokens, intermediate_size]`.
    Up,
    /// What the MLP's activation function leaves; `[tokens, intermediate_size]`.
    Gated,
    /// What a router says of each expert, and the shared expert's gate; see [`super::experts::Experts`].
    Router,
    /// The experts of each token with their weights, 16 bytes each; `[tokens, choices]`.
    Routes,
    /// What the activation function leaves inside each chosen expert;
    /// `[tokens, num_experts_per_tok]` rows of `moe_intermediate_size`.
    ExpertGated,
    /// What each chosen expert gives, then the shared one where it has a gate;
    /// `[tokens, choices]` rows of `hidden_size`.
    ExpertOut,
    /// Gate and up projections of a shared expert; `[tokens, 2 * shared_intermediate_size]`.
    SharedGateUp,
    /// What the activation function leaves inside it; `[tokens, shared_intermediate_size]`.
    SharedGated,
    /// What attention or an MLP adds to the stream, where it is normed before; `[tokens, hidden_size]`.
    Branch,
    /// `Normed` in the order of a matrix's columns, and so on; as wide as that.
    NormedOrdered,
    /// `Attended` likewise.
    AttendedOrdered,
    /// `Gated` likewise.
    GatedOrdered,
    /// The selected rows as wide as the embedding table; `[selected, embed_size]`.
    Projected,
    /// Scores over the vocabulary; `[selected, vocab_size]`.
    Logits,
}

impl Activation {
    /// Whether it has a row for each token whose logits are wanted, not for each token.
    pub fn is_selected(self) -> bool {
        matches!(self, Activation::Selected | Activation::Projected | Activation::Logits)
    }
}
