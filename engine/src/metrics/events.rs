//! What `run` says: one line of text for people, one JSON object for programs.
//!
//! Every object has `event`. Keys shared by all commands keep their names: `received stored dropped{reason} gbps
//! cpu_ns_per_packet durable_ms_p50 durable_ms_p99`; a rate that cannot be told yet is `null`. Reasons that never
//! occurred are listed as 0 in the totals and left out in streams.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use serde::ser::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Span, Totals};
use crate::ledger::{Account, Dropped, Reason, StreamLedger};
use crate::port::Durable;
use crate::text::{Grouped, counted};

/// What there is to say once all sockets are bound and all rings are armed.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// Where RTP arrives.
    pub listen: Vec<SocketAddr>,
    /// Where metrics are served.
    pub control: Option<SocketAddr>,
    /// Shards.
    pub shards: usize,
    /// Cameras of the registry.
    pub cameras: usize,
    /// Customers of the registry.
    pub customers: usize,
    /// What else an operator should know: memory not locked, the sealing library, and the like. One line each.
    pub notes: Vec<String>,
}

/// The books of a whole run.
#[derive(Clone, Debug)]
pub struct Final {
    /// Why it ended, as in `SIGTERM`.
    pub reason: String,
    /// The sum of all shards.
    pub totals: Totals,
    /// Rates over the run.
    pub span: Span,
    /// Every stream of the run.
    pub streams: Vec<StreamLedger>,
}

/// `dropped` with every reason.
struct All<'a>(&'a Dropped);

/// `dropped` with the reasons that occurred.
struct Occurred<'a>(&'a Dropped);

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            Reason::ALL
                .iter()
                .map(|reason| (reason.name(), self.0.get(*reason))),
        )
    }
}

impl Serialize for Occurred<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.nonzero().map(|(reason, packets)| (reason.name(), packets)))
    }
}

/// `ready` as a line of text, which begins with that word.
pub fn ready_text(ready: &Ready) -> String {
    let mut text = format!(
        "ready: recording {} of {} on {}, RTP at {}",
        counted(ready.cameras, "camera"),
        counted(ready.customers, "customer"),
        counted(ready.shards, "shard"),
        listed(&ready.listen)
    );
    if let Some(control) = ready.control {
        write!(text, ", metrics at http://{control}/metrics").expect("writing to a String cannot fail");
    }
    text
}

/// `ready` as an object.
pub fn ready_json(ready: &Ready) -> Value {
    json!({
        "event": "ready",
        "pid": std::process::id(),
        "listen": ready.listen,
        "control": ready.control,
        "shards": ready.shards,
        "cameras": ready.cameras,
        "customers": ready.customers,
        "notes": ready.notes,
    })
}

/// `durable` as an object: everything of the segment below `offset` is on disk, up to block `block_no`.
pub fn durable_json(durable: &Durable) -> Value {
    let Durable {
        shard,
        segment,
        offset,
        block_no,
    } = durable;
    json!({ "event": "durable", "shard": shard, "segment": segment.to_string(), "offset": offset, "block_no": block_no })
}

/// Something good to know, as an object.
pub fn note_json(message: &str) -> Value {
    json!({ "event": "note", "message": message })
}

/// A warning as an object.
pub fn warning_json(message: &str) -> Value {
    json!({ "event": "warning", "message": message })
}

/// How a reload went, as an object.
pub fn reload_json(outcome: &Result<String, String>) -> Value {
    let (Ok(message) | Err(message)) = outcome;
    json!({ "event": "reload", "ok": outcome.is_ok(), "message": message })
}

/// `progress` as a line of text.
pub fn progress_text(totals: &Totals, span: &Span) -> String {
    let sum = &totals.sum;
    let mut text = format!(
        "{}, {:.3} Gb/s, received {}, stored {}, dropped {}",
        counted(sum.streams as usize, "stream"),
        span.gbps,
        Grouped(sum.received),
        Grouped(sum.stored),
        DroppedText(&sum.dropped),
    );
    let mut add = |args: fmt::Arguments<'_>| text.write_fmt(args).expect("writing to a String cannot fail");
    if sum.account.lost > 0 {
        add(format_args!(", lost before us {}", Grouped(sum.account.lost)));
    }
    if sum.kernel_drop_batches > 0 {
        add(format_args!(
            " (kernel dropped {} batches)",
            Grouped(sum.kernel_drop_batches)
        ));
    }
    match (span.durable_ms_p50, span.durable_ms_p99) {
        (Some(p50), Some(p99)) => add(format_args!(", durable in {p50:.0} ms (p50), {p99:.0} ms (p99)")),
        _ => add(format_args!(", nothing newly durable")),
    }
    if sum.paused {
        add(format_args!(", receiving waits for the disk"));
    }
    text
}

