//! Foreign text and the system's errors, made fit for one line of a message.

use std::fmt::{self, Display};

/// Text with control characters made visible and line breaks made spaces. Names found in files and on the command
/// line go through it before they reach a terminal.
#[derive(Debug)]
pub struct OneLine<'a>(pub &'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = false;
        for c in self.0.trim_end().chars() {
            if c == '\n' || c == '\r' {
                gap = true;
                continue;
            }
            if gap && c == ' ' {
                continue;
            }
            if std::mem::take(&mut gap) {
                f.write_str(" ")?;
            }
            if c.is_control() {
                write!(f, "{}", c.escape_default())?
            } else {
                write!(f, "{c}")?
            }
        }
        Ok(())
    }
}

/// An I/O error without Rust's `(os error 2)` tail, in lower case, as other commands print it.
#[derive(Debug)]
pub struct Plain<'a>(pub &'a std::io::Error);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut chars = text.chars();
        match chars.next() {
            Some(first) => write!(f, "{}{}", first.to_ascii_lowercase(), chars.as_str()),
            None => Ok(()),
        }
    }
}

/// A number with its thousands apart: 1,234,567.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.char_indices() {
            let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
            write!(f, "{}{digit}", if comma { "," } else { "" })?;
        }
        Ok(())
    }
}

/// `1 camera`, `2,000 cameras`.
pub fn counted(count: usize, what: &str) -> String {
    format!(
        "{} {what}{}",
        Grouped(count as u64),
        if count == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(
            (counted(1, "camera"), counted(0, "camera")),
            ("1 camera".to_owned(), "0 cameras".to_owned())
        );
    }
}
