//! The command as a user meets it: what it refuses before it sends, and what it says of a run that was not the one asked for.

use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `run` of a small fleet against a socket that nobody reads: whatever is sent stays there, or is dropped there.
fn run(target: &UdpSocket, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harborseal-loadgen"));
    let target = target.local_addr().expect("bound").to_string();
    command
        .args(["run", "tiny", "--quiet", "--target", &target])
        .args(arguments);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    command
}

fn sink() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let bound = Duration::from_millis(100);
    socket
        .set_read_timeout(Some(bound))
        .expect("a timeout above zero");
    socket
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill")
        .args([name, &pid])
        .status()
        .expect("kill is everywhere");
    assert!(sent.success());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_assertion_on_what_is_not_measured_is_refused_before_a_packet_leaves() {
    let sink = sink();
    for (assertion, wanted) in [
        ("stored_loss==0", "--segments"),
        ("engine.dropped.pool_exhausted==0", "--engine-stats"),
        ("stored_los==0", "stored_loss"),
        ("sent", "=="),
    ] {
        let output = run(&sink, &["--assert", assertion])
            .output()
            .expect("the command starts");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{assertion}: {said}");
        assert!(said.contains(wanted), "{assertion}: {said}");
    }
    assert!(sink.recv(&mut [0; 2048]).is_err(), "nothing was sent");
}

#[test]
fn assertions_decide_the_exit_status() {
    let sink = sink();
    for (assertion, status) in [("sent>=1", 0), ("sent<1", 1)] {
        // A busy machine may make the run late; that is another matter.
        let late = ["-s", "seconds=1", "-s", "lateness_budget=\"60s\""];
        let output = run(&sink, &[&late[..], &["--assert", assertion]].concat()).output();
        let output = output.expect("the command starts");
        assert_eq!(
            output.status.code(),
            Some(status),
            "{assertion}: {}",
            said(&output)
        );
    }
}

/// A generator that gets no CPU for a second of a run of two sends late, and must say that this was not the load asked for.
#[test]
fn a_generator_starved_of_cpu_calls_its_run_invalid() {
    let sink = sink();
    let child = run(&sink, &["-s", "seconds=2"])
        .spawn()
        .expect("the command starts");
    let until = Instant::now() + Duration::from_secs(20);
    while sink.recv(&mut [0; 2048]).is_err() {
        assert!(Instant::now() < until, "it never began to send");
    }
    signal(&child, "-STOP");
    std::thread::sleep(Duration::from_millis(1000));
    signal(&child, "-CONT");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("INVALID"), "{}", said(&output));
}

#[test]
fn the_help_lists_every_figure_and_who_measures_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_harborseal-loadgen"))
        .args(["run", "--help"])
        .output();
    let help = String::from_utf8(output.expect("the command starts").stdout).expect("text");
    for figure in harborseal_loadgen::assert::FIGURES {
        assert!(help.contains(figure.name), "{}", figure.name);
    }
    assert!(help.contains("pool_exhausted") && help.contains("Exit status"));
}
