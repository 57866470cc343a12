//! Style that matters is a test: which way imports point, where `unsafe` may stand, what must not be left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The most lines a source file may have: beyond it nobody reads it in one sitting.
const MAX_LINES: usize = 600;

/// What stands at the top level, and nothing else (docs/ARCHITECTURE.md).
const TOP_LEVEL: [&str; 14] = [
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bench",
    "config",
    "docs",
    "engine",
    "loadgen",
    "rustfmt.toml",
    "tests",
];

#[test]
fn unsafe_stands_in_one_room_of_the_engine_and_one_of_the_load_generator() {
    let unsafe_code = ["{", "fn ", "impl ", "extern "].map(|next| format!("{} {next}", "unsafe"));
    let lifted = format!("allow({})", "unsafe_code");
    for (path, text) in sources() {
        let a_room = path.starts_with("engine/src/uring") || path == Path::new("loadgen/src/send/uring.rs");
        if a_room {
            continue;
        }
        for (number, line) in code_lines(&text) {
            let found = unsafe_code.iter().find(|word| line.contains(word.as_str()));
            assert!(
                found.is_none(),
                "{}:{number}: unsafe outside engine/src/uring and loadgen/src/send/uring.rs",
                path.display()
            );
            let at_the_door =
                path == Path::new("engine/src/lib.rs") || path == Path::new("engine/src/uring.rs");
            assert!(
                at_the_door || !line.contains(&lifted),
                "{}:{number}: {lifted}",
                path.display()
            );
        }
    }
    assert!(
        read("loadgen/src/lib.rs").contains("#![deny(unsafe_code)]"),
        "the load generator denies unsafe code but in its room"
    );
    let segment = read("engine/segment/src/lib.rs");
    assert!(
        segment.contains("#![forbid(unsafe_code)]"),
        "the segment crate forbids unsafe code"
    );
}

