//! The folder of a run: who makes it, what lies in it under which name, and how `run.json` is written and read.
//!
//! Invariants: a folder holds one run; `run.json` is there whole or not at all, because it is written beside its place and
//! renamed; a reader refuses a schema it does not know instead of guessing.

use super::csv::{self, StreamRow};
use super::hlog::{self, HlogWriter, Interval};
use crate::result::{RunResult, SCHEMA};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub const RUN_JSON: &str = "run.json";
pub const SENT_LOG: &str = "sent.log";
pub const SECONDS_CSV: &str = "seconds.csv";
pub const STREAMS_CSV: &str = "streams.csv";
pub const LATENESS_HLOG: &str = "lateness.hlog";
pub const DURABLE_HLOG: &str = "durable.hlog";
pub const PROFILE_TOML: &str = "profile.toml";
pub const REPORT_HTML: &str = "report.html";

/// Everything that a run, `verify` or `report` puts there; what `--force` takes away. A stale `verify.json` beside a new
/// run would be read as its verdict.
const OF_A_RUN: [&str; 11] = [
    RUN_JSON,
    SENT_LOG,
    SECONDS_CSV,
    STREAMS_CSV,
    LATENESS_HLOG,
    DURABLE_HLOG,
    PROFILE_TOML,
    REPORT_HTML,
    "verify.json",
    "stored.csv",
    "engine.jsonl",
];

/// Why a run's folder cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("{} holds a run already ({found}); take another folder, or --force to replace it", folder.display())]
    Taken { folder: PathBuf, found: &'static str },
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} holds no run: there is no {RUN_JSON}; `harborseal-loadgen run … -o {}` makes one", folder.display(), folder.display())]
    NoRun { folder: PathBuf },
    #[error("{}:{line}:{column}: {what}", path.display())]
    Malformed {
        path: PathBuf,
        line: usize,
        column: usize,
        what: String,
    },
    #[error("{} is of schema {found:?}; this version reads {SCHEMA:?}", path.display())]
    Schema { path: PathBuf, found: String },
}

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder (and those above it). One that holds a run is refused, or with `force` emptied of that run's
    /// files; other people's files in it stay.
    pub fn create(path: &Path, force: bool) -> Result<RunFolder, OutputError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |error| OutputError::Write { path, error }
        };
        fs::create_dir_all(path).map_err(write(path))?;
        let folder = RunFolder {
            path: path.to_owned(),
        };
        for name in OF_A_RUN {
            let file = folder.file(name);
            // The profile may have been put there by hand, for this very run.
            if name == PROFILE_TOML || file.symlink_metadata().is_err() {
                continue;
            }
            if !force {
                return Err(OutputError::Taken {
                    folder: folder.path,
                    found: name,
                });
            }
            fs::remove_file(&file).map_err(write(&file))?;
        }
        Ok(folder)
    }

    /// The folder of a run that was made before.
    pub fn open(path: &Path) -> Result<RunFolder, OutputError> {
        let folder = RunFolder {
            path: path.to_owned(),
        };
        match folder.holds_run() {
            true => Ok(folder),
            false => Err(OutputError::NoRun { folder: folder.path }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of the run is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn holds_run(&self) -> bool {
        self.file(RUN_JSON).is_file()
    }

    /// Writes `run.json`, over the one there is.
    pub fn write_result(&self, result: &RunResult) -> Result<(), OutputError> {
        let mut text =
            serde_json::to_vec_pretty(result).expect("numbers and texts with text keys are always JSON");
        text.push(b'\n');
        self.replace(RUN_JSON, &text)
    }

    pub fn read_result(&self) -> Result<RunResult, OutputError> {
        let path = self.file(RUN_JSON);
        let text = fs::read(&path).map_err(|error| OutputError::Read {
            path: path.clone(),
            error,
        })?;
        parse_result(&path, &text)
    }

    pub fn write_seconds(&self, result: &RunResult) -> Result<(), OutputError> {
        self.replace(SECONDS_CSV, csv::seconds(&result.seconds).as_bytes())
    }

    pub fn write_streams(&self, rows: impl IntoIterator<Item = StreamRow>) -> Result<(), OutputError> {
        self.replace(STREAMS_CSV, csv::streams(rows).as_bytes())
    }

    /// Begins an interval log; `start` is what its intervals count from.
    pub fn begin_hlog(
        &self,
        name: &str,
        start: SystemTime,
    ) -> Result<HlogWriter<BufWriter<File>>, OutputError> {
        let path = self.file(name);
        let write = |error| OutputError::Write {
            path: path.clone(),
            error,
        };
        let file = File::create(&path).map_err(write)?;
        HlogWriter::begin(BufWriter::new(file), start).map_err(write)
    }

    /// An interval log's intervals; none where there is no such log.
    pub fn read_hlog(&self, name: &str) -> Result<Vec<Interval>, OutputError> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(bytes) => hlog::parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(OutputError::Read { path, error }),
        }
    }

    /// Puts a whole file in its place: beside it first, then renamed, so that a reader sees the old or the new one.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
        replace(&self.file(name), bytes)
    }
}

