//! Assertions on a run: `stored_loss==0`, `lateness_ms_p99<5`, `engine.dropped.pool_exhausted==0`.
//!
//! A figure has one name, here and in `--help`, and a source: what the sender knows, the engine's lines, or the segments. A
//! figure that was not measured fulfils nothing; that it will not be measured is known before a packet is sent.

use crate::nearest::nearest;
use crate::result::{Assertion, EngineFigures, LostBy, Percentiles, RunResult, StoredFigures};
use std::fmt;
use std::str::FromStr;

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The sender.
    Sender,
    /// The engine's JSON lines: `--engine-stats`.
    Engine,
    /// The segments: `--segments` and `--identity`.
    Stored,
}

/// A figure that an assertion can name.
pub struct Figure {
    pub name: &'static str,
    pub origin: Origin,
    pub about: &'static str,
    get: fn(&RunResult) -> Option<f64>,
}

impl Figure {
    /// The figure of a run; `None` where it was not measured.
    pub fn value(&self, run: &RunResult) -> Option<f64> {
        (self.get)(run)
    }
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    /// Those of two characters first: `<` is the begin of `<=`.
    const ALL: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];

    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Operator::Equal => left == right,
            Operator::NotEqual => left != right,
            Operator::Less => left < right,
            Operator::LessOrEqual => left <= right,
            Operator::Greater => left > right,
            Operator::GreaterOrEqual => left >= right,
        }
    }
}

/// A parsed assertion.
#[derive(Clone)]
pub struct Assert {
    text: String,
    /// Index into [`FIGURES`], or a reason of the engine's.
    left: Left,
    operator: Operator,
    right: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Left {
    Figure(usize),
    Dropped(String),
}

/// Why a text is no assertion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertError {
    #[error(
        "{0:?} is no assertion: wanted is a figure, one of == != < <= > >=, and a number, as in 'stored_loss==0'"
    )]
    Shape(String),
    #[error("{name:?} is no figure of a run{}", did_you_mean(.nearest))]
    Name {
        name: String,
        nearest: Option<&'static str>,
    },
    #[error("{0:?} is no number")]
    Number(String),
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name:?}?"),
        None => "; `run --help` lists them".to_owned(),
    }
}

const DROPPED: &str = "engine.dropped.";

/// The engine's reasons for a drop (README of the engine: the ledger). Held against the engine's own list by a test.
pub const REASONS: [&str; 14] = [
    "truncated",
    "bad_version",
    "bad_padding",
    "bad_extension",
    "bad_rtcp",
    "oversize",
    "unknown_ssrc",
    "wrong_source",
    "not_enrolled",
    "too_many_streams",
    "rehome_full",
    "pool_exhausted",
    "disk_full",
    "disk_failed",
];

impl FromStr for Assert {
    type Err = AssertError;

    fn from_str(text: &str) -> Result<Assert, AssertError> {
        let shape = || AssertError::Shape(text.to_owned());
        let at = text.find(['=', '!', '<', '>']).ok_or_else(shape)?;
        let (name, rest) = text.split_at(at);
        let (sign, operator) = Operator::ALL
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(shape)?;
        let (name, number) = (name.trim(), rest[sign.len()..].trim());
        if name.is_empty() || number.is_empty() {
            return Err(shape());
        }
        let left = left(name)?;
        let right = number.parse().ok().filter(|number: &f64| number.is_finite());
        Ok(Assert {
            text: text.to_owned(),
            left,
            operator,
            right: right.ok_or_else(|| AssertError::Number(number.to_owned()))?,
        })
    }
}

fn left(name: &str) -> Result<Left, AssertError> {
    if let Some(at) = FIGURES.iter().position(|figure| figure.name == name) {
        return Ok(Left::Figure(at));
    }
    let reason = name.strip_prefix(DROPPED);
    if let Some(reason) = reason.filter(|reason| REASONS.contains(reason)) {
        return Ok(Left::Dropped(reason.to_owned()));
    }
    let nearest = match reason {
        Some(reason) => nearest(reason, REASONS.into_iter()),
        None => nearest(name, FIGURES.iter().map(|figure| figure.name)),
    };
    Err(AssertError::Name {
        name: name.to_owned(),
        nearest,
    })
}

