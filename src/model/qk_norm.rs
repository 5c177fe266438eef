//! How queries and keys are normed before they rotate.

use super::decoder::Tensor;

/// How queries and keys are normed. The vectors are those of the queries, then those of the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNorm {
    /// Weights; as long as `each` says.
    pub weight: Tensor,
    /// Biases, if not 0; as long as the weights.
    pub bias: Option<Tensor>,
    /// Whether the mean is taken away first, as in a norm by mean and variance.
    pub centred: bool,
    /// What is normed at a time.
    pub each: QkNormEach,
    /// Added to the mean square or the variance.
    pub eps: f32,
}

/// What a norm of queries and keys takes at a time, and how long its vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNormEach {
    /// A head, with weights that all heads of queries, and all of keys, share; `2 * head_dim`.
    Head,
    /// A head, with weights of its own; `(heads + kv_heads) * head_dim`.
    OwnHead,
    /// All queries, and all keys; `(heads + kv_heads) * head_dim`.
    Whole,
}
