//! Decides what lives where, from sizes and rates alone.
