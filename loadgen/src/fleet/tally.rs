//! What is counted while a fleet sends, and what it comes to.
//!
//! Invariants: counts are of the whole run; lateness, pacing and bursts leave out the warm-up; rates are of the time in which the most
//! streams are on, by the clock and not by the schedule, so a late generator shows as a lower rate there. Nothing allocates
//! per packet.

use super::live::{Control, LiveSecond, lateness_histogram};
use crate::camera::RunClock;
use crate::plan::Plan;
use crate::report::{LATENESS_BUDGET_MS, STRETCH_BUDGET_PERCENT, StreamCount, utc};
use crate::result::{Impaired, Load, Percentiles, RunResult, SCHEMA, Second, Sending};
use crate::send::{Batch, Kind, Message, Sender};
use crate::sentlog::Flags;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::ops::Range;

const SECOND_NS: u64 = 1_000_000_000;
/// The lateness of a stream that has not sent.
const NONE: u64 = u64::MAX;

pub struct Tally {
    paced: bool,
    warm_up_ns: u64,
    /// When the most streams are on.
    window: Range<u64>,
    /// Clock and bytes sent by then, at the window's begin and end.
    window_began: Option<(u64, u64, u64)>,
    window_ended: Option<(u64, u64, u64)>,
    counts: Vec<StreamCount>,
    known: Vec<bool>,
    /// Lateness of the last message of each stream, ns.
    late: Vec<u64>,
    lateness: Histogram<u64>,
    /// ns.
    pacing: Histogram<u64>,
    bursts: Vec<u64>,
    sum: Sum,
    second: Current,
    seconds: Vec<Second>,
    due: Vec<u64>,
    cpu_before_ns: u64,
    cpu_ns: u64,
    last_due_ns: u64,
    last_sent_ns: u64,
}

#[derive(Default, Clone, Copy)]
struct Sum {
    intended: u64,
    sent: u64,
    sent_bytes: u64,
    not_sent: u64,
    lost: u64,
    unknown: u64,
    junk: u64,
    rtcp_sent: u64,
    rtcp_not_sent: u64,
    /// Packets and messages of RTP taken, of known and unknown streams.
    packets: u64,
    messages: u64,
    packets_max: u64,
}

/// The second under way.
struct Current {
    began_ns: u64,
    cpu_ns: u64,
    before: Sum,
    lateness: Histogram<u64>,
    lost: Vec<u32>,
    any_lost: bool,
}

impl Tally {
    pub fn new(plan: &Plan, watched: bool, paced: bool) -> Tally {
        let count = |stream: &crate::plan::StreamPlan| StreamCount {
            ssrc: stream.ssrc,
            ..StreamCount::default()
        };
        let known = |stream: &crate::plan::StreamPlan| {
            let group = plan.cameras[stream.camera as usize].group;
            !plan.groups[group as usize].unknown
        };
        Tally {
            paced,
            warm_up_ns: plan.warm_up_ns,
            window: fullest(plan),
            window_began: None,
            window_ended: None,
            counts: plan.streams.iter().map(count).collect(),
            known: plan.streams.iter().map(known).collect(),
            late: vec![NONE; plan.streams.len()],
            lateness: lateness_histogram(),
            pacing: Histogram::new_with_bounds(1, 1_000_000_000_000, 2).expect("bounds the histogram allows"),
            bursts: Vec::new(),
            sum: Sum::default(),
            second: Current {
                began_ns: 0,
                cpu_ns: 0,
                before: Sum::default(),
                lateness: lateness_histogram(),
                lost: if watched {
                    vec![0; plan.streams.len()]
                } else {
                    Vec::new()
                },
                any_lost: false,
            },
            seconds: Vec::new(),
            due: Vec::new(),
            cpu_before_ns: 0,
            cpu_ns: 0,
            last_due_ns: 0,
            last_sent_ns: 0,
        }
    }

    pub fn begin(&mut self, cpu_ns: u64) {
        self.cpu_before_ns = cpu_ns;
        self.second.cpu_ns = cpu_ns;
    }

    pub fn sent(&self) -> u64 {
        self.sum.sent
    }

    pub fn sent_bytes(&self) -> u64 {
        self.sum.sent_bytes
    }

    pub fn late_ns(&self) -> u64 {
        if self.paced {
            self.last_sent_ns.saturating_sub(self.last_due_ns)
        } else {
            0
        }
    }

