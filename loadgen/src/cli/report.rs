//! `report`: a finished run in words, or with `--html` as one page to hand around.

use super::{EXIT_UNREACHABLE, EXIT_USAGE, fail, people};
use crate::output::folder::{DURABLE_HLOG, LATENESS_HLOG, REPORT_HTML, replace};
use crate::output::{OutputError, RunFolder, html, text};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// One report.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit status: 0 the report is made · 2 DIR holds no run, or one that cannot be read · 4 a file failed. What the run came \
to changes nothing: `run` and `verify` have a status for that.")]
pub struct ReportArgs {
    /// Folder of a run (`run -o DIR`)
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Write one self-contained HTML page with plots
    #[arg(long)]
    pub html: bool,
    /// Where the page goes; `-` is stdout. Without it: DIR/report.html
    #[arg(short, long, value_name = "FILE", requires = "html")]
    pub output: Option<PathBuf>,
}

pub fn main(args: &ReportArgs) -> ExitCode {
    match make(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ OutputError::Write { .. }) => fail(EXIT_UNREACHABLE, &error.to_string()),
        Err(error) => fail(EXIT_USAGE, &error.to_string()),
    }
}

fn make(args: &ReportArgs) -> Result<(), OutputError> {
    let folder = RunFolder::open(&args.dir)?;
    let run = folder.read_result()?;
    if !args.html {
        return print(&text::report(&run));
    }
    let page = html::page(&html::Input {
        run,
        lateness: folder.read_hlog(LATENESS_HLOG)?,
        durable: folder.read_hlog(DURABLE_HLOG)?,
    });
    match &args.output {
        Some(path) if path.as_os_str() == "-" => print(&page),
        path => {
            let path = path.clone().unwrap_or_else(|| folder.file(REPORT_HTML));
            replace(&path, page.as_bytes())?;
            people(format!("{}\n", path.display()));
            Ok(())
        }
    }
}

fn print(text: &str) -> Result<(), OutputError> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| OutputError::Write {
            path: PathBuf::from("standard output"),
            error,
        })
}
