//! Bad input of every command: one clear line that names the matter, the right exit status, no panic, and nothing
//! half-written left behind.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harborseal_tests::harness::cli::{self, Outcome, files_under};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal, rtp};

const OK: i32 = 0;
const DAMAGE: i32 = 1;
const USAGE: i32 = 2;
const NOTHING: i32 = 3;
const IO: i32 = 4;

/// Runs a command that must fail so, says the word, in one line, and changes nothing in the laboratory.
#[track_caller]
fn fails(lab: &Lab, code: i32, word: &str, arguments: &[&str]) {
    let before = snapshot(lab);
    let outcome = harborseal(arguments);
    let shown = arguments.join(" ");
    assert_eq!(
        outcome.code,
        Some(code),
        "{shown}\nstdout: {}\nstderr: {}",
        outcome.stdout,
        outcome.stderr
    );
    assert_one_line(&outcome, &shown);
    outcome.complains_about(word);
    assert_eq!(before, snapshot(lab), "{shown} left something behind");
}

#[track_caller]
fn assert_one_line(outcome: &Outcome, shown: &str) {
    assert_eq!(
        outcome.stderr.trim_end().lines().count(),
        1,
        "{shown} should say one line:\n{}",
        outcome.stderr
    );
}

/// Every file with its size and time of change.
fn snapshot(lab: &Lab) -> BTreeSet<(PathBuf, u64, std::time::SystemTime)> {
    let folder = lab.config().parent().expect("in the laboratory").to_owned();
    let about = |path: PathBuf| {
        let about = path.metadata().expect("nothing runs beside");
        (path, about.len(), about.modified().expect("ext4 keeps times"))
    };
    files_under(&folder).into_iter().map(about).collect()
}

/// A laboratory with one closed segment of alice's.
fn recorded() -> (Lab, PathBuf) {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.identity_made("mallory");
    lab.camera(Camera::new("front-door", "alice", 1));
    let engine = lab.start();
    Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(2000));
    lab.settle_and_stop(engine);
    let segment = lab.segments().pop().expect("a segment");
    (lab, segment)
}

fn write(lab: &Lab, name: &str, bytes: &[u8]) -> String {
    std::fs::write(lab.path(name), bytes).expect("the laboratory's folder can be written");
    text(&lab.path(name)).to_owned()
}

#[test]
fn the_command_line_itself() {
    let lab = Lab::new();
    fails(&lab, USAGE, "sail", &["sail"]);
    fails(&lab, USAGE, "--config", &["run"]);
    fails(&lab, USAGE, "--colour", &["verify", "--colour", "."]);
    fails(&lab, USAGE, "many", &["demo", "--cameras", "many"]);
    fails(&lab, USAGE, "cameras", &["demo", "--cameras", "0"]);
    for command in [
        "demo", "run", "check", "keygen", "inspect", "verify", "recover", "list", "export",
    ] {
        let help = harborseal([command, "--help"]).exits(OK);
        assert!(
            help.stdout.lines().count() > 5,
            "{command} --help: {}",
            help.stdout
        );
    }
    assert!(harborseal(["--version"]).ok().stdout.starts_with("harborseal "));
}

#[test]
fn configurations_that_cannot_be_run() {
    let lab = Lab::new();
    let folder = text(lab.config().parent().expect("in the laboratory")).to_owned();
    let missing = text(&lab.path("missing.toml")).to_owned();
    for command in ["run", "check"] {
        fails(&lab, IO, "missing.toml", &[command, "--config", &missing]);
        fails(&lab, IO, &folder, &[command, "--config", &folder]);
        let wrong = [
            ("no-toml.toml", "data_dir = \n", ":1"),
            ("binary.toml", "data_dir = \"\u{0}\u{1}", "binary.toml"),
            (
                "unknown.toml",
                "data_dir = \"d\"\n[listen]\nrpt = \"127.0.0.1:5004\"\n",
                "rtp",
            ),
            (
                "address.toml",
                "data_dir = \"d\"\n[listen]\nrtp = \"127.0.0.1\"\n",
                ":3",
            ),
            ("empty.toml", "", "data_dir"),
        ];
        for (name, config, word) in wrong {
            let path = write(&lab, name, config.as_bytes());
            fails(&lab, USAGE, word, &[command, "--config", &path]);
        }
    }
}

