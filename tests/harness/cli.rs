//! The binary as a user calls it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The `harborseal` that was built with the tests: it stands beside them.
pub fn binary() -> PathBuf {
    let path = build_folder().join("harborseal");
    assert!(
        path.is_file(),
        "{} is missing: run tests/run, or build the whole workspace first (cargo build --workspace)",
        path.display()
    );
    path
}

/// `target/<profile>`, where this test was built.
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    test.ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>")
        .to_owned()
}

/// A fresh folder on the disk that holds the build: `/tmp` may be memory, where `O_DIRECT` means nothing.
pub fn fresh_folder() -> tempfile::TempDir {
    let parent = build_folder().join("tmp");
    std::fs::create_dir_all(&parent).expect("the build folder can be written");
    tempfile::Builder::new()
        .prefix("lab")
        .tempdir_in(parent)
        .expect("a folder can be made")
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status, or `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Outcome {
        self.exits(0)
    }

    /// Asserts the exit status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Outcome {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// The one object that `--json` promises on the last line of stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(last).unwrap_or_else(|error| {
            panic!(
                "the last line of stdout is no JSON ({error}): {last:?}\nstderr:\n{}",
                self.stderr
            )
        });
        assert!(value.is_object(), "the last line of stdout is no object: {last}");
        value
    }

    /// Asserts what every failure owes its user: words on stderr that are about the matter, and no panic.
    #[track_caller]
    pub fn complains_about(self, word: &str) -> Outcome {
        let said = &self.stderr;
        assert!(!said.contains("panicked"), "it panicked:\n{said}");
        assert!(!said.contains("RUST_BACKTRACE"), "it panicked:\n{said}");
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "nothing about {word:?} in:\n{said}"
        );
        self
    }
}

/// Runs `harborseal` with these arguments to its end; two minutes are its bound.
#[track_caller]
pub fn harborseal<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = Command::new(binary());
    command.args(arguments);
    run(command, Duration::from_secs(120))
}

/// Runs a command to its end with nothing on its stdin; kills it, and fails, when `bound` is over.
#[track_caller]
pub fn run(mut command: Command, bound: Duration) -> Outcome {
    let shown = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let status = wait(&mut child, bound);
    let outcome = Outcome {
        code: status.and_then(|s| s.code()),
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    };
    assert!(
        status.is_some(),
        "{shown} did not end within {bound:?}: {outcome:#?}"
    );
    outcome
}

fn drain(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of `child`; kills it and says `None` when `bound` is over.
pub fn wait(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() > until {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every file under `folder`, links not followed.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A file may go while it is listed: retention and temporary names are part of life.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
