//! What the commands that read segments share: their PATHs, and a progress bar.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::error::CliError;
use crate::archive::find::{self, Found};

/// The segments that `paths` name. No segment below a folder is "nothing here" (3); an unreadable path is I/O (4).
pub fn find_segments(paths: &[PathBuf]) -> Result<Found, CliError> {
    let found = find::segments(paths).map_err(|error| CliError::file("read", &error.path, &error.why))?;
    if let (true, Some(problem)) = (found.segments.is_empty(), found.problems.first()) {
        return Err(CliError::file("read", &problem.path, &problem.why));
    }
    if found.segments.is_empty() {
        let folders: Vec<_> = found.folders.iter().map(|f| f.display().to_string()).collect();
        return Err(
            CliError::nothing_here(format_args!("no segment (.hseal) in {}", folders.join(", ")))
                .remedy("name the engine's data folder, or a segment file"),
        );
    }
    Ok(found)
}

/// Refuses a folder where one segment is asked for.
pub fn one_segment(path: &Path) -> Result<(), CliError> {
    if path.is_dir() {
        return Err(CliError::usage(format_args!(
            "{} is a folder, and this command takes one segment",
            path.display()
        ))
        .remedy("name one .hseal file in it; `harborseal verify` takes folders"));
    }
    Ok(())
}

/// A number of things: "1 segment", "2 segments".
pub fn count(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// A progress bar over `total_bytes` on stderr; draws nothing where stderr is not a terminal. `doing` is a word such as
/// "verifying".
pub fn progress(doing: &'static str, total_bytes: u64) -> ProgressBar {
    let bytes = "{prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left";
    bar(doing, total_bytes, bytes)
}

/// The same over several segments, where the message says which one it is.
pub fn progress_segments(doing: &'static str, total_bytes: u64) -> ProgressBar {
    let bytes = "{prefix} {msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left";
    bar(doing, total_bytes, bytes)
}

/// The same over a number of things, such as segments or chunks.
pub fn progress_count(doing: &'static str, total: u64) -> ProgressBar {
    bar(doing, total, "{prefix} {wide_bar} {pos}/{len} {eta} left")
}

fn bar(doing: &'static str, total: u64, template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(10),
        false => ProgressDrawTarget::hidden(),
    };
    // However a command ends, its last words stand alone.
    let bar = ProgressBar::with_draw_target(Some(total), target).with_finish(ProgressFinish::AndClear);
    let style = ProgressStyle::with_template(template).expect("the templates name known fields only");
    bar.set_style(style);
    bar.set_prefix(doing);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ExitStatus;

    #[test]
    fn a_folder_without_segments_is_nothing_here() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = find_segments(&[dir.path().to_owned()]).expect_err("empty");
        assert_eq!(error.status(), ExitStatus::NothingHere);
        let error = find_segments(&[dir.path().join("gone")]).expect_err("missing");
        assert_eq!(error.status(), ExitStatus::Io);
    }

    #[test]
    fn a_folder_is_refused_where_one_segment_is_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = one_segment(dir.path()).expect_err("a folder");
        assert_eq!(error.status(), ExitStatus::Usage);
    }
}
