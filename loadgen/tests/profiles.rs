//! Every built-in profile can be sent, and what comes due is what it offers.

use harborseal_loadgen::Control;
use harborseal_loadgen::fleet::{RunOptions, run_plan};
use harborseal_loadgen::plan::Plan;
use harborseal_loadgen::profile::{BUILTIN, Profile};
use std::net::UdpSocket;

#[test]
fn what_comes_due_of_every_built_in_profile_is_what_it_offers() {
    let sink = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let target = sink.local_addr().expect("bound");
    for built_in in BUILTIN {
        let whole = Profile::load(built_in.name, &[]).expect("valid");
        // So many that every group keeps a camera, and seconds enough for two groups of pictures.
        let settings = [
            format!("cameras={}", whole.cameras().min(300)),
            "seconds=4".to_owned(),
        ];
        let profile = Profile::load(built_in.name, &settings).expect("valid");
        let plan = Plan::from_profile(&profile, vec![target]).expect("a plan");
        // Unpaced: the same packets, as fast as they go.
        let options = RunOptions {
            paced: false,
            ..RunOptions::default()
        };
        let result = run_plan(&plan, &options, &Control::default()).expect("sockets on loopback");
        let intended: u64 = result.streams.iter().map(|stream| stream.intended).sum();
        let shares = profile.stages.iter().map(|stage| {
            let seconds = (stage.to_ns - stage.from_ns) as f64 / 1e9;
            seconds * (stage.share.0 + stage.share.1) / 2.0
        });
        let offered = profile.offered().pps * shares.sum::<f64>();
        // Frames differ, a four-second part of a ten-second group of pictures holds one key frame or none, and the clip
        // begins at key frames only.
        let ratio = intended as f64 / offered;
        assert!(
            (0.8..1.1).contains(&ratio),
            "{}: {intended} of {offered:.0}",
            built_in.name
        );
        assert!(
            result
                .streams
                .iter()
                .filter(|stream| stream.intended == 0)
                .count()
                < 20,
            "{}",
            built_in.name
        );
    }
}
