//! `vectors`: makes the test vectors of the segment format, or checks that they are what they should be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use harborseal_tests::vectors::{self, check::check};

#[derive(Parser)]
#[command(about = "Makes and checks the test vectors of the segment format", long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write all vectors, keys.json and the tables of README.md; what else is in good and bad is removed
    Generate {
        /// The folder; the repository's own unless named
        #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"))]
        dir: PathBuf,
    },
    /// Compare the folder with what would be written, and what the segment crate finds in each vector with its JSON
    Check {
        /// The folder; the repository's own unless named
        #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"))]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let vectors = vectors::all();
    println!("{}", vectors::summary(&vectors));
    match Arguments::parse().command {
        Command::Generate { dir } => match vectors::write(&vectors::files(&vectors), &dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot write {}: {error}", dir.display());
                ExitCode::FAILURE
            }
        },
        Command::Check { dir } => {
            let told: Vec<String> = differing(&vectors::files(&vectors), &dir)
                .into_iter()
                .chain(vectors.iter().flat_map(check))
                .collect();
            told.iter().for_each(|told| println!("{told}"));
            println!("{} disagreements", told.len());
            ExitCode::from(u8::from(!told.is_empty()))
        }
    }
}

fn differing(files: &std::collections::BTreeMap<PathBuf, Vec<u8>>, dir: &Path) -> Vec<String> {
    let differs = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        let same = std::fs::read(dir.join(path)).is_ok_and(|found| found == *bytes);
        (!same).then(|| format!("{}: not what is generated", path.display()))
    };
    files.iter().filter_map(differs).collect()
}
