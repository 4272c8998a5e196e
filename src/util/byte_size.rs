//! Converts sizes in bytes to and from text: values of settings, and figures for people in INFO.
//!
//! The units of settings are Redis's own: `k`, `m`, `g` are powers of 1000, `kb`, `mb`, `gb` powers
//! of 1024, in either case of letter. INFO counts in 1024 and writes `K`, `M`, `G`, `T`, `P`.

/// The number of digits for which Redis has a buffer when it reads a size.
const MAX_DIGITS: usize = 127;

/// Parses a size such as `100mb`, `1k`, `512`. As in Redis, digits that overflow mean the largest
/// number, and a unit alone means 0; a NUL ends the text, and more than 127 digits are refused. A
/// product that overflows is refused, too. Redis lets the product wrap, so that `17179869184gb`
/// sets no limit.
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    let unit_at = text.iter().position(|byte| !byte.is_ascii_digit());
    let (digits, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    if digits.len() > MAX_DIGITS {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    number.checked_mul(unit_size(unit)?)
}

fn unit_size(unit: &[u8]) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1000 * 1000,
        b"mb" => 1 << 20,
        b"g" => 1000 * 1000 * 1000,
        b"gb" => 1 << 30,
        _ => return None,
    })
}

/// Formats a size as INFO's `used_memory_human` does: `512B`, `1.23M`. From 2^60 on, plain bytes
/// are printed.
pub fn format_bytes_human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    for (at, unit) in UNITS.iter().enumerate() {
        let size = 1u64 << (10 * (at + 1));
        if bytes < 1024 {
            break;
        }
        if bytes >> 10 < size {
            return format!("{:.2}{unit}", bytes as f64 / size as f64);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_settings() {
        for (text, bytes) in [
            ("512", Some(512)),
            ("1b", Some(1)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("1m", Some(1_000_000)),
            ("100mb", Some(104_857_600)),
            ("1G", Some(1_000_000_000)),
            ("1gB", Some(1_073_741_824)),
            ("01gb", Some(1_073_741_824)),
            ("", Some(0)),
            ("gb", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("99999999999999999999", Some(u64::MAX)),
            ("8589934592gb", Some(1 << 63)),
            ("17179869184gb", None),
            ("-1", None),
            ("+1", None),
            ("1.5gb", None),
            ("1 gb", None),
            ("1tb", None),
            ("1bb", None),
            ("1x", None),
            ("\0", Some(0)),
            ("1kb\0x", Some(1024)),
            ("\x001", Some(0)),
            ("0".repeat(MAX_DIGITS).as_str(), Some(0)),
            ("0".repeat(MAX_DIGITS + 1).as_str(), None),
        ] {
            assert_eq!(parse_memory(text.as_bytes()), bytes, "{text:?}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, shown) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_048_575, "1024.00K"),
            (1_600_000, "1.53M"),
            (1 << 30, "1.00G"),
            ((1 << 50) - 1, "1024.00T"),
            (109_951_162_777_600_000, "97.66P"),
            (1 << 60, "1152921504606846976B"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(format_bytes_human(bytes), shown);
        }
    }
}
