//! Quantities as people write them: `20ms`, `0.1%`, `2 Mb/s`.

/// Nanoseconds of a time: a number is seconds, a text has its unit.
pub fn duration_ns(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    scaled(text, &UNITS)
}

/// A probability: `0.1%` or `0.001`.
pub fn share(text: &str) -> Option<f64> {
    scaled(text, &[("%", 0.01), ("", 1.0)])
}

/// Mb/s.
pub fn mbps(text: &str) -> Option<f64> {
    scaled(text, &[("kb/s", 1e-3), ("Mb/s", 1.0), ("Gb/s", 1e3)])
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let unit_at = text
        .find(|c: char| !(c.is_ascii_digit() || ".+-_".contains(c)))
        .unwrap_or(text.len());
    let (number, unit) = (text[..unit_at].replace('_', ""), text[unit_at..].trim());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some(number * factor)
}

/// A time with the largest unit that divides it: the form [`duration_ns`] reads.
pub fn format_ns(ns: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let fits = |(_, size): &&(&str, u64)| ns >= *size && ns.is_multiple_of(*size);
    let (name, size) = UNITS.iter().find(fits).unwrap_or(&("s", 1));
    format!("{}{name}", ns / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!(duration_ns("20ms"), Some(20e6));
        assert_eq!(duration_ns("1.5 s"), Some(1.5e9));
        assert_eq!(duration_ns("10"), None);
        assert_eq!(duration_ns("10 parsecs"), None);
        assert_eq!(share("0.1%"), Some(0.001));
        assert_eq!(share("0.25"), Some(0.25));
        assert_eq!(share("-"), None);
        assert_eq!(mbps("500 kb/s"), Some(0.5));
        assert_eq!(mbps("2MB/s"), None, "bytes are no bits");
    }

    #[test]
    fn what_is_written_reads_back() {
        for ns in [
            0,
            1,
            1_500,
            20_000_000,
            1_500_000_000,
            60_000_000_000,
            90_000_000_000,
        ] {
            assert_eq!(duration_ns(&format_ns(ns)), Some(ns as f64), "{}", format_ns(ns));
        }
    }
}
