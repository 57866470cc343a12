//! Reads captures: pcap (microseconds and nanoseconds, either byte order) and pcapng, frame by frame.
//!
//! Of our own, because the crate at hand refuses what is common here: a capture with cut packets (their original length is
//! above the snapshot length), an interface without an end-of-options, and any time unit but its own. Both formats:
//! draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
//!
//! Invariants: no length of the file is believed before it is bounded, so memory is bounded by [`RECORD_MAX`]; a capture
//! that ends within a record gives every frame before it, and says so; anything else that cannot be is an error with its
//! place.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// The longest record taken for one: libpcap's own bound on a snapshot is 256 KiB, and usbmon captures double it a few times.
const RECORD_MAX: u32 = 16 << 20;
/// Interfaces of one section; a capture of every interface of a large router has some hundreds.
const INTERFACES_MAX: usize = 65_536;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// Why a capture could not be read. Every text names the file.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {what}")]
    Foreign { path: PathBuf, what: &'static str },
    #[error("{path}: damaged at byte {offset}: {what}")]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: String,
    },
}

/// One captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Nanoseconds since 1970; `None` where the capture states none.
    pub at_ns: Option<u64>,
    /// Its kind of link (the registry's LINKTYPE value).
    pub link: u16,
    /// From the link's header on; may be cut by the snapshot length.
    pub bytes: &'a [u8],
}

/// A capture being read.
pub struct Capture<R> {
    path: PathBuf,
    input: R,
    /// Bytes read so far, and where the record that is being read begins.
    offset: u64,
    record: u64,
    kind: Kind,
    buffer: Vec<u8>,
    ended_within_a_record: bool,
}

enum Kind {
    Pcap {
        order: Order,
        /// Nanoseconds of one unit of the fraction.
        unit_ns: u64,
        link: u16,
    },
    PcapNg {
        order: Order,
        interfaces: Vec<Interface>,
    },
}

#[derive(Clone, Copy)]
struct Interface {
    link: u16,
    snapshot: u32,
    resolution: u8,
    offset_s: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = *bytes[at..].first_chunk().expect("the caller checked the length");
        match self {
            Order::Big => u16::from_be_bytes(bytes),
            Order::Little => u16::from_le_bytes(bytes),
        }
    }

    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = *bytes[at..].first_chunk().expect("the caller checked the length");
        match self {
            Order::Big => u32::from_be_bytes(bytes),
            Order::Little => u32::from_le_bytes(bytes),
        }
    }

    fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let (first, second) = (u64::from(self.u32(bytes, at)), u64::from(self.u32(bytes, at + 4)));
        match self {
            Order::Big => first << 32 | second,
            Order::Little => second << 32 | first,
        }
    }
}

impl Capture<BufReader<File>> {
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|source| CaptureError::Io {
            path: path.to_owned(),
            source,
        })?;
        Capture::new(path, BufReader::with_capacity(1 << 20, file))
    }
}

impl<R: Read> Capture<R> {
    /// A capture from anything that gives bytes; `path` is what errors call it.
    pub fn new(path: &Path, input: R) -> Result<Capture<R>, CaptureError> {
        let kind = Kind::PcapNg {
            order: Order::Little,
            interfaces: Vec::new(),
        };
        let mut capture = Capture {
            path: path.to_owned(),
            input,
            offset: 0,
            record: 0,
            kind,
            buffer: Vec::new(),
            ended_within_a_record: false,
        };
        let mut magic = [0; 4];
        if capture.fill(&mut magic)? < magic.len() {
            return Err(capture.foreign("no capture: not even four bytes"));
        }
        match (u32::from_be_bytes(magic), u32::from_le_bytes(magic)) {
            (SECTION, _) => capture.read_section()?,
            (MICROSECONDS, _) => capture.read_pcap_header(Order::Big, 1_000)?,
            (NANOSECONDS, _) => capture.read_pcap_header(Order::Big, 1)?,
            (_, MICROSECONDS) => capture.read_pcap_header(Order::Little, 1_000)?,
            (_, NANOSECONDS) => capture.read_pcap_header(Order::Little, 1)?,
            (0x1f8b_0000..=0x1f8b_ffff, _) => {
                return Err(capture.foreign("a gzip file; unpack it first (gunzip)"));
            }
            (_, 0xfd2f_b528) => return Err(capture.foreign("a zstd file; unpack it first (unzstd)")),
            _ => return Err(capture.foreign("neither pcap nor pcapng (its first bytes are neither's)")),
        }
        Ok(capture)
    }