#[test]
fn nothing_is_left_to_do_or_switched_off() {
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let more = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("#[ign", "ore"),
        concat!("assert!(", "true)"),
    ];
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().map(String::as_str).chain(more) {
                assert!(!line.contains(word), "{}:{}: {word}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn no_path_of_one_machine_is_in_the_tree() {
    let folders = ["work", "farm", "root"].map(|name| format!("/{name}/"));
    for path in tracked_files()
        .into_iter()
        .filter(|path| path != Path::new("Cargo.lock"))
    {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for folder in &folders {
                // In the middle of a longer path (`a/work/b`) it is somebody's own folder.
                let alone = |(at, _): (usize, &str)| {
                    line[..at]
                        .chars()
                        .next_back()
                        .is_none_or(|before| "\"' (=`".contains(before))
                };
                let found = line.match_indices(folder.as_str()).any(alone);
                assert!(
                    !found,
                    "{}:{}: {folder} is a path of one machine",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn every_source_file_fits_a_sitting_and_says_what_it_owns() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{}: {lines} lines, at most {MAX_LINES}",
            path.display()
        );
        let opens = text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with("#!"));
        assert!(
            opens.is_some_and(|line| line.starts_with("//!")),
            "{}: a file opens with what it owns (//!)",
            path.display()
        );
    }
}

#[test]
fn nothing_outside_tests_unwraps() {
    for (path, text) in sources() {
        let shipped = path.starts_with("engine") || path.starts_with("loadgen") || path.starts_with("bench");
        if !shipped || path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
        {
            continue;
        }
        let shipped_part = text
            .split("#[cfg(test)]")
            .next()
            .expect("split gives at least one part");
        for (number, line) in code_lines(shipped_part) {
            assert!(
                !line.contains(".unwrap()"),
                "{}:{number}: an `expect` states the invariant that holds",
                path.display()
            );
        }
    }
}

/// A module of the engine uses only modules declared before it: the order of declaration is the order in which a
/// packet meets them, and the file list tells the story.
#[test]
fn imports_point_one_way() {
    let order = modules_in_order("engine/src/lib.rs");
    let uses = |text: &str| -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in code_lines(text) {
            for (at, _) in line.match_indices("crate::") {
                let name: String = line[at + 7..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                found.push((number, name));
            }
        }
        found
    };
    for (path, text) in sources() {
        let Ok(inside) = path.strip_prefix("engine/src") else {
            continue;
        };
        let first = inside.components().next().expect("a file has a name").as_os_str();
        let module = Path::new(first)
            .file_stem()
            .expect("a name")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        let Some(own) = order.iter().position(|name| *name == module) else {
            continue;
        };
        for (number, used) in uses(&text) {
            if let Some(other) = order.iter().position(|name| *name == used) {
                assert!(
                    other <= own,
                    "{}:{number}: `{module}` uses `{used}`, which comes later (engine/src/lib.rs)",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_packages_know_of_each_other_only_what_they_may() {
    let may = [
        ("engine/segment", &[][..]),
        ("loadgen", &["harborseal-segment"][..]),
        ("engine", &["harborseal-segment", "harborseal-loadgen"][..]),
    ];
    let ours = [
        "harborseal",
        "harborseal-segment",
        "harborseal-loadgen",
        "harborseal-bench",
        "harborseal-tests",
    ];
    for (package, allowed) in may {
        let manifest = read(&format!("{package}/Cargo.toml"));
        let mut in_dependencies = false;
        for line in manifest.lines() {
            if let Some(section) = line.strip_prefix('[') {
                in_dependencies = section.contains("dependencies") && !section.contains("dev-dependencies");
            }
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let forbidden = in_dependencies && ours.contains(&name) && !allowed.contains(&name);
            assert!(!forbidden, "{package} must not depend on {name}");
        }
    }
    // The loadgen library is the command line's alone (`demo`): the engine proper never meets it.
    for (path, text) in sources() {
        let inside = path.starts_with("engine/src") && !path.starts_with("engine/src/cli");
        assert!(
            !inside || !text.contains("harborseal_loadgen"),
            "{}: loadgen in the engine",
            path.display()
        );
    }
}

#[test]
fn the_segment_crate_touches_nothing_but_bytes() {
    let worldly = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "Instant::now",
        "SystemTime",
        "getrandom(",
    ];
    for (path, text) in sources() {
        if !path.starts_with("engine/segment/src") {
            continue;
        }
        let shipped_part = text
            .split("#[cfg(test)]")
            .next()
            .expect("split gives at least one part");
        for (number, line) in code_lines(shipped_part) {
            let found = worldly.iter().find(|word| line.contains(**word));
            assert!(
                found.is_none(),
                "{}:{number}: {found:?}: time and bytes are arguments here",
                path.display()
            );
        }
    }
}

#[test]
fn the_top_level_holds_only_what_has_a_place_there() {
    let names: BTreeSet<String> = tracked_files()
        .iter()
        .map(|path| {
            path.components()
                .next()
                .expect("a name")
                .as_os_str()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for name in names {
        assert!(
            TOP_LEVEL.contains(&name.as_str()),
            "{name} has no place at the top level"
        );
    }
}

/// Each promise names the test that shows it, or says "pending"; the name must be that of a test which exists.
#[test]
fn every_promise_names_a_test_that_exists() {
    let promises = read("docs/PROMISES.md");
    let tests: BTreeSet<String> = sources().iter().flat_map(|(_, text)| test_names(text)).collect();
    let mut numbered = 0;
    for row in promises.lines().filter(|line| line.starts_with("| P")) {
        numbered += 1;
        let shown_by = row
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .expect("a last column");
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(
            shown_by.contains("pending") || !names.is_empty(),
            "no test and not pending: {row}"
        );
        for name in names {
            let last = name.rsplit("::").next().expect("a name");
            assert!(tests.contains(last), "there is no test `{name}`: {row}");
        }
    }
    assert!(
        numbered >= 10,
        "only {numbered} promises found: has the table changed its form?"
    );
}

fn test_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut after_attribute = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") {
            after_attribute = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| after_attribute) {
            names.push(rest.split('(').next().expect("a name").to_owned());
            after_attribute = false;
        }
    }
    names
}

/// `mod` lines of a file, in order.
fn modules_in_order(path: &str) -> Vec<String> {
    let text = read(path);
    let declared = text.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    declared.collect()
}

/// Lines that are not comments, numbered from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Every Rust file of the tree but this one, which must name what it forbids.
fn sources() -> Vec<(PathBuf, String)> {
    let files = tracked_files().into_iter();
    let rust = files
        .filter(|path| path.extension().is_some_and(|e| e == "rs") && path != Path::new("tests/tidy.rs"));
    rust.map(|path| (path.clone(), read(path.to_str().expect("UTF-8"))))
        .collect()
}

/// Every file of the tree, but for what is built or belongs to git.
fn tracked_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("a folder of the tree")
            .map(|e| e.expect("an entry"))
        {
            let inside = entry
                .path()
                .strip_prefix(root())
                .expect("inside the tree")
                .to_owned();
            let name = entry.file_name();
            if name == "target" || name == ".git" || ignored_by_git(&inside) {
                continue;
            }
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                _ => files.push(inside),
            }
        }
    }
    files.sort();
    files
}

/// A hidden thing at the top level that is no part of the tree: an editor's, or a tool's.
fn ignored_by_git(inside: &Path) -> bool {
    let name = inside.to_string_lossy();
    inside.components().count() == 1 && name.starts_with('.') && !TOP_LEVEL.contains(&name.as_ref())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ stands in the tree")
        .to_owned()
}
