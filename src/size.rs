//! Byte sizes as people write them, such as `6GiB`, and back.

use crate::error::{Error, Result};

/// Units by name in lower case. Bare letters count in 1024s, since that is how memory is sold.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Reads `6GiB`, `500MB`, `1.5g` or plain bytes; case and a space before the unit are ignored.
///
/// # Errors
/// [`Error::Usage`] with what was found and an example.
pub fn parse(text: &str) -> Result<u64> {
    let complaint = |problem: &str| {
        Err(Error::Usage(format!("expected a size such as 6GiB, 500MB or 1.5g, found `{text}`: {problem}")))
    };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim().to_ascii_lowercase());
    let Some((_, unit_bytes)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return complaint("use no unit or one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB");
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*unit_bytes),
        Err(_) => match number.parse::<f64>() {
            Ok(fraction) if number.contains('.') => Some((fraction * *unit_bytes as f64).round() as u64),
            _ if !number.is_empty() && !number.contains('.') => None,
            _ => return complaint("it does not start with a number"),
        },
    };
    match bytes.filter(|bytes| *bytes < u64::MAX) {
        Some(bytes) => Ok(bytes),
        None => complaint("it is more than any machine has"),
    }
}

/// Reads a rate such as `12GB/s`, `3.5GiB/s` or `500 MB/s`, as bytes a second.
///
/// # Errors
/// [`Error::Usage`] with what was found and an example.
pub fn parse_rate(text: &str) -> Result<f64> {
    let complaint = |problem: &str| {
        Err(Error::Usage(format!("expected a rate such as 12GB/s or 3.5GiB/s, found `{text}`: {problem}")))
    };
    let Some(size) = text.trim().strip_suffix("/s") else {
        return complaint("it does not end with /s");
    };
    match parse(size) {
        Ok(0) => complaint("it has to be more than nothing"),
        Ok(bytes) => Ok(bytes as f64),
        Err(error) => {
            let error = error.to_string();
            complaint(error.rsplit_once("`: ").map_or("", |(_, problem)| problem))
        }
    }
}

/// Shows bytes in the largest binary unit that keeps the number at or above one, with three
/// significant digits: `512 B`, `1.50 GiB`, `23.4 MiB`.
pub fn format(bytes: u64) -> String {
    format_with(bytes, f64::round)
}

/// Like [`format()`], rounded up, for sizes that must be enough.
pub fn format_up(bytes: u64) -> String {
    format_with(bytes, f64::ceil)
}

fn format_with(bytes: u64, round: fn(f64) -> f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    // 1023.5 would be shown as 1024.
    while value >= 1023.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    let scale = 10f64.powi(decimals);
    format!("{:.*} {}", decimals as usize, round(value * scale) / scale, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_up_never_promises_too_little() {
        for bytes in [1, 1023, 1025, 10_239, 7_390_208, 5 << 30, (5 << 30) + 1] {
            let shown = format_up(bytes);
            assert!(parse(&shown).unwrap() >= bytes, "{bytes}: {shown}");
        }
        assert_eq!((format((5 << 30) + 1), format_up((5 << 30) + 1)), ("5.00 GiB".into(), "5.01 GiB".into()));
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12b", 12),
            ("6GiB", 6 << 30),
            ("6 gib", 6 << 30),
            ("500MB", 500_000_000),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("2.k", 2048),
            ("1KB", 1000),
            ("1kib", 1024),
            ("2t", 2 << 40),
            (" 8G ", 8 << 30),
            ("18446744073709551614", u64::MAX - 1),
            ("9007199254740993", 9007199254740993),
        ] {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for (text, problem) in [
            ("", "does not start with a number"),
            ("GiB", "does not start with a number"),
            ("1.2.3g", "does not start with a number"),
            (".", "does not start with a number"),
            ("-1", "use no unit or one of"),
            ("6Gx", "use no unit or one of"),
            ("6GiBB", "use no unit or one of"),
            ("6,5g", "use no unit or one of"),
            ("1e3", "use no unit or one of"),
            ("inf", "use no unit or one of"),
            ("1٣", "use no unit or one of"),
            ("99999999999g", "more than any machine"),
            ("99999999999999999999", "more than any machine"),
            ("99999999999.5t", "more than any machine"),
        ] {
            let complaint = parse(text).unwrap_err().to_string();
            assert!(complaint.contains(problem) && complaint.contains(&format!("`{text}`")), "{complaint}");
        }
    }

    #[test]
    fn rates_are_read_or_refused() {
        for (text, rate) in
            [("12GB/s", 12e9), ("3.5GiB/s", 3.5 * f64::from(1 << 30)), (" 500 mb/s ", 5e8), ("64b/s", 64.0)]
        {
            assert_eq!(parse_rate(text).unwrap(), rate, "{text}");
        }
        for (text, problem) in [
            ("12GB", "does not end with /s"),
            ("", "does not end with /s"),
            ("/s", "does not start with a number"),
            ("fast/s", "use no unit or one of"),
            ("0GB/s", "more than nothing"),
            ("-1GB/s", "use no unit or one of"),
            ("12Gbit/s", "use no unit or one of"),
        ] {
            let complaint = parse_rate(text).unwrap_err().to_string();
            assert!(complaint.contains(problem) && complaint.contains(&format!("`{text}`")), "{complaint}");
            assert_eq!(complaint.matches("expected").count(), 1, "{complaint}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536 << 20, "1.50 GiB"),
            (10 << 20, "10.0 MiB"),
            (100 << 20, "100 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format(bytes), text);
        }
    }
}