/// `progress` as an object.
pub fn progress_json(totals: &Totals, span: &Span) -> Value {
    let mut object = figures("progress", totals, span);
    object["streams_active"] = json!(totals.sum.streams);
    object
}

/// `final` as an object.
pub fn final_json(books: &Final) -> Value {
    let mut object = figures("final", &books.totals, &books.span);
    object["reason"] = json!(books.reason);
    object["streams"] = books.streams.iter().map(stream_json).collect();
    object
}

fn figures(event: &str, totals: &Totals, span: &Span) -> Value {
    let sum = &totals.sum;
    let Account {
        lost,
        duplicates,
        reordered,
        restarts,
    } = sum.account;
    json!({
        "event": event,
        "seconds": rounded(span.length_ns as f64 / 1e9),
        "received": sum.received,
        "received_bytes": sum.received_bytes,
        "stored": sum.stored,
        "stored_bytes": sum.stored_bytes,
        "dropped": All(&sum.dropped),
        "in_flight": in_flight(totals),
        "gbps": rounded(span.gbps),
        "cpu_ns_per_packet": span.cpu_ns_per_packet.map(rounded),
        "durable_ms_p50": span.durable_ms_p50.map(rounded),
        "durable_ms_p99": span.durable_ms_p99.map(rounded),
        "lost": lost,
        "duplicates": duplicates,
        "reordered": reordered,
        "restarts": restarts,
        "rehomed": sum.rehomed,
        "kernel_drop_batches": sum.kernel_drop_batches,
        "ring_enters": sum.ring_enters,
        "chunks": sum.chunks,
        "written_bytes": sum.written_bytes,
        "segments": sum.segments,
        "segments_retired": sum.segments_retired,
        "memory_bytes": totals.process.memory_bytes,
    })
}

fn stream_json(stream: &StreamLedger) -> Value {
    let StreamLedger {
        shard,
        ssrc,
        received,
        stored,
        dropped,
        account,
        jitter_rtp,
    } = stream;
    let Account {
        lost,
        duplicates,
        reordered,
        restarts,
    } = account;
    json!({
        "shard": shard, "ssrc": ssrc, "received": received, "stored": stored, "dropped": Occurred(dropped),
        "lost": lost, "duplicates": duplicates, "reordered": reordered, "restarts": restarts, "jitter_rtp": jitter_rtp,
    })
}

/// Received, and neither stored nor dropped: negative only if the books are wrong.
fn in_flight(totals: &Totals) -> i128 {
    let sum = &totals.sum;
    i128::from(sum.received) - i128::from(sum.stored) - i128::from(sum.dropped.total())
}

impl Final {
    /// received = stored + Σ dropped(reason), with nothing in flight, in the sum and in every stream.
    pub fn balances(&self) -> bool {
        let whole = |s: &StreamLedger| s.received == s.stored + s.dropped.total();
        in_flight(&self.totals) == 0 && self.streams.iter().all(whole)
    }

    /// The ledger as a table for people, one line each.
    pub fn text(&self) -> Vec<String> {
        let sum = &self.totals.sum;
        let row = |name: &str, packets: u64| format!("  {name:<28}{:>20}", Grouped(packets).to_string());
        let mut lines = vec![
            format!("stopped ({}). Packets of this run:", self.reason),
            row("received", sum.received),
            row("stored (durable)", sum.stored),
            row("dropped", sum.dropped.total()),
        ];
        lines.extend(
            sum.dropped
                .nonzero()
                .map(|(reason, packets)| row(&format!("  {}", reason.name()), packets)),
        );
        let sums = format!(
            "{} = {} + {}",
            Grouped(sum.received),
            Grouped(sum.stored),
            Grouped(sum.dropped.total())
        );
        lines.push(match in_flight(&self.totals) {
            0 => format!("  received = stored + dropped: {sums}"),
            rest => format!(
                "  THE BOOKS DO NOT CLOSE: {rest} of {} packets are unaccounted for",
                Grouped(sum.received)
            ),
        });
        let Account {
            lost,
            duplicates,
            reordered,
            restarts,
        } = sum.account;
        let told = [
            ("lost before us", lost),
            ("duplicates", duplicates),
            ("reordered", reordered),
            ("stream restarts", restarts),
            ("rehomed between shards", sum.rehomed),
            ("kernel drops (batches)", sum.kernel_drop_batches),
            ("segments retired", sum.segments_retired),
        ];
        lines.extend(
            told.into_iter()
                .filter(|(_, n)| *n > 0)
                .map(|(name, n)| row(name, n)),
        );
        lines.push(self.rates());
        lines
    }

