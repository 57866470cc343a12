//! The live line while the fleet sends, for terminals and for logs.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::super::output::people;

/// Where stderr is no terminal, a line this often is enough.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// One line that is written over itself on a terminal.
pub struct Live {
    doing: String,
    terminal: bool,
    logged: Instant,
}

impl Live {
    pub fn new(doing: String) -> Live {
        let terminal = io::stderr().is_terminal();
        Live {
            doing,
            terminal,
            logged: Instant::now(),
        }
    }

    /// Shows the figures that there are yet.
    pub fn show(&mut self, figures: &[&str]) {
        let figures: Vec<&str> = figures.iter().copied().filter(|text| !text.is_empty()).collect();
        let line = format!("{} {}", self.doing, figures.join(" · "));
        if self.terminal {
            // What people do not see does no harm.
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
        } else if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            people(line);
        }
    }

    /// Ends the line.
    pub fn done(&mut self) {
        if self.terminal {
            let _ = writeln!(io::stderr().lock());
        }
    }
}
