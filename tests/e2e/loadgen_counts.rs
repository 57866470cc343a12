//! Others count the same: tshark's own figures of packets and losses, on the wire and on what was exported, agree with the sent log and
//! with the verdict.

use harborseal_loadgen::Lane;
use harborseal_loadgen::send::Method;
use harborseal_loadgen::sentlog::Flags;
use harborseal_loadgen::verify::StreamVerdict;
use harborseal_tests::harness::fleet::{Fleet, Ran};
use harborseal_tests::harness::root::have_root;
use harborseal_tests::harness::tools::{text, tool};
use harborseal_tests::harness::{cli, harborseal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LOSSY: &str = r#"
name = "lossy"
seconds = 4
customers = ["alice", "bob"]
rtcp = "off"
[[group]]
name = "all"
count = 4
mbps = 1
audio = true
impair = { loss = "2%" }
"#;

/// Packets and losses of one stream.
type Count = (u64, u64);

/// What the sent log says that anybody between the first and the last packet must count.
fn by_the_log(fleet: &Fleet) -> HashMap<u32, Count> {
    let log = fleet.log();
    let streams = (0..).zip(log.streams());
    let count = |(number, stream): (u32, &harborseal_loadgen::sentlog::LoggedStream)| {
        let flags: Vec<Flags> = log
            .packets(number, Lane::Rtp)
            .map(|entry| entry.expect("an undamaged log").flags)
            .collect();
        let is_sent = |flags: &Flags| flags.has(Flags::SENT);
        let first = flags.iter().position(is_sent).expect("something was sent");
        let last = flags.iter().rposition(is_sent).expect("something was sent");
        let sent = flags.iter().filter(|flags| is_sent(flags)).count();
        (stream.ssrc, (sent as u64, (last + 1 - first - sent) as u64))
    };
    streams.map(count).collect()
}

/// tshark's table of RTP streams. `-z rtp,streams` prints, behind the SSRC: payload, packets, lost (percent) …
#[track_caller]
fn by_tshark(capture: &Path, port: u16) -> HashMap<u32, Count> {
    let decode = format!("udp.port=={port},rtp");
    let table = tool(
        "tshark",
        &[
            "-r",
            text(capture),
            "-q",
            "-d",
            &decode,
            "--enable-heuristic",
            "rtp_udp",
            "-z",
            "rtp,streams",
        ],
    );
    let row = |line: &str| -> Option<(u32, Count)> {
        let at = line.find("0x")?;
        let fields: Vec<&str> = line[at..].split_whitespace().collect();
        let ssrc = u32::from_str_radix(fields[0].trim_start_matches("0x"), 16).ok()?;
        let percent = fields.iter().position(|field| field.starts_with('('))?;
        let number = |at: usize| fields[at].parse().ok();
        Some((ssrc, (number(percent - 2)?, number(percent - 1)?)))
    };
    let rows: HashMap<u32, Count> = table.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "tshark shows no stream:\n{table}");
    rows
}

/// A capture of what goes to a port on the loopback.
struct Capture {
    child: Child,
    said: std::thread::JoinHandle<String>,
}

impl Capture {
    /// Begins it, and waits until it listens.
    fn begin(port: u16, to: &Path) -> Capture {
        let mut child = Command::new("dumpcap")
            .args([
                "-i",
                "lo",
                "-B",
                "64",
                "-f",
                &format!("udp dst port {port}"),
                "-w",
                text(to),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/run installs dumpcap with tshark");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = String::new();
        // It names its file once its interface is open.
        for line in lines.by_ref().map_while(Result::ok) {
            said.push_str(&line);
            said.push('\n');
            if line.starts_with("File:") {
                break;
            }
        }
        let said = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                said.push_str(&line);
                said.push('\n');
            }
            said
        });
        Capture { child, said }
    }

    /// Ends it; what it says of packets dropped.
    #[track_caller]
    fn end(mut self) -> String {
        // What was sent last is still on its way from the kernel's buffer to the file.
        std::thread::sleep(Duration::from_millis(500));
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("the capture is ours to end");
        let status = cli::wait(&mut self.child, Duration::from_secs(30));
        let said = self.said.join().expect("the reader does not panic");
        assert!(status.is_some_and(|status| status.success()), "{said}");
        said
    }
}

/// Records the fleet with a capture beside it, again if this machine, busy with other tests, lost packets on the way to either.
#[track_caller]
fn record_and_capture(fleet: &Fleet, path: &Path) -> Ran {
    for _ in 0..4 {
        fleet.forget();
        let capture = Capture::begin(fleet.port, path);
        let ran = fleet.record();
        let said = capture.end();
        if ran.is_whole() && said.contains("pcap:0/dumpcap:0/") {
            return ran;
        }
    }
    panic!("this machine loses packets on its loopback every time");
}

#[test]
fn tshark_counts_on_the_wire_what_the_sent_log_says() {
    if !have_root(
        "tshark_counts_on_the_wire_what_the_sent_log_says",
        "capturing needs root",
    ) {
        return;
    }
    let mut fleet = Fleet::new(LOSSY, &[]);
    // With UDP_SEGMENT a capture on loopback shows whole batches as one datagram, which is no packet of ours.
    fleet.method = Method::Sendmmsg;
    let path = fleet.path("wire.pcapng");
    let ran = record_and_capture(&fleet, &path);
    let counted = by_tshark(&path, fleet.port);
    assert_eq!(counted, by_the_log(&fleet));

    let verdict = fleet.verdict(Some(&ran));
    assert!(verdict.figures.as_expected, "{}", verdict.text(None));
    for stream in &verdict.streams {
        assert_eq!(counted[&stream.ssrc].0, stream.stored, "{stream:?}");
    }
    assert!(
        counted.values().map(|count| count.1).sum::<u64>() > 0,
        "2 % were lost"
    );
}

#[test]
fn tshark_counts_in_an_export_what_the_verdict_says() {
    let fleet = Fleet::new(LOSSY, &["seed=5"]);
    let ran = fleet.record_all();
    let verdict = fleet.verdict(Some(&ran));
    assert!(verdict.figures.as_expected, "{}", verdict.text(None));
    let of_log = by_the_log(&fleet);
    let mut cameras: HashMap<&str, Vec<&StreamVerdict>> = HashMap::new();
    for stream in &verdict.streams {
        cameras.entry(&stream.camera).or_default().push(stream);
    }
    for (camera, streams) in cameras {
        let customer = fleet
            .plan
            .customers
            .iter()
            .position(|name| *name == streams[0].customer);
        let identity = &fleet.identities()[customer.expect("of this plan")];
        let (out, data) = (fleet.path(&format!("{camera}.pcapng")), fleet.data());
        harborseal([
            "export",
            "--identity",
            text(identity),
            "--camera",
            camera,
            "-o",
            text(&out),
            text(&data),
        ])
        .ok();
        let counted = by_tshark(&out, fleet.port);
        assert_eq!(counted.len(), streams.len());
        for stream in streams {
            assert_eq!(
                counted[&stream.ssrc],
                (stream.stored, of_log[&stream.ssrc].1),
                "{stream:?}"
            );
        }
    }
}
