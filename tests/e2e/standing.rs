//! Standing grants: a node adds a key for somebody else to the segments of a time, because the customer signed for it, and to no other.

use std::path::Path;
use std::time::{Duration, SystemTime};

use harborseal_tests::harness::cli::{Outcome, files_under};
use harborseal_tests::harness::packets::{read_rtpdump, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"32MiB\"");
    lab.customer("alice");
    lab.customer("carol");
    lab.camera(Camera::new("front-door", "alice", 1).ssrcs(&[1, 3]));
    lab.camera(Camera::new("back-door", "alice", 2));
    lab
}

fn grant(lab: &Lab, identity: &str, times: (SystemTime, SystemTime), to_key: &str, more: &[&str]) -> Outcome {
    let (identity, out) = (lab.identity(identity), lab.path("guard.grant"));
    let [from, to] = [times.0, times.1].map(|at| OffsetDateTime::from(at).format(&Rfc3339).expect("formats"));
    let mut arguments = vec![
        "grant",
        "--standing",
        "--identity",
        text(&identity),
        "--from",
        &from,
        "--to",
        &to,
    ];
    arguments.extend(["--to-key", to_key, "--purpose", "guard service", "-o", text(&out)]);
    if !more.contains(&"--camera") {
        arguments.extend(["--camera", "front-door"]);
    }
    harborseal(arguments.iter().chain(more))
}

/// The lab's configuration with the grant in it.
fn with_the_grant(lab: &Lab) {
    let named = lab.config_text().replace(
        "name = \"alice\"\n",
        "name = \"alice\"\ngrants = [\"guard.grant\"]\n",
    );
    std::fs::write(lab.config(), named).expect("written");
}

fn read(lab: &Lab, command: &str, identity: &str, more: &[&str]) -> Outcome {
    let (identity, data) = (lab.identity(identity), lab.data());
    let arguments = [command, "--json", "--identity", text(&identity), text(&data)];
    harborseal(arguments.iter().chain(more))
}

fn exported(lab: &Lab, identity: &str, camera: &str, out: &Path) -> Vec<Vec<u8>> {
    lab.export(identity, camera, out, &[]).ok();
    rtp_only(read_rtpdump(out))
}

#[test]
fn a_standing_grant_opens_one_camera_until_its_end() {
    let lab = lab();
    let bob = lab.identity_made("bob");
    let began = SystemTime::now();
    let seconds = |s: u64| began + Duration::from_secs(s);
    grant(&lab, "alice", (seconds(5), seconds(8)), &bob, &[]).ok();
    with_the_grant(&lab);
    let engine = Engine::start(&lab.config());
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut streams = [1, 2, 3].map(Stream::new);
    let mut inside = Vec::new();
    // Before its time; inside; and when no segment that was made inside is left.
    for (phase, at) in [0, 6, 12].into_iter().enumerate() {
        if let Ok(wait) = seconds(at).duration_since(SystemTime::now()) {
            std::thread::sleep(wait);
        }
        for stream in &mut streams {
            let packets = stream.packets(50);
            sender.send_all(&packets);
            if phase == 1 && stream.ssrc != 2 {
                inside.extend(packets);
            }
        }
    }
    lab.settle_and_stop(engine);

    let listed = read(&lab, "list", "bob", &[]).ok().json();
    let cameras = listed["cameras"].as_array().expect("a list");
    assert_eq!((cameras.len(), &cameras[0]["id"]), (1, &"front-door".into()));
    assert_eq!(
        cameras[0]["streams"].as_array().map(Vec::len),
        Some(2),
        "both of its streams"
    );
    let mut back = exported(&lab, "bob", "front-door", &lab.path("bob.rtpdump"));
    back.sort();
    inside.sort();
    assert!(back == inside, "{} packets of {}", back.len(), inside.len());
    lab.export("bob", "back-door", &lab.path("none.rtpdump"), &[])
        .exits(3);
    let verified = read(&lab, "verify", "bob", &[]).ok().json();
    assert_eq!(verified["opened"]["packets"], 100);
    assert_eq!(
        exported(&lab, "alice", "front-door", &lab.path("alice.rtpdump")).len(),
        300
    );

    // It was entered before, once, and names nobody.
    let entries: Vec<u8> = files_under(&lab.data().join("audit/tile/entries"))
        .iter()
        .flat_map(|path| std::fs::read(path).expect("readable"))
        .collect();
    let entries = String::from_utf8_lossy(&entries).into_owned();
    assert_eq!(entries.matches("\"standing_grant\"").count(), 1, "{entries}");
    assert!(
        !entries.contains("front-door") && !entries.contains("guard"),
        "{entries}"
    );

    // The customer sees it, expects it, and would be alarmed by it otherwise.
    let (enrolment, guard) = (lab.path("alice.enrolment"), lab.path("guard.grant"));
    let expecting = ["--enrolment", text(&enrolment)];
    for command in ["list", "verify"] {
        let alarmed = read(&lab, command, "alice", &expecting).exits(1);
        assert!(
            !alarmed.json()["unexpected_recipients"]
                .as_array()
                .expect("a list")
                .is_empty()
        );
        alarmed.complains_about("ALARM").complains_about("standing grant");
        let expected = [&expecting[..], &["--standing-grant", text(&guard)]].concat();
        read(&lab, command, "alice", &expected).ok();
    }
    let listed = read(&lab, "list", "alice", &[]).ok().json();
    assert_eq!(listed["standing_grants"][0]["camera"], "front-door");
    assert_eq!(listed["recipients"][0]["keys"], 1);
}

#[test]
fn a_node_carries_out_only_what_its_own_customer_signed() {
    let lab = lab();
    let bob = lab.identity_made("bob");
    let times = (SystemTime::now(), SystemTime::now() + Duration::from_secs(3600));
    let refused = |about: &str| {
        with_the_grant(&lab);
        let config = lab.config();
        let told = harborseal(["check", "--config", text(&config)])
            .exits(2)
            .complains_about(about);
        assert!(
            !told.stderr.contains("door"),
            "no camera is named: {}",
            told.stderr
        );
        std::fs::remove_file(lab.path("guard.grant")).expect("there");
    };
    grant(&lab, "carol", times, &bob, &[]).ok();
    refused("another key than this customer's signed it");
    grant(&lab, "alice", times, &bob, &["--camera", "garage"]).ok();
    refused("no camera of the name");
    grant(&lab, "alice", times, &bob, &[]).ok();
    let path = lab.path("guard.grant");
    let whole = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, whole.replace("front-door", "back-door")).expect("written");
    refused("not genuine");

    let (past, long) = (
        times.0 - Duration::from_secs(60),
        times.0 + Duration::from_secs(400 * 86_400),
    );
    grant(&lab, "alice", (past - Duration::from_secs(60), past), &bob, &[])
        .exits(2)
        .complains_about("--to is in the past");
    grant(&lab, "alice", (past, long), &bob, &[])
        .exits(2)
        .complains_about("a year and a day");
    assert!(!path.exists(), "nothing was signed");
}
