//! What `overload` found, and whether the accounts close.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::watch::{Look, last_loss_ms, rate};
use crate::lab::Account;
use crate::limit::Limit;
use crate::load::{Description, Load, Sent};
use crate::machine::{Cpus, Machine};
use crate::runs::{by_reason, share_text};

const SCHEMA: &str = "harborseal-bench/overload/1";
/// Of the time of too much load: until then sockets and chunks fill.
const SETTLED_NS: u64 = 1_500_000_000;
/// Packets that can arrive as one.
const BATCH_MOST: u64 = 64;

/// Every packet of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Books {
    pub sent: u64,
    pub received: u64,
    pub stored: u64,
    pub dropped_by: BTreeMap<String, u64>,
    /// Sent less received.
    pub lost_before: i64,
    /// The kernel's own counter: single packets, or batches.
    pub kernel_drops: u64,
    pub closed: bool,
    pub because: Option<String>,
}

impl Books {
    /// `single`: nothing arrives as a batch, so that the kernel's counter counts packets.
    fn new(sent: u64, single: bool, account: &Account) -> anyhow::Result<Books> {
        let dropped_by = by_reason(&account.ledger["dropped"]);
        let (received, stored) = (account.number("received")?, account.number("stored")?);
        let kernel_drops = account.number("kernel_drop_batches")?;
        let because = objection(
            (sent, received, stored, dropped_by.values().sum()),
            kernel_drops,
            single,
        );
        Ok(Books {
            sent,
            received,
            stored,
            dropped_by,
            lost_before: sent as i64 - received as i64,
            kernel_drops,
            closed: because.is_none(),
            because,
        })
    }

    fn text(&self) -> String {
        let dropped: u64 = self.dropped_by.values().sum();
        let sum = format!(
            "{} sent = {} stored + {dropped} dropped + {} lost in the kernel, which counted {}",
            self.sent, self.stored, self.lost_before, self.kernel_drops
        );
        match &self.because {
            None => sum,
            Some(why) => format!("DO NOT CLOSE: {why}; {sum}"),
        }
    }
}

/// Why the books do not close, if so.
fn objection(
    (sent, received, stored, dropped): (u64, u64, u64, u64),
    kernel_drops: u64,
    single: bool,
) -> Option<String> {
    if received != stored + dropped {
        return Some("received is not stored + dropped".to_owned());
    }
    let Some(lost) = sent.checked_sub(received) else {
        return Some("more was received than was sent".to_owned());
    };
    if single && lost != kernel_drops {
        return Some("sent is not received + dropped by the kernel".to_owned());
    }
    let bounds = kernel_drops..=kernel_drops * BATCH_MOST;
    (!bounds.contains(&lost)).then(|| "what is missing is not what the kernel's batches can hold".to_owned())
}

/// 150 %, then 50 %.
#[derive(Clone, Debug, Serialize)]
pub struct Overloaded {
    pub offered_packets_per_second: f64,
    /// While it was too much.
    pub stored_packets_per_second: f64,
    /// ÷ capacity.
    pub ratio: f64,
    /// From the fall of the load to the last loss; at most 200 ms too long.
    pub last_loss_after_ms: f64,
    pub books: Books,
    pub began_ns: u64,
    pub fell_ns: u64,
    fleet: Sent,
    looks: Vec<Look>,
}

impl Overloaded {
    pub fn new(
        capacity: f64,
        (began_ns, fell_ns): (u64, u64),
        load: &Load,
        fleet: Sent,
        looks: Vec<Look>,
        account: &Account,
    ) -> anyhow::Result<Overloaded> {
        let stored = rate(&looks, began_ns + SETTLED_NS, fell_ns, |look| look.stored).unwrap_or(0.0);
        Ok(Overloaded {
            offered_packets_per_second: load.profile.offered().pps,
            stored_packets_per_second: stored,
            ratio: stored / capacity,
            last_loss_after_ms: last_loss_ms(&looks, fell_ns),
            books: Books::new(fleet.packets, load.is_single(), account)?,
            began_ns,
            fell_ns,
            fleet,
            looks,
        })
    }

    pub fn line(&self) -> String {
        format!(
            "too much: {:.0} packets/s stored of {:.0}, {:.2} of capacity; last loss {:.0} ms after; {}",
            self.stored_packets_per_second,
            self.offered_packets_per_second,
            self.ratio,
            self.last_loss_after_ms,
            self.books.text()
        )
    }
}

/// SIGTERM in the middle of 150 %.
#[derive(Clone, Debug, Serialize)]
pub struct Stopped {
    pub exit_after_ms: f64,
    /// It was too much by then.
    pub kernel_drops_by_then: u64,
    pub received: u64,
    pub stored: u64,
    pub dropped_by: BTreeMap<String, u64>,
    pub closed: bool,
}

impl Stopped {
    pub fn new(by_then: Look, account: &Account) -> anyhow::Result<Stopped> {
        let dropped_by = by_reason(&account.ledger["dropped"]);
        let (received, stored) = (account.number("received")?, account.number("stored")?);
        Ok(Stopped {
            exit_after_ms: account.stop_ms,
            kernel_drops_by_then: by_then.kernel_drops + by_then.dropped,
            received,
            stored,
            closed: received == stored + dropped_by.values().sum::<u64>(),
            dropped_by,
        })
    }