    /// The next frame; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        self.record = self.offset;
        match &self.kind {
            Kind::Pcap { order, unit_ns, link } => {
                let (order, unit_ns, link) = (*order, *unit_ns, *link);
                self.next_pcap(order, unit_ns, link)
            }
            Kind::PcapNg { .. } => self.next_pcapng(),
        }
    }

    /// Whether the file ended within a record, as when the capturing process was killed or its disk was full.
    pub fn ended_within_a_record(&self) -> bool {
        self.ended_within_a_record
    }

    fn read_pcap_header(&mut self, order: Order, unit_ns: u64) -> Result<(), CaptureError> {
        let mut header = [0; 20];
        if self.fill(&mut header)? < header.len() {
            return Err(self.damaged("the capture's header is cut"));
        }
        // The upper half of the field says how long frame check sequences are.
        let link = order.u32(&header, 16) as u16;
        self.kind = Kind::Pcap { order, unit_ns, link };
        Ok(())
    }

    fn next_pcap(
        &mut self,
        order: Order,
        unit_ns: u64,
        link: u16,
    ) -> Result<Option<Frame<'_>>, CaptureError> {
        let mut head = [0; 16];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            16 => {}
            _ => return Ok(self.end_within_a_record()),
        }
        let (seconds, fraction) = (order.u32(&head, 0), order.u32(&head, 4));
        let len = order.u32(&head, 8);
        if !self.fill_record(len)? {
            return Ok(self.end_within_a_record());
        }
        let at_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit_ns;
        Ok(Some(Frame {
            at_ns: Some(at_ns),
            link,
            bytes: &self.buffer,
        }))
    }

    /// A section's header, its type already read: from here on its byte order counts, and its interfaces alone.
    fn read_section(&mut self) -> Result<(), CaptureError> {
        let mut head = [0; 8];
        if self.fill(&mut head)? < head.len() {
            return Err(self.damaged("the section's header is cut"));
        }
        let order = match (Order::Big.u32(&head, 4), Order::Little.u32(&head, 4)) {
            (BYTE_ORDER, _) => Order::Big,
            (_, BYTE_ORDER) => Order::Little,
            _ => return Err(self.damaged("a section without a byte order")),
        };
        let len = self.block_len(order.u32(&head, 0), 28)?;
        if !self.fill_record(len - 12)? {
            return Err(self.damaged("the section's header is cut"));
        }
        self.kind = Kind::PcapNg {
            order,
            interfaces: Vec::new(),
        };
        Ok(())
    }

    fn next_pcapng(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        loop {
            self.record = self.offset;
            let mut kind = [0; 4];
            match self.fill(&mut kind)? {
                0 => return Ok(None),
                4 => {}
                _ => return Ok(self.end_within_a_record()),
            }
            // The section's type reads the same in both orders.
            if u32::from_be_bytes(kind) == SECTION {
                self.read_section()?;
                continue;
            }
            let Kind::PcapNg { order, .. } = self.kind else {
                unreachable!("only pcapng has blocks");
            };
            let mut len = [0; 4];
            if self.fill(&mut len)? < len.len() {
                return Ok(self.end_within_a_record());
            }
            let len = self.block_len(order.u32(&len, 0), 12)?;
            // Body and the length's repetition.
            if !self.fill_record(len - 8)? {
                return Ok(self.end_within_a_record());
            }
            if order.u32(&self.buffer, self.buffer.len() - 4) != len {
                return Err(self.damaged("a block whose two lengths differ"));
            }
            self.buffer.truncate(self.buffer.len() - 4);
            match order.u32(&kind, 0) {
                INTERFACE => self.add_interface(order)?,
                kind @ (ENHANCED_PACKET | OLD_PACKET | SIMPLE_PACKET) => {
                    let (at_ns, link, bytes) = self.packet(kind, order)?;
                    return Ok(Some(Frame {
                        at_ns,
                        link,
                        bytes: &self.buffer[bytes],
                    }));
                }
                _ => {} // names, statistics, comments: nothing to send
            }
        }
    }

    fn block_len(&self, len: u32, least: u32) -> Result<u32, CaptureError> {
        if len < least || !len.is_multiple_of(4) {
            return Err(self.damaged(&format!("a block of {len} bytes")));
        }
        Ok(len)
    }

    fn add_interface(&mut self, order: Order) -> Result<(), CaptureError> {
        if self.buffer.len() < 8 {
            return Err(self.damaged("an interface description that is too short"));
        }
        let mut interface = Interface {
            link: order.u16(&self.buffer, 0),
            snapshot: order.u32(&self.buffer, 4),
            resolution: 6,
            offset_s: 0,
        };
        let mut options = &self.buffer[8..];
        while options.len() >= 4 {
            let (code, len) = (order.u16(options, 0), usize::from(order.u16(options, 2)));
            let Some(value) = options.get(4..4 + len) else {
                return Err(self.damaged("an interface's option is longer than its block"));
            };
            match (code, len) {
                (0, _) => break,
                (OPTION_RESOLUTION, 1) => interface.resolution = value[0],
                (OPTION_OFFSET, 8) => interface.offset_s = order.u64(value, 0) as i64,
                _ => {}
            }
            options = options.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        let Kind::PcapNg { interfaces, .. } = &mut self.kind else {
            unreachable!("only pcapng describes interfaces");
        };
        if interfaces.len() == INTERFACES_MAX {
            return Err(self.damaged("more interfaces than any machine has"));
        }
        interfaces.push(interface);
        Ok(())
    }

    /// The time, link and place in the buffer of a packet block's packet.
    fn packet(
        &self,
        kind: u32,
        order: Order,
    ) -> Result<(Option<u64>, u16, std::ops::Range<usize>), CaptureError> {
        let Kind::PcapNg { interfaces, .. } = &self.kind else {
            unreachable!("only pcapng has blocks");
        };
        let body = &self.buffer;
        let head = if kind == SIMPLE_PACKET { 4 } else { 20 };
        if body.len() < head {
            return Err(self.damaged("a packet block that is too short"));
        }
        let number = match kind {
            SIMPLE_PACKET => 0,
            OLD_PACKET => usize::from(order.u16(body, 0)),
            _ => order.u32(body, 0) as usize,
        };
        let interface = interfaces.get(number).ok_or_else(|| {
            self.damaged(&format!(
                "a packet of interface {number}, which was not described"
            ))
        })?;
        let (at_ns, len) = if kind == SIMPLE_PACKET {
            let snapshot = match interface.snapshot {
                0 => u32::MAX,
                some => some,
            };
            (None, order.u32(body, 0).min(snapshot))
        } else {
            // The time's upper half comes first in both orders.
            let time = u64::from(order.u32(body, 4)) << 32 | u64::from(order.u32(body, 8));
            (Some(interface.ns(time)), order.u32(body, 12))
        };
        let bytes = head..head.saturating_add(len as usize);
        if bytes.end > body.len() {
            return Err(self.damaged(&format!("a packet of {len} bytes in a shorter block")));
        }
        Ok((at_ns, interface.link, bytes))
    }

    /// Reads a record's bytes into the buffer; false when the file ends before.
    fn fill_record(&mut self, len: u32) -> Result<bool, CaptureError> {
        if len > RECORD_MAX {
            return Err(self.damaged(&format!("a record of {len} bytes; none is above {RECORD_MAX}")));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(len as usize, 0);
        let filled = self.fill(&mut buffer);
        self.buffer = buffer;
        Ok(filled? == len as usize)
    }

    /// As many bytes as there are.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, CaptureError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let path = self.path.clone();
                    return Err(CaptureError::Io { path, source });
                }
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    fn end_within_a_record<T>(&mut self) -> Option<T> {
        self.ended_within_a_record = true;
        None
    }

    fn foreign(&self, what: &'static str) -> CaptureError {
        let path = self.path.clone();
        CaptureError::Foreign { path, what }
    }

    fn damaged(&self, what: &str) -> CaptureError {
        CaptureError::Damaged {
            path: self.path.clone(),
            offset: self.record,
            what: what.to_owned(),
        }
    }
}

impl Interface {
    /// A time of this interface in nanoseconds since 1970. The resolution is a negative power of ten, or with its top bit of
    /// two.
    fn ns(&self, time: u64) -> u64 {
        let exponent = u32::from(self.resolution & 0x7f);
        let time = u128::from(time);
        let ns = if self.resolution & 0x80 != 0 {
            (time * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            time * 10u128.pow(9 - exponent)
        } else {
            10u128.checked_pow(exponent - 9).map_or(0, |unit| time / unit)
        };
        let ns = i128::try_from(ns).unwrap_or(i128::MAX);
        let ns = ns.saturating_add(i128::from(self.offset_s) * 1_000_000_000);
        ns.clamp(0, i128::from(u64::MAX)) as u64
    }
}

#[cfg(test)]
mod tests;
