//! Grants: somebody else sees one camera for a bounded time, because its customer said so, and nothing beyond that.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use harborseal_tests::harness::cli::Outcome;
use harborseal_tests::harness::packets::{read_rtpdump, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Two cameras of Alice's that sent three times, in segments of a second: before, inside and after the time that is granted.
struct Recorded {
    lab: Lab,
    bob: String,
    /// What the front door sent inside.
    inside: Vec<Vec<u8>>,
    from: String,
    to: String,
}

fn now() -> String {
    OffsetDateTime::from(SystemTime::now())
        .format(&Rfc3339)
        .expect("the year has four digits")
}

fn recorded() -> Recorded {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"32MiB\"");
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab.camera(Camera::new("back-door", "alice", 2));
    let bob = lab.identity_made("bob");
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let (mut front, mut back) = (Stream::new(1), Stream::new(2));
    let mut marks = Vec::new();
    let mut sent = Vec::new();
    for _ in 0..3 {
        let packets = front.packets(100);
        sender.send_all(&packets);
        sender.send_all(&back.packets(100));
        sent.push(packets);
        // Segments last a second, and the next one is ready by then.
        std::thread::sleep(Duration::from_millis(2500));
        marks.push(now());
    }
    lab.settle_and_stop(engine);
    Recorded {
        lab,
        bob,
        inside: sent.swap_remove(1),
        from: marks[0].clone(),
        to: marks[1].clone(),
    }
}

impl Recorded {
    fn grant(&self, more: &[&str], out: &Path) -> Outcome {
        self.grant_of(&self.lab.data(), more, out)
    }

    fn grant_of(&self, data: &Path, more: &[&str], out: &Path) -> Outcome {
        let alice = self.lab.identity("alice");
        let mut arguments = vec![
            "grant",
            "--identity",
            text(&alice),
            "--from",
            &self.from,
            "--to",
            &self.to,
        ];
        arguments.extend([
            "--to-key",
            &self.bob,
            "--purpose",
            "theft",
            "-o",
            text(out),
            text(data),
        ]);
        if !more.contains(&"--camera") {
            arguments.extend(["--camera", "front-door"]);
        }
        harborseal(arguments.iter().chain(more))
    }

    fn export(&self, identity: &str, grant: &Path, more: &[&str], out: &Path) -> Outcome {
        let (identity, data) = (self.lab.identity(identity), self.lab.data());
        let arguments = [
            "export",
            "--identity",
            text(&identity),
            "--grant",
            text(grant),
            "-o",
            text(out),
            text(&data),
        ];
        harborseal(arguments.iter().chain(more))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }
}

fn nanoseconds(value: &serde_json::Value) -> i128 {
    let instant = OffsetDateTime::parse(value.as_str().expect("text"), &Rfc3339).expect("RFC 3339");
    instant.unix_timestamp_nanos()
}

#[test]
fn a_grant_opens_one_camera_of_one_time_for_one_identity() {
    let recorded = recorded();
    let (grant, out) = (recorded.path("front-door.grant"), recorded.path("out.rtpdump"));
    let made = recorded.grant(&["--json"], &grant).ok();
    let told = made.json();
    assert!(made.stderr.contains("cannot be taken back"), "{}", made.stderr);
    let [asked, disclosed] = [&told["asked"], &told["disclosed"]];
    assert!(nanoseconds(&asked["from"]) / 1000 == nanoseconds(&serde_json::json!(recorded.from)) / 1000);
    assert!(nanoseconds(&disclosed["from"]) < nanoseconds(&disclosed["to"]));

    let mut shown = harborseal(["grant", "show", text(&grant), "--json"]).ok().json();
    // Where it was entered, the one who made it is told, and the statement does not say.
    shown["entered"] = told["entered"].clone();
    assert_eq!(shown, told, "before and after");
    let shown = harborseal(["grant", "show", text(&grant)]).ok();
    for word in [
        "front-door",
        "theft",
        "asked",
        "disclosed",
        told["grantee_fingerprint"].as_str().expect("text"),
    ] {
        assert!(shown.stdout.contains(word), "{word}: {}", shown.stdout);
    }

    recorded.export("bob", &grant, &[], &out).ok();
    assert!(
        rtp_only(read_rtpdump(&out)) == recorded.inside,
        "what was granted, and not a packet more"
    );
    // What a reader of his own could open is what was disclosed, no other camera, and no other segment.
    let (bob, data) = (recorded.lab.identity("bob"), recorded.lab.data());
    let arguments = [
        "list",
        "--json",
        "--identity",
        text(&bob),
        "--grant",
        text(&grant),
        text(&data),
    ];
    let listed = harborseal(arguments).ok().json();
    let cameras = listed["cameras"].as_array().expect("a list");
    assert_eq!((cameras.len(), &cameras[0]["id"]), (1, &"front-door".into()));
    let stream = &cameras[0]["streams"][0];
    assert!(nanoseconds(&stream["from"]) >= nanoseconds(&disclosed["from"]));
    assert!(nanoseconds(&stream["to"]) <= nanoseconds(&disclosed["to"]));
    let arguments = [
        "verify",
        "--json",
        "--identity",
        text(&bob),
        "--grant",
        text(&grant),
        text(&data),
    ];
    let verified = harborseal(arguments).ok().json();
    assert_eq!(verified["opened"]["cameras"], 1);
    // Whole segments: what it sent before or after may be in one of them, but not all.
    let packets = verified["opened"]["packets"].as_u64().expect("a number");
    assert!((100..300).contains(&packets), "{packets}");

    // Without the grant he has nothing.
    harborseal(["list", "--identity", text(&bob), text(&data)]).exits(3);
}