#[test]
fn configurations_that_contradict_themselves_name_the_lines() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("one", "alice", 7));
    let good = lab.config_text();
    let next = good.lines().count() + 1;
    let camera =
        |id: &str, more: &str| format!("{good}[[camera]]\nid = \"{id}\"\ncustomer = \"alice\"\n{more}\n");
    let wrong = [
        // Equal SSRCs of overlapping sources: both lines.
        (
            camera("two", "source = \"127.0.0.0/8\"\nssrc = 7"),
            format!(":{}", next + 4),
        ),
        (camera("two", "source = \"127.0.0.1\""), "port".to_owned()),
        (
            camera("two", "source = \"here\"\nssrc = 8"),
            format!(":{}", next + 3),
        ),
        (
            camera("one", "source = \"127.0.0.2\"\nssrc = 8"),
            format!(":{}", next + 1),
        ),
        (
            camera("two", "source = \"127.0.0.2\"\nssrc = -1"),
            format!(":{}", next + 4),
        ),
        (
            good.replace("customer = \"alice\"", "customer = \"alcie\""),
            "camera.customer".to_owned(),
        ),
        (
            good.replace("enrolment = \"alice.enrolment\"", "public_key = \"xhsp1\""),
            "public_key".to_owned(),
        ),
    ];
    for (config, word) in wrong {
        let path = write(&lab, "wrong.toml", config.as_bytes());
        fails(&lab, USAGE, &word, &["run", "--config", &path]);
    }
    assert!(!lab.data().exists(), "nothing was begun");
}

#[test]
fn places_that_cannot_be_listened_on_or_written_to() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("one", "alice", 7));
    // A port that another program has, without sharing it.
    let taken = std::net::UdpSocket::bind(("127.0.0.1", lab.port)).expect("the port is free");
    lab.write_config();
    let config = text(&lab.config()).to_owned();
    let outcome = harborseal(["run", "--config", &config]).exits(IO);
    outcome.complains_about(&lab.port.to_string());
    drop(taken);
    // A data folder that is a file.
    let file = write(&lab, "file", b"in the way");
    lab.data_dir(Path::new(&file));
    lab.write_config();
    harborseal(["run", "--config", &config])
        .exits(IO)
        .complains_about("file");
    assert_eq!(std::fs::read(&file).expect("it is still there"), b"in the way");
}

#[test]
fn keys_that_are_none() {
    let (lab, segment) = recorded();
    let (data, segment) = (text(&lab.data()).to_owned(), text(&segment).to_owned());
    let missing = text(&lab.path("missing.identity")).to_owned();
    let garbage = write(&lab, "garbage.identity", &rtp::distinct_bytes(1, 3000));
    let empty = write(&lab, "empty.identity", b"");
    let public_key = harborseal(["keygen", "--public", text(&lab.identity("alice"))])
        .ok()
        .stdout;
    let public = write(&lab, "public.identity", public_key.as_bytes());
    let mut cut = std::fs::read_to_string(lab.identity("alice")).expect("alice's");
    cut.truncate(cut.trim_end().len() - 20);
    let cut = write(&lab, "cut.identity", cut.as_bytes());
    let out = text(&lab.path("out.rtpdump")).to_owned();
    let commands = |identity: &str| -> Vec<Vec<String>> {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        vec![
            line(&format!("list --identity {identity} {data}")),
            line(&format!("verify --identity {identity} {segment}")),
            line(&format!(
                "export --identity {identity} --camera front-door -o {out} {data}"
            )),
            line(&format!("keygen --public {identity}")),
        ]
    };
    for (identity, code) in [
        (&missing, IO),
        (&data, IO),
        (&garbage, USAGE),
        (&empty, USAGE),
        (&public, USAGE),
        (&cut, USAGE),
    ] {
        for command in commands(identity) {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            fails(&lab, code, identity.rsplit('/').next().expect("a name"), &command);
        }
    }
    let nowhere = text(&lab.path("no/such/folder/x.identity")).to_owned();
    fails(&lab, IO, "no/such/folder", &["keygen", "-o", &nowhere]);
    fails(&lab, USAGE, "", &["keygen"]);
}

