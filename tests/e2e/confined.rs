//! What the recording process cannot do, asked of the process itself: a debugger makes it call. And what it refuses to start with.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harborseal_tests::harness::cli::{self, binary, fresh_folder};
use harborseal_tests::harness::engine::BOUND;
use harborseal_tests::harness::root::have_root;
use harborseal_tests::harness::tools::{text, tool};
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal};
use nix::sys::signal::Signal;

/// nobody, on every Debian: a user with nothing of its own.
const NOBODY: u32 = 65_534;

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab
}

/// A line of `/proc/PID/…/status`.
fn status(of: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(of.join("status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.expect("the kernel says so").trim().to_owned()
}

fn proc_of(engine: &Engine) -> std::path::PathBuf {
    format!("/proc/{}", engine.pid()).into()
}

/// What the process gets when it makes this system call itself: gdb lends it the words.
#[track_caller]
fn call(engine: &Engine, call: &str) -> String {
    let folder = fresh_folder();
    let mut command = Command::new("gdb");
    let (pid, print) = (engine.pid().to_string(), format!("print {call}"));
    command
        .args(["-batch", "-nx", "-p", &pid])
        .current_dir(folder.path());
    // It takes the death of what it holds for a fault of its own.
    let quietly = [
        "maint set internal-error quit yes",
        "maint set internal-error corefile no",
    ];
    for line in quietly.into_iter().chain(["set unwindonsignal on", &print]) {
        command.args(["-ex", line]);
    }
    let outcome = cli::run(command, Duration::from_secs(120));
    let said = outcome.stdout + &outcome.stderr;
    let answer = said.lines().rfind(|line| line.starts_with("$1 = "));
    answer.map_or(said.clone(), |line| line["$1 = ".len()..].to_owned())
}

#[test]
fn every_thread_is_confined_and_what_is_forbidden_fails() {
    let test = "every_thread_is_confined_and_what_is_forbidden_fails";
    if !have_root(test, "lends the engine system calls by a debugger") {
        return;
    }
    let lab = lab();
    let engine = lab.start();
    let tasks = std::fs::read_dir(proc_of(&engine).join("task")).expect("the engine runs");
    let mut threads = 0;
    for task in tasks.flatten() {
        assert_eq!(status(&task.path(), "NoNewPrivs:"), "1");
        assert_eq!(status(&task.path(), "Seccomp:"), "2");
        assert_eq!(status(&task.path(), "Seccomp_filters:"), "2");
        threads += 1;
    }
    assert!(threads >= 5, "{threads} threads");
    let limits = std::fs::read_to_string(proc_of(&engine).join("limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.expect("the kernel lists it").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{words:?}");

    // openat(AT_FDCWD, name, O_RDONLY): by Landlock. The C library returns -1; a descriptor would be positive.
    let open = |path: &Path| {
        call(
            &engine,
            &format!(
                "(long)syscall({}L, -100L, \"{}\", 0L)",
                libc_openat(),
                path.display()
            ),
        )
    };
    for (path, reached) in [
        (lab.data().join("keys/node.pub"), true),
        (lab.config(), true),
        ("/etc/passwd".into(), false),
        ("/proc/1/environ".into(), false),
    ] {
        let answer = open(&path);
        let descriptor = answer.parse::<i64>().unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(descriptor >= 0, reached, "{}: {answer}", path.display());
    }
    // socket(AF_INET, SOCK_DGRAM, 0), and prctl(PR_SET_DUMPABLE, 1): by seccomp.
    assert_eq!(call(&engine, "(int)socket(2, 2, 0)"), "-1");
    assert_eq!(call(&engine, "(int)prctl(4, 1L, 0L, 0L, 0L)"), "-1");
    // And it records on.
    Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(100));
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["stored"], 100, "{last}");
}

/// The number of openat.
fn libc_openat() -> i64 {
    match std::env::consts::ARCH {
        "x86_64" => 257,
        _ => 56,
    }
}

#[test]
fn a_process_that_would_run_a_program_is_killed() {
    let test = "a_process_that_would_run_a_program_is_killed";
    if !have_root(test, "lends the engine system calls by a debugger") {
        return;
    }
    let lab = lab();
    let mut engine = lab.start();
    let answer = call(&engine, "(int)execve(\"/bin/sh\", 0L, 0L)");
    assert_eq!(engine.killed_by(), Some(Signal::SIGSYS), "{answer}");
}

/// The whole laboratory handed to nobody, who can then run an engine there.
fn give_away(lab: &Lab) {
    lab.write_config();
    std::fs::create_dir_all(lab.data()).expect("the laboratory is ours");
    std::fs::set_permissions(lab.data(), PermissionsExt::from_mode(0o700)).expect("the laboratory is ours");
    let folder = lab.config().parent().expect("it stands in a folder").to_owned();
    // An enrolment holds the salt of pseudonyms: it is its user's alone, as the configuration is.
    let enrolments = cli::files_under(&folder).into_iter();
    let enrolments = enrolments.filter(|path| path.extension().is_some_and(|it| it == "enrolment"));
    for path in enrolments.chain([folder.clone(), lab.config(), lab.data()]) {
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
}

/// A copy of the engine where nobody reaches it: the build may lie in root's own folder.
fn program() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::Builder::new()
        .prefix("harborseal")
        .tempdir_in("/var/tmp")
        .expect("a folder can be made");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let program = folder.path().join("harborseal");
    std::fs::copy(binary(), &program).expect("the engine can be copied");
    (folder, program)
}

#[test]
fn started_by_root_it_becomes_the_user_it_is_told_and_its_files_are_that_users() {
    let test = "started_by_root_it_becomes_the_user_it_is_told_and_its_files_are_that_users";
    if !have_root(test, "starts an engine as root that becomes nobody") {
        return;
    }
    let (folder, program) = program();
    let mut lab = Lab::in_folder(folder.path());
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab.section("process", "user = \"nobody\"");
    give_away(&lab);
    let mut command = Command::new(program);
    command.args(["run", "--log", "json", "--config", text(&lab.config())]);
    let engine = Engine::spawn_command(command);
    assert!(engine.becomes_ready(), "{:#?}", engine.lines());
    let uids = status(&proc_of(&engine), "Uid:");
    assert_eq!(uids.split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
    assert_eq!(status(&proc_of(&engine), "Groups:"), "65534");
    for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(status(&proc_of(&engine), set), "0000000000000000", "{set}");
    }

    // Somebody of the same user neither reads its memory nor traces it, not even its environment; of another program of that user, the last.
    let other = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"])
        .spawn()
        .expect("setpriv is installed");
    let as_nobody = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command.args(arguments).current_dir(folder.path());
        cli::run(command, BOUND)
    };
    let environ = |pid: u32| as_nobody("cat", &[&format!("/proc/{pid}/environ")]).code;
    let until = Instant::now() + BOUND;
    while environ(other.id()) != Some(0) {
        assert!(Instant::now() < until, "a user reads its own processes");
    }
    end(other);
    assert_ne!(environ(engine.pid()), Some(0));
    assert_ne!(
        as_nobody("dd", &[&format!("if=/proc/{}/mem", engine.pid()), "count=1"]).code,
        Some(0)
    );
    let core = as_nobody(
        "gcore",
        &["-o", text(&lab.path("core")), &engine.pid().to_string()],
    );
    assert_ne!(core.code, Some(0), "{core:?}");

    // A reload works without root, too.
    engine.signal(Signal::SIGHUP);
    engine.wait_for("word of the reload", |event| {
        (event["event"] == "reload").then(|| assert_eq!(event["ok"], true, "{event}"))
    });
    Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(100));
    lab.settle_and_stop(engine);
    for file in cli::files_under(&lab.data()) {
        let about = file.metadata().expect("it is there");
        let mode = about.permissions().mode() & 0o777;
        assert!([0o600, 0o640].contains(&mode), "{}: {mode:o}", file.display());
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&about),
            NOBODY,
            "{}",
            file.display()
        );
    }
}