impl Assert {
    pub fn origin(&self) -> Origin {
        match self.left {
            Left::Figure(at) => FIGURES[at].origin,
            Left::Dropped(_) => Origin::Engine,
        }
    }

    /// Whether it can hold only where the segments are opened.
    pub fn needs_stored(&self) -> bool {
        self.origin() == Origin::Stored
    }

    /// Whether it can hold only where the engine's lines are read.
    pub fn needs_engine(&self) -> bool {
        self.origin() == Origin::Engine
    }

    /// How it came out. A figure that was not measured fulfils nothing, not even `!=`.
    pub fn judge(&self, run: &RunResult) -> Assertion {
        let value = match &self.left {
            Left::Figure(at) => (FIGURES[*at].get)(run),
            Left::Dropped(reason) => run.engine.as_ref().map(|engine| {
                let dropped = engine.dropped.get(reason).copied().unwrap_or(0);
                dropped as f64
            }),
        };
        Assertion {
            text: self.text.clone(),
            value,
            holds: value.is_some_and(|value| self.operator.holds(value, self.right)),
        }
    }
}

impl fmt::Debug for Assert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assert({:?})", self.text)
    }
}

/// The usage error of assertions that name what will not be measured; `None` if all can be judged.
pub fn cannot_judge(asserts: &[Assert], engine: bool, segments: bool) -> Option<String> {
    let lacking =
        |assert: &&Assert| (assert.needs_stored() && !segments) || (assert.needs_engine() && !engine);
    asserts.iter().find(lacking).map(|assert| {
        let (what, give) = match assert.needs_stored() {
            true => ("what was stored", "--segments DATA_DIR and --identity FILE"),
            false => ("what the engine did", "--engine-stats FILE"),
        };
        format!("the assertion {:?} is about {what}: it needs {give}", assert.text)
    })
}

/// For people: one line of each.
pub fn line(assertion: &Assertion) -> String {
    let holds = if assertion.holds { "holds" } else { "FAILS" };
    match assertion.value {
        Some(value) => format!("{holds}   {}   (it is {value})", assertion.text),
        None => format!("{holds}   {}   (it was not measured)", assertion.text),
    }
}

/// The list of figures for `--help`.
pub fn help() -> String {
    let mut text =
        String::from("Figures for --assert, with == != < <= > >= and a number:\n\nWhat the sender knows\n");
    let mut section = |origin: Origin| {
        for figure in FIGURES.iter().filter(|figure| figure.origin == origin) {
            text.push_str(&format!("  {:<28} {}\n", figure.name, figure.about));
        }
        match origin {
            Origin::Sender => text.push_str("\nWith --engine-stats\n"),
            Origin::Engine => {
                text.push_str("  engine.dropped.REASON        one of them: ");
                text.push_str(&REASONS.join(" "));
                text.push_str("\n\nWith --segments and --identity\n");
            }
            Origin::Stored => {}
        }
    };
    [Origin::Sender, Origin::Engine, Origin::Stored]
        .into_iter()
        .for_each(&mut section);
    text
}

macro_rules! figures {
    ($($origin:ident $name:literal $about:literal $get:expr;)*) => {
        &[$(Figure { name: $name, origin: Origin::$origin, about: $about, get: $get }),*]
    };
}

