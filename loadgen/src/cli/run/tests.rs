//! What `run` takes and refuses, without sending anything.

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    run: RunCommand,
}

fn parse(words: &[&str]) -> RunCommand {
    let words = std::iter::once("run").chain(words.iter().copied());
    Line::try_parse_from(words)
        .map(|line| line.run)
        .expect("well formed")
}

fn refused(words: &[&str]) -> String {
    let Err(Stopped(status, why)) = prepare(&parse(words)).map(|_| ()) else {
        panic!("{words:?} is accepted");
    };
    assert_eq!(status, EXIT_USAGE, "{why}");
    why
}

#[test]
fn short_forms_are_settings_and_every_one_is_a_key_of_profiles() {
    let words = "--cameras 7 --mbps 2.5 --seconds 3 --seed 9 --source 127.0.0.1 --rtcp next --report-interval 2 \
        --pacing line-rate --phase aligned --burst 20";
    let args = parse(&words.split_whitespace().collect::<Vec<_>>());
    let run = prepare(&args).map_err(|Stopped(_, why)| why).expect("it holds");
    assert_eq!(run.settings.len(), 10);
    let plan = &run.plan;
    assert_eq!((plan.cameras.len(), plan.seed, plan.burst_packets), (7, 9, 20));
    assert_eq!((plan.rtcp, plan.report_ns), (Rtcp::Next, 2_000_000_000));
    assert_eq!(plan.source, Some("127.0.0.1".parse().expect("an address")));
    assert!(
        plan.streams.iter().all(|stream| stream.on[0].start == 0),
        "aligned"
    );
    let rate = plan.programs[plan.streams[0].program as usize].bits_per_s();
    assert!((rate / 2.5e6 - 1.0).abs() < 0.01, "{rate}");
}

#[test]
fn the_plain_run_has_the_ssrcs_that_sdp_prints() {
    let args = parse(&["--cameras", "20", "--seed", "4"]);
    let run = prepare(&args).map_err(|Stopped(_, why)| why).expect("it holds");
    let spec = crate::FleetSpec {
        seed: 4,
        ..crate::FleetSpec::new(20, 1.0, 10.0, args.target.clone())
    };
    for (camera, stream) in (0..).zip(&run.plan.streams) {
        assert_eq!(stream.ssrc, spec.ssrc(camera));
    }
    let args = parse(&["--cameras", "3", "--ssrc-base", "500"]);
    let run = prepare(&args).map_err(|Stopped(_, why)| why).expect("it holds");
    let ssrcs: Vec<u32> = run.plan.streams.iter().map(|stream| stream.ssrc).collect();
    assert_eq!(ssrcs, [500, 501, 502]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_sent() {
    for (words, says) in [
        (&["nosuchprofile"][..], "nosuchprofile"),
        (&["-s", "secnds=3"], "seconds"),
        (&["--cameras", "0"], "cameras"),
        (&["--target", "127.0.0.1:0"], "port 0"),
        (&["--assert", "stored_los==0"], "stored_loss"),
        (&["--assert", "stored_loss==0"], "--segments"),
        (&["--engine-stats", "/nowhere/at/all"], "nowhere"),
    ] {
        let why = refused(words);
        assert!(why.contains(says), "{words:?}: {why}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("run.json"), "{}").expect("a temporary file");
    let path = folder.path().to_str().expect("UTF-8");
    assert!(refused(&["-o", path]).contains("--force"));
}
