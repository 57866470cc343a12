//! The load generator's profiles meet the engine: what `profile engine-config` writes is a configuration that it starts with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harborseal_loadgen::Control;
use harborseal_loadgen::fleet::{RunOptions, run_plan};
use harborseal_loadgen::plan::Plan;
use harborseal_loadgen::profile::{BUILTIN, Profile};
use harborseal_tests::harness::cli::{binary, build_folder, fresh_folder, run};
use harborseal_tests::harness::{Engine, harborseal, net};

/// Writes the engine's folder for a profile.
fn engine_config(profile: &str, settings: &[String], port: u16, dir: &Path) {
    let mut loadgen = Command::new(build_folder().join("harborseal-loadgen"));
    loadgen.args(["profile", "engine-config", profile, "--target"]);
    loadgen.arg(format!("127.0.0.1:{port}"));
    for setting in settings {
        loadgen.args(["-s", setting]);
    }
    loadgen.arg("-o").arg(dir);
    run(loadgen, Duration::from_secs(60)).ok();
}

#[test]
fn the_engine_takes_the_configuration_of_every_built_in_profile() {
    assert!(binary().is_file());
    let folder = fresh_folder();
    for built_in in BUILTIN {
        let profile = Profile::load(built_in.name, &[]).expect("valid");
        let dir = folder.path().join(built_in.name);
        // Two hundred cameras are configured as four thousand are, and small machines can hold them too.
        let cameras = format!("cameras={}", profile.cameras().min(200));
        engine_config(built_in.name, &[cameras], 46004, &dir);
        let config = dir.join("engine.toml");
        let config = config.to_str().expect("a path of ours is text");
        let outcome = harborseal(["check", "--config", config, "--json"]).ok();
        let report = outcome.json();
        assert_eq!(report["ok"], true, "{}: {report}", built_in.name);
        let text = std::fs::read_to_string(config).expect("written");
        assert!(
            text.contains("[[camera]]"),
            "{}: no camera is known",
            built_in.name
        );
    }
}

/// Video, audio and real pictures, known by SSRC and by address: all of it is stored, and nothing of those it does not know.
#[test]
fn the_engine_records_a_fleet_by_the_configuration_written_for_it() {
    let folder = fresh_folder();
    let port = net::free_port_pair();
    let settings = [
        "group.yard.by_address=true",
        "group.hall.customers=[\"bob\"]",
        "group.door.mbps=1",
    ];
    let mut settings: Vec<String> = settings.map(str::to_owned).to_vec();
    engine_config("tiny", &settings, port, folder.path());
    let engine = Engine::start(&folder.path().join("engine.toml"));

    // What is in nobody's configuration: the same fleet, with the halls' cameras unknown and of other numbers.
    let known = Profile::load("tiny", &settings).expect("valid");
    settings.extend(["seed=2", "group.door.count=0", "group.yard.count=0"].map(str::to_owned));
    let strangers = Profile::load("tiny", &settings).expect("valid");
    let target = format!("127.0.0.1:{port}").parse().expect("an address");
    let send = |profile: &Profile| {
        let plan = Plan::from_profile(profile, vec![target]).expect("a plan");
        let result = run_plan(&plan, &RunOptions::default(), &Control::default()).expect("loopback");
        assert_eq!(result.load.not_sent, 0);
        result
            .streams
            .iter()
            .map(|stream| stream.sent + stream.rtcp_sent)
            .sum::<u64>()
    };
    let (sent, strange) = (send(&known), send(&strangers));
    net::wait_until_taken(port);
    let end = engine.stop();
    assert!(sent > 1000 && strange > 100, "{sent} and {strange}");
    assert_eq!(end["stored"], sent, "{end:#}");
    assert_eq!(end["dropped"]["unknown_ssrc"], strange, "{end:#}");
}
