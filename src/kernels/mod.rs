//! Compute kernels: one file for each shader of the same stem.