#[test]
fn a_grant_is_refused_to_others_for_others_and_when_it_is_over() {
    let recorded = recorded();
    recorded.lab.identity_made("mallory");
    let (grant, out) = (recorded.path("front-door.grant"), recorded.path("out.rtpdump"));
    recorded.grant(&[], &grant).ok();
    let refused = |outcome: Outcome, status: i32, about: &str| {
        outcome.exits(status).complains_about(about);
        assert!(!out.exists(), "not one byte is left");
    };
    let export = |identity: &str, grant: &Path, more: &[&str]| recorded.export(identity, grant, more, &out);
    refused(export("mallory", &grant, &[]), 3, "another identity");
    refused(export("alice", &grant, &[]), 3, "another identity");
    refused(
        export("bob", &grant, &["--camera", "back-door"]),
        3,
        "for camera 'front-door'",
    );
    refused(
        export("bob", &grant, &["--from", "2020-01-01T00:00:00Z"]),
        3,
        "more was asked for",
    );
    refused(
        export("bob", &grant, &["--to", "2100-01-01T00:00:00Z"]),
        3,
        "more was asked for",
    );

    let whole = std::fs::read_to_string(&grant).expect("text");
    let edited = recorded.path("edited.grant");
    let asked = whole
        .lines()
        .find(|line| line.starts_with("asked"))
        .expect("a line");
    let end = asked.rsplit(' ').next().expect("an end");
    for (content, about) in [
        (whole.replace("front-door", "back-door"), "not genuine"),
        (whole.replace(end, "2100-01-01T00:00:00Z"), "not genuine"),
        (whole.lines().take(8).collect::<Vec<_>>().join("\n"), "cut"),
    ] {
        std::fs::write(&edited, content).expect("written");
        refused(export("bob", &edited, &[]), 1, about);
        harborseal(["grant", "show", text(&edited)])
            .exits(1)
            .complains_about(about);
    }

    let brief = recorded.path("brief.grant");
    let soon = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(2));
    recorded
        .grant(&["--expires", &soon.format(&Rfc3339).expect("formats")], &brief)
        .ok();
    std::thread::sleep(Duration::from_secs(3));
    refused(export("bob", &brief, &[]), 1, "expired");
    let shown = harborseal(["grant", "show", text(&brief), "--json"]).ok().json();
    assert_eq!(shown["expired"], true);
}

#[test]
fn what_cannot_be_granted_is_not() {
    let recorded = recorded();
    let out = recorded.path("x.grant");
    let refused = |more: &[&str], status: i32, about: &str| {
        recorded.grant(more, &out).exits(status).complains_about(about);
        assert!(!out.exists(), "nothing was signed");
    };
    refused(&["--camera", "garage"], 3, "no camera 'garage'");
    refused(&["--expires", "2020-01-01T00:00:00Z"], 2, "--expires");
    let (alice, data) = (recorded.lab.identity("alice"), recorded.lab.data());
    let with = |from: &str, to: &str, key: &str, purpose: &str| {
        let mut arguments = vec![
            "grant",
            "--identity",
            text(&alice),
            "--camera",
            "front-door",
            "--from",
            from,
            "--to",
            to,
        ];
        arguments.extend([
            "--to-key",
            key,
            "--purpose",
            purpose,
            "-o",
            text(&out),
            text(&data),
        ]);
        harborseal(arguments.iter().map(OsStr::new))
    };
    let (from, to, bob) = (&recorded.from, &recorded.to, &recorded.bob);
    with(to, from, bob, "x")
        .exits(2)
        .complains_about("--from is not before --to");
    with("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z", bob, "x")
        .exits(3)
        .complains_about("it has footage from");
    with(from, to, "hsp1garbled", "x")
        .exits(2)
        .complains_about("--to-key");
    with(from, to, bob, " ").exits(2).complains_about("--purpose");
    assert!(!out.exists(), "nothing was signed");
    // A dry run shows what would be disclosed.
    let mut arguments = vec![
        "grant",
        "--identity",
        text(&alice),
        "--camera",
        "front-door",
        "--from",
        from,
        "--to",
        to,
    ];
    arguments.extend([
        "--to-key",
        bob,
        "--purpose",
        "x",
        "--dry-run",
        "--json",
        text(&data),
    ]);
    let told = harborseal(arguments).ok().json();
    assert!(told["disclosed"]["from"].is_string() && told.get("grant").is_none());
}

