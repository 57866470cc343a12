//! `ndr` against the engine, whose limit is made known: it knows the cameras of a fleet of seven and no other, so of every
//! larger fleet it stores less than was sent.

use std::process::Command;
use std::time::Duration;

use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Engine, Lab, Outcome, cli};

const KNOWN: u64 = 7;
const PROFILE: &str = "\
name = \"street\"
customers = [\"alice\"]
lateness_budget = \"5s\"
[[group]]
name = \"street\"
count = 7
mbps = 0.3
";

fn loadgen(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(cli::build_folder().join("harborseal-loadgen"));
    command.args(arguments);
    cli::run(command, Duration::from_secs(120))
}

#[test]
fn the_largest_fleet_the_engine_takes_whole_is_found_by_its_lines_and_by_its_segments() {
    let lab = Lab::new();
    let (folder, target) = (lab.path("engine"), lab.address().to_string());
    let profile = lab.path("street.toml");
    std::fs::write(&profile, PROFILE).expect("the laboratory's folder can be written");
    #[rustfmt::skip]
    loadgen(&["profile", "engine-config", text(&profile), "--target", &target, "-o", text(&folder)]).ok();
    // Its lines go to a file, as they do where people keep them.
    let lines = lab.path("engine.jsonl");
    let config = folder.join("engine.toml");
    let shell = format!(
        "exec {} run --log json --config {} >{}",
        cli::binary().display(),
        config.display(),
        lines.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &shell]);
    let _engine = Engine::spawn_command(command);

    let (data, identity) = (folder.join("data"), folder.join("alice.identity"));
    #[rustfmt::skip]
    let outcome = loadgen(&[
        "ndr", text(&profile), "--dim", "streams", "--target", &target, "--json", "-q",
        "--trial", "0.5", "--final", "1", "--min", "6", "--max", "8",
        "--engine-stats", text(&lines), "--segments", text(&data), "--identity", text(&identity),
    ]);
    let result = outcome.json();
    let goal = &result["goals"][0];
    if goal["verdict"] == "generator_limited" {
        // The machine is too busy to send a few packets in time, and nothing else is said.
        assert_eq!(outcome.code, Some(3), "{result}");
        return;
    }
    assert_eq!(outcome.code, Some(0), "{result}\n{}", outcome.stderr);
    assert_eq!(
        (goal["met"]["load"].as_f64(), goal["exceeded"]["load"].as_f64()),
        (Some(KNOWN as f64), Some(KNOWN as f64 + 1.0)),
        "{result}"
    );
}
