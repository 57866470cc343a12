//! Figures as people read them: grouped digits, shares that do not round a loss to nothing, times with their unit.

/// 47490518 → `47 490 518`, with narrow no-break spaces.
pub fn count(number: u64) -> String {
    by_threes(number, '\u{202f}')
}

/// 47490518 → `47,490,518`: for tables in a terminal, whose fonts may lack narrow spaces.
pub fn with_commas(number: u64) -> String {
    by_threes(number, ',')
}

fn by_threes(number: u64, between: char) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(between);
        }
        text.push(digit);
    }
    text
}

/// With its sign, a real minus.
pub fn signed(number: i64) -> String {
    let sign = if number < 0 { "−" } else { "" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

/// A share of a whole: `12.3 %`, `0.0021 %`; never `0 %` of something that is there, nor `100 %` of something that lacks
/// a part.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let percent = 100.0 * part as f64 / whole as f64;
    match part {
        0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        _ if percent > 99.0 && part < whole => {
            // As many nines as it takes to see what lacks.
            let digits = (-(100.0 - percent).log10()).ceil().clamp(1.0, 9.0) as usize;
            format!("{percent:.digits$} %")
        }
        _ => format!("{} %", figures(percent)),
    }
}

/// Milliseconds, in the unit that suits: `12.3 µs`, `0.35 ms`, `1.2 s`.
pub fn ms(milliseconds: f64) -> String {
    match milliseconds.abs() {
        0.0 => "0 ms".to_owned(),
        small if small < 0.1 => format!("{} µs", figures(milliseconds * 1e3)),
        large if large >= 10_000.0 => format!("{} s", figures(milliseconds / 1e3)),
        _ => format!("{} ms", figures(milliseconds)),
    }
}

/// Bytes in powers of two.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", figures(value), units[unit])
}

/// A number to three significant digits; whole ones above that stay whole.
pub fn figures(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let before_point = number.abs().log10().floor() as i32 + 1;
    let digits = (3 - before_point).clamp(0, 9) as usize;
    let text = format!("{number:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// RFC 3339 in UTC, as people read it, without fractions; what is no such time stays as it is.
pub fn date(started: &str) -> String {
    let whole = started.trim_end_matches('Z').split('.').next().unwrap_or(started);
    match whole.split_once('T') {
        Some((day, time)) if started.ends_with('Z') => format!("{day} {time} UTC"),
        _ => started.to_owned(),
    }
}

/// A moment of a run: `42 s`, `3:07`, `1:02:03`; `whole_s` decides, so that one axis has one form.
pub fn moment(seconds: f64, whole_s: f64) -> String {
    let (total, fraction) = (seconds.max(0.0) as u64, seconds.fract());
    match whole_s {
        short if short < 180.0 && fraction.abs() < 1e-9 => format!("{total}"),
        short if short < 180.0 => figures(seconds),
        middle if middle < 3600.0 => format!("{}:{:02}", total / 60, total % 60),
        _ => format!("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!(count(7), "7");
        assert_eq!(count(123_456), "123\u{202f}456");
        assert_eq!(signed(-1234), "−1\u{202f}234");
    }

    #[test]
    fn a_share_never_hides_a_loss() {
        assert_eq!(share(1, 10_000_000), "0.00001 %");
        assert_eq!(share(9_999_999, 10_000_000), "99.99999 %");
        assert_eq!(
            (share(0, 5), share(5, 5), share(0, 0)),
            ("0 %".into(), "100 %".into(), "–".into())
        );
        assert_eq!(share(1, 3), "33.3 %");
    }

    #[test]
    fn times_have_the_unit_that_suits() {
        assert_eq!(ms(0.0123), "12.3 µs");
        assert_eq!(ms(1.6249), "1.62 ms");
        assert_eq!(ms(65_000.0), "65 s");
        assert_eq!(moment(62.0, 120.0), "62");
        assert_eq!(moment(62.0, 600.0), "1:02");
        assert_eq!(moment(3723.0, 7200.0), "1:02:03");
        assert_eq!(date("2026-11-23T22:43:20.388824541Z"), "2026-11-23 22:43:20 UTC");
        assert_eq!((date(""), date("soon")), (String::new(), "soon".to_owned()));
    }

    #[test]
    fn what_is_no_number_is_a_dash() {
        assert_eq!(figures(f64::NAN), "–");
        assert_eq!(bytes(611 << 20), "611 MiB");
        assert_eq!(figures(0.00012345), "0.000123");
    }
}