/// Every figure but the engine's single reasons.
pub const FIGURES: &[Figure] = figures! {
    Sender "valid" "1 if the load was the one asked for, else 0" |r| Some(f64::from(u8::from(r.valid)));
    Sender "intended" "packets that came due" |r| Some(r.load.intended as f64);
    Sender "sent" "packets that the kernel took" |r| Some(r.load.sent as f64);
    Sender "not_sent" "packets due that the kernel did not take" |r| Some(r.load.not_sent as f64);
    Sender "sent_bytes" "their bytes, without UDP and IP" |r| Some(r.load.sent_bytes as f64);
    Sender "rtcp_sent" "sender reports that left" |r| Some(r.load.rtcp_sent as f64);
    Sender "rtcp_not_sent" "sender reports that did not" |r| Some(r.load.rtcp_not_sent as f64);
    Sender "cameras" "cameras of the run" |r| Some(r.load.cameras as f64);
    Sender "streams" "streams of the run" |r| Some(r.load.streams as f64);
    Sender "mbps_offered" "what the schedule wanted, all cameras on" |r| Some(r.load.mbps_offered);
    Sender "gbps" "rate while all cameras were on" |r| Some(r.load.gbps);
    Sender "packets_per_second" "the same in packets" |r| Some(r.load.packets_per_second);
    Sender "duration_s" "from the first packet to the last" |r| Some(r.load.duration_s);
    Sender "stretch_percent" "how much longer the run took than planned" |r| Some(r.load.stretch_percent);
    Sender "lateness_ms_p50" "from intended to sent: half were faster" |r| Some(r.sending.lateness_ms.p50);
    Sender "lateness_ms_p90" "" |r| Some(r.sending.lateness_ms.p90);
    Sender "lateness_ms_p99" "" |r| Some(r.sending.lateness_ms.p99);
    Sender "lateness_ms_p999" "99.9 of 100 were faster" |r| Some(r.sending.lateness_ms.p999);
    Sender "lateness_ms_max" "" |r| Some(r.sending.lateness_ms.max);
    Sender "pacing_error_ms_p50" "gap between two sends, against the intended gap" |r| Some(r.sending.pacing_error_ms.p50);
    Sender "pacing_error_ms_p99" "" |r| Some(r.sending.pacing_error_ms.p99);
    Sender "pacing_error_ms_max" "" |r| Some(r.sending.pacing_error_ms.max);
    Sender "packets_per_message" "packets that one message carried, on average" |r| Some(r.sending.packets_per_message);
    Sender "cpu_percent" "the sending thread's share of one core" |r| Some(r.sending.cpu_percent);
    Sender "cpu_ns_per_packet" "its CPU time per packet" |r| Some(r.sending.cpu_ns_per_packet);
    Sender "refused" "ICMP refusals met" |r| Some(r.sending.refused as f64);
    Sender "impaired.lost" "lost on purpose" |r| Some(r.impaired.lost as f64);
    Sender "impaired.duplicated" "sent twice on purpose" |r| Some(r.impaired.duplicated as f64);
    Sender "impaired.reordered" "sent in a later place on purpose" |r| Some(r.impaired.reordered as f64);
    Sender "impaired.corrupted" "sent with flipped bits" |r| Some(r.impaired.corrupted as f64);
    Sender "impaired.truncated" "sent cut, still RTP" |r| Some(r.impaired.truncated as f64);
    Sender "impaired.runts" "sent cut, no RTP of ours any more" |r| Some(r.impaired.runts as f64);
    Sender "impaired.junk" "datagrams of noise" |r| Some(r.impaired.junk as f64);
    Sender "impaired.unknown" "packets of cameras that the engine does not know" |r| Some(r.impaired.unknown as f64);

    Engine "engine.received" "datagrams that the engine took" |r| engine(r, |e| e.received as f64);
    Engine "engine.stored" "of these, durable" |r| engine(r, |e| e.stored as f64);
    Engine "engine.dropped" "of these, dropped for any reason" |r| engine(r, |e| e.dropped.values().sum::<u64>() as f64);
    Engine "engine.in_flight" "of these, neither yet" |r| engine(r, |e| e.in_flight as f64);
    Engine "engine.never_received" "datagrams sent that the engine did not take" |r| engine(r, |e| e.never_received as f64);
    Engine "engine.kernel_drop_batches" "the socket's own drop counter (batches)" |r| engine(r, |e| e.kernel_drop_batches as f64);
    Engine "engine.durable_ms_p50" "from a chunk's first packet to its fdatasync" |r| r.engine.as_ref()?.durable_ms_p50;
    Engine "engine.durable_ms_p99" "" |r| r.engine.as_ref()?.durable_ms_p99;
    Engine "engine.cpu_ns_per_packet" "CPU time of the engine per stored packet" |r| r.engine.as_ref()?.cpu_ns_per_packet;
    Engine "engine.memory_bytes" "the engine's memory" |r| r.engine.as_ref()?.memory_bytes.map(|bytes| bytes as f64);

    Stored "stored" "packets that ought to be stored and are" |r| stored(r, |s| s.stored as f64);
    Stored "stored_expected" "packets that ought to be stored" |r| stored(r, |s| s.expected as f64);
    Stored "stored_loss" "packets that ought to be stored and are not" |r| stored(r, |s| s.stored_loss as f64);
    Stored "loss_percent" "the same, of those that ought to be" |r| stored(r, loss_percent);
    Stored "duplicates" "stored once more than sent" |r| stored(r, |s| s.duplicates as f64);
    Stored "reordered" "stored behind one that left later" |r| stored(r, |s| s.reordered as f64);
    Stored "corrupt" "stored with other bytes than were sent" |r| stored(r, |s| s.corrupt as f64);
    Stored "wrong_customer" "stored with another customer or camera" |r| stored(r, |s| s.wrong_customer as f64);
    Stored "foreign" "stored and never sent by this run" |r| stored(r, |s| s.foreign as f64);
    Stored "gaps" "runs of packets missing in their streams" |r| stored(r, |s| s.gaps as f64);
    Stored "longest_gap" "the longest of them, in packets" |r| stored(r, |s| s.longest_gap as f64);
    Stored "streams_found" "streams of which something is stored" |r| stored(r, |s| s.streams_found as f64);
    Stored "rtcp_stored" "sender reports stored" |r| stored(r, |s| s.rtcp_stored as f64);
    Stored "rtcp_loss" "sender reports sent and not stored" |r| stored(r, |s| s.rtcp_expected.saturating_sub(s.rtcp_stored) as f64);
    Stored "lost_by.generator" "lost because the sender's kernel did not take them" |r| lost_by(r, |l| l.generator as f64);
    Stored "lost_by.impairment" "lost on purpose" |r| lost_by(r, |l| l.impairment as f64);
    Stored "lost_by.engine" "lost by the engine, as it says" |r| lost_by(r, |l| l.engine.values().sum::<u64>() as f64);
    Stored "lost_by.remainder" "lost by nobody who says so" |r| lost_by(r, |l| l.remainder as f64);
    Stored "arrival_ms_p50" "from intended to the engine's arrival stamp" |r| arrival(r, |p| p.p50);
    Stored "arrival_ms_p99" "" |r| arrival(r, |p| p.p99);
    Stored "arrival_ms_p999" "" |r| arrival(r, |p| p.p999);
    Stored "arrival_ms_max" "" |r| arrival(r, |p| p.max);
};

