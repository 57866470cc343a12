//! `seconds.csv` and `streams.csv`: a header line, then a line each; RFC 4180 with plain line feeds. An empty field was not
//! measured, as `null` in `run.json`.

use crate::result::Second;
use std::borrow::Cow;
use std::fmt::{Display, Write};

/// What one stream was and sent; a line of `streams.csv`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamRow {
    /// The number its marks carry.
    pub stream: u32,
    pub camera: String,
    pub customer: String,
    pub group: String,
    /// `h264`, `h265` or `pcmu`.
    pub media: String,
    /// The one it began with.
    pub ssrc: u32,
    pub target: String,
    /// Packets that came due.
    pub intended: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    pub not_sent: u64,
    pub impaired_lost: u64,
    pub rtcp_sent: u64,
}

const SECONDS: &str = "at_s,warm_up,due,sent,sent_bytes,not_sent,impaired_lost,lateness_ms_p50,lateness_ms_p90,lateness_ms_p99,\
    lateness_ms_p999,lateness_ms_max,cpu_percent,received,stored,dropped,durable_ms_p50,durable_ms_p99";
const STREAMS: &str = "stream,camera,customer,group,media,ssrc,target,intended,sent,sent_bytes,not_sent,impaired_lost,rtcp_sent";

/// `seconds.csv`: one line per second of the run.
pub fn seconds(seconds: &[Second]) -> String {
    let mut text = format!("{SECONDS}\n");
    for second in seconds {
        let late = &second.lateness_ms;
        let mut line = Line::new(&mut text);
        line.field(second.at_s)
            .field(u8::from(second.warm_up))
            .measured(second.due);
        line.field(second.sent).field(second.sent_bytes);
        line.field(second.not_sent).field(second.impaired_lost);
        line.field(late.p50)
            .field(late.p90)
            .field(late.p99)
            .field(late.p999)
            .field(late.max);
        line.field(second.cpu_percent);
        line.measured(second.received)
            .measured(second.stored)
            .measured(second.dropped);
        line.measured(second.durable_ms_p50)
            .measured(second.durable_ms_p99);
        line.end();
    }
    text
}

/// `streams.csv`: one line per stream.
pub fn streams(rows: impl IntoIterator<Item = StreamRow>) -> String {
    let mut text = format!("{STREAMS}\n");
    for row in rows {
        let mut line = Line::new(&mut text);
        line.field(row.stream)
            .field(quoted(&row.camera))
            .field(quoted(&row.customer));
        line.field(quoted(&row.group)).field(quoted(&row.media));
        line.field(format_args!("0x{:08x}", row.ssrc))
            .field(quoted(&row.target));
        line.field(row.intended).field(row.sent).field(row.sent_bytes);
        line.field(row.not_sent)
            .field(row.impaired_lost)
            .field(row.rtcp_sent);
        line.end();
    }
    text
}

/// One line being written.
struct Line<'a> {
    text: &'a mut String,
    first: bool,
}

impl<'a> Line<'a> {
    fn new(text: &'a mut String) -> Line<'a> {
        Line { text, first: true }
    }

    fn field(&mut self, value: impl Display) -> &mut Self {
        let comma = if self.first { "" } else { "," };
        self.first = false;
        write!(self.text, "{comma}{value}").expect("a String takes everything");
        self
    }

    fn measured<T: Display>(&mut self, value: Option<T>) -> &mut Self {
        match value {
            Some(value) => self.field(value),
            None => self.field(""),
        }
    }

    fn end(self) {
        self.text.push('\n');
    }
}

/// RFC 4180 §2: a field with a comma, a quote or a line break stands in quotes, and quotes in it are doubled.
pub fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn every_line_has_as_many_fields_as_the_header_and_nothing_measured_is_empty_not_0() {
        let text = seconds(&fixture::lossy().seconds);
        let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert!(fields.iter().all(|&count| count == fields[0]), "{fields:?}");
        let bare = seconds(&[Second::default()]);
        assert_eq!(bare.lines().nth(1), Some("0,0,,0,0,0,0,0,0,0,0,0,0,,,,,"));
    }

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        let row = StreamRow {
            camera: "gate, \"north\"".to_owned(),
            ssrc: 0xab,
            ..Default::default()
        };
        let text = streams([row]);
        let line = text.lines().nth(1).expect("one stream");
        assert!(
            line.starts_with("0,\"gate, \"\"north\"\"\",,,,0x000000ab,"),
            "{line}"
        );
    }

    #[test]
    fn a_run_without_seconds_or_streams_has_a_header_alone() {
        assert_eq!(seconds(&[]).lines().count(), 1);
        assert_eq!(streams([]), format!("{STREAMS}\n"));
    }
}
