//! Packed models: the on-disk form in which one unit is one large sequential read.

pub mod layout;
