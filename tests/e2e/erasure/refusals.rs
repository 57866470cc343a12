//! What the commands for erasable footage refuse, and that nothing is done then.

use std::fs;

use harborseal_tests::harness::harborseal;
use harborseal_tests::harness::tools::text;

use super::{Sending, entries, erase, key_files, lab, list, opened, operator, release};

#[test]
fn nothing_leaves_and_nothing_goes_when_the_audit_log_cannot_be_written() {
    let lab = lab();
    let engine = lab.start();
    let mut sending = Sending::to(&lab);
    sending.both(&lab, &engine);
    lab.settle_and_stop(engine);
    let out = lab.path("alice.release");
    release(&lab, &lab.path("before.release"), &[]).ok();
    let known = entries(&lab).len();
    // A folder in the lock's place stops root too.
    let lock = lab.data().join("audit/lock");
    fs::remove_file(&lock).expect("removed");
    fs::create_dir(&lock).expect("made");
    release(&lab, &out, &[]).exits(4).complains_about("nothing was");
    erase(&lab, &["-o", text(&lab.path("receipt"))])
        .exits(4)
        .complains_about("nothing was");
    operator(&lab, "hold", &["--reason", "order 17"])
        .exits(4)
        .complains_about("nothing was");
    assert!(!out.exists() && !lab.path("receipt").exists());
    assert_eq!((key_files(&lab).len(), entries(&lab).len()), (1, known));
    fs::remove_dir(&lock).expect("removed");
    release(&lab, &out, &[]).ok();
    assert_eq!(
        opened(&lab, &lab.data(), &["--release", text(&out)]),
        sending.alice
    );
}

#[test]
fn days_are_whole_and_in_utc_and_what_cannot_be_done_is_refused_with_the_reason() {
    let lab = lab();
    let engine = lab.start();
    let mut sending = Sending::to(&lab);
    sending.both(&lab, &engine);
    lab.settle_and_stop(engine);
    let (config, out) = (lab.config(), lab.path("out"));
    // What was recorded today is not before today, in whatever zone it is said.
    erase(&lab, &["--before", "2026-01-02T00:30:00+01:00"])
        .exits(3)
        .complains_about("before 2026-01-01");
    let dry = operator(&lab, "erase", &["--dry-run"]).ok();
    assert!(dry.stderr.contains("T00:00:00Z"), "{}", dry.stderr);
    erase(&lab, &["--before", "2100-01-01T00:00:00Z"])
        .exits(2)
        .complains_about("in the future");
    erase(&lab, &["--before", "yesterday"])
        .exits(2)
        .complains_about("--before");
    // Without --yes, and nobody to ask.
    operator(&lab, "erase", &[])
        .exits(2)
        .complains_about("no terminal");
    for command in ["erase", "release", "hold"] {
        let of = ["--customer", "nobody", "--config", text(&config)];
        let more: &[&str] = match command {
            "release" => &["--for", "x", "--purpose", "y", "-o", text(&out)],
            "hold" => &["--reason", "x"],
            _ => &["--yes"],
        };
        harborseal([command].iter().chain(&of).chain(more))
            .exits(2)
            .complains_about("'nobody'");
        let of = ["--customer", "alice", "--config", "no-such.toml"];
        harborseal([command].iter().chain(&of).chain(more))
            .exits(4)
            .complains_about("no-such.toml");
        let help = harborseal([command, "--help"]).ok().stdout;
        assert!(help.contains("Example") && help.contains("--json"), "{help}");
    }
    let of_bob = ["erase", "--yes", "--customer", "bob", "--config", text(&config)];
    harborseal(of_bob).exits(3).complains_about("not `erasable`");
    release(&lab, &lab.path("no-such-folder/out"), &[])
        .exits(4)
        .complains_about("nothing was released");
    erase(&lab, &["-o", text(&config)])
        .exits(4)
        .complains_about("nothing was erased");
    release(&lab, &out, &["--to", "2001-01-01T00:00:00Z"])
        .exits(3)
        .complains_about("for that time");
    release(
        &lab,
        &out,
        &["--from", "2002-01-01T00:00:00Z", "--to", "2001-01-01T00:00:00Z"],
    )
    .exits(2)
    .complains_about("--from");
    release(&lab, &out, &["--to-key", "hsp1nonsense"])
        .exits(2)
        .complains_about("--to-key");
    operator(&lab, "hold", &["--reason", "x", "--lift"])
        .exits(3)
        .complains_about("hold");
    assert_eq!((key_files(&lab).len(), out.exists()), (1, false));

    // A release that was changed, or is none.
    release(&lab, &out, &[]).ok();
    let whole = fs::read_to_string(&out).expect("text");
    let changed = lab.path("changed.release");
    fs::write(&changed, whole.replace("Monday", "Sunday")).expect("written");
    list(&lab, &lab.data(), &["--release", text(&changed)])
        .exits(1)
        .complains_about("changed.release");
    list(&lab, &lab.data(), &["--release", text(&config)])
        .exits(2)
        .complains_about("engine.toml");
    let data = lab.data();
    harborseal(["verify", "--release", text(&out), text(&data)])
        .exits(2)
        .complains_about("--identity");
}