fn engine(run: &RunResult, get: impl Fn(&EngineFigures) -> f64) -> Option<f64> {
    run.engine.as_ref().map(get)
}

fn stored(run: &RunResult, get: impl Fn(&StoredFigures) -> f64) -> Option<f64> {
    run.stored.as_ref().map(get)
}

fn lost_by(run: &RunResult, get: impl Fn(&LostBy) -> f64) -> Option<f64> {
    stored(run, |stored| get(&stored.lost_by))
}

fn arrival(run: &RunResult, get: impl Fn(&Percentiles) -> f64) -> Option<f64> {
    run.stored.as_ref()?.arrival_ms.as_ref().map(get)
}

fn loss_percent(stored: &StoredFigures) -> f64 {
    match stored.expected {
        0 => 0.0,
        expected => 100.0 * stored.stored_loss as f64 / expected as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Assert {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn judged(text: &str, run: &RunResult) -> (Option<f64>, bool) {
        let Assertion { value, holds, .. } = parsed(text).judge(run);
        (value, holds)
    }

    fn run() -> RunResult {
        let mut run = RunResult::default();
        run.load.sent = 1000;
        run.sending.lateness_ms.p99 = 4.5;
        run.stored = Some(StoredFigures {
            expected: 1000,
            stored: 999,
            stored_loss: 1,
            ..StoredFigures::default()
        });
        let mut engine = EngineFigures::default();
        engine.dropped.insert("pool_exhausted".to_owned(), 1);
        run.engine = Some(engine);
        run
    }

    #[test]
    fn each_operator_does_what_it_says() {
        let run = run();
        for (text, holds) in [
            ("sent==1000", true),
            ("sent != 1000", false),
            ("sent<1000", false),
            ("sent<=1000", true),
            ("sent>999.5", true),
            ("sent>=1001", false),
            ("stored_loss==0", false),
            (" loss_percent <= 0.1 ", true),
            ("lateness_ms_p99<5", true),
            ("engine.dropped.pool_exhausted==1", true),
            ("engine.dropped.disk_full==0", true),
            ("engine.dropped==1e0", true),
        ] {
            assert_eq!(judged(text, &run).1, holds, "{text}");
        }
        assert_eq!(judged("loss_percent<1", &run), (Some(0.1), true));
    }

    #[test]
    fn what_was_not_measured_fulfils_nothing() {
        let run = RunResult::default();
        for text in [
            "stored_loss==0",
            "stored_loss!=0",
            "engine.dropped.disk_full==0",
            "arrival_ms_p99<5",
        ] {
            assert_eq!(judged(text, &run), (None, false), "{text}");
        }
        assert!(line(&parsed("stored_loss==0").judge(&run)).contains("not measured"));
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_the_nearest() {
        for (text, wanted) in [
            ("stored_los==0", "stored_loss"),
            ("lateness_p99<5", "lateness_ms_p99"),
            ("engine.dropped.pool_exausted==0", "pool_exhausted"),
            ("engine.recieved>0", "engine.received"),
        ] {
            let error = text.parse::<Assert>().expect_err("no such figure").to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let error = "happiness>3"
            .parse::<Assert>()
            .expect_err("no such figure")
            .to_string();
        assert!(error.contains("--help"), "{error}");
    }

    #[test]
    fn what_is_no_assertion_is_refused() {
        for bad in [
            "",
            "sent",
            "sent=5",
            "==5",
            "sent==",
            "sent==five",
            "sent==NaN",
            "sent=>5",
            "sent==1==1",
            "sent<inf",
        ] {
            assert!(bad.parse::<Assert>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_assertion_knows_what_it_needs() {
        assert!(parsed("stored_loss==0").needs_stored() && !parsed("stored_loss==0").needs_engine());
        assert!(parsed("engine.dropped.disk_full==0").needs_engine());
        let all = [parsed("sent>0"), parsed("stored_loss==0")];
        assert_eq!(cannot_judge(&all, false, true), None);
        let error = cannot_judge(&all, true, false).expect("no segments");
        assert!(
            error.contains("stored_loss==0") && error.contains("--segments"),
            "{error}"
        );
        assert!(
            cannot_judge(&[parsed("engine.stored>0")], false, true)
                .is_some_and(|e| e.contains("--engine-stats"))
        );
    }

    #[test]
    fn every_figure_has_one_name_and_stands_in_the_help() {
        let help = help();
        for (at, figure) in FIGURES.iter().enumerate() {
            assert!(
                FIGURES[..at].iter().all(|other| other.name != figure.name),
                "{}",
                figure.name
            );
            assert!(help.contains(figure.name));
        }
    }
}
