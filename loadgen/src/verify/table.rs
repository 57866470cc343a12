//! The verdict for people, for programs, and as `stored.csv`.

use super::check::StreamVerdict;
use super::{Verdict, judge::Impairment};
use crate::output::words::with_commas;
use crate::result::{EngineFigures, StoredFigures};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Name and version of `verify.json`.
pub const SCHEMA: &str = "harborseal-loadgen/verify/1";
/// Streams with differences that are told one by one.
const WORST: usize = 20;

/// `verify.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Document {
    pub schema: String,
    pub segments: usize,
    pub stored: StoredFigures,
    pub impairments: Vec<Impairment>,
    /// Streams with the most packets lost that ought to be stored; none that lost none.
    pub worst: Vec<StreamVerdict>,
    pub notes: Vec<String>,
}

impl Verdict {
    pub fn document(&self) -> Document {
        Document {
            schema: SCHEMA.to_owned(),
            segments: self.segments,
            stored: self.figures.clone(),
            impairments: self.impairments.clone(),
            worst: self.worst().cloned().collect(),
            notes: self.notes.clone(),
        }
    }

    /// Streams of which something is not as it should be, worst first.
    fn worst(&self) -> impl Iterator<Item = &StreamVerdict> {
        let rank = |s: &StreamVerdict| {
            (
                s.lost,
                s.wrong + s.corrupt + s.foreign + s.duplicates + s.reordered,
            )
        };
        let mut worst: Vec<&StreamVerdict> = self
            .streams
            .iter()
            .filter(|s| s.looked_at && rank(s) != (0, 0))
            .collect();
        worst.sort_by_key(|stream| std::cmp::Reverse(rank(stream)));
        worst.into_iter().take(WORST)
    }

    /// The table.
    pub fn text(&self, engine: Option<&EngineFigures>) -> String {
        let mut text = String::new();
        self.path(engine, &mut text);
        self.blame(engine, &mut text);
        self.kinds(&mut text);
        self.worst_streams(&mut text);
        for note in &self.notes {
            line(&mut text, format_args!("note       {note}"));
        }
        match self.figures.differences.as_slice() {
            [] if self.figures.streams == 0 => {
                line(&mut text, format_args!("verdict    nothing was looked at"))
            }
            [] => line(&mut text, format_args!("verdict    as expected")),
            differences => {
                line(
                    &mut text,
                    format_args!("verdict    DIFFERS from what was to be expected"),
                );
                for difference in differences {
                    line(&mut text, format_args!("             {difference}"));
                }
            }
        }
        text
    }

    /// Intended → sent → received → stored.
    fn path(&self, engine: Option<&EngineFigures>, text: &mut String) {
        let f = &self.figures;
        let sum =
            |of: fn(&StreamVerdict) -> u64| self.streams.iter().filter(|s| s.looked_at).map(of).sum::<u64>();
        line(
            text,
            format_args!(
                "looked at  {} of {} streams, in {} segment{}",
                f.streams,
                f.streams + f.streams_not_looked_at,
                self.segments,
                if self.segments == 1 { "" } else { "s" }
            ),
        );
        line(
            text,
            format_args!("intended   {:>14}", with_commas(sum(|s| s.intended))),
        );
        line(
            text,
            format_args!("sent       {:>14}", with_commas(sum(|s| s.sent))),
        );
        match engine {
            Some(engine) => line(
                text,
                format_args!(
                    "received   {:>14}   by the engine's count: RTCP, noise and what it refused are in it",
                    with_commas(engine.received)
                ),
            ),
            None => line(
                text,
                format_args!("received                ?   (--engine-stats says it)"),
            ),
        }
        line(
            text,
            format_args!(
                "stored     {:>14}   of {} that ought to be; RTCP {} of {}",
                with_commas(f.stored),
                with_commas(f.expected),
                with_commas(f.rtcp_stored),
                with_commas(f.rtcp_expected)
            ),
        );
        if let Some(arrival) = &f.arrival_ms {
            line(
                text,
                format_args!(
                    "arrival    p50 {:.2} ms · p99 {:.2} ms · p99.9 {:.2} ms · max {:.2} ms after the intended time",
                    arrival.p50, arrival.p99, arrival.p999, arrival.max
                ),
            );
        }
    }

