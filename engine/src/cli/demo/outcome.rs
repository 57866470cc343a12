//! What the demo came to: the table, the object, and the judgement.
//!
//! The books, in packets (RTP and RTCP): sent = lost before us + received; received = stored + Σ dropped, by the ledger; and
//! what the identities open must be exactly what the ledger calls stored, each packet as the sender's log has it.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use harborseal_loadgen::FleetSpec;
use serde_json::{Value, json};

use super::super::error::CliError;
use super::film::Film;
use super::lab::NAMES;
use super::read_back::ReadBack;
use super::{number, path_text};
use crate::text::{Grouped, counted};

/// Figures of all that happened.
pub struct Outcome {
    cameras: u32,
    mbps: f64,
    seconds: f64,
    sent: Sent,
    ledger: Ledger,
    back: ReadBack,
    film: Film,
}

/// By the sender.
struct Sent {
    packets: u64,
    not_sent: u64,
    gbps: f64,
    lateness_ms_p99: f64,
    invalid_because: Vec<String>,
}

/// By the engine.
struct Ledger {
    received: u64,
    stored: u64,
    dropped: Vec<(String, u64)>,
    /// Stored packets of each stream, by SSRC.
    streams: HashMap<u32, u64>,
    kernel_drop_batches: u64,
    cpu_ns_per_packet: f64,
    durable_ms_p50: f64,
    durable_ms_p99: f64,
}

