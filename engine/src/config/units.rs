//! Sizes, rates and durations as people write them: `64KiB`, `64MiB/s`, `500ms`.
//!
//! Whole numbers only: half a second is `500ms`. A number without a unit is refused, so that nobody's 60 is taken for
//! milliseconds.

use std::time::Duration;

const SIZES: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const MS: u64 = 1;
const SECOND: u64 = 1000 * MS;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const TIMES: [(&str, u64); 5] = [("ms", MS), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];

/// Parses a size in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let example = "write a whole number and B, KiB, MiB, GiB or TiB, as in \"64KiB\"";
    let (number, unit) = split(text).ok_or(example)?;
    if let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) {
        return number
            .checked_mul(*bytes)
            .ok_or_else(|| format!("{text:?} is more than 2^64 bytes"));
    }
    let binary = SIZES.iter().find(|(name, _)| {
        let decimal = name.replace('i', "");
        unit.eq_ignore_ascii_case(name)
            || unit.eq_ignore_ascii_case(&decimal)
            || unit.eq_ignore_ascii_case(&name[..1])
    });
    Err(match binary {
        Some((name, _)) => format!("{unit:?} is no size unit; sizes are powers of two: \"{number}{name}\""),
        None => format!("{text:?} is no size; {example}"),
    })
}

/// Parses a rate in bytes per second; `/s` may be left out.
pub fn parse_bytes_per_s(text: &str) -> Result<u64, String> {
    parse_bytes(text.strip_suffix("/s").unwrap_or(text))
}

/// Parses a duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let example = "write a whole number and ms, s, m, h or d, as in \"500ms\"";
    let (number, unit) = split(text).ok_or(example)?;
    let (_, ms) = TIMES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("{text:?} is no duration; {example}"))?;
    number
        .checked_mul(*ms)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is too long"))
}

/// Splits `500ms` into 500 and `ms`; spaces between are allowed.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// Writes a size with the largest unit that divides it: the form [`parse_bytes`] reads.
pub fn format_bytes(bytes: u64) -> String {
    format_units(bytes, &SIZES)
}

/// Writes a duration with the largest unit that divides it, to the millisecond: the form [`parse_duration`] reads.
pub fn format_duration(duration: Duration) -> String {
    format_units(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

fn format_units(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = units
        .iter()
        .rev()
        .find(|(_, size)| value > 0 && value.is_multiple_of(*size));
    let (name, size) = fitting.unwrap_or(&units[0]);
    format!("{}{name}", value / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("16 GiB"), Ok(16 << 30));
        assert_eq!(parse_bytes("0B"), Ok(0));
        assert_eq!(parse_bytes_per_s("64MiB/s"), Ok(64 << 20));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
    }

    #[test]
    fn a_missing_or_decimal_unit_is_refused_with_the_right_one() {
        assert!(parse_bytes("64").is_err());
        assert!(parse_bytes("64KB").is_err_and(|e| e.contains("\"64KiB\"")));
        assert!(parse_bytes("1g").is_err_and(|e| e.contains("\"1GiB\"")));
        assert!(parse_bytes("-1KiB").is_err());
        assert!(parse_bytes("20000000TiB").is_err_and(|e| e.contains("2^64")));
        assert!(parse_duration("0.5s").is_err_and(|e| e.contains("500ms")));
        assert!(parse_duration("60").is_err());
        assert!(parse_duration("").is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [0, 1, 4096, 65_536, 1 << 30, (1 << 30) + 1, u64::MAX] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        for ms in [0, 1, 500, 60_000, 86_400_000, 90_061_001] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
