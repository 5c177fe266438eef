//! One timeline of tokens with its KV cache.
