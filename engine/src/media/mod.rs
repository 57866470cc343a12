//! Export: from the stored packets of one camera to a file that ordinary tools open.
//!
//! This room knows nothing of segments: packets come in by [`Export::push`], in arrival order over all streams of
//! the camera, and a file comes out. Nothing is visible under the file's name before [`Export::finish`] has made it
//! durable; dropping an [`Export`] leaves nothing behind.
//!
//! ```text
//!                       ┌ capture ── pcapng · rtpdump     every packet in range, as it arrived
//! push ──────────────────┤
//!                       └ movie ──── sender (order ── clock ── frame, codec) ── mp4
//! ```
//!
//! Memory is bounded: the reordering window, one frame, and, for MP4, one table row per sample.

mod capture;
mod clock;
mod codec;
mod error;
mod frame;
mod movie;
mod mp4;
mod notes;
mod order;
mod pcapng;
mod rtpdump;
mod sdp;
mod sender;
mod target;

use std::path::Path;
use std::sync::Arc;

pub use error::Error;
pub use sdp::codec_name;

/// One stored packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When the kernel received it: nanoseconds since 1970.
    pub arrival_ns: u64,
    /// An RTCP compound packet; else RTP.
    pub rtcp: bool,
    /// The UDP payload as it came.
    pub bytes: &'a [u8],
}

/// What is known of a stream beside its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// Index of its m-line in `sdp`, from 0; [`Stream::UNKNOWN_MEDIA`] if unknown.
    pub media_index: u16,
    /// The camera's session description; empty if it has none.
    pub sdp: Arc<str>,
}

impl Stream {
    /// The media index of a stream that is mapped to no m-line.
    pub const UNKNOWN_MEDIA: u16 = 0xFFFF;
}

/// Which packets are wanted, by arrival: [from, to), nanoseconds since 1970. `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First instant inside.
    pub from_ns: Option<u64>,
    /// First instant outside.
    pub to_ns: Option<u64>,
}

impl Range {
    /// Whether `arrival_ns` lies before the range.
    pub fn is_before(&self, arrival_ns: u64) -> bool {
        self.from_ns.is_some_and(|from| arrival_ns < from)
    }

    /// Whether `arrival_ns` lies behind the range.
    pub fn is_after(&self, arrival_ns: u64) -> bool {
        self.to_ns.is_some_and(|to| arrival_ns >= to)
    }
}

/// The kinds of file that can be written; the output's extension chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// H.264 and H.265 pictures, playable.
    Mp4,
    /// All packets with made-up UDP and IP headers, for Wireshark.
    Pcapng,
    /// All packets, for rtptools.
    Rtpdump,
}

impl Format {
    /// The format for `path`, by its extension.
    ///
    /// # Errors
    /// [`Error::UnknownExtension`] for any other extension, or none.
    pub fn of(path: &Path) -> Result<Format, Error> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "mp4" => Ok(Format::Mp4),
            "pcapng" => Ok(Format::Pcapng),
            "rtpdump" => Ok(Format::Rtpdump),
            _ => Err(Error::UnknownExtension {
                path: path.to_owned(),
            }),
        }
    }

    /// Whether the file begins with what arrived before the range: frames that others refer to.
    pub fn needs_earlier(self) -> bool {
        self == Format::Mp4
    }
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames presented (MP4 only; frames decoded but trimmed away do not count).
    pub frames: u64,
    /// Packets of the range that went into the file.
    pub packets: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Arrival of the first and of the last packet or frame in the file, nanoseconds since 1970.
    pub span_ns: Option<(u64, u64)>,
    /// Places where packets are missing, told by the sequence numbers.
    pub gaps: u64,
    /// Packets missing at those places.
    pub lost: u64,
    /// What a person should know: things left out, and why.
    pub notes: Vec<String>,
}

/// A file being written.
pub struct Export(Kind);

enum Kind {
    Capture(Box<capture::Capture>),
    Movie(Box<movie::Movie>),
}

impl Export {
    /// Begins an export of a camera that has `streams` to `path`, in the format of its extension.
    ///
    /// # Errors
    /// If the extension names no format, the file cannot be made there, or an MP4 is asked of a camera without
    /// H.264 or H.265.
    pub fn create(path: &Path, streams: &[Stream], range: Range) -> Result<Export, Error> {
        let format = Format::of(path)?;
        let target = target::Target::create(path)?;
        Ok(Export(match format {
            Format::Mp4 => {
                let media_index = movie::choose_media(streams)?;
                Kind::Movie(Box::new(movie::Movie::new(target, range, media_index)?))
            }
            Format::Pcapng | Format::Rtpdump => {
                Kind::Capture(Box::new(capture::Capture::new(target, format, range)?))
            }
        }))
    }

    /// Takes the camera's next packet; packets come in arrival order over all its streams. For an MP4 they should
    /// begin well before the range, so that a key frame is among them; what is not needed is left out.
    ///
    /// # Errors
    /// Those of the file.
    pub fn push(&mut self, stream: &Stream, packet: Packet<'_>) -> Result<(), Error> {
        match &mut self.0 {
            Kind::Capture(capture) => capture.push(stream, packet),
            Kind::Movie(movie) => movie.push(stream, packet),
        }
    }

    /// Whether the file has a beginning. An MP4 whose packets before the range held no key frame has none yet: then
    /// the caller begins again with earlier packets, if there are any.
    pub fn has_begun(&self) -> bool {
        match &self.0 {
            Kind::Capture(_) => true,
            Kind::Movie(movie) => movie.has_begun(),
        }
    }

    /// Completes the file, makes it durable and gives it its name.
    ///
    /// # Errors
    /// If nothing was in range, and those of the file.
    pub fn finish(self) -> Result<Report, Error> {
        match self.0 {
            Kind::Capture(capture) => capture.finish(),
            Kind::Movie(movie) => movie.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