    pub fn line(&self) -> String {
        let books = if self.closed {
            "its books close"
        } else {
            "its books DO NOT CLOSE"
        };
        format!("gone {:.0} ms after SIGTERM, {books}", self.exit_after_ms)
    }
}

/// A disk that was slow in the middle of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SlowDisk {
    pub bytes_per_second: u64,
    pub slow_s: f64,
    pub offered_packets_per_second: f64,
    /// Before the disk was slow, in packets or batches.
    pub lost_before: u64,
    /// From when the disk was well again to the last loss; at most 200 ms too long.
    pub last_loss_after_ms: f64,
    pub books: Books,
    fleet: Sent,
    looks: Vec<Look>,
}

impl SlowDisk {
    pub fn new(
        bytes_per_second: u64,
        (slowed_ns, freed_ns): (u64, u64),
        load: &Load,
        fleet: Sent,
        looks: Vec<Look>,
        account: &Account,
    ) -> anyhow::Result<SlowDisk> {
        let before = looks.iter().rfind(|look| look.at_ns < slowed_ns);
        Ok(SlowDisk {
            bytes_per_second,
            slow_s: (freed_ns - slowed_ns) as f64 / 1e9,
            offered_packets_per_second: load.profile.offered().pps,
            lost_before: before.map_or(0, |look| look.kernel_drops + look.dropped),
            last_loss_after_ms: last_loss_ms(&looks, freed_ns),
            books: Books::new(fleet.packets, load.is_single(), account)?,
            fleet,
            looks,
        })
    }

    fn line(&self) -> String {
        format!(
            "{:.1} MB/s for {:.1} s under {:.0} packets/s: lost before {}, last loss {:.0} ms after it was well; {}",
            self.bytes_per_second as f64 / 1e6,
            self.slow_s,
            self.offered_packets_per_second,
            self.lost_before,
            self.last_loss_after_ms,
            self.books.text()
        )
    }
}

#[derive(Serialize)]
pub struct Report {
    schema: &'static str,
    machine: Machine,
    cpus: Cpus,
    command: Vec<String>,
    load: Description,
    /// The part of its core that the engine had; none: all of it.
    core_share: Option<f64>,
    capacity_packets_per_second: f64,
    overloaded: Overloaded,
    stopped: Stopped,
    slow_disk: Option<SlowDisk>,
    pub valid: bool,
    invalid_because: Vec<String>,
    capacity_search: Option<Limit>,
}

impl Report {
    pub fn new(
        machine: Machine,
        cpus: Cpus,
        load: Description,
        (capacity_packets_per_second, core_share, capacity_search): (f64, Option<f64>, Option<Limit>),
        (overloaded, stopped, slow_disk): (Overloaded, Stopped, Option<SlowDisk>),
    ) -> Report {
        let mut invalid_because = Vec::new();
        let runs = [
            Some((&overloaded.books, &overloaded.fleet)),
            slow_disk.as_ref().map(|slow| (&slow.books, &slow.fleet)),
        ];
        for (books, fleet) in runs.into_iter().flatten() {
            invalid_because.extend(books.because.clone());
            invalid_because.extend(fleet.invalid_because.iter().cloned());
        }
        if !stopped.closed {
            invalid_because.push("the books of the stopped run do not close".to_owned());
        }
        if overloaded.books.lost_before == 0 && overloaded.books.dropped_by.is_empty() {
            invalid_because.push("it was not too much: nothing was lost".to_owned());
        }
        Report {
            schema: SCHEMA,
            machine,
            cpus,
            command: std::env::args().collect(),
            load,
            core_share,
            capacity_packets_per_second,
            overloaded,
            stopped,
            slow_disk,
            valid: invalid_because.is_empty(),
            invalid_because,
            capacity_search,
        }
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line =
            |what: &str, value: String| writeln!(text, "{what:24} {value}").expect("a String takes all");
        line("load", self.load.to_string());
        let share = share_text(self.core_share);
        line("engine's core", share);
        line(
            "capacity",
            format!("{:.0} packets/s", self.capacity_packets_per_second),
        );
        let over = &self.overloaded;
        line(
            "offered",
            format!("{:.0} packets/s", over.offered_packets_per_second),
        );
        line(
            "stored meanwhile",
            format!(
                "{:.0} packets/s, {:.2} of capacity",
                over.stored_packets_per_second, over.ratio
            ),
        );
        line(
            "at 50 % again",
            format!("last loss {:.0} ms after", over.last_loss_after_ms),
        );
        line("books", over.books.text());
        line("stop in overload", self.stopped.line());
        if let Some(slow) = &self.slow_disk {
            line("slow disk", slow.line());
        }
        match self.valid {
            true => line("valid", "yes".to_owned()),
            false => line("valid", format!("NO: {}", self.invalid_because.join("; "))),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_close_to_the_packet_or_not_at_all() {
        assert_eq!(objection((100, 90, 85, 5), 10, true), None);
        assert!(objection((100, 90, 85, 4), 10, true).is_some_and(|why| why.contains("received is not")));
        assert!(objection((100, 90, 85, 5), 9, true).is_some_and(|why| why.contains("by the kernel")));
        assert!(objection((80, 90, 85, 5), 0, true).is_some_and(|why| why.contains("more was received")));
        // Ten lost packets may have been one batch, and not none.
        assert_eq!(objection((100, 90, 90, 0), 1, false), None);
        assert!(objection((100, 90, 90, 0), 0, false).is_some());
        assert!(objection((100, 99, 99, 0), 2, false).is_some());
    }
}