#[test]
fn segments_that_are_none() {
    let (lab, segment) = recorded();
    let identity = text(&lab.identity("alice")).to_owned();
    let missing = text(&lab.path("missing.hseal")).to_owned();
    let whole = std::fs::read(&segment).expect("a segment");
    let foreign = write(&lab, "foreign.hseal", &rtp::distinct_bytes(2, 100_000));
    let words = write(&lab, "words.hseal", b"this is a text\n");
    let empty = write(&lab, "empty.hseal", b"");
    let zeros = write(&lab, "zeros.hseal", &[0; 65_536]);
    let header = write(&lab, "header.hseal", &whole[..5000]);
    let no_segments = lab.path("no-segments");
    std::fs::create_dir(&no_segments).expect("a fresh folder");
    let no_segments = text(&no_segments).to_owned();
    for command in ["inspect", "verify", "recover"] {
        fails(&lab, IO, "missing.hseal", &[command, &missing]);
        for foreign in [&foreign, &words, &empty, &zeros] {
            let name = foreign.rsplit('/').next().expect("a name");
            let before = std::fs::read(foreign).expect("just written");
            let outcome = harborseal([command, foreign]).exits(DAMAGE).complains_about(name);
            assert!(!outcome.stderr.is_empty());
            assert_eq!(
                std::fs::read(foreign).expect("still there"),
                before,
                "{command} leaves {name} alone"
            );
        }
    }
    harborseal(["inspect", &header]).complains_about("header.hseal");
    fails(
        &lab,
        IO,
        "missing.hseal",
        &["list", "--identity", &identity, &missing],
    );
    fails(
        &lab,
        NOTHING,
        "no-segments",
        &["list", "--identity", &identity, &no_segments],
    );
    fails(&lab, NOTHING, "no-segments", &["verify", &no_segments]);
    fails(&lab, USAGE, "no-segments", &["inspect", &no_segments]);
}

