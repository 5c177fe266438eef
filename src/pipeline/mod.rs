//! Moves unit bytes into GPU memory ahead of the kernels that read them.