    /// Packets of a stream that came due, whatever becomes of them.
    pub fn came_due(&mut self, stream: u32, due_ns: u64, packets: u64) {
        if self.known[stream as usize] {
            self.sum.intended += packets;
            let second = (due_ns / SECOND_NS) as usize;
            if self.due.len() <= second {
                self.due.resize(second + 1, 0);
            }
            self.due[second] += packets;
        }
        self.counts[stream as usize].intended += packets;
        self.last_due_ns = self.last_due_ns.max(due_ns);
    }

    /// A message of RTP: taken by the kernel, or not, by `now_ns`.
    pub fn rtp(&mut self, batch: &Batch, message: &Message, left: bool, now_ns: u64) {
        let known = self.known[message.stream as usize];
        let count = &mut self.counts[message.stream as usize];
        let notes = batch.notes(message);
        let (mut lost, mut not_sent) = (0, 0);
        if !left || notes.len() as u64 != message.packets() {
            for note in notes {
                let lost_here = note.flags.has(Flags::LOST);
                lost += u64::from(lost_here);
                not_sent += u64::from(!left && !lost_here && !note.flags.has(Flags::DUPLICATE));
            }
        }
        count.lost += lost;
        count.not_sent += not_sent;
        if known {
            self.sum.lost += lost;
            self.sum.not_sent += not_sent;
        }
        if lost + not_sent > 0 {
            self.second.any_lost = true;
            if let Some(here) = self.second.lost.get_mut(message.stream as usize) {
                *here += (lost + not_sent) as u32;
            }
        }
        if !left {
            return;
        }
        let (packets, bytes) = (message.packets(), message.len() as u64);
        count.sent += packets;
        count.sent_bytes += bytes;
        if known {
            self.sum.sent += packets;
            self.sum.sent_bytes += bytes;
        } else {
            self.sum.unknown += packets;
        }
        self.sum.packets += packets;
        self.sum.messages += 1;
        self.sum.packets_max = self.sum.packets_max.max(packets);
        self.last_sent_ns = now_ns;
        if self.paced {
            self.time(message, packets, now_ns);
        }
    }

    fn time(&mut self, message: &Message, packets: u64, now_ns: u64) {
        let late_ns = now_ns.saturating_sub(message.due_ns);
        self.second.lateness.saturating_record_n(late_ns / 1000, packets);
        let before = std::mem::replace(&mut self.late[message.stream as usize], late_ns);
        if message.due_ns >= self.warm_up_ns && before != NONE {
            // |gap between sends − gap between due times| is the difference of the two latenesses.
            self.pacing.saturating_record(late_ns.abs_diff(before).max(1));
        }
    }

    pub fn rtcp(&mut self, stream: u32, left: bool) {
        if left {
            self.sum.rtcp_sent += 1;
            self.counts[stream as usize].rtcp_sent += 1;
        } else {
            self.sum.rtcp_not_sent += 1;
        }
    }

    pub fn junk(&mut self, left: bool) {
        self.sum.junk += u64::from(left);
    }

    /// Counts how many packets of one stream left back to back, in the order in which they were handed over.
    pub fn bursts(&mut self, batch: &Batch, order: &[u32]) {
        let message = |number: &u32| &batch.messages()[*number as usize];
        let together = |a: &u32, b: &u32| {
            let (a, b) = (message(a), message(b));
            (a.stream, a.kind) == (b.stream, b.kind)
        };
        for run in order.chunk_by(together) {
            let first = message(&run[0]);
            if first.kind != Kind::Rtp || first.due_ns < self.warm_up_ns {
                continue;
            }
            let packets: u64 = run.iter().map(|number| message(number).packets()).sum();
            if self.bursts.len() <= packets as usize {
                self.bursts.resize(packets as usize + 1, 0);
            }
            self.bursts[packets as usize] += 1;
        }
    }

