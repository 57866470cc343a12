//! The readers that share no code with the engine: Python's (tests/vectors/reader) and Kaitai Struct's (docs/segment.ksy).
//! `tests/run` installs what they need below `target/readers`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::cli::{self, Outcome};
use super::root;

/// Far more than any of them needs for what a test gives it.
const BOUND: Duration = Duration::from_secs(300);

/// Both readers, installed.
pub struct Readers {
    folder: PathBuf,
    vectors: PathBuf,
}

impl Readers {
    /// Lists the test as skipped where `tests/vectors/install` has not been run.
    pub fn or_skip(test: &str) -> Option<Readers> {
        let target = cli::binary();
        let target = target.ancestors().nth(2).expect("target/<profile>/harborseal");
        let readers = Readers {
            folder: target.join("readers"),
            vectors: Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"),
        };
        if readers.folder.join("node.stamp").is_file() && readers.folder.join("python.stamp").is_file() {
            return Some(readers);
        }
        let reason = format!(
            "tests/vectors/install {} has not been run",
            readers.folder.display()
        );
        root::skip(test, &reason);
        None
    }

    /// `python3 -m reader COMMAND OPTIONS FILES`.
    #[track_caller]
    pub fn python(&self, command: &str, options: &[&str], files: &[String]) -> Outcome {
        let mut python = Command::new(self.folder.join("python/bin/python"));
        python.args(["-m", "reader", command]).args(options).args(files);
        // Nothing is written into the tree.
        python
            .current_dir(&self.vectors)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        cli::run(python, BOUND)
    }

    /// `node agree.mjs segment.ksy COMMAND FILES`.
    #[track_caller]
    pub fn kaitai(&self, command: &str, files: &[String]) -> Outcome {
        let mut node = Command::new("node");
        node.arg(self.vectors.join("kaitai/agree.mjs"));
        node.arg(self.vectors.join("../../docs/segment.ksy"));
        node.arg(command)
            .args(files)
            .env("HARBORSEAL_NODE_MODULES", &self.folder);
        cli::run(node, BOUND)
    }

    /// What Kaitai Struct sees of each file; an object with `refused` for one that its description excludes.
    #[track_caller]
    pub fn kaitai_structure(&self, files: &[String]) -> Vec<Value> {
        let said = self.kaitai("structure", files).ok();
        serde_json::from_str(&said.stdout).expect("agree.mjs prints a JSON array")
    }

    /// The folder of the vectors.
    pub fn vectors(&self) -> &Path {
        &self.vectors
    }
}
