//! Messages on their way to the kernel, and what each packet in them is.
//!
//! A message is a datagram, or with segmentation up to a burst of them, of one stream, one socket and one due time. Invariants: all
//! packets of a message but its last are as long as its socket's segments; packets that are lost on purpose stand in a message
//! as notes without bytes, where they would have been.

use crate::sentlog::Flags;
use std::ops::Range;

/// Messages and bytes after which a batch is sent: at 1 Gb/s about 1 ms of bursts, so no packet waits long for the last; and the
/// second-level cache keeps the bytes from writing to hashing.
const MESSAGES: usize = 32;
const BYTES: usize = 256 * 1024;
/// What a datagram may hold before the kernel cuts it (65,535 less the IPv6 and UDP headers).
const MESSAGE_BYTES_MAX: usize = 65_487;

/// What a message is, so that the sender of the batch knows what to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rtp,
    Rtcp,
    Junk,
}

/// One datagram, or with segmentation several.
#[derive(Debug, Clone)]
pub struct Message {
    pub stream: u32,
    pub kind: Kind,
    pub socket: u32,
    /// When it should leave.
    pub due_ns: u64,
    bytes: Range<usize>,
    notes: Range<usize>,
    packets: u32,
    /// Bytes of each packet but the last.
    segment: usize,
    closed: bool,
}

impl Message {
    /// Whether all its packets are lost: nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many packets leave with it.
    pub fn packets(&self) -> u64 {
        u64::from(self.packets)
    }

    pub(super) fn is_segmented(&self) -> bool {
        self.bytes.len() > self.segment
    }
}

/// What one packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// The mark's sequence number, or the report's number.
    pub sequence: u64,
    pub intended_ns: u64,
    pub flags: Flags,
    pub len: u16,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub stream: u32,
    pub kind: Kind,
    pub socket: u32,
    pub due_ns: u64,
    /// Most packets of a message, and the length of all but its last: 1 and anything where each is sent by itself.
    pub packets: usize,
    pub segment: usize,
}

/// Messages being gathered; their bytes stand in one buffer, which grows to what a batch needs and stays.
pub struct Batch {
    bytes: Vec<u8>,
    used: usize,
    messages: Vec<Message>,
    notes: Vec<Note>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            bytes: vec![0; BYTES + MESSAGE_BYTES_MAX],
            used: 0,
            messages: Vec::with_capacity(2 * MESSAGES),
            notes: Vec::with_capacity(1024),
        }
    }
}

impl Batch {
    pub fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
        self.notes.clear();
    }

    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether it is time to send.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= MESSAGES || self.used >= BYTES
    }

    /// Room for the next packet's bytes; it is part of the batch from here on.
    pub fn add(&mut self, way: &Way, note: Note) -> &mut [u8] {
        let len = usize::from(note.len);
        let at = self.used..self.used + len;
        self.used = at.end;
        if at.end > self.bytes.len() {
            self.bytes.resize(2 * at.end, 0);
        }
        self.notes.push(note);
        match self
            .messages
            .last_mut()
            .filter(|message| takes(message, way, len))
        {
            Some(message) => {
                message.bytes.end = at.end;
                message.notes.end += 1;
                message.packets += 1;
                message.closed |= len != way.segment;
            }
            None => self.messages.push(Message {
                stream: way.stream,
                kind: way.kind,
                socket: way.socket,
                due_ns: way.due_ns,
                bytes: at.clone(),
                notes: self.notes.len() - 1..self.notes.len(),
                packets: 1,
                segment: if way.packets == 1 { len } else { way.segment },
                closed: len != way.segment || way.packets == 1,
            }),
        }
        &mut self.bytes[at]
    }

    /// Notes a packet that is lost on purpose.
    pub fn add_lost(&mut self, way: &Way, note: Note) {
        self.notes.push(note);
        match self.messages.last_mut().filter(|message| is_of(message, way)) {
            Some(message) => message.notes.end += 1,
            None => self.messages.push(Message {
                stream: way.stream,
                kind: way.kind,
                socket: way.socket,
                due_ns: way.due_ns,
                bytes: self.used..self.used,
                notes: self.notes.len() - 1..self.notes.len(),
                packets: 0,
                segment: way.segment,
                closed: way.packets == 1,
            }),
        }
    }

    pub fn bytes(&self, message: &Message) -> &[u8] {
        &self.bytes[message.bytes.clone()]
    }

    pub fn notes(&self, message: &Message) -> &[Note] {
        &self.notes[message.notes.clone()]
    }

    /// The packets of a message with their bytes, `None` for those lost on purpose.
    pub fn packets(&self, message: &Message) -> impl Iterator<Item = (&Note, Option<&[u8]>)> {
        let mut rest = self.bytes(message);
        self.notes(message).iter().map(move |note| {
            if note.flags.has(Flags::LOST) {
                return (note, None);
            }
            let (packet, behind) = rest.split_at(usize::from(note.len));
            rest = behind;
            (note, Some(packet))
        })
    }

    /// The datagrams that the kernel makes of a message.
    pub(super) fn datagrams(&self, message: &Message) -> impl Iterator<Item = &[u8]> {
        self.bytes(message).chunks(message.segment.max(1))
    }
}