    pub fn second_is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.second.began_ns + SECOND_NS
            || self.window_began.is_none() && now_ns >= self.window.start
            || self.window_ended.is_none() && now_ns >= self.window.end
    }

    /// Ends the seconds that are over, and marks where the window begins and ends.
    pub fn end_seconds(&mut self, now_ns: u64, cpu_ns: u64, control: &Control) {
        let so_far = (now_ns, self.sum.sent_bytes, self.sum.sent);
        if now_ns >= self.window.start {
            self.window_began.get_or_insert(so_far);
        }
        if now_ns >= self.window.end {
            self.window_ended.get_or_insert(so_far);
        }
        while now_ns >= self.second.began_ns + SECOND_NS {
            let ended_ns = self.second.began_ns + SECOND_NS;
            self.end_second(ended_ns, cpu_ns, control);
        }
    }

    fn end_second(&mut self, ended_ns: u64, cpu_ns: u64, control: &Control) {
        let warm_up = self.second.began_ns < self.warm_up_ns;
        let took_ns = ended_ns - self.second.began_ns;
        let (now, before) = (self.sum, self.second.before);
        let number = (self.second.began_ns / SECOND_NS) as usize;
        let second = Second {
            at_s: self.second.began_ns as f64 / 1e9,
            warm_up,
            due: Some(self.due.get(number).copied().unwrap_or(0)),
            sent: now.sent - before.sent,
            sent_bytes: now.sent_bytes - before.sent_bytes,
            not_sent: now.not_sent - before.not_sent,
            impaired_lost: now.lost - before.lost,
            lateness_ms: percentiles_ms(&self.second.lateness, 1e3),
            cpu_percent: 100.0 * ratio(cpu_ns.saturating_sub(self.second.cpu_ns), took_ns),
            ..Second::default()
        };
        if !warm_up {
            self.lateness
                .add(&self.second.lateness)
                .expect("both have the same bounds");
        }
        if control.is_watched() {
            let lost = std::mem::take(&mut self.second.any_lost).then(|| self.second.lost.clone());
            if lost.is_some() {
                self.second.lost.fill(0);
            }
            control.show(LiveSecond {
                second: second.clone(),
                lateness: self.second.lateness.clone(),
                per_stream_lost: lost,
            });
        }
        self.seconds.push(second);
        self.second.lateness.reset();
        self.second.before = now;
        self.second.began_ns = ended_ns;
        self.second.cpu_ns = cpu_ns;
    }

    /// Ends the run and its last second.
    pub fn end(&mut self, now_ns: u64, cpu_ns: u64, control: &Control) {
        self.end_seconds(now_ns, cpu_ns, control);
        let began_ns = self.second.began_ns;
        if self.last_sent_ns > began_ns || self.sum.intended > 0 && self.seconds.is_empty() {
            let ended_ns = now_ns.clamp(began_ns + 1, began_ns + SECOND_NS);
            self.end_second(ended_ns, cpu_ns, control);
        }
        // What left late came due in a second that had ended.
        for (second, due) in self.seconds.iter_mut().zip(&self.due) {
            second.due = Some(*due);
        }
        self.cpu_ns = cpu_ns - self.cpu_before_ns;
    }

    pub fn result(
        self,
        plan: &Plan,
        sender: &Sender,
        clock: RunClock,
        done: Impaired,
        stopped: bool,
    ) -> RunResult {
        let load = self.load(plan);
        let sending = self.sending(sender, load.duration_s);
        let because = invalid_because(plan.lateness_budget_ms, &load, &sending);
        RunResult {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: plan.name.clone(),
            seed: plan.seed,
            started: utc(clock.start_ns),
            targets: plan.targets.iter().map(ToString::to_string).collect(),
            valid: because.is_empty(),
            invalid_because: because,
            stopped,
            load,
            sending,
            impaired: Impaired {
                junk: self.sum.junk,
                unknown: self.sum.unknown,
                ..done
            },
            seconds: self.seconds,
            streams: self.counts,
            ..RunResult::default()
        }
    }

    fn load(&self, plan: &Plan) -> Load {
        let sum = &self.sum;
        let end = (self.last_sent_ns, sum.sent_bytes, sum.sent);
        let from = self.window_began.unwrap_or_default();
        let window = Some((from, self.window_ended.unwrap_or(end))).filter(|(from, to)| to.0 > from.0);
        let (from, to) = window.unwrap_or(((0, 0, 0), end));
        let late_at_end_ns = if self.paced {
            self.last_sent_ns.saturating_sub(self.last_due_ns)
        } else {
            0
        };
        let known = |number: &usize| self.known[*number];
        let rate = |stream: &crate::plan::StreamPlan| plan.programs[stream.program as usize].bits_per_s();
        let mbps = (0..plan.streams.len())
            .filter(known)
            .map(|at| rate(&plan.streams[at]))
            .sum::<f64>()
            / 1e6;
        Load {
            cameras: plan.cameras.len() as u64,
            streams: plan.streams.len() as u64,
            customers: plan.customers.len() as u64,
            mbps_offered: mbps,
            seconds: plan.stages.last().map_or(0.0, |stage| stage.to_ns as f64 / 1e9),
            warm_up_s: self.warm_up_ns as f64 / 1e9,
            intended: sum.intended,
            sent: sum.sent,
            not_sent: sum.not_sent,
            sent_bytes: sum.sent_bytes,
            rtcp_sent: sum.rtcp_sent,
            rtcp_not_sent: sum.rtcp_not_sent,
            gbps: ratio((to.1 - from.1) * 8, to.0 - from.0),
            packets_per_second: ratio(to.2 - from.2, to.0 - from.0) * 1e9,
            duration_s: self.last_sent_ns as f64 / 1e9,
            stretch_percent: 100.0 * ratio(late_at_end_ns, self.last_due_ns),
        }
    }

    fn sending(&self, sender: &Sender, duration_s: f64) -> Sending {
        let mut notes = sender.notes.clone();
        if !self.paced {
            notes.push("not paced: packets left as fast as they went, whatever their time".to_owned());
        }
        let sizes = self.bursts.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut errors: BTreeMap<String, u64> = sender.errors.failed.clone();
        errors.retain(|_, count| *count > 0);
        Sending {
            method: sender.method().name().to_owned(),
            unpaced: !self.paced,
            notes,
            lateness_ms: percentiles_ms(&self.lateness, 1e3),
            pacing_error_ms: percentiles_ms(&self.pacing, 1e6),
            packets_per_message: ratio(self.sum.packets, self.sum.messages),
            packets_per_message_max: self.sum.packets_max,
            messages_per_call: ratio(sender.calls.messages, sender.calls.calls),
            bursts: sizes.map(|(size, count)| (size as u64, *count)).collect(),
            cpu_ns_per_packet: ratio(self.cpu_ns, self.sum.packets),
            cpu_percent: 100.0 * self.cpu_ns as f64 / 1e9 / duration_s.max(1e-9),
            refused: sender.errors.refused,
            errors,
        }
    }
}

