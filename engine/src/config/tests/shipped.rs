//! The configurations in `config/`: they are what they say, and say all there is.

use harborseal_segment::identity::Identity;
use harborseal_segment::random::FixedBytes;

use super::*;
use crate::statement::Enrolment;

/// The text of a file in `config/`.
fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
    std::fs::read_to_string(path).expect("it is in the repository")
}

/// `config/engine.toml` with the keys that are off by default switched on.
fn everything_on() -> String {
    let on = |line: &str| {
        let key = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        key.unwrap_or(line).to_owned() + "\n"
    };
    shipped("engine.toml").lines().map(on).collect()
}

#[test]
fn the_example_holds_every_key() {
    let text = everything_on();
    let document = Document::new(Path::new("engine.toml"), text);
    let root = document.parse().map_err(|e| e.to_string()).expect("valid TOML");
    root.refuse_unknown()
        .map_err(|e| e.to_string())
        .expect("no key but those there are");
    for (section, keys) in document::KEYS {
        for key in keys {
            let set = match section {
                "" => root.top().get(key).is_some(),
                "customer" | "camera" => {
                    root.sections(section).all(|s| s.get(key).is_some())
                        && root.sections(section).count() == 1
                }
                _ => root.section(section).get(key).is_some(),
            };
            assert!(set, "[{section}] {key} is missing in config/engine.toml");
        }
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let config = parse(&shipped("engine.toml"))
        .map_err(|e| e.to_string())
        .expect("valid as it is shipped");
    let listen = Listen {
        rtp: vec!["127.0.0.1:5004".parse().expect("address")],
        ..Listen::default()
    };
    assert_eq!(
        config.settings,
        Settings {
            listen,
            ..Settings::default()
        }
    );
    assert_eq!(config.require_enrolment, super::REQUIRE_ENROLMENT);
    assert!(config.registry.cameras.is_empty());
}

#[test]
fn the_example_is_valid_with_everything_on() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("front-door.sdp"),
        "v=0\nm=video 5004 RTP/AVP 96\n",
    )
    .expect("written");
    let alice = Identity::generate(&mut FixedBytes(&[1; 64]));
    grants::tests::write_the_example(folder.path(), &alice);
    let enrolment = Enrolment::first(alice.public(), &[], &alice, 1_795_000_000);
    std::fs::write(folder.path().join("alice.enrolment"), enrolment).expect("written");
    let text = everything_on().replace("hsp1...", &alice.public().to_text());
    let config = Config::from_text(&folder.path().join("engine.toml"), text, &[0]).map_err(|e| e.to_string());
    let config = config.expect("valid");
    assert_eq!(
        (config.registry.cameras.len(), config.registry.customers.len()),
        (1, 1)
    );
    assert!(config.settings.retention.min_free_bytes.is_some() && config.settings.control.listen.is_some());
}

#[test]
fn the_laboratorys_configuration_wants_only_an_enrolment() {
    let text = shipped("lab.toml");
    let wanted = "enrolment = \"alice.enrolment\"";
    let line = text.lines().position(|line| line == wanted).expect("it is there") + 1;
    refuses(&text, line, &["alice.enrolment", "no such file"]);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = Identity::generate(&mut FixedBytes(&[1; 64]));
    let enrolment = Enrolment::first(alice.public(), &[], &alice, 1_795_000_000);
    std::fs::write(folder.path().join("alice.enrolment"), enrolment).expect("written");
    let config = Config::from_text(&folder.path().join("lab.toml"), text, &[0]).map_err(|e| e.to_string());
    assert!(config.expect("valid").require_enrolment);
}