fn end(mut child: std::process::Child) {
    child.kill().expect("it is ours to kill");
    child.wait().expect("it was killed");
}

#[test]
fn folders_that_others_could_change_are_refused_with_the_command_that_mends_it() {
    let lab = lab();
    lab.start().stop();
    let refused = |path: &Path, loose: u32, right: u32| {
        let set = |mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
        set(loose);
        let mode = if right == 0o700 { "chmod 700" } else { "chmod o-w" };
        harborseal(["run", "--config", text(&lab.config())])
            .exits(4)
            .complains_about(mode);
        let checked = harborseal(["check", "--config", text(&lab.config())]).exits(1);
        assert!(checked.stdout.contains(mode), "{}", checked.stdout);
        set(right);
    };
    refused(&lab.data(), 0o757, 0o750);
    refused(&lab.data().join("keys"), 0o750, 0o700);
    refused(&lab.config(), 0o646, 0o640);
    lab.start().stop();
}

#[test]
fn a_reload_reads_only_where_it_may_and_says_what_to_do() {
    let mut lab = lab();
    let elsewhere = fresh_folder();
    let sdp = elsewhere.path().join("new.sdp");
    std::fs::write(&sdp, "v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n").expect("a folder of ours");
    let reload = |lab: &Lab, engine: &Engine| {
        lab.write_config();
        let seen = engine.events().len();
        engine.signal(Signal::SIGHUP);
        engine.wait_from(seen, BOUND, "word of the reload", |event| {
            (event["event"] == "reload").then(|| event.clone())
        })
    };
    let engine = lab.start();
    if engine
        .lines()
        .iter()
        .any(|line| line.contains("not fully protected: Landlock"))
    {
        return; // nothing to show on this kernel, and it says so
    }
    lab.camera(Camera::new("new", "alice", 2).sdp(text(&sdp)));
    let word = reload(&lab, &engine);
    assert_eq!(word["ok"], false, "{word}");
    let message = word["message"].as_str().expect("a message");
    assert!(message.contains("process.read"), "{message}");
    engine.stop();

    lab.remove_camera("new");
    lab.section("process", &format!("read = [\"{}\"]", elsewhere.path().display()));
    let engine = lab.start();
    lab.camera(Camera::new("new", "alice", 2).sdp(text(&sdp)));
    let word = reload(&lab, &engine);
    assert_eq!(word["ok"], true, "{word}");
    engine.stop();
}

