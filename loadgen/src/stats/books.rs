//! What the engine's lines come to: pure decisions over lines and the moments in which they came.

use crate::result::{EngineFigures, Second};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Where in `engine.jsonl` the run began: what stands before it is the baseline.
pub(super) const BEGIN_MARK: &str = r#"{"event":"loadgen","mark":"begin"}"#;

/// One line with figures.
#[derive(Debug, Clone, Default, PartialEq)]
struct Figures {
    at: Option<Instant>,
    received: u64,
    stored: u64,
    dropped: BTreeMap<String, u64>,
    in_flight: i64,
    kernel_drop_batches: u64,
    cpu_ns_per_packet: Option<f64>,
    durable_ms_p50: Option<f64>,
    durable_ms_p99: Option<f64>,
    memory_bytes: Option<u64>,
    last: bool,
}

impl Figures {
    fn dropped_in_all(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// What the lines said so far.
#[derive(Debug, Default)]
pub struct Books {
    /// The newest line before the run, if there was one.
    baseline: Option<Figures>,
    begun: bool,
    /// Lines since the begin.
    lines: Vec<Figures>,
    /// By SSRC, from the final line.
    dropped_of: HashMap<u32, u64>,
    /// Any line of the engine's.
    pub(super) heard: bool,
    foreign: u64,
}

impl Books {
    /// Takes a line; true if it is the engine's.
    pub fn take(&mut self, line: &str, at: Option<Instant>) -> bool {
        let Some((event, value)) = parse(line) else {
            self.foreign += u64::from(!line.trim().is_empty());
            return false;
        };
        self.heard = true;
        if line.trim() == BEGIN_MARK {
            self.begin();
        }
        if event != "progress" && event != "final" {
            return true;
        }
        let Some(mut figures) = figures(&value) else {
            self.foreign += 1;
            return false;
        };
        figures.at = at;
        figures.last = event == "final";
        if figures.last {
            self.dropped_of = dropped_of(&value);
        }
        match self.begun {
            true => self.lines.push(figures),
            false => self.baseline = Some(figures),
        }
        true
    }

    /// The run begins: the newest figures so far are what it counts from.
    pub fn begin(&mut self) {
        if let Some(newest) = self.lines.pop() {
            self.baseline = Some(newest);
        }
        self.lines.clear();
        self.begun = true;
    }

    /// Everything up to here is of one run, for want of a begin: a file that was kept whole.
    pub(super) fn of_whole_life(&mut self) {
        if !self.begun {
            self.lines.extend(self.baseline.take());
            self.begun = true;
        }
    }

    /// Whether the engine has taken all it will take: its last word, or two lines in a row, after `since`, that say the same and have nothing in
    /// flight. `sent`: so much, and no more, can come.
    pub fn is_settled(&self, since: Instant, sent: Option<u64>) -> bool {
        let Some(newest) = self.lines.last() else {
            return false;
        };
        if newest.last {
            return true;
        }
        let before = self.lines.iter().rev().nth(1).or(self.baseline.as_ref());
        let same = before.is_some_and(|before| before.received == newest.received);
        let base = self.baseline.as_ref().map_or(0, |base| base.received);
        let all = sent.is_some_and(|sent| newest.received - base.min(newest.received) >= sent);
        newest.in_flight == 0 && newest.at.is_some_and(|at| at > since) && (same || all)
    }

    /// The run by the engine's count; `sent` is every datagram that left. `None` if no line with figures came since the begin.
    pub fn figures(&self, sent: u64) -> Option<EngineFigures> {
        let none = Figures::default();
        let base = self.baseline.as_ref().unwrap_or(&none);
        let end = self.lines.last()?;
        // An engine that was started anew counts from 0: then its whole life is the better answer.
        let base = if end.received < base.received { &none } else { base };
        let less = |now: u64, before: u64| now.saturating_sub(before);
        let dropped = end.dropped.iter().map(|(reason, packets)| {
            let before = base.dropped.get(reason).copied().unwrap_or(0);
            (reason.clone(), less(*packets, before))
        });
        let received = less(end.received, base.received);
        let whole = end.last && base.received == 0;
        let (p50, p99) = match whole {
            true => (end.durable_ms_p50, end.durable_ms_p99),
            false => self.durable_by_the_lines(),
        };
        Some(EngineFigures {
            received,
            stored: less(end.stored, base.stored),
            dropped: dropped.collect(),
            in_flight: end.in_flight,
            kernel_drop_batches: less(end.kernel_drop_batches, base.kernel_drop_batches),
            cpu_ns_per_packet: if whole {
                end.cpu_ns_per_packet
            } else {
                self.cpu_by_the_lines(base)
            },
            durable_ms_p50: p50,
            durable_ms_p99: p99,
            memory_bytes: self.lines.iter().filter_map(|line| line.memory_bytes).max(),
            never_received: sent as i64 - received as i64,
        })
    }

    /// Percentiles cannot be put together: the half is the middle line's, and the p99 the worst line's, which is never too good.
    fn durable_by_the_lines(&self) -> (Option<f64>, Option<f64>) {
        let lines = || self.lines.iter().filter(|line| !line.last);
        let mut halves: Vec<f64> = lines().filter_map(|line| line.durable_ms_p50).collect();
        halves.sort_by(f64::total_cmp);
        (
            halves.get(halves.len() / 2).copied(),
            lines()
                .filter_map(|line| line.durable_ms_p99)
                .max_by(f64::total_cmp),
        )
    }

    /// Each line's CPU time per stored packet, by the packets it speaks of.
    fn cpu_by_the_lines(&self, base: &Figures) -> Option<f64> {
        let (mut ns, mut packets, mut before) = (0.0, 0, base.stored);
        for line in self.lines.iter().filter(|line| !line.last) {
            let stored = line.stored.saturating_sub(before);
            before = line.stored;
            if let Some(each) = line.cpu_ns_per_packet {
                ns += each * stored as f64;
                packets += stored;
            }
        }
        (packets > 0).then(|| ns / packets as f64)
    }

    /// Puts each line's growth into the second in which it came. A second without a line stays unknown.
    pub fn fill(&self, seconds: &mut [Second], start: Instant) {
        let none = Figures::default();
        let mut before = self.baseline.as_ref().unwrap_or(&none);
        for line in self.lines.iter().filter(|line| !line.last) {
            let at_s = line
                .at
                .map(|at| at.saturating_duration_since(start).as_secs_f64());
            let second = at_s.and_then(|at_s| seconds.iter_mut().rfind(|second| second.at_s <= at_s));
            if let Some(second) = second {
                let add = |field: &mut Option<u64>, now: u64, before: u64| {
                    *field = Some(field.unwrap_or(0) + now.saturating_sub(before));
                };
                add(&mut second.received, line.received, before.received);
                add(&mut second.stored, line.stored, before.stored);
                add(
                    &mut second.dropped,
                    line.dropped_in_all(),
                    before.dropped_in_all(),
                );
                second.durable_ms_p50 = line.durable_ms_p50.or(second.durable_ms_p50);
                second.durable_ms_p99 = line.durable_ms_p99.or(second.durable_ms_p99);
            }
            before = line;
        }
    }

    /// Dropped packets by SSRC, if the engine has said its last word.
    pub fn dropped_of(&self) -> Option<&HashMap<u32, u64>> {
        self.lines
            .last()
            .filter(|line| line.last)
            .map(|_| &self.dropped_of)
    }

    /// Packets in flight by the newest line since the begin.
    pub fn in_flight(&self) -> Option<i64> {
        self.lines.last().map(|line| line.in_flight)
    }

    /// Lines that were not the engine's.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }
}

fn parse(line: &str) -> Option<(String, Value)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let event = value.get("event")?.as_str()?.to_owned();
    Some((event, value))
}

fn figures(value: &Value) -> Option<Figures> {
    let count = |key: &str| value.get(key).and_then(Value::as_u64);
    let dropped = value.get("dropped")?.as_object()?.iter();
    Some(Figures {
        received: count("received")?,
        stored: count("stored")?,
        dropped: dropped
            .filter_map(|(reason, n)| Some((reason.clone(), n.as_u64()?)))
            .collect(),
        in_flight: value.get("in_flight")?.as_i64()?,
        kernel_drop_batches: count("kernel_drop_batches").unwrap_or(0),
        cpu_ns_per_packet: value.get("cpu_ns_per_packet").and_then(Value::as_f64),
        durable_ms_p50: value.get("durable_ms_p50").and_then(Value::as_f64),
        durable_ms_p99: value.get("durable_ms_p99").and_then(Value::as_f64),
        memory_bytes: count("memory_bytes"),
        at: None,
        last: false,
    })
}

fn dropped_of(value: &Value) -> HashMap<u32, u64> {
    let streams = value.get("streams").and_then(Value::as_array);
    let mut all = HashMap::new();
    for stream in streams.into_iter().flatten() {
        let ssrc = stream.get("ssrc").and_then(Value::as_u64);
        let dropped = stream.get("dropped").and_then(Value::as_object);
        let (Some(ssrc), Some(dropped)) = (ssrc, dropped) else {
            continue;
        };
        let sum: u64 = dropped.values().filter_map(Value::as_u64).sum();
        *all.entry(ssrc as u32).or_default() += sum;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line(event: &str, received: u64, stored: u64, lost: u64) -> String {
        let in_flight = received as i64 - stored as i64 - lost as i64;
        format!(
            r#"{{"event":"{event}","received":{received},"stored":{stored},"dropped":{{"pool_exhausted":{lost},"disk_full":0}},
            "in_flight":{in_flight},"cpu_ns_per_packet":500.0,"durable_ms_p50":40.0,"durable_ms_p99":{received}.0,"memory_bytes":7,
            "streams":[{{"ssrc":9,"dropped":{{"pool_exhausted":{lost}}}}}]}}"#
        )
        .replace('\n', " ")
    }