impl Outcome {
    /// Takes the children's objects apart.
    pub fn new(
        spec: &FleetSpec,
        sent: &Value,
        ledger: &Value,
        back: ReadBack,
        film: Film,
    ) -> Result<Outcome, CliError> {
        let texts = |value: &Value| {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let figure = |object: &Value, key: &str| object[key].as_f64().unwrap_or(0.0);
        let reasons = ledger["dropped"].as_object().into_iter().flatten();
        Ok(Outcome {
            cameras: spec.cameras,
            mbps: spec.mbps,
            seconds: spec.seconds,
            sent: Sent {
                packets: number(sent, "sent")? + number(sent, "rtcp_sent")?,
                not_sent: number(sent, "not_sent")? + number(sent, "rtcp_not_sent")?,
                gbps: figure(sent, "gbps"),
                lateness_ms_p99: figure(sent, "lateness_ms_p99"),
                invalid_because: texts(&sent["invalid_because"]),
            },
            ledger: Ledger {
                received: number(ledger, "received")?,
                stored: number(ledger, "stored")?,
                dropped: reasons
                    .map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0)))
                    .collect(),
                streams: stored_by_stream(ledger)?,
                kernel_drop_batches: ledger["kernel_drop_batches"].as_u64().unwrap_or(0),
                cpu_ns_per_packet: figure(ledger, "cpu_ns_per_packet"),
                durable_ms_p50: figure(ledger, "durable_ms_p50"),
                durable_ms_p99: figure(ledger, "durable_ms_p99"),
            },
            back,
            film,
        })
    }

    /// What must not be; empty if all is as promised.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.back.damage.clone();
        let checks = self.books().into_iter().chain(self.contents());
        faults.extend(checks.filter(|(holds, _)| !holds).map(|(_, fault)| fault));
        faults
    }

    /// Whether the books close: sender, ledger and segments agree on how many.
    fn books(&self) -> [(bool, String); 5] {
        let Ledger {
            received,
            stored,
            ref streams,
            ..
        } = self.ledger;
        let (sent, found, dropped) = (self.sent.packets, self.found(), self.dropped());
        let logged = self.back.verdict.sent + self.back.verdict.rtcp_sent;
        let differing = self.back.found.iter();
        let differing = differing.filter(|(ssrc, found)| streams.get(ssrc).copied().unwrap_or(0) != **found);
        let differing = differing.count();
        [
            (
                received == stored + dropped,
                format!("the ledger is not exact: {received} received, {stored} stored, {dropped} dropped"),
            ),
            (
                received <= sent,
                format!("{received} received, but only {sent} sent"),
            ),
            (
                logged == sent,
                format!("the sender reports {sent} packets and logs {logged}"),
            ),
            (
                found == stored,
                format!("the ledger says {stored} stored, the identities open {found}"),
            ),
            (
                differing == 0,
                format!("in {differing} streams the ledger's count is not what the identities open"),
            ),
        ]
    }

    /// Whether what is stored is what was sent, and for its owner alone.
    fn contents(&self) -> [(bool, String); 3] {
        let ReadBack {
            verdict, trespass, ..
        } = &self.back;
        let opened = trespass.opened;
        [
            (
                verdict.exact(),
                format!("not every stored packet is as it was sent: {verdict:?}"),
            ),
            (
                opened == 0,
                format!("{opened} blocks opened with the other customer's keys"),
            ),
            (self.film.frames > 0, "the film has no frames".to_owned()),
        ]
    }

    fn dropped(&self) -> u64 {
        self.ledger.dropped.iter().map(|(_, count)| count).sum()
    }

    /// RTP and RTCP packets that the identities opened.
    fn found(&self) -> u64 {
        self.back.verdict.stored + self.back.verdict.rtcp_stored
    }

    fn lost_before_us(&self) -> u64 {
        self.sent.packets.saturating_sub(self.ledger.received)
    }

    /// Bytes on disk beyond the packets themselves, in percent of them.
    fn disk_overhead_percent(&self) -> f64 {
        let packets = self.back.packet_bytes.max(1) as f64;
        100.0 * (self.back.segment_bytes as f64 / packets - 1.0)
    }

    /// What is really there of the rate at which was sent while all cameras were on.
    fn gbps(&self) -> f64 {
        self.sent.gbps * self.found() as f64 / self.sent.packets.max(1) as f64
    }

    /// The short table for people, and where the files are.
    pub fn table(&self, dir: &Path) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<18}{value}"); // writing to a String cannot fail
        };
        let (sent, ledger) = (&self.sent, &self.ledger);
        row(
            "cameras",
            format!(
                "{} × {} Mb/s × {} s",
                Grouped(self.cameras.into()),
                self.mbps,
                self.seconds
            ),
        );
        row("sent", format!("{} packets", Grouped(sent.packets)));
        if sent.not_sent > 0 {
            row(
                "not sent",
                format!(
                    "{} packets, refused by this machine's network stack",
                    Grouped(sent.not_sent)
                ),
            );
        }
        row("lost before us", self.lost_text());
        row("received", format!("{} packets", Grouped(ledger.received)));
        row("dropped", self.dropped_text());
        row("stored", self.stored_text());
        row("other identity", self.trespass_text());
        row(
            "rate",
            format!(
                "{:.3} Gb/s stored, {:.3} Gb/s sent, while all cameras are on",
                self.gbps(),
                sent.gbps
            ),
        );
        row(
            "CPU",
            format!("{:.0} ns of the engine per packet", ledger.cpu_ns_per_packet),
        );
        row(
            "durable after",
            format!(
                "p50 {:.0} ms · p99 {:.0} ms from a chunk's first packet",
                ledger.durable_ms_p50, ledger.durable_ms_p99
            ),
        );
        row(
            "disk",
            format!(
                "{} in {}, {:.1} % more than the packets",
                bytes_text(self.back.segment_bytes),
                counted(self.back.segments, "segment"),
                self.disk_overhead_percent()
            ),
        );
        row(
            "film",
            format!(
                "{} ({} frames of {}'s {})",
                path_text(&self.film.path),
                self.film.frames,
                NAMES[0],
                self.film.camera
            ),
        );
        if !sent.invalid_because.is_empty() {
            row(
                "note",
                format!(
                    "the fleet could not keep its schedule: {}",
                    sent.invalid_because.join("; ")
                ),
            );
        }
        let _ = write!(
            text,
            "\n{}\nThe files are in {}; remove them with: rm -r {}",
            self.sentence(),
            dir.display(),
            dir.display()
        );
        text
    }

    /// The result in one sentence.
    fn sentence(&self) -> String {
        let (missing, faults) = (
            self.sent.packets - self.found().min(self.sent.packets),
            self.faults(),
        );
        if !faults.is_empty() {
            format!("NOT as promised: {}.", faults.join("; "))
        } else if missing == 0 {
            "Every packet sent is stored, verified, and opens for its owner alone.".to_owned()
        } else {
            let share = 100.0 * missing as f64 / self.sent.packets as f64;
            format!(
                "{} packets ({share:.2} %) were lost, and every one is accounted for; all others are stored, verified, and open \
                 for their owner alone.",
                Grouped(missing)
            )
        }
    }

    fn lost_text(&self) -> String {
        match self.lost_before_us() {
            0 => "0".to_owned(),
            lost => format!(
                "{} packets: the engine's socket was full (the kernel says {} batches)",
                Grouped(lost),
                Grouped(self.ledger.kernel_drop_batches)
            ),
        }
    }

    fn dropped_text(&self) -> String {
        let reasons = self.ledger.dropped.iter().filter(|(_, count)| *count > 0);
        let reasons: Vec<String> = reasons
            .map(|(reason, count)| format!("{reason} {}", Grouped(*count)))
            .collect();
        match reasons.as_slice() {
            [] => "0".to_owned(),
            reasons => format!("{} packets: {}", Grouped(self.dropped()), reasons.join(", ")),
        }
    }

    fn stored_text(&self) -> String {
        let same = if self.back.verdict.exact() {
            "each byte for byte as sent"
        } else {
            "NOT all as sent"
        };
        format!(
            "{} packets, opened with their owners' identities, {same}",
            Grouped(self.found())
        )
    }

    fn trespass_text(&self) -> String {
        let trespass = self.back.trespass;
        format!(
            "opened {} of {} blocks tried; export: {}",
            trespass.opened,
            Grouped(trespass.tried),
            self.film.refusal
        )
    }

    /// The object of `--json`.
    pub fn json(&self, dir: &Path) -> Value {
        let (sent, ledger, back) = (&self.sent, &self.ledger, &self.back);
        let dropped: serde_json::Map<String, Value> = ledger
            .dropped
            .iter()
            .map(|(reason, count)| (reason.clone(), json!(count)))
            .collect();
        json!({
            "cameras": self.cameras,
            "mbps": self.mbps,
            "seconds": self.seconds,
            "sent": sent.packets,
            "not_sent": sent.not_sent,
            "received": ledger.received,
            "stored": self.found(),
            "dropped": dropped,
            "lost_before_engine": self.lost_before_us(),
            "kernel_drop_batches": ledger.kernel_drop_batches,
            "gbps": self.gbps(),
            "gbps_sent": sent.gbps,
            "cpu_ns_per_packet": ledger.cpu_ns_per_packet,
            "durable_ms_p50": ledger.durable_ms_p50,
            "durable_ms_p99": ledger.durable_ms_p99,
            "lateness_ms_p99": sent.lateness_ms_p99,
            "disk_overhead_percent": self.disk_overhead_percent(),
            "segments": back.segments,
            "segment_bytes": back.segment_bytes,
            "compared": back.verdict,
            "trespass_tried": back.trespass.tried,
            "trespass_opened": back.trespass.opened,
            "film": path_text(&self.film.path),
            "film_frames": self.film.frames,
            "dir": path_text(dir),
            "faults": self.faults(),
            "complete": self.faults().is_empty() && self.found() == sent.packets,
        })
    }
}

