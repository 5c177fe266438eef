//! Every parser of outside data, fed with what nobody would write: the bodies, mutators and seeds that
//! the fuzz targets in `tests/fuzz` and the bounded run in the tests share.

#[cfg(test)]
mod bounded;
pub mod bundle;
pub mod meter;
pub mod mutate;
pub mod seeds;
pub mod targets;

#[global_allocator]
static METER: meter::Meter = meter::Meter;