#[test]
fn check_says_of_each_protection_whether_it_holds_here() {
    let lab = lab();
    lab.write_config();
    let report = harborseal(["check", "--json", "--config", text(&lab.config())]);
    let report = report.json();
    let rows = report["checks"].as_array().expect("a list");
    for name in [
        "no tracing, no dumping",
        "core size",
        "no_new_privs",
        "Landlock",
        "seccomp",
        "seccomp once it runs",
        "memory for keys",
        "user",
        "RESTRICTED",
    ] {
        let of_name: Vec<_> = rows.iter().filter(|row| row["name"] == name).collect();
        assert_eq!(of_name.len(), 1, "{name}: {report}");
        let lacking = of_name[0]["state"] != "ok";
        assert_eq!(
            lacking,
            of_name[0]["remedy"] != "",
            "a remedy for what is lacking: {}",
            of_name[0]
        );
    }
}

#[test]
fn what_a_sandbox_lacks_can_be_made_to_stop_the_start() {
    let mut lab = lab();
    lab.section("process", "require_sandbox = true");
    lab.write_config();
    let lacking = harborseal(["check", "--json", "--config", text(&lab.config())]).json();
    let lacking = lacking["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .any(|row| row["state"] == "needed");
    let mut engine = Engine::spawn(&lab.config());
    assert_eq!(engine.becomes_ready(), !lacking, "{:#?}", engine.lines());
    if lacking {
        assert_eq!(engine.end(), Some(2));
    }
}

#[test]
fn the_unit_leaves_the_service_little() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/systemd/harborseal.service");
    // The threshold is in tenths: 1.5.
    let said = tool(
        "systemd-analyze",
        &[
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=15",
            text(&unit),
        ],
    );
    assert!(said.contains("Overall exposure level"), "{said}");
}
