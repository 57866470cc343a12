//! The load generator's profiles meet the engine: what `profile engine-config` writes is a configuration that it starts with.

use std::process::Command;
use std::time::Duration;

use harborseal_loadgen::profile::{BUILTIN, Profile};
use harborseal_tests::harness::cli::{binary, build_folder, fresh_folder, run};
use harborseal_tests::harness::harborseal;

#[test]
fn the_engine_takes_the_configuration_of_every_built_in_profile() {
    assert!(binary().is_file());
    let folder = fresh_folder();
    for built_in in BUILTIN {
        let profile = Profile::load(built_in.name, &[]).expect("valid");
        let dir = folder.path().join(built_in.name);
        // Two hundred cameras are configured as four thousand are, and small machines can hold them too.
        let cameras = format!("cameras={}", profile.cameras().min(200));
        let mut loadgen = Command::new(build_folder().join("harborseal-loadgen"));
        loadgen.args([
            "profile",
            "engine-config",
            built_in.name,
            "--target",
            "127.0.0.1:46004",
            "-s",
            &cameras,
        ]);
        loadgen.arg("-o").arg(&dir);
        run(loadgen, Duration::from_secs(60)).ok();
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
