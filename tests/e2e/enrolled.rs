//! Whose key a node seals to: an insider with the configuration in his hands, and customers who change their keys.

use std::fs;

use harborseal_tests::harness::engine::{BOUND, dropped};
use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal, net};
use nix::sys::signal::Signal;
use serde_json::Value;

/// One enrolled customer with one camera, on a node that asks for enrolments, as each does that is not told otherwise.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front", "alice", 1));
    lab
}

/// Signals, and waits for the engine's word about it.
#[track_caller]
fn reload(engine: &Engine) -> Value {
    let seen = engine.events().len();
    engine.signal(Signal::SIGHUP);
    engine.wait_from(seen, BOUND, "word of the reload", |event| {
        (event["event"] == "reload").then(|| event.clone())
    })
}

/// The rows of `harborseal check`, by their names.
fn check(lab: &Lab) -> Value {
    lab.write_config();
    let report = harborseal(["check", "--json", "--config", text(&lab.config())]).json();
    let rows = report["checks"].as_array().expect("rows");
    rows.iter()
        .map(|row| (row["name"].as_str().expect("a name").to_owned(), row.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn entries_of(lab: &Lab, identity: &str) -> Vec<Value> {
    let (identity, data) = (lab.identity(identity), lab.data());
    let shown = harborseal([
        "audit",
        "show",
        "--json",
        "--identity",
        text(&identity),
        text(&data),
    ]);
    let shown = shown.ok().json();
    let entries = shown["entries"].as_array().expect("a list");
    entries.iter().map(|entry| entry["entry"].clone()).collect()
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| entry["kind"].as_str().expect("a kind"))
        .collect()
}

/// Where enrolments are not asked for, that is told and entered, and who is enrolled is as safe as anywhere.
#[test]
fn a_lab_records_who_is_not_enrolled_and_says_so_everywhere() {
    let mut lab = lab();
    lab.top("require_enrolment = false");
    let bob = lab.identity_made("bob");
    lab.customer_by("bob", &format!("public_key = \"{bob}\""));
    lab.camera(Camera::new("back", "bob", 2));
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let sent = Stream::new(2).packets(30);
    sender.send_all(&sent);
    assert!(
        engine
            .lines()
            .iter()
            .any(|line| line.contains("require_enrolment is false")),
        "it does not warn: {:#?}",
        engine.lines()
    );
    lab.settle_and_stop(engine);
    assert_same(&sent, &rtp_only(lab.read_back("bob", "back")));
    let checked = check(&lab);
    assert_eq!(checked["enrolments"]["state"], "wanted", "{checked}");
    let data = lab.data();
    let all = harborseal(["audit", "show", "--json", text(&data)]).ok().json();
    assert_eq!(all["entries"][0]["entry"]["require_enrolment"], false, "{all}");

    // Another key beside the name of who is enrolled: told before it is tried.
    lab.customer_by("alice", &format!("public_key = \"{bob}\""));
    let checked = check(&lab);
    let row = checked.as_object().expect("rows").values().find(|row| {
        row["detail"]
            .as_str()
            .unwrap_or_default()
            .contains("an enrolment is in force")
    });
    assert!(row.is_some(), "{checked}");
}

/// The insider: his own key, rightly signed by himself, in the place of a customer's.
#[test]
fn a_key_put_in_the_place_of_an_enrolled_one_gets_nothing_and_the_customer_hears_of_it() {
    let mut lab = lab();
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut stream = Stream::new(1);
    let mut sent = stream.packets(100);
    sender.send_all(&sent);
    net::wait_until_taken(lab.port);

    let mallory = lab.identity_made("mallory");
    lab.enrol("mallory", &[], "mallory");
    for line in [
        "enrolment = \"mallory.enrolment\"".to_owned(),
        format!("public_key = \"{mallory}\""),
    ] {
        lab.customer_by("alice", &line);
        lab.write_config();
        let word = reload(&engine);
        assert_eq!(word["ok"], false, "{word}");
        assert!(!word.to_string().contains("alice"), "{word}");
    }
    let more = stream.packets(100);
    sender.send_all(&more);
    sent.extend(more);
    lab.settle_and_stop(engine);

    // By a restart, which cannot go on with the old configuration, and with the demand for enrolments switched off.
    let relaxed = format!("require_enrolment = false\n{}", lab.config_text());
    fs::write(lab.config(), relaxed).expect("written");
    let engine = Engine::start(&lab.config());
    sender.send_all(&stream.packets(50));
    engine.wait_within(BOUND, "a warning", |event| {
        let warned = event["event"] == "warning" && event.to_string().contains("not_enrolled");
        warned.then_some(())
    });
    let last = lab.settle_and_stop(engine);
    assert_eq!(dropped(&last, "not_enrolled"), 50, "{last}");
    assert_eq!(last["stored"], 0, "{last}");

    assert_same(&sent, &rtp_only(lab.read_back("alice", "front")));
    let (mallory, data) = (lab.identity("mallory"), lab.data());
    harborseal(["list", "--identity", text(&mallory), text(&data)]).exits(3);
    let of_alice = entries_of(&lab, "alice");
    let refused = kinds(&of_alice)
        .iter()
        .filter(|kind| **kind == "access_refused")
        .count();
    assert_eq!(refused, 3, "{of_alice:?}");
}

#[test]
fn who_is_not_enrolled_is_not_recorded_and_counted_and_a_reload_mends_it() {
    let mut lab = lab();
    let bob = lab.identity_made("bob");
    lab.customer_by("bob", &format!("public_key = \"{bob}\""));
    lab.camera(Camera::new("back", "bob", 2));
    let checked = check(&lab);
    assert_eq!(checked["customer 2"]["state"], "wanted", "{checked}");
    assert_eq!(
        checked["enrolments"]["detail"]
            .as_str()
            .map(|told| told.starts_with("1 of 2 customers enrolled")),
        Some(true),
        "{checked}"
    );
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let (mut front, mut back) = (Stream::new(1), Stream::new(2));
    let of_alice = front.packets(30);
    sender.send_all(&of_alice);
    sender.send_all(&back.packets(20));
    net::wait_until_taken(lab.port);
    assert!(
        engine
            .lines()
            .iter()
            .any(|line| line.contains("customer 2") && line.contains("not recorded")),
        "it does not say whom it leaves out: {:#?}",
        engine.lines()
    );
    lab.enrol("bob", &[], "bob");
    lab.customer_enrolled("bob");
    lab.write_config();
    let checked = check(&lab);
    assert_eq!(checked["enrolments"]["state"], "ok", "{checked}");
    let word = reload(&engine);
    assert_eq!(word["ok"], true, "{word}");
    let of_bob = back.packets(25);
    sender.send_all(&of_bob);
    let last = lab.settle_and_stop(engine);
    assert_eq!(dropped(&last, "not_enrolled"), 20, "{last}");
    assert_same(&of_alice, &rtp_only(lab.read_back("alice", "front")));
    assert_same(&of_bob, &rtp_only(lab.read_back("bob", "back")));
}

#[test]
fn a_key_is_exchanged_by_who_has_the_old_one_without_losing_a_packet() {
    let mut lab = lab();
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut stream = Stream::new(1);
    let before = stream.packets(100);
    sender.send_all(&before);
    net::wait_until_taken(lab.port);

    lab.identity_made("alice-2");
    let (old, alice) = (lab.path("alice.enrolment"), lab.identity("alice"));
    let replaces = ["--replaces", text(&old), "--previous-identity", text(&alice)];
    lab.enrol("alice-2", &replaces, "alice-2");
    lab.customer_by("alice", "enrolment = \"alice-2.enrolment\"");
    lab.write_config();
    let word = reload(&engine);
    assert_eq!(word["ok"], true, "{word}");
    let after = stream.packets(100);
    sender.send_all(&after);
    // Back to the first: an old statement, played again.
    lab.customer_by("alice", "enrolment = \"alice.enrolment\"");
    lab.write_config();
    let word = reload(&engine);
    assert!(
        word["ok"] == false && word.to_string().contains("is a first enrolment"),
        "{word}"
    );
    lab.customer_by("alice", "enrolment = \"alice-2.enrolment\"");
    lab.write_config();
    assert_eq!(reload(&engine)["ok"], true);
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["stored"], 200, "{last}");

    // What was not sealed yet at the exchange is sealed to the new key: each has its part, and together they have everything.
    let (mut of_old, of_new) = (
        rtp_only(lab.read_back("alice", "front")),
        rtp_only(lab.read_back("alice-2", "front")),
    );
    assert!(!of_old.is_empty() && of_old.len() <= before.len() && of_new.len() >= after.len());
    of_old.extend(of_new);
    assert_same(&[before, after].concat(), &of_old);
    let (old, new) = (entries_of(&lab, "alice"), entries_of(&lab, "alice-2"));
    assert_eq!(kinds(&old)[..1], ["enrolment"]);
    assert!(kinds(&old).contains(&"key_rotation") && kinds(&new)[0] == "key_rotation");
    // The pins alone, of before: the log knows better.
    let engine = lab.start();
    lab.settle_and_stop(engine);
    let pins = lab.data().join("keys/enrolled");
    let kept = fs::read_to_string(&pins).expect("pins");
    fs::remove_file(&pins).expect("removed");
    let engine = lab.start();
    sender.send_all(&stream.packets(10));
    let last = lab.settle_and_stop(engine);
    assert_eq!(
        last["stored"], 10,
        "the log has the entry of that very statement: {last}"
    );
    assert_eq!(fs::read_to_string(&pins).expect("pins"), kept);
    lab.enrol("alice", &[], "alice-again");
    fs::remove_file(&pins).expect("removed");
    lab.customer_by("alice", "enrolment = \"alice-again.enrolment\"");
    let engine = lab.start();
    sender.send_all(&stream.packets(10));
    let last = lab.settle_and_stop(engine);
    assert_eq!(dropped(&last, "not_enrolled"), 10, "{last}");
}

#[test]
fn whom_a_customer_names_beside_itself_can_open_everything_and_the_log_says_so() {
    let lab = lab();
    let safe = lab.identity_made("safe");
    fs::remove_file(lab.path("alice.enrolment")).expect("removed");
    lab.enrol("alice", &["--recovery", &safe], "alice");
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let sent = Stream::new(1).packets(60);
    sender.send_all(&sent);
    lab.settle_and_stop(engine);
    assert_same(&sent, &rtp_only(lab.read_back("alice", "front")));
    assert_same(&sent, &rtp_only(lab.read_back("safe", "front")));
    let of_alice = entries_of(&lab, "alice");
    assert_eq!(kinds(&of_alice)[..2], ["enrolment", "recipient"]);
    assert_eq!(
        (&of_alice[0]["recovery"], &of_alice[1]["n"]),
        (&1.into(), &2.into())
    );
}

#[test]
fn enrolments_that_cannot_be_read_or_are_none_are_refused_with_the_line() {
    let mut lab = lab();
    let good = lab.config_text();
    let line = 1 + good
        .lines()
        .position(|line| line.starts_with("enrolment"))
        .expect("a line");
    let config = lab.config();
    let mallory = lab.identity_made("mallory");
    for (wrong, about) in [
        ("enrolment = \"none.enrolment\"".to_owned(), "none.enrolment"),
        ("enrolment = \"alice.identity\"".to_owned(), "not a statement"),
        ("enrolment = 7".to_owned(), "string"),
        (
            format!("enrolment = \"alice.enrolment\"\npublic_key = \"{mallory}\""),
            "not the key that the enrolment enrols",
        ),
    ] {
        lab.customer_by("alice", &wrong);
        lab.write_config();
        let refused = harborseal(["run", "--config", text(&config)]).exits(2);
        refused
            .complains_about(about)
            .complains_about(&format!("engine.toml:{line}").replace(
                &line.to_string(),
                &(line + usize::from(wrong.contains("public_key"))).to_string(),
            ));
    }
}