fn stored_by_stream(ledger: &Value) -> Result<HashMap<u32, u64>, CliError> {
    let streams = ledger["streams"].as_array().into_iter().flatten();
    let mut stored = HashMap::new();
    for stream in streams {
        // One SSRC may have had several streams, one after the other.
        *stored.entry(number(stream, "ssrc")? as u32).or_default() += number(stream, "stored")?;
    }
    Ok(stored)
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::audit::Trespass;
    use harborseal_loadgen::compare::Verdict;

    /// A demo whose numbers fit: 100 sent, `lost` of them before the engine, `dropped` in it.
    fn outcome(lost: u64, dropped: u64) -> Outcome {
        let spec = FleetSpec::new(2, 1.0, 1.0, vec!["127.0.0.1:5004".parse().expect("an address")]);
        let sent = json!({"sent": 98, "rtcp_sent": 2, "not_sent": 0, "rtcp_not_sent": 0, "gbps": 1.5});
        let stored = 100 - lost - dropped;
        let ledger = json!({
            "received": 100 - lost, "stored": stored, "dropped": {"pool_exhausted": dropped}, "streams": [{"ssrc": 7, "stored": stored}],
            "cpu_ns_per_packet": 900.0, "durable_ms_p50": 300.0, "durable_ms_p99": 500.0,
        });
        let verdict = Verdict {
            sent: 98,
            stored: stored - 2,
            missing: lost + dropped,
            rtcp_sent: 2,
            rtcp_stored: 2,
            ..Verdict::default()
        };
        let back = ReadBack {
            verdict,
            packet_bytes: 1000,
            segment_bytes: 1100,
            segments: 1,
            trespass: Trespass { tried: 4, opened: 0 },
            found: HashMap::from([(7, stored)]),
            damage: Vec::new(),
            best_camera: 0,
        };
        let film = Film {
            path: "film.mp4".into(),
            camera: "camera-00000".into(),
            frames: 25,
            refusal: "nothing here is for this identity".into(),
        };
        Outcome::new(&spec, &sent, &ledger, back, film).expect("all keys are there")
    }

    #[test]
    fn a_whole_demo_says_that_every_packet_is_stored() {
        let outcome = outcome(0, 0);
        assert_eq!(outcome.faults(), [] as [String; 0]);
        assert!(
            outcome
                .table(Path::new("demo"))
                .contains("Every packet sent is stored")
        );
        let object = outcome.json(Path::new("demo"));
        assert_eq!((&object["sent"], &object["stored"]), (&json!(100), &json!(100)));
        assert_eq!(object["complete"], json!(true));
    }

    #[test]
    fn accounted_losses_are_no_fault_and_are_said() {
        let outcome = outcome(7, 3);
        assert_eq!(outcome.faults(), [] as [String; 0]);
        let table = outcome.table(Path::new("demo"));
        assert!(table.contains("10 packets (10.00 %) were lost"), "{table}");
        assert!(table.contains("pool_exhausted 3"), "{table}");
        assert_eq!(outcome.json(Path::new("demo"))["complete"], json!(false));
    }

    #[test]
    fn books_that_do_not_close_or_keys_that_open_too_much_are_faults() {
        let spoil = |change: fn(&mut Outcome)| {
            let mut outcome = outcome(0, 0);
            change(&mut outcome);
            let faults = outcome.faults();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(outcome.table(Path::new("demo")).contains("NOT as promised"));
        };
        spoil(|outcome| outcome.ledger.received -= 1);
        spoil(|outcome| *outcome.ledger.streams.get_mut(&7).expect("the stream") -= 1);
        spoil(|outcome| outcome.back.trespass.opened = 1);
        spoil(|outcome| outcome.back.verdict.corrupt = 1);
        spoil(|outcome| outcome.back.damage = vec!["a chunk is damaged".to_owned()]);
        spoil(|outcome| outcome.film.frames = 0);
    }
}
