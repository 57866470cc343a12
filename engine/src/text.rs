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
