//! Every packet of the range, as it arrived, into a capture file. Nothing is put in order, dropped or repaired.

use std::collections::HashMap;
use std::io::{BufWriter, Seek, Write};

use super::order::Order;
use super::target::Target;
use super::{Error, Format, Packet, Range, Report, Stream, pcapng, rtpdump};

/// One write of this many bytes at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The two writers differ in their bytes only.
enum Writer {
    Pcapng(pcapng::Writer),
    Rtpdump(rtpdump::Writer),
}

/// A capture file being written.
pub(super) struct Capture {
    target: Target,
    out: BufWriter<std::fs::File>,
    writer: Writer,
    range: Range,
    /// One order per SSRC: it only counts what is missing.
    orders: HashMap<u32, Order>,
    report: Report,
}

impl Capture {
    /// Begins a capture of `format` in `target`.
    ///
    /// # Errors
    /// Those of the file.
    pub fn new(target: Target, format: Format, range: Range) -> Result<Capture, Error> {
        let file = target
            .file
            .try_clone()
            .map_err(target.error("cannot be written"))?;
        let writer = match format {
            Format::Rtpdump => Writer::Rtpdump(rtpdump::Writer::default()),
            Format::Pcapng | Format::Mp4 => Writer::Pcapng(pcapng::Writer::default()),
        };
        Ok(Capture {
            target,
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            writer,
            range,
            orders: HashMap::new(),
            report: Report::default(),
        })
    }

    /// Appends one packet, if it is in range.
    ///
    /// # Errors
    /// Those of the file.
    pub fn push(&mut self, stream: &Stream, packet: Packet<'_>) -> Result<(), Error> {
        if self.range.is_before(packet.arrival_ns) || self.range.is_after(packet.arrival_ns) {
            return Ok(());
        }
        let written = match &mut self.writer {
            Writer::Pcapng(writer) => writer.append(&mut self.out, stream, packet),
            Writer::Rtpdump(writer) => writer.append(&mut self.out, packet),
        };
        written.map_err(self.target.error("cannot be written"))?;
        self.report.packets += 1;
        let first_ns = self.report.span_ns.map_or(packet.arrival_ns, |span| span.0);
        self.report.span_ns = Some((first_ns, packet.arrival_ns));
        if !packet.rtcp {
            let order = self.orders.entry(stream.ssrc).or_insert_with(Order::new);
            order.push(packet.arrival_ns, packet.bytes, &mut |_| {});
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`Error::NothingInRange`] if there was no packet, and those of the file.
    pub fn finish(mut self) -> Result<Report, Error> {
        if self.report.packets == 0 {
            return Err(Error::NothingInRange(
                "no packet of this camera in the range".into(),
            ));
        }
        self.out.flush().map_err(self.target.error("cannot be written"))?;
        self.report.bytes = self
            .out
            .stream_position()
            .map_err(self.target.error("cannot be written"))?;
        for order in self.orders.values_mut() {
            order.flush(&mut |_| {});
            self.report.gaps += order.counts.gaps;
            self.report.lost += order.counts.lost;
        }
        self.target.commit()?;
        Ok(self.report)
    }
}