    fn rates(&self) -> String {
        let Span {
            gbps,
            cpu_ns_per_packet,
            durable_ms_p50,
            durable_ms_p99,
            ..
        } = self.span;
        let mut text = format!(
            "  {} in all, {gbps:.3} Gb/s",
            counted(self.streams.len(), "stream")
        );
        let mut add =
            |args: fmt::Arguments<'_>| text.write_fmt(args).expect("writing to a String cannot fail");
        if let Some(cpu_ns) = cpu_ns_per_packet {
            add(format_args!(", {cpu_ns:.0} ns CPU per packet"));
        }
        if let (Some(p50), Some(p99)) = (durable_ms_p50, durable_ms_p99) {
            add(format_args!(", durable in {p50:.0} ms (p50), {p99:.0} ms (p99)"));
        }
        text
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(SocketAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// `12 (unknown_ssrc 10, oversize 2)`.
struct DroppedText<'a>(&'a Dropped);

impl Display for DroppedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Grouped(self.0.total()))?;
        for (at, (reason, packets)) in self.0.nonzero().enumerate() {
            let before = if at == 0 { " (" } else { ", " };
            write!(f, "{before}{} {}", reason.name(), Grouped(packets))?;
        }
        if self.0.total() > 0 {
            f.write_char(')')
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Snapshot;
    use crate::metrics::Process;

    fn books(unaccounted: u64) -> Final {
        let mut sum = Snapshot::new(0);
        sum.received = 1_234_567 + unaccounted;
        sum.stored = 1_234_500;
        sum.dropped.add(Reason::UnknownSsrc, 60);
        sum.dropped.add(Reason::Oversize, 7);
        sum.account.lost = 3;
        let totals = Totals::new([&sum].into_iter(), Process::default(), 0);
        let span = Span::between(None, &totals, 2_000_000_000);
        let mut stream = StreamLedger {
            shard: 1,
            ssrc: 7,
            received: 12,
            stored: 5,
            ..Default::default()
        };
        stream.dropped.add(Reason::Oversize, 7);
        Final {
            reason: "SIGTERM".to_owned(),
            totals,
            span,
            streams: vec![stream],
        }
    }

    #[test]
    fn the_final_object_closes_the_books() {
        let object = final_json(&books(0));
        assert_eq!(object["event"], "final");
        assert_eq!(
            (&object["in_flight"], &object["reason"]),
            (&json!(0), &json!("SIGTERM"))
        );
        let dropped = object["dropped"].as_object().expect("reasons");
        assert_eq!(dropped.len(), Reason::ALL.len());
        let sum: u64 = dropped.values().filter_map(Value::as_u64).sum();
        assert_eq!(
            object["received"].as_u64(),
            Some(object["stored"].as_u64().expect("a number") + sum)
        );
        assert_eq!(object["streams"][0]["dropped"], json!({ "oversize": 7 }));
        assert_eq!(object["durable_ms_p50"], Value::Null);
    }

    #[test]
    fn the_table_shows_the_identity_or_cries_out() {
        assert!(books(0).balances());
        let text = books(0).text().join("\n");
        assert!(
            text.contains("received = stored + dropped: 1,234,567 = 1,234,500 + 67"),
            "{text}"
        );
        assert!(
            text.contains("unknown_ssrc") && text.contains("lost before us"),
            "{text}"
        );
        assert!(
            !text.contains("duplicates"),
            "what did not happen is not listed: {text}"
        );
        assert!(!books(2).balances());
        let text = books(2).text().join("\n");
        assert!(text.contains("DO NOT CLOSE: 2 of"), "{text}");
    }

    #[test]
    fn a_stream_that_does_not_add_up_is_noticed() {
        let mut wrong = books(0);
        wrong.streams[0].stored += 1;
        assert!(!wrong.balances());
    }

    #[test]
    fn progress_is_one_line_a_person_can_read() {
        let books = books(0);
        let text = progress_text(&books.totals, &books.span);
        assert_eq!(
            text,
            "0 streams, 0.000 Gb/s, received 1,234,567, stored 1,234,500, dropped 67 (oversize 7, unknown_ssrc 60), \
             lost before us 3, nothing newly durable"
        );
    }

    #[test]
    fn ready_begins_with_its_word() {
        let ready = Ready {
            listen: vec!["[::1]:5004".parse().expect("address")],
            shards: 1,
            ..Ready::default()
        };
        assert_eq!(
            ready_text(&ready),
            "ready: recording 0 cameras of 0 customers on 1 shard, RTP at [::1]:5004"
        );
        assert_eq!(ready_json(&ready)["event"], "ready");
    }
}
