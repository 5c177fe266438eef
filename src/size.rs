//! Byte counts as people write them.

/// A byte count with a binary unit and one decimal, e.g. `5.2 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    text(bytes, f64::round)
}

/// Like [`bytes_text`], rounded up: what it says is enough.
pub fn bytes_text_up(bytes: u64) -> String {
    text(bytes, f64::ceil)
}

fn text(bytes: u64, round: impl Fn(f64) -> f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{:.1} {}", round(value * 10.0) / 10.0, units[unit])
    }
}
