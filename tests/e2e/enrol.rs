//! Enrolments: what a customer signs so that a node takes no other key for its own.

use std::path::Path;

use harborseal_tests::harness::Lab;
use harborseal_tests::harness::cli::Outcome;
use harborseal_tests::harness::harborseal;
use harborseal_tests::harness::tools::text;

fn keygen(lab: &Lab, name: &str) -> (std::path::PathBuf, String) {
    let path = lab.path(name);
    let made = harborseal(["keygen", "--p256", "-o", text(&path)]).ok();
    (path, made.stdout.trim().to_owned())
}

fn enrol(identity: &Path, more: &[&str], out: &Path) -> Outcome {
    let arguments = ["enrol", "--identity", text(identity), "-o", text(out)];
    harborseal(arguments.iter().chain(more))
}

#[test]
fn an_enrolment_shows_one_fingerprint_to_both_sides() {
    let lab = Lab::new();
    let (alice, public_key) = keygen(&lab, "alice.identity");
    let (_, recovery) = keygen(&lab, "safe.identity");
    let file = lab.path("alice.enrolment");
    let made = enrol(&alice, &["--recovery", &recovery], &file).ok();
    let shown = harborseal(["enrol", "--show", text(&file)]).ok();
    assert_eq!(made.stdout, shown.stdout, "the fingerprint");
    let told = harborseal(["enrol", "--show", text(&file), "--json"]).ok().json();
    assert_eq!(told["fingerprint"], made.stdout.trim());
    assert_eq!(
        (&told["public_key"], &told["seq"]),
        (&public_key.into(), &1.into())
    );
    assert_eq!(told["recovery_recipients"], serde_json::json!([recovery]));

    let before = std::fs::read(&file).expect("made");
    enrol(&alice, &[], &file)
        .exits(4)
        .complains_about("never overwrites");
    assert_eq!(std::fs::read(&file).expect("still there"), before);
}

#[test]
fn only_the_identity_in_force_makes_its_replacement() {
    let lab = Lab::new();
    let (alice, _) = keygen(&lab, "alice.identity");
    let (new, _) = keygen(&lab, "new.identity");
    let (one, two) = (lab.path("1.enrolment"), lab.path("2.enrolment"));
    enrol(&alice, &[], &one).ok();
    let refused = enrol(&new, &["--replaces", text(&one)], &two).exits(2);
    refused.complains_about("--previous-identity");
    assert!(!two.exists());
    let both = [
        "--replaces",
        text(&one),
        "--previous-identity",
        text(&alice),
        "--json",
    ];
    let told = enrol(&new, &both, &two).ok().json();
    assert_eq!(told["seq"], 2);
    let old = harborseal(["enrol", "--show", text(&one), "--json"]).ok().json();
    assert_eq!(told["replaces"], old["sha256"]);
}

#[test]
fn an_enrolment_that_is_forged_cut_or_something_else_is_refused_by_name() {
    let lab = Lab::new();
    let (alice, public_key) = keygen(&lab, "alice.identity");
    let (_, mallory) = keygen(&lab, "mallory.identity");
    let file = lab.path("alice.enrolment");
    enrol(&alice, &[], &file).ok();
    let whole = std::fs::read_to_string(&file).expect("text");
    let lines: Vec<&str> = whole.lines().collect();
    let bad = lab.path("bad.enrolment");
    for (content, status, about) in [
        (whole.replace(&public_key, &mallory), 1, "not genuine"),
        (whole.replace("seq 1", "seq 0"), 1, "not genuine"),
        (lines[..3].join("\n"), 1, "cut"),
        (format!("{whole}recovery {mallory}\n"), 1, "ends before"),
        (whole.replace("v1/enrolment", "v1/grant"), 2, "another kind"),
        (
            std::fs::read_to_string(&alice).expect("text"),
            2,
            "not a statement",
        ),
    ] {
        std::fs::write(&bad, content).expect("written");
        let refused = harborseal(["enrol", "--show", text(&bad)]).exits(status);
        refused.complains_about("bad.enrolment").complains_about(about);
    }
    let secret = std::fs::read_to_string(&alice).expect("text");
    let secret = secret.lines().last().expect("the secret line");
    let refused = enrol(&alice, &["--recovery", secret], &bad)
        .exits(2)
        .complains_about("--recovery");
    assert!(
        !refused.stderr.contains(&secret[10..]),
        "a secret is not repeated"
    );
}
