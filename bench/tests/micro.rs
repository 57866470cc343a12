//! The micro-benchmarks work, in miniature: each part once by criterion, and its instructions counted under valgrind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The version that Cargo.lock has; the runner must be of the same (it speaks a protocol of its own with its library).
fn locked_version() -> String {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.contains("name = \"gungraun\"\n"))
        .unwrap();
    let line = entry
        .lines()
        .find_map(|line| line.strip_prefix("version = \""))
        .unwrap();
    line.trim_end_matches('"').to_owned()
}

fn bench(name: &str, tools: Option<&Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    // The whole workspace, though one package has benches: then nothing is built with other features than the tests are.
    command.args(["bench", "--locked", "--workspace", "--bench", name, "--"]);
    command
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if let Some(tools) = tools {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", tools.display()));
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_part_runs_under_criterion() {
    let output = bench("parts", None, &["--test"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for part in ["parse", "admit", "pack", "seal", "append"] {
        assert!(text.contains(&format!("Testing {part}/")), "{part}: {text}");
    }
}

#[test]
fn every_part_has_its_instructions_counted() {
    let test = "every_part_has_its_instructions_counted";
    let Some(tools) = runner() else {
        return not_run(test, &format!("gungraun-runner {} is not here", locked_version()));
    };
    if Command::new("valgrind").arg("--version").output().is_err() {
        return not_run(test, "valgrind is not here");
    }
    let output = bench("instructions", Some(&tools), &["--save-summary=json"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for part in ["parse", "admit", "pack", "seal", "append"] {
        let names = text.lines().filter(|line| line.contains(&format!("::{part} ")));
        assert!(names.count() > 0, "{part}: {text}");
    }
    assert!(text.contains("Instructions:"), "{text}");
}

/// The folder with the runner of the right version: where tests/run puts it, or anywhere in PATH.
fn runner() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(target.join("tools/bin")).chain(std::env::split_paths(&path));
    folders.into_iter().find(|folder| {
        let version = Command::new(folder.join("gungraun-runner"))
            .arg("--version")
            .output();
        version.is_ok_and(|output| text(&output).contains(&locked_version()))
    })
}

/// As the other packages' tests do: `tests/run` prints the list.
fn not_run(test: &str, reason: &str) {
    let line = format!("not run: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("HARBORSEAL_SKIPS") {
        let list = std::fs::OpenOptions::new().append(true).create(true).open(path);
        std::io::Write::write_all(&mut list.unwrap(), line.as_bytes()).unwrap();
    }
}