    fn blame(&self, engine: Option<&EngineFigures>, text: &mut String) {
        let lost = &self.figures.lost_by;
        line(
            text,
            format_args!("lost by    generator   {:>10}", with_commas(lost.generator)),
        );
        line(
            text,
            format_args!(
                "           impairment  {:>10}   on purpose",
                with_commas(lost.impairment)
            ),
        );
        let reasons: Vec<String> = lost
            .engine
            .iter()
            .map(|(reason, packets)| format!("{reason} {}", with_commas(*packets)))
            .collect();
        match engine {
            Some(_) => line(
                text,
                format_args!(
                    "           engine      {:>10}   {}",
                    with_commas(lost.engine.values().sum()),
                    reasons.join(", ")
                ),
            ),
            None => line(
                text,
                format_args!("           engine               ?   (--engine-stats says it)"),
            ),
        }
        let before = engine.map_or(String::new(), |engine| {
            format!(
                "; sent less received, by the engine's count: {}",
                engine.never_received
            )
        });
        line(
            text,
            format_args!(
                "           remainder   {:>10}   kernel, network, or nobody who says so{before}",
                lost.remainder
            ),
        );
    }

    fn kinds(&self, text: &mut String) {
        let f = &self.figures;
        line(
            text,
            format_args!(
                "gaps       {}, the longest of {} packets",
                with_commas(f.gaps),
                with_commas(f.longest_gap)
            ),
        );
        line(
            text,
            format_args!(
                "amiss      duplicates {} · reordered {} · corrupt {} · wrong customer {} · foreign {}",
                f.duplicates, f.reordered, f.corrupt, f.wrong_customer, f.foreign
            ),
        );
        if !self.impairments.is_empty() {
            line(
                text,
                format_args!("{:<36}{:>14}{:>14}", "on purpose", "expected", "found"),
            );
        }
        for Impairment {
            name,
            expected,
            found,
        } in &self.impairments
        {
            let expected = expected.map_or(String::new(), with_commas);
            line(
                text,
                format_args!("           {name:<25}{expected:>14}{:>14}", with_commas(*found)),
            );
        }
        if f.other_runs > 0 {
            line(
                text,
                format_args!("passed over {} packets of other runs", with_commas(f.other_runs)),
            );
        }
    }

    fn worst_streams(&self, text: &mut String) {
        let mut worst = self.worst().peekable();
        if worst.peek().is_none() {
            return;
        }
        line(
            text,
            format_args!(
                "{:<8}{:<18}{:<14}{:>10}{:>10}{:>10}{:>12}  gaps that ought not to be (sequence numbers)",
                "stream", "camera", "customer", "expected", "stored", "lost", "longest gap"
            ),
        );
        for s in worst {
            let gaps = s.worst_gaps.iter().filter(|gap| gap.unexpected > 0);
            let gaps: Vec<String> = gaps
                .map(|gap| match gap.packets {
                    1 => format!("{}", gap.first),
                    _ => format!("{}–{}", gap.first, gap.last),
                })
                .collect();
            line(
                text,
                format_args!(
                    "{:<8}{:<18}{:<14}{:>10}{:>10}{:>10}{:>12}  {}",
                    s.stream,
                    s.camera,
                    s.customer,
                    s.expected,
                    s.stored,
                    s.lost,
                    s.longest_gap,
                    gaps.join(", ")
                ),
            );
        }
    }

    /// `stored.csv`: a line per stream.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "stream,camera,customer,group,ssrc,known,looked_at,intended,sent,not_sent,impaired_lost,runts,strangers,expected,\
             stored,lost,duplicates,reordered,corrupt,wrong_customer,foreign,rtcp_expected,rtcp_stored,gaps,longest_gap,\
             engine_dropped\n",
        );
        for s in &self.streams {
            let named = [&s.camera, &s.customer, &s.group].map(|name| field(name));
            line(
                &mut text,
                format_args!(
                    "{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                    s.stream,
                    named.join(","),
                    s.ssrc,
                    s.known,
                    s.looked_at,
                    s.intended,
                    s.sent,
                    s.not_sent,
                    s.impaired_lost,
                    s.runts,
                    s.strangers,
                    s.expected,
                    found(s),
                    s.engine_dropped,
                ),
            );
        }
        text
    }
}

/// Fields that are empty where nobody looked.
fn found(s: &StreamVerdict) -> String {
    let counts = [
        s.stored,
        s.lost,
        s.duplicates,
        s.reordered,
        s.corrupt,
        s.wrong,
        s.foreign,
        s.rtcp_expected,
        s.rtcp_stored,
        s.gaps,
        s.longest_gap,
    ];
    let field = |count: &u64| {
        if s.looked_at {
            count.to_string()
        } else {
            String::new()
        }
    };
    counts.iter().map(field).collect::<Vec<_>>().join(",")
}

/// RFC 4180: quoted where it must be.
fn field(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn line(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).expect("writing to a String cannot fail");
    text.push('\n');
}
