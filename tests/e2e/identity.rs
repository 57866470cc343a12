//! Keys: made once, kept private, and the only way to a packet.

use std::os::unix::fs::PermissionsExt;

use harborseal_tests::harness::cli::files_under;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal};

#[test]
fn keygen_makes_a_private_file_once_and_prints_the_public_key() {
    let lab = Lab::new();
    let path = lab.path("alice.identity");
    let made = harborseal(["keygen", "-o", text(&path)]).ok();
    let public_key = made.stdout.lines().last().expect("the public key").to_owned();
    assert_eq!(path.metadata().expect("made").permissions().mode() & 0o777, 0o600);
    let shown = harborseal(["keygen", "--public", text(&path)]).ok();
    assert_eq!(shown.stdout.lines().last(), Some(public_key.as_str()));

    let before = std::fs::read(&path).expect("made");
    harborseal(["keygen", "-o", text(&path)])
        .exits(4)
        .complains_about("alice.identity");
    assert_eq!(
        std::fs::read(&path).expect("still there"),
        before,
        "it never overwrites"
    );
    assert!(
        !String::from_utf8_lossy(&before).contains('\0'),
        "an identity is text"
    );
}

#[test]
fn another_identity_gets_nothing_and_no_byte() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.customer("bob");
    lab.identity_made("mallory");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab.camera(Camera::new("back-door", "bob", 2));
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    sender.send_all(&Stream::new(1).packets(500));
    sender.send_all(&Stream::new(2).packets(500));
    lab.settle_and_stop(engine);
    assert_eq!(lab.read_back("alice", "front-door").len(), 500);

    let out = lab.path("out");
    std::fs::create_dir(&out).expect("a fresh folder");
    for (identity, camera) in [
        ("bob", "front-door"),
        ("alice", "back-door"),
        ("mallory", "front-door"),
    ] {
        for kind in ["mp4", "pcapng", "rtpdump"] {
            let file = out.join(format!("stolen.{kind}"));
            let outcome = lab.export(identity, camera, &file, &[]).exits(3);
            assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
            assert_eq!(outcome.stdout, "");
            assert_eq!(
                files_under(&out),
                Vec::<std::path::PathBuf>::new(),
                "not one byte is left"
            );
        }
    }
    let mallory = lab.identity("mallory");
    let listed = harborseal(["list", "--identity", text(&mallory), text(&lab.data())]).exits(3);
    listed.complains_about("nothing here is for this identity");
    // Each sees their own cameras, and only those.
    for (identity, own, other) in [
        ("alice", "front-door", "back-door"),
        ("bob", "back-door", "front-door"),
    ] {
        let file = lab.identity(identity);
        let listed = harborseal(["list", "--json", "--identity", text(&file), text(&lab.data())]).ok();
        assert!(
            listed.stdout.contains(own) && !listed.stdout.contains(other),
            "{}",
            listed.stdout
        );
    }
    // Without a key the structure can be checked, and names nobody.
    harborseal(["verify", text(&lab.data())]).ok();
    for segment in lab.segments() {
        let shown = harborseal(["inspect", "--json", text(&segment)]).ok();
        assert!(
            !shown.stdout.contains("door") && !shown.stdout.contains("alice"),
            "{}",
            shown.stdout
        );
    }
}
