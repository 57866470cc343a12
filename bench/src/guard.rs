//! The guard against creeping cost: instructions of each stage, counted by valgrind, beside a baseline that is checked in.
//!
//! The same compiler makes the same instructions, so a count that grew has a cause in the code (or in a dependency). Another compiler does
//! not: then the commit that the baseline is of is built with this one, and its counts are what is compared with. Whoever moves
//! the baseline writes into it why. Sealing is counted and not judged: valgrind knows no VAES.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::parts::{Append, BURSTS, Shape};

/// From here on a stage has become too expensive.
const TOO_MUCH_PERCENT: u64 = 5;
/// Where the baseline is, below the repository's root.
pub const BASELINE: &str = "bench/baseline.json";
/// How the baseline is moved.
pub const HOW_TO_UPDATE: &str = "target/release/harborseal-bench guard --update \"why\"";

/// Instructions by stage, as the bench names them: `parse video`.
pub type Counts = BTreeMap<String, u64>;

/// What is checked in.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Why the counts are what they are.
    pub reason: String,
    /// As `rustc --version` says.
    pub rustc: String,
    /// What was counted.
    pub commit: String,
    pub stages: BTreeMap<String, Stage>,
}

/// One stage of the baseline.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    pub instructions: u64,
    /// Over so many packets.
    pub packets: u64,
    pub per_packet: f64,
}

/// Packets in one count of a stage, and whether it is judged.
fn stage(name: &str) -> Option<(u64, bool)> {
    let bursts = u64::from(BURSTS);
    let of_path = |shape: Shape| (bursts * u64::from(shape.burst), true);
    Some(match name {
        "parse video" | "admit video" | "pack video" => of_path(Shape::VIDEO),
        "parse audio" | "admit audio" | "pack audio" => of_path(Shape::AUDIO),
        "append chunks" => (u64::from(Append::CHUNKS), true),
        "seal chunk" => (1, false),
        _ => return None,
    })
}

impl Baseline {
    /// Parses one and refuses what does not say why it is so.
    pub fn parse(text: &str) -> anyhow::Result<Baseline> {
        let baseline: Baseline =
            serde_json::from_str(text).with_context(|| format!("{BASELINE} is not as it was written"))?;
        ensure!(
            !baseline.reason.trim().is_empty(),
            "{BASELINE} does not say why its counts are what they are; write one by {HOW_TO_UPDATE}"
        );
        Ok(baseline)
    }

    pub fn read(root: &Path) -> anyhow::Result<Baseline> {
        let path = root.join(BASELINE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Baseline::parse(&text)
    }

    fn new(reason: &str, rustc: String, commit: String, counts: &Counts) -> anyhow::Result<Baseline> {
        ensure!(!reason.trim().is_empty(), "a new baseline needs a reason");
        let of_stage = |(name, &instructions): (&String, &u64)| {
            let (packets, _) = stage(name).with_context(|| format!("no stage is called {name}"))?;
            let per_packet = (instructions as f64 / packets as f64 * 10.0).round() / 10.0;
            Ok((
                name.clone(),
                Stage {
                    instructions,
                    packets,
                    per_packet,
                },
            ))
        };
        Ok(Baseline {
            reason: reason.trim().to_owned(),
            rustc,
            commit,
            stages: counts.iter().map(of_stage).collect::<anyhow::Result<_>>()?,
        })
    }

    pub fn counts(&self) -> Counts {
        let stages = self.stages.iter();
        stages
            .map(|(name, stage)| (name.clone(), stage.instructions))
            .collect()
    }
}

/// What is wrong with `now` beside `before`, a line for each stage; nothing if all is well.
pub fn judge(before: &Counts, now: &Counts) -> Vec<String> {
    let judged = |name: &&String| stage(name).is_none_or(|(_, judged)| judged);
    let mut wrong = Vec::new();
    for name in now.keys().filter(judged) {
        let Some(&was) = before.get(name) else {
            wrong.push(format!("{name}: not in {BASELINE}"));
            continue;
        };
        let is = now[name];
        if is.saturating_mul(100) >= was.saturating_mul(100 + TOO_MUCH_PERCENT) {
            let percent = (is as f64 / was.max(1) as f64 - 1.0) * 100.0;
            let (packets, _) = stage(name).unwrap_or((1, true));
            wrong.push(format!(
                "{name}: {is} instructions, {was} before: {percent:+.1} % ({:.1} per packet, {:.1} before)",
                is as f64 / packets as f64,
                was as f64 / packets as f64
            ));
        }
    }
    let gone = before
        .keys()
        .filter(judged)
        .filter(|name| !now.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name}: in {BASELINE}, and not counted any more")));
    wrong
}

/// The counts in what the bench prints: a line with the stage's name, and below it one with its instructions.
pub fn parse(printed: &str) -> Counts {
    let mut counts = Counts::new();
    let mut name = None;
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(path), Some(case)) if path.starts_with("instructions::") => {
                let stage = path.rsplit("::").next().unwrap_or(path);
                let case = case.split(':').next().unwrap_or(case);
                name = Some(format!("{stage} {case}"));
            }
            (Some("Instructions:"), Some(count)) => {
                let count = count.split('|').next().and_then(|count| count.parse().ok());
                if let (Some(name), Some(count)) = (name.take(), count) {
                    counts.insert(name, count);
                }
            }
            _ => {}
        }
    }
    counts
}

/// Where and with what is counted.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The repository.
    pub root: PathBuf,
    /// Its `target` folder.
    pub target: PathBuf,
}

impl Tools {
    /// Counts the instructions of the code in `root`.
    pub fn count(&self) -> anyhow::Result<Counts> {
        self.count_in(&self.root, &self.target)
    }

