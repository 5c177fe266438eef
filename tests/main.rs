//! The one integration-test binary, its tests grouped by topic.

mod kernels;
