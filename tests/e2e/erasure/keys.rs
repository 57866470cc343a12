//! Whose key a release is sealed to: the enrolled one, an earlier one, a grantee's.

use std::fs;
use std::path::Path;

use harborseal_tests::harness::packets::{read_rtpdump, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Lab, harborseal};

use super::{Sending, erase, lab, opened, release};

fn recorded(lab: &Lab) -> Vec<Vec<u8>> {
    let engine = lab.start();
    let mut sending = Sending::to(lab);
    sending.both(lab, &engine);
    lab.settle_and_stop(engine);
    sending.alice
}

fn export(lab: &Lab, identity: &str, more: &[&str]) -> Vec<Vec<u8>> {
    let (identity, data, out) = (lab.identity(identity), lab.data(), lab.path("exported.rtpdump"));
    let arguments = [
        "export",
        "--identity",
        text(&identity),
        "-o",
        text(&out),
        text(&data),
    ];
    harborseal(arguments.iter().chain(more)).ok();
    let packets = rtp_only(read_rtpdump(&out));
    fs::remove_file(&out).expect("just written");
    packets
}

fn public_key(lab: &Lab, name: &str) -> String {
    let identity = lab.identity(name);
    let shown = harborseal(["keygen", "--public", text(&identity)]).ok();
    shown.stdout.lines().last().expect("the key").to_owned()
}

#[test]
fn after_a_change_of_keys_a_release_goes_to_the_key_that_is_named_and_the_receipt_knows_of_both() {
    let mut lab = lab();
    let before = recorded(&lab);
    release(&lab, &lab.path("early.release"), &[]).ok();
    // Another identity, and with it another name in the audit log.
    lab.identity_made("alice-2");
    let (old, alice) = (lab.path("alice.enrolment"), lab.identity("alice"));
    let replaces = ["--replaces", text(&old), "--previous-identity", text(&alice)];
    lab.enrol("alice-2", &replaces, "alice-2");
    lab.customer_by("alice", "enrolment = \"alice-2.enrolment\"");
    let after = recorded(&lab);
    let (new, older) = (lab.path("new.release"), lab.path("older.release"));
    release(&lab, &new, &[]).ok();
    release(&lab, &older, &["--to-key", &public_key(&lab, "alice")]).ok();
    assert_eq!(
        export(&lab, "alice-2", &["--camera", "front", "--release", text(&new)]),
        after
    );
    assert_eq!(opened(&lab, &lab.data(), &["--release", text(&older)]), before);
    let told = erase(&lab, &["--json"]).ok().json();
    assert_eq!(told["disclosed"].as_array().map(Vec::len), Some(3), "{told}");
}

#[test]
fn erasable_footage_is_granted_by_who_has_a_release_and_the_grant_outlives_the_erasure_of_copies() {
    let lab = lab();
    let sent = recorded(&lab);
    let (data, alice, out) = (lab.data(), lab.identity("alice"), lab.path("front.grant"));
    let carol = lab.identity_made("carol");
    let grant = |more: &[&str]| {
        let range = ["--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"];
        let of = [
            "grant",
            "--identity",
            text(&alice),
            "--camera",
            "front",
            "--purpose",
            "theft",
        ];
        let to = ["--to-key", &carol, "-o", text(&out), text(&data)];
        harborseal(of.iter().chain(&range).chain(&to).chain(more))
    };
    grant(&[]).exits(3).complains_about("release");
    let released = lab.path("alice.release");
    release(&lab, &released, &[]).ok();
    grant(&["--release", text(&released)]).ok();
    assert_eq!(export(&lab, "carol", &["--grant", text(&out)]), sent);
    let copies = lab.path("copies");
    super::copy(&data.join("segments"), &copies);
    erase(&lab, &[]).ok();
    assert_eq!(
        granted_of(&lab, &copies, &out),
        sent,
        "what was disclosed cannot be taken back"
    );
}

fn granted_of(lab: &Lab, copies: &Path, grant: &Path) -> Vec<Vec<u8>> {
    let (carol, out) = (lab.identity("carol"), lab.path("granted.rtpdump"));
    let arguments = [
        "export",
        "--identity",
        text(&carol),
        "--grant",
        text(grant),
        "-o",
        text(&out),
        text(copies),
    ];
    harborseal(arguments).ok();
    rtp_only(read_rtpdump(&out))
}
