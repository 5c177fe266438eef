//! Records tasks on lanes and writes a timeline that Perfetto opens.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    LoadWeight(usize),
    Compute,
}
#[derive(Debug)]
pub struct Trace {}
impl Trace {
    pub fn now(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    pub fn span(&self, _l: Lane, _n: &str, _r: std::ops::Range<std::time::Duration>, _b: u64) {}
}
