//! Real tools: ffmpeg and GStreamer as cameras and as judges of what was exported.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cli;

const BOUND: Duration = Duration::from_secs(120);

/// Runs a tool to its end and returns its stdout; fails with its own words.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let outcome = cli::run(command, BOUND);
    assert_eq!(
        outcome.code,
        Some(0),
        "{program} {}\n{}",
        arguments.join(" "),
        outcome.stderr
    );
    outcome.stdout
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the laboratory's paths are UTF-8")
}

/// A moving test picture of `seconds`, encoded with these options, in Matroska (which keeps both times of a frame).
#[track_caller]
pub fn encode(out: &Path, seconds: u32, encoder: &[&str]) {
    let picture = format!("testsrc2=size=320x240:rate=25:duration={seconds}");
    let mut arguments = vec![
        "-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-pix_fmt", "yuv420p",
    ];
    arguments.extend(encoder);
    arguments.push(text(out));
    tool("ffmpeg", &arguments);
}

/// The hash of every decoded frame, in the order of presentation, with its presentation time in seconds.
#[track_caller]
pub fn frames(path: &Path) -> Vec<(f64, String)> {
    let path = text(path);
    // passthrough: no frame is doubled or dropped to please a constant rate.
    let table = tool(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            path,
            "-map",
            "0:v:0",
            "-fps_mode",
            "passthrough",
            "-f",
            "framemd5",
            "-",
        ],
    );
    let base = table
        .lines()
        .find_map(|line| line.strip_prefix("#tb 0: "))
        .expect("framemd5 states its time base");
    let (numerator, denominator) = base.split_once('/').expect("a fraction");
    let unit = numerator.parse::<f64>().expect("a number") / denominator.parse::<f64>().expect("a number");
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let frame = |row: &str| {
        let fields: Vec<&str> = row.split(',').map(str::trim).collect();
        (
            fields[2].parse::<f64>().expect("a time") * unit,
            fields[5].to_owned(),
        )
    };
    rows.map(frame).collect()
}

/// The hashes alone.
pub fn hashes(path: &Path) -> Vec<String> {
    frames(path).into_iter().map(|(_, hash)| hash).collect()
}

/// Asserts that a player would decode the file without a word of complaint.
#[track_caller]
pub fn assert_decodes(path: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args([
        "-v",
        "warning",
        "-xerror",
        "-err_detect",
        "explode",
        "-i",
        text(path),
        "-f",
        "null",
        "-",
    ]);
    let outcome = cli::run(command, BOUND);
    assert_eq!(
        (outcome.code, outcome.stderr.trim()),
        (Some(0), ""),
        "{} does not decode cleanly",
        path.display()
    );
}

/// A tool that runs beside the test; killed when dropped.
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    #[track_caller]
    pub fn start(program: &str, arguments: &[&str], errors: PathBuf) -> Running {
        let errors = std::fs::File::create(errors).expect("the laboratory's folder can be written");
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Running {
            child,
            name: format!("{program} {}", arguments.join(" ")),
        }
    }

    /// Waits for its end, which must be a success.
    #[track_caller]
    pub fn finish(mut self) {
        let status = cli::wait(&mut self.child, BOUND);
        assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", self.name);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