#[test]
fn a_segment_cut_short_is_told_from_a_whole_one() {
    let (lab, segment) = recorded();
    let whole = std::fs::read(&segment).expect("a segment");
    let cut = lab.path("cut");
    std::fs::create_dir(&cut).expect("a fresh folder");
    let path = cut.join(segment.file_name().expect("a name"));
    // In a block, at a block's edge, in the last block.
    for length in [
        whole.len() / 2 + 777,
        whole.len() / 2 / 4096 * 4096,
        whole.len() - 1,
    ] {
        std::fs::write(&path, &whole[..length]).expect("a copy");
        harborseal(["verify", text(&path)])
            .exits(DAMAGE)
            .complains_about("hseal");
        let before = std::fs::read(&path).expect("just written");
        let shown = harborseal(["inspect", text(&path)]);
        assert!(!shown.stderr.contains("panicked"), "{}", shown.stderr);
        assert_eq!(std::fs::read(&path).expect("still there"), before);
        // What is whole in it can still be had.
        let out = lab.path(&format!("cut-{length}.rtpdump"));
        let identity = lab.identity("alice");
        #[rustfmt::skip]
        let outcome = harborseal([
            "export", "--identity", text(&identity), "--camera", "front-door", "-o", text(&out), text(&path),
        ]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        assert!(matches!(outcome.code, Some(OK | DAMAGE)), "{outcome:?}");
    }
}

#[test]
fn a_flipped_bit_in_a_chunk_is_found_and_named_by_its_place() {
    let (lab, segment) = recorded();
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let bad = lab.path("bad");
    std::fs::create_dir(&bad).expect("a fresh folder");
    let path = bad.join(segment.file_name().expect("a name"));
    std::fs::write(&path, &bytes).expect("a copy");
    let outcome = harborseal(["verify", "--json", text(&path)]).exits(DAMAGE);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(
        said.contains(text(segment.file_name().map(Path::new).expect("a name"))),
        "{said}"
    );
    // The block in which it lies begins at most a megabyte before, on a 4 KiB edge.
    let places = (0..=256)
        .map(|back| (middle / 4096 * 4096) as i64 - back * 4096)
        .filter(|place| *place >= 0);
    let named = places.into_iter().any(|place| said.contains(&place.to_string()));
    assert!(named, "an offset near {middle} in {said}");
}

#[test]
fn exports_that_cannot_be_written() {
    let (lab, _) = recorded();
    let identity = text(&lab.identity("alice")).to_owned();
    let data = text(&lab.data()).to_owned();
    let folder = lab.path("folder.pcapng");
    std::fs::create_dir(&folder).expect("a fresh folder");
    let export = |code: i32, word: &str, camera: &str, out: &str, more: &[&str]| {
        let out = text(&lab.path(out)).to_owned();
        let mut arguments = vec!["export", "--identity", &identity, "--camera", camera, "-o", &out];
        arguments.extend(more);
        arguments.push(&data);
        fails(&lab, code, word, &arguments);
    };
    for kind in ["rtpdump", "pcapng"] {
        export(NOTHING, "back-door", "back-door", &format!("out.{kind}"), &[]);
        export(
            IO,
            "no-folder",
            "front-door",
            &format!("no-folder/out.{kind}"),
            &[],
        );
        let long_ago = [
            "--from",
            "2001-01-01T00:00:00Z",
            "--to",
            "2001-01-02T00:00:00+01:00",
        ];
        export(NOTHING, "", "front-door", &format!("out.{kind}"), &long_ago);
    }
    export(IO, "folder.pcapng", "front-door", "folder.pcapng", &[]);
    export(USAGE, "avi", "front-door", "out.avi", &[]);
    export(USAGE, "", "front-door", "out", &[]);
    export(
        USAGE,
        "yesterday",
        "front-door",
        "out.rtpdump",
        &["--from", "yesterday"],
    );
    export(
        USAGE,
        "zone",
        "front-door",
        "out.rtpdump",
        &["--from", "2026-01-01T00:00:00"],
    );
    let backwards = ["--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"];
    export(USAGE, "--to", "front-door", "out.rtpdump", &backwards);
    // Random payload is no film: the camera says no codec.
    export(USAGE, ".pcapng", "front-door", "out.mp4", &[]);

    // A full device takes no film either, and says so.
    let full = harborseal([
        "export",
        "--identity",
        &identity,
        "--camera",
        "front-door",
        "-o",
        "/dev/full",
        &data,
    ]);
    assert!(!full.stderr.contains("panicked"), "{}", full.stderr);
    assert_ne!(full.code, Some(OK));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let (lab, segment) = recorded();
    for command in [
        format!("inspect {}", text(&segment)),
        format!("verify --json {}", text(&lab.data())),
    ] {
        let line = format!("{} {command} | true", text(&cli::binary()));
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &line]);
        let outcome = cli::run(shell, std::time::Duration::from_secs(30));
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}

#[test]
fn folders_one_may_not_read() {
    if nix::unistd::geteuid().is_root() {
        // Root may read everything: another user tries, below.
        let shared = tempfile::tempdir().expect("a temporary folder");
        let binary = shared.path().join("harborseal");
        std::fs::copy(cli::binary(), &binary).expect("the binary can be copied");
        let closed = shared.path().join("closed");
        std::fs::create_dir(&closed).expect("a fresh folder");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        mode(shared.path(), 0o755)
            .and_then(|()| mode(&closed, 0o700))
            .expect("they are ours");
        let mut command = std::process::Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            text(&binary),
            "verify",
            text(&closed),
        ]);
        cli::run(command, std::time::Duration::from_secs(30))
            .exits(IO)
            .complains_about("closed");
    } else {
        let closed = cli::fresh_folder();
        let path = closed.path().join("closed");
        std::fs::create_dir(&path).expect("a fresh folder");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("it is ours");
        harborseal(["verify", text(&path)])
            .exits(IO)
            .complains_about("closed");
    }
}
