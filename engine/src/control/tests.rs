//! The control thread as a whole, over a real loopback port. One test, for signals and standard streams are the process's.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::process::{Signal, getpid, kill_process};

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .expect("a status")
        .parse()
        .expect("a number");
    if path == "/metrics" {
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    }
    (status, body.to_owned())
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_from_start_to_finish() {
    let options = Options {
        shards: 2,
        log: Log::Text,
        progress_every: Duration::from_millis(100),
    };
    let reloads = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&reloads);
    let reload: Reload = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok("nothing new".to_owned())
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (control, mut ports) = Control::start(options, Some(listener), reload).expect("started");
    let address = control.address().expect("it listens");
    assert_eq!(get(address, "/readyz"), (503, "starting\n".to_owned()));
    assert_eq!(get(address, "/healthz").0, 200);
    assert_eq!(get(address, "/").0, 404);
    // Before it is ready, a reload waits.
    kill_process(getpid(), Signal::HUP).expect("signalled");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(reloads.load(Ordering::SeqCst), 0);

    control.ready(Ready {
        shards: 2,
        ..Ready::default()
    });
    wait_until("ready", || get(address, "/readyz").0 == 200);
    wait_until("the reload", || reloads.load(Ordering::SeqCst) == 1);

    let mut snapshot = Snapshot::new(1);
    (snapshot.received, snapshot.stored) = (10, 10);
    ports[1].publish(&snapshot);
    let line = "harborseal_received_packets_total{shard=\"1\"} 10";
    wait_until("the figures", || {
        get(address, "/metrics").1.lines().any(|l| l == line)
    });

    assert_eq!(control.asked_to_stop(), None);
    kill_process(getpid(), Signal::TERM).expect("signalled");
    assert_eq!(control.wait(), "SIGTERM");
    assert_eq!(get(address, "/readyz"), (503, "stopping\n".to_owned()));
    assert_eq!(get(address, "/healthz").0, 200);
    // A second one changes nothing.
    control.handle().stop("again");
    let books = control.finish(vec![Snapshot::new(0), snapshot], Vec::new());
    assert!(books.balances());
    assert_eq!(
        (books.totals.sum.received, books.reason.as_str()),
        (10, "SIGTERM")
    );
    assert!(TcpStream::connect(address).is_err(), "nothing listens any more");
}