    fn books(before: &[String], after: &[String]) -> Books {
        let mut books = Books::default();
        assert!(before.iter().all(|line| books.take(line, None)));
        books.begin();
        assert!(after.iter().all(|line| books.take(line, Some(Instant::now()))));
        books
    }

    #[test]
    fn the_run_is_the_end_less_the_baseline() {
        let books = books(
            &[line("progress", 100, 90, 10)],
            &[line("progress", 200, 150, 12), line("progress", 300, 285, 15)],
        );
        let figures = books.figures(210).expect("lines came");
        assert_eq!(
            (figures.received, figures.stored, figures.never_received),
            (200, 195, 10)
        );
        assert_eq!(
            (figures.dropped["pool_exhausted"], figures.dropped["disk_full"]),
            (5, 0)
        );
        assert_eq!((figures.in_flight, figures.durable_ms_p99), (0, Some(300.0)));
        assert_eq!(figures.cpu_ns_per_packet, Some(500.0));
    }

    #[test]
    fn an_engine_that_only_just_began_counts_from_nothing_and_one_that_began_anew_too() {
        let fresh = books(&[r#"{"event":"ready"}"#.to_owned()], &[line("progress", 5, 5, 0)]);
        assert_eq!(fresh.figures(5).expect("a line").received, 5);
        let anew = books(&[line("progress", 100, 100, 0)], &[line("progress", 7, 7, 0)]);
        assert_eq!(anew.figures(7).expect("a line").received, 7);
    }

    #[test]
    fn without_a_line_since_the_begin_there_are_no_figures() {
        assert!(books(&[line("progress", 100, 100, 0)], &[]).figures(10).is_none());
    }

    #[test]
    fn lines_of_others_are_passed_over_and_counted() {
        let mut books = Books::default();
        for other in [
            "make: nothing to be done",
            "{}",
            "[1,2]",
            r#"{"event":"progress","received":"many"}"#,
        ] {
            assert!(!books.take(other, None), "{other}");
        }
        assert!(!books.take("", None));
        assert!(books.take(&line("progress", 1, 1, 0), None));
        assert_eq!(books.foreign(), 4);
    }

    #[test]
    fn at_rest_is_twice_the_same_with_nothing_in_flight_or_the_last_word() {
        let since = Instant::now();
        let busy = books(&[], &[line("progress", 10, 8, 0), line("progress", 10, 8, 0)]);
        assert!(!busy.is_settled(since, None));
        let growing = books(&[], &[line("progress", 10, 10, 0), line("progress", 20, 20, 0)]);
        assert!(!growing.is_settled(since, None) && !growing.is_settled(since, Some(21)));
        assert!(growing.is_settled(since, Some(20)), "more cannot come");
        let calm = books(&[], &[line("progress", 20, 20, 0), line("progress", 20, 20, 0)]);
        assert!(calm.is_settled(since, None));
        assert!(
            !calm.is_settled(Instant::now(), None),
            "they came before the end of sending"
        );
        assert!(books(&[], &[line("final", 20, 20, 0)]).is_settled(since, None));
    }

    #[test]
    fn the_last_word_tells_of_each_stream() {
        let books = books(&[], &[line("final", 20, 17, 3)]);
        assert_eq!(books.dropped_of().expect("final")[&9], 3);
        assert_eq!(books.figures(20).expect("final").durable_ms_p99, Some(20.0));
    }

    #[test]
    fn each_line_falls_into_its_second() {
        let start = Instant::now();
        let mut books = Books::default();
        books.take(&line("progress", 100, 100, 0), Some(start));
        books.begin();
        books.take(
            &line("progress", 130, 120, 5),
            Some(start + Duration::from_millis(1500)),
        );
        books.take(
            &line("progress", 140, 130, 5),
            Some(start + Duration::from_millis(1900)),
        );
        let mut seconds: Vec<Second> = (0..3)
            .map(|at| Second {
                at_s: f64::from(at),
                ..Second::default()
            })
            .collect();
        books.fill(&mut seconds, start);
        assert_eq!((seconds[0].received, seconds[2].received), (None, None));
        assert_eq!(
            (seconds[1].received, seconds[1].stored, seconds[1].dropped),
            (Some(40), Some(30), Some(5))
        );
    }
}
