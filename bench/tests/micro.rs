//! The micro-benchmarks work, in miniature: each part once by criterion; and its instructions, counted under valgrind, are held to their
//! baseline.

use std::path::Path;
use std::process::{Command, Output};

use harborseal_bench::guard::{Baseline, HOW_TO_UPDATE, Tools, judge};

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

fn bench(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    // The whole workspace, though one package has benches: then nothing is built with other features than the tests are.
    command.args(["bench", "--locked", "--workspace", "--bench", name, "--"]);
    command
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_part_runs_under_criterion() {
    let output = bench("parts", &["--test"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for part in ["parse", "admit", "pack", "seal", "append"] {
        assert!(text.contains(&format!("Testing {part}/")), "{part}: {text}");
    }
}

#[test]
fn no_stage_needs_five_percent_more_instructions_than_its_baseline() {
    let test = "no_stage_needs_five_percent_more_instructions_than_its_baseline";
    if !has_runner() {
        return not_run(test, &format!("gungraun-runner {} is not here", locked_version()));
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return not_run(test, "valgrind is not here");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .to_owned();
    let tools = Tools {
        root: root.clone(),
        target,
    };
    let now = tools.count().unwrap();
    for part in [
        "parse video",
        "admit audio",
        "pack video",
        "append chunks",
        "seal chunk",
    ] {
        assert!(now.contains_key(part), "{part}: {now:?}");
    }
    // It would be seen: a baseline that is 6 % lower than what was counted.
    let lower = now.iter().map(|(name, count)| (name.clone(), count * 100 / 106));
    let seen = judge(&lower.collect(), &now);
    let judged: Vec<_> = now.iter().filter(|(name, _)| !name.starts_with("seal")).collect();
    assert_eq!(seen.len(), judged.len(), "{seen:?}");
    for (line, (name, count)) in seen.iter().zip(judged) {
        let told = line.starts_with(&format!("{name}: {count} instructions")) && line.contains("+6.0 %");
        assert!(told, "{line}");
    }
    match tools.before(&Baseline::read(&root).unwrap()) {
        Err(why) => not_run(test, &format!("{why:#}")),
        Ok(before) => {
            let wrong = judge(&before, &now);
            assert!(
                wrong.is_empty(),
                "{}\nif it has to be so: commit, then {HOW_TO_UPDATE}",
                wrong.join("\n")
            );
        }
    }
}

/// Whether the runner of the right version is where tests/run puts it, or anywhere in PATH.
fn has_runner() -> bool {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(target.join("tools/bin")).chain(std::env::split_paths(&path));
    folders.any(|folder| {
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
