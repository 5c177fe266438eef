//! One table for people to post, and the same as JSON.

use serde_json::{Value, json};

use crate::ceilings::Ceilings;

/// One kernel on operands of one size.
#[derive(Clone, Debug)]
pub struct Row {
    pub model: &'static str,
    /// A projection, or a context.
    pub what: String,
    pub tokens: u32,
    pub kernel: &'static str,
    /// Of one dispatch, launching it included.
    pub seconds: f64,
    /// Bytes of weights, or of keys and values, that are read.
    pub bytes: u64,
    /// Multiplications and additions; 0 where they do not matter.
    pub operations: f64,
    /// The rate of operations that the kernel cannot exceed.
    pub compute: f64,
}

impl Row {
    fn shares(&self, ceilings: &Ceilings) -> [f64; 2] {
        [self.bytes as f64 / self.seconds / ceilings.read, self.operations / self.seconds / self.compute]
    }

    fn line(&self, ceilings: &Ceilings) -> String {
        let [read, compute] = self.shares(ceilings).map(|share| format!("{:.0} %", share * 100.0));
        let rate = self.operations / self.seconds / 1e12;
        format!(
            "| {} | {} | {} | {} | {:.1} | {:.1} | {read} | {rate:.3} | {compute} |",
            self.model,
            self.what,
            self.tokens,
            self.kernel,
            self.seconds * 1e6,
            self.bytes as f64 / self.seconds / 1e9,
        )
    }

    fn json(&self, ceilings: &Ceilings) -> Value {
        let [read, compute] = self.shares(ceilings);
        json!({
            "model": self.model,
            "what": self.what,
            "tokens": self.tokens,
            "kernel": self.kernel,
            "seconds": self.seconds,
            "bytes_per_second": self.bytes as f64 / self.seconds,
            "operations_per_second": self.operations / self.seconds,
            "read_share": read,
            "compute_share": compute,
        })
    }
}

/// All that was measured on an adapter.
pub struct Report {
    pub gpu: String,
    /// Whether the times are the GPU's own.
    pub gpu_clock: bool,
    pub shapes: Value,
    pub ceilings: Ceilings,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn markdown(&self) -> String {
        let Ceilings { read, fma, dot4, coop } = self.ceilings;
        let units = coop.map(|rate| format!(", f16 {:.0} TFLOP/s on matrix units", rate / 1e12));
        let clock = if self.gpu_clock { "GPU timestamps" } else { "the wall clock" };
        let mut text = format!(
            "{}\n\nCeilings: kernels read {:.0} GB/s, f32 {:.2} TFLOP/s, int8 {:.2} TOP/s by dot4I8Packed{}. \
             Times by {clock}, launching included.\n\n\
             | model | what | tokens | kernel | µs | GB/s | of read | TOP/s | of compute |\n\
             | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n",
            self.gpu,
            read / 1e9,
            fma / 1e12,
            dot4 / 1e12,
            units.unwrap_or_default(),
        );
        for row in &self.rows {
            text.push_str(&row.line(&self.ceilings));
            text.push('\n');
        }
        text
    }

    pub fn json(&self) -> Value {
        let Ceilings { read, fma, dot4, coop } = self.ceilings;
        json!({
            "gpu": self.gpu,
            "gpu_clock": self.gpu_clock,
            "shapes": self.shapes,
            "read_bytes_per_second": read,
            "f32_operations_per_second": fma,
            "int8_operations_per_second": dot4,
            "f16_operations_per_second": coop,
            "rows": self.rows.iter().map(|row| row.json(&self.ceilings)).collect::<Vec<_>>(),
        })
    }
}