    /// What `now` is to be compared with: the baseline's own counts, or, under another compiler, those of its commit. An error says why there
    /// is nothing to compare with.
    pub fn before(&self, baseline: &Baseline) -> anyhow::Result<Counts> {
        let rustc = rustc()?;
        if rustc == baseline.rustc {
            return Ok(baseline.counts());
        }
        let commit = &baseline.commit;
        self.git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).with_context(|| {
            format!(
                "{BASELINE} is of {}, this is {rustc}, and its commit {commit} is not here to be built with it; \
                 get it by `git fetch --unshallow`, or move the baseline: {HOW_TO_UPDATE}",
                baseline.rustc
            )
        })?;
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let tree = folder.path().join("baseline");
        let path = tree.display().to_string();
        self.git(&["worktree", "add", "--quiet", "--detach", &path, commit])?;
        // Apart from this commit's own: it would be that commit's programs that the tests find. Kept, so that it is built once.
        let counts = self.count_in(&tree, &self.target.join("baseline"));
        self.git(&["worktree", "remove", "--force", &path])?;
        counts.with_context(|| format!("the baseline's commit {commit} does not build with {rustc}"))
    }

    /// Writes a new baseline of what is committed.
    pub fn update(&self, reason: &str, counts: &Counts) -> anyhow::Result<Baseline> {
        let changed = self.git(&["status", "--porcelain", "--untracked-files=no"])?;
        let changed: Vec<&str> = changed.lines().filter(|line| !line.ends_with(BASELINE)).collect();
        ensure!(
            changed.is_empty(),
            "commit what is changed first: the baseline names the commit that was counted ({})",
            changed.join(", ")
        );
        let commit = self.git(&["rev-parse", "HEAD"])?;
        let baseline = Baseline::new(reason, rustc()?, commit.trim().to_owned(), counts)?;
        let text = serde_json::to_string_pretty(&baseline).context("making JSON")? + "\n";
        let path = self.root.join(BASELINE);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(baseline)
    }

    fn count_in(&self, root: &Path, target: &Path) -> anyhow::Result<Counts> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The whole workspace, though one package has benches: then nothing is built with other features than the tests are.
        command.args(["bench", "--locked", "--workspace", "--bench", "instructions"]);
        command.current_dir(root).env("CARGO_TARGET_DIR", target);
        command.env("PATH", self.path()?).env("CARGO_TERM_COLOR", "never");
        let output = run(command, "cargo bench")?;
        let counts = parse(&String::from_utf8_lossy(&output.stdout));
        ensure!(!counts.is_empty(), "the bench printed no counts");
        Ok(counts)
    }

    /// PATH with the folder in which tests/run puts the runner.
    fn path(&self) -> anyhow::Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let tools = std::iter::once(self.target.join("tools/bin"));
        std::env::join_paths(tools.chain(std::env::split_paths(&path))).context("PATH")
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.root).args(arguments);
        let output = run(command, "git")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The compiler, as it names itself.
pub fn rustc() -> anyhow::Result<String> {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.arg("--version");
    let output = run(command, "rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(mut command: Command, name: &str) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
instructions::path::parse video:Shape :: VIDEO
  Instructions:                      131530|N/A                  (*********)
  L1 Hits:                            96478|N/A                  (*********)
instructions::path::append chunks
  Instructions:                     2047649|2000000              (+2.38245%) [+1.02382x]
instructions::sealing::seal chunk:16, Backend :: ALL[0]
  Instructions:                      207839|N/A                  (*********)
";

    #[test]
    fn counts_are_found_in_what_the_bench_prints() {
        let counts = parse(PRINTED);
        let expected = [
            ("append chunks", 2_047_649),
            ("parse video", 131_530),
            ("seal chunk", 207_839),
        ];
        assert_eq!(
            counts,
            expected.map(|(name, count)| (name.to_owned(), count)).into()
        );
    }

    #[test]
    fn five_percent_more_is_too_much_and_sealing_is_not_judged() {
        let of = |count| {
            Counts::from([
                ("parse video".to_owned(), count),
                ("seal chunk".to_owned(), count),
            ])
        };
        assert!(judge(&of(100_000), &of(104_999)).is_empty());
        assert!(judge(&of(100_000), &of(50_000)).is_empty());
        assert_eq!(
            judge(&of(100_000), &of(106_000)),
            ["parse video: 106000 instructions, 100000 before: +6.0 % (106.0 per packet, 100.0 before)"]
        );
        assert_eq!(judge(&of(100_000), &of(105_000)).len(), 1);
    }

    #[test]
    fn a_stage_that_comes_or_goes_is_told() {
        let (none, one) = (Counts::new(), Counts::from([("pack audio".to_owned(), 1)]));
        assert_eq!(judge(&none, &one), ["pack audio: not in bench/baseline.json"]);
        assert_eq!(judge(&one, &none).len(), 1);
    }

    #[test]
    fn a_baseline_without_a_reason_is_refused() {
        let counts = parse(PRINTED);
        let baseline = Baseline::new("first", "rustc 1".into(), "abc".into(), &counts).expect("it has one");
        assert_eq!(baseline.counts(), counts);
        let text = serde_json::to_string(&baseline).expect("JSON");
        assert_eq!(Baseline::parse(&text).expect("as written"), baseline);
        for reason in ["\"\"", "\"  \""] {
            let error = Baseline::parse(&text.replace("\"first\"", reason)).expect_err("no reason");
            assert!(error.to_string().contains("does not say why"), "{error}");
        }
        assert!(Baseline::parse(&text.replace("\"reason\":\"first\",", "")).is_err());
        assert!(Baseline::new(" ", "rustc 1".into(), "abc".into(), &counts).is_err());
    }
}
