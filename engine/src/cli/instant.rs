//! Instants on the command line: RFC 3339 with a zone in, UTC out.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::CliError;
use crate::media::Range;

/// Nanoseconds since 1970 of `text`, given to the option `name`.
pub fn parse(name: &str, text: &str) -> Result<u64, CliError> {
    let refused = |why: &dyn std::fmt::Display| {
        CliError::usage(format_args!("{name} {text}: {why}"))
            .remedy("write a time with its zone, such as 2026-11-23T14:05:00Z or 2026-11-23T15:05:00+01:00")
    };
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| refused(&"not an RFC 3339 time"))?;
    u64::try_from(instant.unix_timestamp_nanos()).map_err(|_| refused(&"outside of the years 1970 to 2554"))
}

/// The range between the values of --from and --to, either of which may be left out.
pub fn range(from: Option<&str>, to: Option<&str>) -> Result<Range, CliError> {
    let range = Range {
        from_ns: from.map(|text| parse("--from", text)).transpose()?,
        to_ns: to.map(|text| parse("--to", text)).transpose()?,
    };
    match range.from_ns.zip(range.to_ns) {
        Some((from, to)) if from >= to => Err(CliError::usage(
            "--from is not before --to, so the range is empty",
        )),
        _ => Ok(range),
    }
}

/// An instant in UTC to the microsecond, which is how exactly arrivals are stored.
pub fn exact(unix_ns: u64) -> String {
    let instant = moment(unix_ns);
    format!("{}.{:06}Z", whole_seconds(instant), instant.microsecond())
}

/// An instant in UTC, in whole seconds.
pub fn seconds(unix_s: u64) -> String {
    format!("{}Z", whole_seconds(moment(unix_s.saturating_mul(1_000_000_000))))
}

fn moment(unix_ns: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns))
        .expect("2^64 ns after 1970 is the year 2554, which the type holds")
}

fn whole_seconds(t: OffsetDateTime) -> String {
    let (date, hour, minute, second) = (t.date(), t.hour(), t.minute(), t.second());
    format!("{date}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ExitStatus;

    #[test]
    fn zones_are_honoured_and_times_come_back() {
        let zulu = parse("--from", "2026-11-23T14:05:00.25Z").expect("a time");
        assert_eq!(
            parse("--from", "2026-11-23T15:05:00.25+01:00").expect("a time"),
            zulu
        );
        assert_eq!(exact(zulu), "2026-11-23T14:05:00.250000Z");
        assert_eq!(seconds(zulu / 1_000_000_000), "2026-11-23T14:05:00Z");
    }

    #[test]
    fn a_time_without_zone_or_before_1970_is_refused() {
        for text in ["2026-11-23T14:05:00", "yesterday", "", "1969-12-31T23:59:59Z"] {
            let error = parse("--to", text).expect_err(text);
            assert_eq!(error.status(), ExitStatus::Usage);
            assert!(error.to_string().starts_with("--to"), "{error}");
        }
    }
}