/// The gate: why the load was not the one asked for; empty if it was.
pub fn invalid_because(budget_ms: f64, load: &Load, sending: &Sending) -> Vec<String> {
    let mut because = Vec::new();
    let budget_ms = if budget_ms > 0.0 {
        budget_ms
    } else {
        LATENESS_BUDGET_MS
    };
    let p99 = sending.lateness_ms.p99;
    if p99 > budget_ms {
        because.push(format!(
            "packets left late: p99 {p99:.1} ms, the budget is {budget_ms} ms"
        ));
    }
    let stretch = load.stretch_percent;
    if stretch > STRETCH_BUDGET_PERCENT {
        because.push(format!("the run took {stretch:.1} % longer than its schedule"));
    }
    if load.not_sent + load.rtcp_not_sent > 0 || !sending.errors.is_empty() {
        let reasons: Vec<String> = sending
            .errors
            .iter()
            .map(|(why, count)| format!("{why} × {count}"))
            .collect();
        because.push(format!(
            "{} packets could not be sent ({})",
            load.not_sent + load.rtcp_not_sent,
            reasons.join(", ")
        ));
    }
    because
}

/// The longest time in which as many streams are on as ever, without warm-up.
fn fullest(plan: &Plan) -> Range<u64> {
    let on = plan.streams.iter().flat_map(|stream| &stream.on);
    let mut changes: Vec<(u64, i64)> = on.flat_map(|time| [(time.start, 1), (time.end, -1)]).collect();
    changes.sort_unstable();
    let (mut now, mut most, mut best) = (0, 0, 0..0);
    for (at, (when, change)) in changes.iter().enumerate() {
        now += change;
        let until = changes.get(at + 1).map_or(*when, |next| next.0);
        let span = (*when).max(plan.warm_up_ns)..until;
        if span.is_empty() || now < most {
            continue;
        }
        if now > most || span.end - span.start > best.end - best.start {
            (most, best) = (now, span);
        }
    }
    best
}

fn percentiles_ms(histogram: &Histogram<u64>, units_per_ms: f64) -> Percentiles {
    let at = |percentile| histogram.value_at_percentile(percentile) as f64 / units_per_ms;
    Percentiles {
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        max: histogram.max() as f64 / units_per_ms,
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
