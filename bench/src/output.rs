//! Where results go: a table for people, one JSON object for programs, and progress in between.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

#[derive(Args, Clone, Debug, Default)]
pub struct Output {
    /// Write the result as one JSON object to FILE; without a FILE, to stdout (the table then goes to stderr)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
}

impl Output {
    /// The table, then the object.
    pub fn write(&self, table: &str, result: &impl Serialize) -> anyhow::Result<()> {
        match self.takes_stdout() {
            true => eprint!("{table}"),
            false => std::io::stdout()
                .write_all(table.as_bytes())
                .context("writing to stdout")?,
        }
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(result).context("making JSON")? + "\n";
        match self.takes_stdout() {
            true => std::io::stdout()
                .write_all(text.as_bytes())
                .context("writing to stdout"),
            false => std::fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        }
    }

    fn takes_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

/// Says what goes on, on stderr. That nobody reads it is no reason to fail.
pub fn progress(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
