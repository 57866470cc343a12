//! Profiles: what is read, what is refused and how, what becomes of it.

use super::*;
use crate::plan::Plan;
use std::collections::BTreeSet;
use std::time::Instant;

const S: u64 = 1_000_000_000;

fn built_in(name: &str) -> Profile {
    Profile::load(name, &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse("x.toml", text, &[])
}

fn refused(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

fn with(name: &str, settings: &[&str]) -> Result<Profile, ProfileError> {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    Profile::load(name, &settings)
}

fn plan(profile: &Profile) -> Plan {
    let target = "127.0.0.1:5004".parse().expect("an address");
    Plan::from_profile(profile, vec![target]).expect("a plan")
}

#[test]
fn every_built_in_profile_is_valid_named_as_its_file_and_explains_itself() {
    for built_in in BUILTIN {
        let profile = Profile::load(built_in.name, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(profile.name, built_in.name);
        assert!(
            !profile.about.is_empty() && built_in.text.starts_with("# "),
            "{}",
            built_in.name
        );
        assert_eq!(plan(&profile).cameras.len() as u64, profile.cameras());
    }
}

#[test]
fn a_profile_that_is_written_reads_back_the_same() {
    for built_in in BUILTIN {
        let profile = Profile::load(built_in.name, &[]).expect("valid");
        let again = Profile::parse("again.toml", &profile.to_toml(), &[]);
        assert_eq!(again.as_ref(), Ok(&profile), "{}", profile.to_toml());
    }
    let scaled = with(
        "mixed",
        &["total_mbps=777", "streams=333", "warm_up=1ms", "source=127.0.0.1"],
    );
    let scaled = scaled.expect("valid");
    assert_eq!(parse(&scaled.to_toml()), Ok(scaled));
}

#[test]
fn what_is_wrong_is_refused_with_its_line_and_what_would_do() {
    const GROUP: &str = "[[group]]\nname = \"a\"\ncount = 2\n";
    let group = |line: &str| refused(&format!("{GROUP}{line}\n"));
    for (message, parts) in [
        (
            refused("sede = 1\n"),
            &["x.toml:1:", "\"sede\"", "nearest is \"seed\""][..],
        ),
        (
            refused("seed = -1\n"),
            &["x.toml:1:", "seed must be a whole number from 0"],
        ),
        (refused("seed = 1\n"), &["x.toml:1:", "at least one [[group]]"]),
        (
            refused("[[group]]\ncount = 1\n"),
            &["x.toml:1:", "group.name is missing"],
        ),
        (
            refused("[[group]]\nname = \"a\"\n"),
            &["x.toml:1:", "group.a.count is missing"],
        ),
        (
            refused(&format!("{GROUP}{GROUP}")),
            &["x.toml:5:", "another group"],
        ),
        (
            refused(&format!("seconds = \"ten\"\n{GROUP}")),
            &["x.toml:1:", "a time from 1ms", "\"ten\""],
        ),
        (
            refused(&format!("warm_up = 10\n{GROUP}")),
            &["x.toml:1:", "shorter"],
        ),
        (
            refused(&format!("load = {{ shape = \"rump\" }}\n{GROUP}")),
            &["x.toml:1:", "\"ramp\""],
        ),
        (
            refused(&format!("load = {{ shape = \"ramp\", up = 1 }}\n{GROUP}")),
            &["x.toml:1:", "unknown key \"up\""],
        ),
        (
            refused(&format!(
                "load = {{ shape = \"soak\", up = 9, down = 2 }}\n{GROUP}"
            )),
            &["longer than the whole"],
        ),
        (
            refused(&format!("addresses = \"127.0.0.1:5003\"\n{GROUP}")),
            &["x.toml:1:", "even"],
        ),
        (refused("= 1\n"), &["x.toml:1:"]),
        (
            group("mbps = \"2 MB/s\""),
            &["x.toml:4:", "group.a.mbps must be Mb/s from", "2 MB/s"],
        ),
        (group("mbps = 0.02"), &["x.toml:4:", "at least", "frames/s"]),
        (
            group("impair = { los = 1 }"),
            &["x.toml:4:", "nearest is \"loss\"", "group.a.impair"],
        ),
        (group("impair = { loss = 2 }"), &["x.toml:4:", "from 0 to 1"]),
        (group("impair = { reorder_depth = 2 }"), &["x.toml:4:", "reorder"]),
        (
            group("impair = { bursts = { to_bad = 0.1 } }"),
            &["x.toml:4:", "to_good"],
        ),
        (
            group("codec = \"pcmu\"\nmbps = 1"),
            &["x.toml:5:", "leave it out"],
        ),
        (group("codec = \"av1\""), &["x.toml:4:", "\"h264\" or \"h265\""]),
        (group("payload = \"clip\"\nfps = 5"), &["x.toml:5:", "clip's own"]),
        (
            group("customers = [\"bob\"]"),
            &["x.toml:4:", "no customer is called \"bob\""],
        ),
        (
            group("customers = { customer-2 = 1 }"),
            &["x.toml:4:", "nearest is \"customer-1\""],
        ),
        (group("packet_bytes = 1500"), &["x.toml:4:", "128 to 1472"]),
        (
            group("night = { windows = [[2, 1]] }"),
            &["x.toml:4:", "in order"],
        ),
        (group("overdrive = 90\nmbps = 20"), &["overdrive", "1000 Mb/s"]),
        (
            group("junk = { bytes = 3 }"),
            &["x.toml:4:", "per_second is missing"],
        ),
        (group("gop = \"2m\""), &["x.toml:4:", "up to 60 s"]),
        (group("count = 3"), &["x.toml:4:", "duplicate"]),
    ] {
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
}

#[test]
fn a_name_that_is_none_is_refused_with_the_nearest() {
    let message = |name: &str| Profile::load(name, &[]).expect_err("there is none").to_string();
    assert!(message("citty").contains("nearest is \"city\""));
    assert!(message("whatever").contains("noisy-neighbour"));
    assert!(message("./none.toml").contains("cannot be read"));
}

#[test]
fn settings_take_the_place_of_what_the_file_says() {
    let profile = with(
        "mixed",
        &[
            "seconds=5",
            "group.street.count=7",
            "group.*.impair.loss=0.1%",
            "group.doorbell.customers={ city = 2 }",
            "load.shape=ramp",
            "pacing=smooth",
            "seed=9",
        ],
    );
    let profile = profile.expect("valid");
    assert_eq!((profile.duration_ns(), profile.seed), (5 * S, 9));
    assert_eq!(profile.stages[0].share, (0.0, 1.0));
    let group = |name: &str| {
        profile
            .groups
            .iter()
            .find(|group| group.name == name)
            .expect("there")
    };
    assert_eq!(group("street").count, 7);
    assert_eq!(group("street").pacing, Pacing::Smooth);
    assert!(profile.groups.iter().all(|group| group.impair.loss == 0.001));
    assert_eq!(group("doorbell").customers, [(1, 2)]);
    let short = with("city", &["seconds=1"]).expect("the warm-up gives way");
    assert_eq!((short.duration_ns(), short.warm_up_ns), (S, S / 10));
    assert!(with("city", &["seconds=1", "warm_up=2"]).is_err());
    let day = with("day", &["seconds=120", "stage.3.share=0"]).expect("valid");
    assert_eq!((day.duration_ns(), day.stages[2].share), (120 * S, (0.0, 0.0)));
}

#[test]
fn a_setting_that_is_wrong_is_named_with_what_would_do() {
    for (setting, parts) in [
        (
            "group.stret.count=2",
            &["-s group.stret.count=2: ", "nearest is \"street\""][..],
        ),
        (
            "group.street.cuont=2",
            &["-s group.street.cuont=2: ", "nearest is \"count\""],
        ),
        (
            "group.street.count=many",
            &["-s group.street.count=many: ", "whole number", "\"many\""],
        ),
        ("group.street=2", &["group.street.count=200"]),
        ("stage.1.share=1", &["no [[stage]]"]),
        ("secnods=2", &["nearest is \"seconds\""]),
        ("seconds", &["key=value"]),
        ("=2", &["key is missing"]),
        ("seconds.x=2", &["no parts"]),
        ("cameras=0", &["above 0"]),
        ("cameras=2000000", &["1000000 can"]),
        ("total_mbps=1", &["audio alone"]),
        ("mbps=800", &["group.", "1000 Mb/s"]),
    ] {
        let message = with("mixed", &[setting])
            .expect_err("must be refused")
            .to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
    assert!(
        with("small", &["pps=5"])
            .expect_err("audio")
            .to_string()
            .contains("scale cameras or streams")
    );
}

#[test]
fn a_fleet_scales_along_each_dimension_and_keeps_its_proportions() {
    let mixed = built_in("mixed");
    let cameras = mixed.scale(Dimension::Cameras, 100.0).expect("can be");
    let counts: Vec<u32> = cameras.groups.iter().map(|group| group.count).collect();
    assert_eq!(counts, [20, 30, 40, 8, 2, 0]);
    for (dimension, wanted) in [
        (Dimension::Mbps, 500.0),
        (Dimension::Pps, 100_000.0),
        (Dimension::Streams, 2410.0),
    ] {
        let offered = mixed.scale(dimension, wanted).expect("can be").offered();
        let is = match dimension {
            Dimension::Mbps => offered.mbps,
            Dimension::Pps => offered.pps,
            _ => offered.streams as f64,
        };
        assert!(
            (is / wanted - 1.0).abs() < 1e-3,
            "{dimension:?}: wanted {wanted}, is {is}"
        );
    }
    let city = with("city", &["cameras=10", "mbps=4"]).expect("valid");
    assert!((city.offered().mbps - 40.0).abs() < 0.05, "{:?}", city.offered());
}

#[test]
fn a_plan_is_decided_by_its_seed() {
    let (one, same) = (plan(&built_in("tiny")), plan(&built_in("tiny")));
    assert_eq!((&one.cameras, &one.streams), (&same.cameras, &same.streams));
    let other = plan(&with("tiny", &["seed=2"]).expect("valid"));
    assert!(
        one.streams
            .iter()
            .zip(&other.streams)
            .all(|(one, other)| one.ssrc != other.ssrc)
    );
    assert_ne!(one.run, other.run);
}

#[test]
fn cameras_have_streams_owners_ssrcs_and_addresses_of_their_own() {
    let profile = built_in("bad-network");
    let plan = plan(&profile);
    let ssrcs: BTreeSet<u32> = plan.streams.iter().map(|stream| stream.ssrc).collect();
    assert_eq!(ssrcs.len(), plan.streams.len());
    let ids: BTreeSet<&str> = plan.cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(ids.len(), plan.cameras.len());
    let owners: BTreeSet<u32> = plan.cameras.iter().map(|camera| camera.customer).collect();
    assert_eq!(owners.len(), 2);
    let mut addresses = BTreeSet::new();
    for camera in &plan.cameras {
        let own = profile.groups[camera.group as usize].by_address;
        assert_eq!(camera.address.is_some(), own);
        assert!(camera.address.is_none_or(|address| addresses.insert(address)));
    }
    let audio: Vec<_> = plan
        .streams
        .iter()
        .filter(|stream| stream.media == Media::Pcmu)
        .collect();
    assert_eq!(audio.len(), 8);
    assert!(
        audio
            .iter()
            .all(|stream| (stream.payload_type, stream.clock_rate) == (0, 8_000))
    );
}

/// When a stream's first key frames come after it begins.
fn key_frames(plan: &Plan, stream: usize, count: usize) -> Vec<u64> {
    let stream = &plan.streams[stream];
    let program = &plan.programs[stream.program as usize];
    let begin = &program.entries[stream.entry as usize];
    let keys = program
        .entries
        .iter()
        .filter(|entry| entry.key)
        .map(|entry| entry.at_ns);
    let loops = (0..3).flat_map(|turn| keys.clone().map(move |at| turn * program.loop_ns + at));
    loops
        .filter(|at| *at >= begin.at_ns)
        .map(|at| stream.on[0].start + at - begin.at_ns)
        .take(count)
        .collect()
}

#[test]
fn aligned_cameras_send_all_their_key_frames_at_once() {
    let plan = plan(&with("aligned", &["cameras=40"]).expect("valid"));
    let first = key_frames(&plan, 0, 4);
    assert_eq!(first, [0, 2 * S, 4 * S, 6 * S]);
    assert!((0..40).all(|stream| key_frames(&plan, stream, 4) == first));
}

#[test]
fn random_and_spread_cameras_have_their_key_frames_evenly_over_the_interval() {
    for (name, most) in [("city", 160), ("line-rate", 110)] {
        let plan = plan(&built_in(name));
        let interval = plan.programs[0].key_interval_ns();
        let mut tenths = [0; 10];
        for stream in 0..1000 {
            let key = key_frames(&plan, stream, 1)[0] % interval;
            tenths[(key * 10 / interval) as usize] += 1;
        }
        assert!(
            tenths
                .iter()
                .all(|&count| (200 - most.max(105)..=most).contains(&count)),
            "{name}: {tenths:?}"
        );
    }
}

#[test]
fn the_load_is_there_from_the_first_frame_and_as_large_as_asked() {
    let plan = plan(&built_in("city"));
    assert!(
        plan.streams
            .iter()
            .all(|stream| stream.on[0].start <= S / 25 && stream.on[0].end == 20 * S)
    );
    // Everything due in the second second, by walking each stream's program.
    let mut bytes = 0u64;
    for stream in &plan.streams {
        let program = &plan.programs[stream.program as usize];
        let begin = program.entries[stream.entry as usize].at_ns;
        for burst in &program.bursts {
            let mut due =
                stream.on[0].start + burst.at_ns + if burst.at_ns < begin { program.loop_ns } else { 0 }
                    - begin;
            while due < 2 * S {
                if due >= S {
                    bytes += burst
                        .packets
                        .clone()
                        .map(|packet| program.packet_bytes(packet) as u64)
                        .sum::<u64>();
                }
                due += program.loop_ns;
            }
        }
    }
    let gbps = bytes as f64 * 8e-9;
    assert!((7.8..8.2).contains(&gbps), "{gbps} Gb/s in one second");
}

#[test]
fn ten_thousand_cameras_are_planned_at_once_and_in_little_memory() {
    let profile = with("city", &["cameras=10000"]).expect("valid");
    let before = Instant::now();
    let plan = plan(&profile);
    // Generous: it takes some ten milliseconds, and this machine may be busy.
    assert!(before.elapsed().as_secs() < 2, "{:?}", before.elapsed());
    assert_eq!(plan.streams.len(), 10_000);
    let programs: usize = plan.programs.iter().map(|program| program.memory_bytes()).sum();
    assert!(programs < 1 << 20, "{programs} bytes of programs");
    assert!(profile.offered().memory_bytes < 8 << 20);
}

#[test]
fn a_stage_has_its_share_of_the_cameras_on() {
    let plan = plan(&built_in("day"));
    let on = |at_s: u64| {
        let at = at_s * S + S / 2;
        plan.streams
            .iter()
            .filter(|stream| stream.on.iter().any(|window| window.contains(&at)))
            .count()
    };
    assert_eq!((on(14), on(19), on(24), on(40)), (300, 50, 500, 400));
    let rising = [on(2), on(5), on(8)];
    assert!(rising.is_sorted() && (50..=75).contains(&rising[0]), "{rising:?}");
}

#[test]
fn by_night_a_stream_has_another_program_of_the_same_beat() {
    let plan = plan(&built_in("mixed"));
    let (mut by_night, mut share) = (0, 0.0);
    for stream in plan.streams.iter() {
        let Some((night, windows)) = &stream.night else {
            continue;
        };
        let (day, night) = (
            &plan.programs[stream.program as usize],
            &plan.programs[*night as usize],
        );
        let windows: Vec<(u64, u64)> = windows.iter().map(|window| (window.start, window.end)).collect();
        assert_eq!(windows, [(10 * S, 20 * S)]);
        assert_eq!(day.key_interval_ns(), night.key_interval_ns());
        by_night += 1;
        share += night.bits_per_s() / day.bits_per_s();
    }
    assert_eq!(by_night, 480);
    assert!((share / 480.0 - (400.0 * 0.6 + 80.0 * 0.7) / 480.0).abs() < 1e-3);
}

#[test]
fn without_a_rate_it_follows_from_picture_and_codec() {
    let profile =
        parse("[[group]]\nname = \"a\"\ncount = 1\n[[group]]\nname = \"b\"\ncount = 1\ncodec = \"h265\"\n");
    let profile = profile.expect("valid");
    let rates: Vec<f64> = profile
        .groups
        .iter()
        .filter_map(|group| Some(group.video()?.frames.mbps))
        .collect();
    assert_eq!(rates, [3.63, 2.44]);
}
