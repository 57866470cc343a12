//! How a command ends: its exit status, and the one line that says why it did not end well.

use std::fmt::{self, Display};
use std::path::Path;

use crate::config::ConfigError;
pub use crate::text::{OneLine, Plain};

/// The exit statuses every command keeps to. Scripts rely on the numbers: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done, and nothing wrong was found.
    Ok = 0,
    /// Damage was found, or a check failed.
    Damage = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Nothing here is for this identity, camera or time range.
    NothingHere = 3,
    /// Reading or writing failed.
    Io = 4,
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        std::process::ExitCode::from(status as u8)
    }
}

/// Why a command stopped: what happened, what mends it, and the exit status that says so.
///
/// Printed as one line, `harborseal: MESSAGE; REMEDY`. The message names the file, and the offset where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    message: String,
    remedy: Option<String>,
    status: ExitStatus,
}

impl CliError {
    /// Damage was found, or a check failed: exit status 1.
    pub fn damage(message: impl Display) -> Self {
        Self::new(ExitStatus::Damage, message)
    }

    /// The command line or the configuration is wrong: exit status 2.
    pub fn usage(message: impl Display) -> Self {
        Self::new(ExitStatus::Usage, message)
    }

    /// Nothing here for this identity, camera or range: exit status 3.
    pub fn nothing_here(message: impl Display) -> Self {
        Self::new(ExitStatus::NothingHere, message)
    }

    /// Reading or writing failed: exit status 4.
    pub fn io(message: impl Display) -> Self {
        Self::new(ExitStatus::Io, message)
    }

    /// An I/O error on a file, as `cannot DOING PATH: WHY`; `doing` is a verb such as "read". Exit status 4.
    pub fn file(doing: &str, path: &Path, why: &std::io::Error) -> Self {
        Self::io(format_args!("cannot {doing} {}: {}", path.display(), Plain(why)))
    }

    /// An error with any status.
    pub fn new(status: ExitStatus, message: impl Display) -> Self {
        CliError {
            message: message.to_string(),
            remedy: None,
            status,
        }
    }

    /// Adds what mends it: a command to type, or a thing to change.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// The exit status.
    pub fn status(&self) -> ExitStatus {
        self.status
    }
}

impl From<ConfigError> for CliError {
    /// A file that cannot be read is an I/O error; what is wrong in it is a configuration error.
    fn from(error: ConfigError) -> Self {
        if error.line.is_some() {
            CliError::usage(error)
        } else {
            CliError::io(error)
        }
    }
}

impl Display for CliError {
    /// One line, whatever the parts hold: a message made from foreign text must not forge a second line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", OneLine(&self.message))?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {}", OneLine(remedy)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_even_when_its_parts_are_not() {
        let error = CliError::damage("a name\nof two lines\x1b[2J").remedy("do\r\n  this");
        assert_eq!(error.to_string(), "a name of two lines\\u{1b}[2J; do this");
        assert_eq!(error.status(), ExitStatus::Damage);
    }

    #[test]
    fn a_file_error_names_the_file_and_the_cause() {
        let why = std::io::Error::from_raw_os_error(2);
        let error = CliError::file("read", Path::new("a.hseal"), &why);
        assert_eq!(
            error.to_string(),
            "cannot read a.hseal: no such file or directory"
        );
        assert_eq!(error.status() as u8, 4);
    }
}