/// The entries of the node's log that concern whoever has this identity, of one kind.
fn entries(lab: &Lab, identity: &str, kind: &str) -> Vec<serde_json::Value> {
    let (identity, data) = (lab.identity(identity), lab.data());
    let arguments = [
        "audit",
        "show",
        "--json",
        "--identity",
        text(&identity),
        text(&data),
    ];
    // Status 3 says that nothing concerns it.
    let shown = harborseal(arguments).json();
    let all = shown["entries"].as_array().expect("a list").clone();
    all.into_iter()
        .filter(|line| line["entry"]["kind"] == kind)
        .collect()
}

#[test]
fn a_grant_is_in_the_nodes_log_before_anybody_has_it() {
    let recorded = recorded();
    let (lab, grant) = (&recorded.lab, recorded.path("front-door.grant"));
    // What cannot be entered is not granted: a folder where the checkpoint is to be written stops root, too.
    let in_the_way = lab.data().join("audit/checkpoint.part");
    std::fs::create_dir(&in_the_way).expect("made");
    recorded
        .grant(&[], &grant)
        .exits(4)
        .complains_about("is not granted: nothing was written");
    assert!(!grant.exists());
    std::fs::remove_dir(&in_the_way).expect("removed");

    let made = recorded.grant(&["--json"], &grant).ok().json();
    let of_alice = entries(lab, "alice", "grant");
    assert_eq!(of_alice.len(), 1, "{of_alice:?}");
    assert_eq!(of_alice[0]["index"], made["entered"][0]["entry"]);
    let seconds = |text: &serde_json::Value| nanoseconds(text).div_euclid(1_000_000_000);
    assert_eq!(
        of_alice[0]["entry"]["from_s"].as_i64().map(i128::from),
        Some(seconds(&made["disclosed"]["from"]))
    );
    assert!(entries(lab, "bob", "grant").is_empty());
    // Nobody else learns of whom, which camera, to whom or why.
    let all = harborseal(["audit", "show", text(&lab.data())]).ok().stdout;
    for word in [
        "alice",
        "front-door",
        "theft",
        "hsp1",
        made["sha256"].as_str().expect("a hash"),
    ] {
        assert!(!all.contains(word), "{word} is in the log: {all}");
    }
    // A name that is taken leaves no entry either.
    recorded
        .grant(&[], &grant)
        .exits(4)
        .complains_about("file exists");
    assert_eq!(entries(lab, "alice", "grant").len(), 1);
}

#[test]
fn a_grant_made_from_copies_is_entered_by_the_nodes_operator() {
    let recorded = recorded();
    let (lab, copies) = (&recorded.lab, recorded.path("copies"));
    let copied = std::process::Command::new("cp")
        .arg("-aT")
        .args([lab.data().join("segments"), copies.clone()])
        .status();
    assert!(copied.expect("cp runs").success());
    let grant = recorded.path("from-copies.grant");
    recorded
        .grant_of(&copies, &[], &grant)
        .ok()
        .complains_about("stands in no node's audit log")
        .complains_about("harborseal audit enter");
    assert!(entries(lab, "alice", "grant").is_empty());
    let data = lab.data();
    let enter = |file: &Path| harborseal(["audit", "enter", "--json", text(file), text(&data)]);

    // Changed by one digit, and of a customer that this node does not know.
    let forged = recorded.path("forged.grant");
    let whole = std::fs::read_to_string(&grant).expect("text");
    std::fs::write(&forged, whole.replace("purpose \"theft\"", "purpose \"thefts\"")).expect("written");
    enter(&forged).exits(1).complains_about("not genuine");
    let elsewhere = self::recorded();
    let foreign = recorded.path("foreign.grant");
    elsewhere.grant(&[], &foreign).ok();
    enter(&foreign)
        .exits(1)
        .complains_about("no enrolment in force on this node");
    assert!(entries(lab, "alice", "grant").is_empty());

    let first = enter(&grant).ok().json();
    assert_eq!(first["already"], false, "{first}");
    let again = enter(&grant).ok().json();
    assert_eq!(
        (&again["already"], &again["entry"]),
        (&true.into(), &first["entry"])
    );
    let of_alice = entries(lab, "alice", "grant");
    assert_eq!(of_alice.len(), 1, "{of_alice:?}");
    assert_eq!(of_alice[0]["index"], first["entry"]);

    enter(&lab.path("alice.enrolment"))
        .exits(2)
        .complains_about("harborseal/v1/grant is needed");
    harborseal(["audit", "enter", text(&grant), text(&copies)])
        .exits(4)
        .complains_about("node.key");
}