/// See [`RunFolder::replace`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // What is half written is of no use; that it cannot be removed either adds nothing to the first error.
        let _ = fs::remove_file(&beside);
        OutputError::Write {
            path: path.to_owned(),
            error,
        }
    })
}

fn parse_result(path: &Path, text: &[u8]) -> Result<RunResult, OutputError> {
    /// Read first and alone: a file of another schema may differ in everything else.
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let malformed = |error: serde_json::Error| OutputError::Malformed {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        what: error.to_string(),
    };
    let head: Head = serde_json::from_slice(text).map_err(malformed)?;
    if head.schema != SCHEMA {
        return Err(OutputError::Schema {
            path: path.to_owned(),
            found: head.schema,
        });
    }
    serde_json::from_slice(text).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn a_result_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::create(&dir.path().join("deep/run"), false).expect("new");
        let result = fixture::lossy();
        folder.write_result(&result).expect("written");
        let back = RunFolder::open(folder.path())
            .and_then(|folder| folder.read_result())
            .expect("read");
        let json = |result| serde_json::to_value(result).expect("JSON");
        assert!(json(&back) == json(&result), "every figure, to the last bit");
        assert_eq!(
            fs::read_dir(folder.path()).expect("listed").count(),
            1,
            "nothing half written is left"
        );
    }

    #[test]
    fn a_folder_with_a_run_is_refused_and_by_force_emptied_of_that_run_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path();
        for name in [RUN_JSON, "verify.json", "notes.txt"] {
            fs::write(path.join(name), "old").expect("written");
        }
        let refused = RunFolder::create(path, false).expect_err("taken").to_string();
        assert!(
            refused.contains("--force") && refused.contains(RUN_JSON),
            "{refused}"
        );
        RunFolder::create(path, true).expect("by force");
        assert!(!path.join(RUN_JSON).exists() && !path.join("verify.json").exists());
        assert!(path.join("notes.txt").exists(), "not ours");
    }

    #[test]
    fn another_schema_is_refused_by_name_before_its_fields_are_looked_at() {
        let error = parse_result(
            Path::new("run.json"),
            br#"{"schema":"harborseal-loadgen/run/9","valid":7}"#,
        );
        let error = error.expect_err("unknown").to_string();
        assert!(error.contains("run/9") && error.contains(SCHEMA), "{error}");
    }

    #[test]
    fn a_file_that_is_no_result_is_named_with_line_and_column() {
        let text = format!("{{\"schema\":\"{SCHEMA}\",\n \"valid\": 7}}");
        let error = parse_result(Path::new("a/run.json"), text.as_bytes()).expect_err("7 is no truth value");
        assert!(error.to_string().starts_with("a/run.json:2:"), "{error}");
        for bad in ["", "{", "[]", "null", "{\"schema\":1}"] {
            assert!(
                parse_result(Path::new("run.json"), bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn fields_that_came_later_are_not_asked_of_an_older_file() {
        let text = format!("{{\"schema\":\"{SCHEMA}\",\"valid\":true,\"load\":{{\"sent\":5}}}}");
        let result = parse_result(Path::new("run.json"), text.as_bytes()).expect("older");
        assert_eq!((result.valid, result.load.sent), (true, 5));
    }

    #[test]
    fn a_folder_without_a_run_says_how_to_make_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = RunFolder::open(dir.path()).expect_err("empty").to_string();
        assert!(error.contains("run.json") && error.contains("-o"), "{error}");
    }
}