fn is_of(message: &Message, way: &Way) -> bool {
    (message.stream, message.kind, message.socket) == (way.stream, way.kind, way.socket)
        && message.due_ns == way.due_ns
}

/// Whether a message can carry one more packet, of this length. (Lost ones count as if they were there; a burst is not longer for it.)
fn takes(message: &Message, way: &Way, len: usize) -> bool {
    is_of(message, way)
        && !message.closed
        && len <= message.segment
        && message.notes.len() < way.packets
        && message.bytes.len() + len <= MESSAGE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way = Way {
        stream: 1,
        kind: Kind::Rtp,
        socket: 0,
        due_ns: 5,
        packets: 8,
        segment: 100,
    };

    fn note(sequence: u64, len: u16, flags: Flags) -> Note {
        Note {
            sequence,
            intended_ns: 0,
            flags,
            len,
        }
    }

    fn lens(batch: &Batch) -> Vec<Vec<usize>> {
        let lens = |message| batch.datagrams(message).map(<[u8]>::len).collect();
        batch.messages().iter().map(lens).collect()
    }

    #[test]
    fn a_message_is_whole_segments_and_at_most_its_last_packet_is_shorter() {
        let mut batch = Batch::default();
        for (sequence, len) in (0..).zip([100, 100, 40, 100, 130, 100]) {
            batch.add(&WAY, note(sequence, len, Flags::default()));
        }
        assert_eq!(lens(&batch)[0], [100, 100, 40]);
        assert_eq!(lens(&batch)[1], [100]);
        assert_eq!(batch.messages()[2].len(), 130);
        assert_eq!(lens(&batch)[3], [100]);
    }

    #[test]
    fn another_stream_socket_kind_or_time_is_another_message_and_so_is_one_packet_too_many() {
        let mut batch = Batch::default();
        let ways = [
            WAY,
            Way { stream: 2, ..WAY },
            Way { socket: 1, ..WAY },
            Way { due_ns: 6, ..WAY },
            Way {
                kind: Kind::Rtcp,
                ..WAY
            },
        ];
        for way in ways {
            batch.add(&way, note(0, 100, Flags::default()));
        }
        assert_eq!(batch.messages().len(), 5);
        for sequence in 0..9 {
            batch.add(&WAY, note(sequence, 100, Flags::default()));
        }
        assert_eq!(batch.messages().len(), 7);
        let alone = Way { packets: 1, ..WAY };
        batch.add(&alone, note(0, 100, Flags::default()));
        batch.add(&alone, note(1, 100, Flags::default()));
        assert_eq!(batch.messages().len(), 9);
    }

    #[test]
    fn lost_packets_keep_their_place_and_have_no_bytes() {
        let mut batch = Batch::default();
        batch.add_lost(&WAY, note(0, 100, Flags::LOST));
        batch.add(&WAY, note(1, 100, Flags::default())).fill(1);
        batch.add_lost(&WAY, note(2, 100, Flags::LOST));
        batch.add(&WAY, note(3, 60, Flags::default())).fill(3);
        batch.add_lost(&WAY, note(4, 100, Flags::LOST));
        let [message] = batch.messages() else {
            panic!("{} messages", batch.messages().len());
        };
        assert_eq!((message.len(), message.is_empty()), (160, false));
        let packets: Vec<_> = batch
            .packets(message)
            .map(|(note, bytes)| (note.sequence, bytes.map(|bytes| (bytes[0], bytes.len()))))
            .collect();
        let expected = [
            (0, None),
            (1, Some((1, 100))),
            (2, None),
            (3, Some((3, 60))),
            (4, None),
        ];
        assert_eq!(packets, expected);
    }

    #[test]
    fn a_batch_takes_any_number_of_packets() {
        let mut batch = Batch::default();
        for sequence in 0..2_000 {
            batch
                .add(&WAY, note(sequence, 1200, Flags::default()))
                .fill(sequence as u8);
        }
        assert!(batch.is_full());
        let last = batch.messages().last().expect("not empty");
        assert_eq!(batch.bytes(last)[0], (1_999 % 256) as u8);
    }
}
