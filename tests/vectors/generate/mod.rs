//! The test vectors of the segment format: scenarios, each with the files it makes and what a reader must find in them.
//!
//! ```text
//!   good, bad ── scenarios ──▶ forge, tables ──▶ wire, keys      bytes by hand, from docs/FORMAT.md alone
//!                    │
//!                    └──────▶ expect ──▶ NAME.json               from what was put in, and by hand what is wrong
//!   check ── the crate's reader against the files and their JSON
//! ```
//!
//! Nothing here uses the crate's own writer or reader but [`check`], and nothing depends on a clock, on chance or on the machine: the
//! same bytes come out each time. What a bad vector expects is written down in its scenario, never copied from a reader.

pub mod bad;
pub mod check;
pub mod expect;
pub mod forge;
pub mod good;
pub mod kaitai;
pub mod keys;
pub mod tables;
pub mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use expect::{Release, Vector, hex};
use keys::{NODE, OTHER_NODE, PEOPLE};

/// Everything under the heading is made from the vectors.
const TABLE_HEADING: &str = "## Which vectors show which rule\n";
const README: &str = include_str!("../README.md");

/// All vectors, good ones first.
pub fn all() -> Vec<Vector> {
    let vectors = good::all().into_iter().chain(bad::all());
    vectors.map(Vector::named).collect()
}

/// The files of the folder, by their path in it.
pub fn files(vectors: &[Vector]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::from([
        (PathBuf::from("README.md"), readme(vectors).into_bytes()),
        (PathBuf::from("keys.json"), pretty(&keys_json(vectors))),
    ]);
    for vector in vectors {
        let kind = Path::new(if vector.good { "good" } else { "bad" });
        for (file, bytes) in vector.files.iter().zip(&vector.bytes) {
            files.insert(kind.join(file), bytes.clone());
        }
        files.insert(PathBuf::from(format!("{}.json", vector.name)), pretty(vector));
    }
    files
}

/// Writes them all. What else is in `good` and `bad` is of vectors that there are no more, and goes.
pub fn write(files: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path) -> io::Result<()> {
    for kind in ["good", "bad"] {
        match fs::remove_dir_all(folder.join(kind)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for (path, bytes) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("strings and numbers can be written");
    text.push(b'\n');
    text
}

#[derive(serde::Serialize)]
struct Keys {
    identities: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    nodes: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    releases: Vec<Release>,
}

fn keys_json(vectors: &[Vector]) -> Keys {
    let identity = |person: &keys::Person| {
        let texts = [("public", person.public_text()), ("secret", person.secret_text())];
        (person.name, BTreeMap::from(texts))
    };
    let node = |node: &keys::Node| {
        let texts = [
            ("id", &node.id()[..]),
            ("key", &node.key()),
            ("seed", &node.seed()),
        ];
        (node.0, texts.map(|(name, bytes)| (name, hex(bytes))).into())
    };
    Keys {
        identities: PEOPLE.iter().map(identity).collect(),
        nodes: [NODE, OTHER_NODE].iter().map(node).collect(),
        releases: vectors.iter().flat_map(|vector| vector.given.clone()).collect(),
    }
}

/// The README with its table made anew.
fn readme(vectors: &[Vector]) -> String {
    let (text, _) = README
        .split_once(TABLE_HEADING)
        .expect("the README has the table's heading");
    let mut musts: BTreeMap<u32, [Vec<String>; 2]> = BTreeMap::new();
    for vector in vectors {
        for must in &vector.musts {
            let number = must[1..].parse().expect("a rule is M and a number");
            let link = format!("[{0}]({0}.json)", vector.name);
            musts.entry(number).or_default()[usize::from(!vector.good)].push(link);
        }
    }
    let mut table = String::from("\n| rule | good | bad |\n|---|---|---|\n");
    for (number, [good, bad]) in musts {
        table.push_str(&format!(
            "| M{number} | {} | {} |\n",
            good.join(" · "),
            bad.join(" · ")
        ));
    }
    let (good, bad): (Vec<_>, Vec<_>) = vectors.iter().partition(|vector| vector.good);
    for (kind, vectors) in [("good", good), ("bad", bad)] {
        table.push_str(&format!("\n## The {} {kind} vectors\n\n", vectors.len()));
        for vector in vectors {
            let told = vector.error.as_ref().map(|error| match &error.cause {
                Some(cause) => format!(" — `{}`, {cause}, at {}", error.class, error.offset),
                None => format!(" — `{}` at {}", error.class, error.offset),
            });
            let line = format!(
                "- `{}`: {}{}\n",
                vector.name,
                vector.about,
                told.unwrap_or_default()
            );
            table.push_str(&line);
        }
    }
    format!("{text}{TABLE_HEADING}{table}")
}

/// One line on how many there are, for whoever generated or checked them.
pub fn summary(vectors: &[Vector]) -> String {
    let good = vectors.iter().filter(|vector| vector.good).count();
    let bytes: usize = vectors
        .iter()
        .flat_map(|vector| &vector.bytes)
        .map(Vec::len)
        .sum();
    json!({ "good": good, "bad": vectors.len() - good, "bytes": bytes }).to_string()
}
