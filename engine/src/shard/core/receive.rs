//! From a datagram to a record in an open chunk: validate, admit, keep in order, account, pack.

use super::{Core, Datagram, Neighbours};
use crate::chunk::{MAX_PACKET_BYTES, Pace, RecordKind};
use crate::ledger::Reason;
use crate::log::Now;
use crate::port::Stray;
use crate::rtp::Packet;
use crate::shard::hold::{Held, Hold, Waiting};
use crate::stream::table::Streams;
use crate::uring::steer::steer;

impl Core {
    /// Takes a datagram from one of this shard's own sockets.
    ///
    /// By reference throughout: the fields of a datagram were just written, and copying them in other widths would wait for those writes,
    /// which stand in line behind the latest packet's copy into a cold chunk. That was a tenth of a microsecond per packet.
    pub fn receive(&mut self, datagram: &Datagram<'_>, others: &mut impl Neighbours, now: Now) {
        let size = match usize::from(datagram.gro_size) {
            0 => datagram.data.len().max(1),
            size => size,
        };
        if datagram.data.is_empty() {
            self.refuse(&[], Reason::Truncated);
        }
        for data in datagram.data.chunks(size) {
            match Packet::parse(data) {
                Err(reason) => self.refuse(data, reason),
                Ok(packet) => {
                    let owner = steer(packet.ssrc(), usize::from(self.settings.shards));
                    if owner == usize::from(self.settings.shard) {
                        let past = |socket, arrival_ns| others.all_past(socket, arrival_ns);
                        self.accept(packet, datagram, data, past, now);
                    } else if others.hand_over(owner, datagram, data) {
                        self.books.rehomed += 1;
                    } else {
                        self.refuse(data, Reason::RehomeFull);
                    }
                }
            }
        }
    }

    /// Counts a datagram of which the kernel could deliver only the beginning: how many packets it held is not known.
    pub fn receive_cut(&mut self, data: &[u8]) {
        self.refuse(data, Reason::Truncated);
    }

    /// Takes a packet that another shard received and handed over.
    ///
    /// While such packets are being taken, what comes before one of them may stand behind it in the queue; so one that is
    /// not the next of its stream waits at least until [`Core::advance`].
    pub fn receive_rehomed(&mut self, datagram: &Datagram<'_>, now: Now) {
        match Packet::parse(datagram.data) {
            Err(reason) => self.refuse(datagram.data, reason),
            Ok(packet) => self.accept(packet, datagram, datagram.data, |_, _| false, now),
        }
    }

    fn refuse(&mut self, data: &[u8], reason: Reason) {
        self.books.received += 1;
        self.books.received_bytes += data.len() as u64;
        self.books.dropped.add(reason, 1);
    }

    /// Admits a packet to its stream, and makes it wait there if one before it may still be on its way.
    /// `data` is the packet, alone or one of the datagram's batch.
    #[inline]
    fn accept(
        &mut self,
        packet: Packet,
        datagram: &Datagram<'_>,
        data: &[u8],
        past: impl Fn(u16, u64) -> bool,
        now: Now,
    ) {
        if data.len() > MAX_PACKET_BYTES {
            return self.refuse(data, Reason::Oversize);
        }
        let stream = match self.stream_of(packet, datagram, now) {
            Ok(stream) => stream,
            Err(reason) => return self.refuse(data, reason),
        };
        self.books.received += 1;
        self.books.received_bytes += data.len() as u64;
        self.streams[stream].received += 1;
        self.streams[stream].last_packet_ns = now.mono_ns;
        if let Some(sequence) = self.must_wait(stream, packet, datagram, past) {
            let waiting = Waiting {
                stream,
                sequence,
                socket: datagram.socket,
                arrival_ns: datagram.arrival_ns,
                since_ns: now.mono_ns,
            };
            if self.hold.as_mut().is_some_and(|hold| hold.push(waiting, data)) {
                self.streams[stream].held += 1;
                return;
            }
            self.release_before(stream, datagram.arrival_ns, now);
        }
        self.take(stream, packet, data, datagram.arrival_ns, now);
        if self.streams[stream].held > 0 {
            self.release_held(|_, _| false, now);
        }
    }

    #[inline]
    fn stream_of(&mut self, packet: Packet, datagram: &Datagram<'_>, now: Now) -> Result<u32, Reason> {
        let Packet::Rtp { ssrc, .. } = packet else {
            return self.admit(packet, datagram, now);
        };
        let known = match self.latest {
            Some((latest, stream)) if latest == ssrc => Some(stream),
            _ => self.admitted.get(&ssrc).copied(),
        };
        match known {
            Some(stream) if self.streams[stream].source.as_ref() == Some(&datagram.from) => {
                self.latest = Some((ssrc, stream));
                Ok(stream)
            }
            _ => self.admit(packet, datagram, now),
        }
    }

    /// Asks the registry whose packet it is, and opens its stream if it is the first of it.
    #[inline(never)]
    fn admit(&mut self, packet: Packet, datagram: &Datagram<'_>, now: Now) -> Result<u32, Reason> {
        let ssrc = packet.ssrc();
        let rtcp = matches!(packet, Packet::Rtcp { .. });
        let admitted = self
            .registry
            .admit(ssrc, datagram.from, rtcp)
            .inspect_err(|reason| {
                self.stray = Some(Stray {
                    reason: *reason,
                    ssrc,
                    from: datagram.from,
                });
            })?;
        let stream = match self.streams.find(admitted.camera, ssrc) {
            Some(stream) => stream,
            None => {
                let (camera, media) = (admitted.camera, admitted.media);
                let (stream, reused) =
                    self.streams
                        .open(camera, ssrc, media, datagram.arrival_ns, now.mono_ns)?;
                if !reused {
                    self.open.push(None);
                    self.paces.push(Pace::default());
                } else {
                    self.latest = None;
                    self.paces[stream as usize] = Pace::default();
                    self.admitted.retain(|_, known| *known != stream);
                    self.log.forget_stream(stream);
                    self.reused.push(stream);
                }
                stream
            }
        };
        if !rtcp {
            self.streams[stream].source = Some(datagram.from);
            self.admitted.insert(ssrc, stream);
            self.latest = Some((ssrc, stream));
        }
        Ok(stream)
    }

    /// A packet waits if it is not the next of its stream and another shard may hold one that comes before it.
    /// Its sequence number then: the hold queue asks for it again and again.
    fn must_wait(
        &self,
        stream: u32,
        packet: Packet,
        datagram: &Datagram<'_>,
        past: impl Fn(u16, u64) -> bool,
    ) -> Option<u16> {
        let Packet::Rtp { sequence, .. } = packet else {
            return None;
        };
        let of_stream = &self.streams[stream];
        if self.hold.is_none() || of_stream.account.is_next(sequence) {
            return None;
        }
        let may_come_earlier = of_stream.held > 0 || !past(datagram.socket, datagram.arrival_ns);
        may_come_earlier.then_some(sequence)
    }

    /// There is no room for a packet to wait: what waits of its stream and came before it goes first.
    fn release_before(&mut self, stream: u32, arrival_ns: u64, now: Now) {
        self.release(
            |hold, _| hold.take(|waiting| waiting.stream == stream && waiting.arrival_ns <= arrival_ns),
            now,
        );
    }

    /// Lets go of what waited long enough, or is now the next of its stream.
    pub(super) fn release_held(&mut self, past: impl Fn(u16, u64) -> bool, now: Now) {
        let ready = |hold: &mut Hold, streams: &Streams| {
            let due = |waiting: &Waiting| {
                streams[waiting.stream].account.is_next(waiting.sequence)
                    || past(waiting.socket, waiting.arrival_ns)
            };
            hold.take(due).or_else(|| hold.take_overdue(now.mono_ns))
        };
        self.release(ready, now);
    }

    /// Takes packets out of the hold queue, one after another, into their streams.
    fn release(&mut self, mut next: impl FnMut(&mut Hold, &Streams) -> Option<Held>, now: Now) {
        let Some(mut hold) = self.hold.take() else { return };
        while let Some(held) = next(&mut hold, &self.streams) {
            let stream = held.waiting.stream;
            self.streams[stream].held -= 1;
            if let Ok(packet) = Packet::parse(hold.bytes(&held)) {
                self.take(stream, packet, hold.bytes(&held), held.waiting.arrival_ns, now);
            }
            hold.release(held);
        }
        self.hold = Some(hold);
    }

    /// Accounts a packet and packs it into its stream's chunk.
    fn take(&mut self, index: u32, packet: Packet, data: &[u8], arrival_ns: u64, now: Now) {
        // First the room: a chunk that ends here has not seen the gap before this packet.
        let has_room = self.make_room(index, data.len(), arrival_ns, now);
        let kind = match packet {
            Packet::Rtp {
                sequence, timestamp, ..
            } => {
                let account = &mut self.streams[index].account;
                account.receive(sequence, timestamp, arrival_ns);
                RecordKind::Rtp
            }
            Packet::Rtcp { .. } => RecordKind::Rtcp,
        };
        if !has_room {
            return self.drop_packets(index, 1, self.why_no_buffer());
        }
        if let Some(chunk) = &mut self.open[index as usize] {
            let bytes = self.pool.bytes_mut(&chunk.buffer);
            chunk.push(bytes, kind, arrival_ns, data);
        }
    }

    /// What the operator should look at: memory only where the disk takes what it is given.
    fn why_no_buffer(&self) -> Reason {
        match (self.log.disk_full(), self.log.disk_failing()) {
            (true, _) => Reason::DiskFull,
            (false, true) => Reason::DiskFailed,
            (false, false) => Reason::PoolExhausted,
        }
    }

    pub(super) fn drop_packets(&mut self, stream: u32, packets: u64, reason: Reason) {
        self.streams[stream].dropped.add(reason, packets);
        self.books.dropped.add(reason, packets);
    }

    /// At the end of a run that went wrong: what waits has nowhere to go.
    pub(super) fn lose_held(&mut self, reason: Reason) {
        let Some(mut hold) = self.hold.take() else { return };
        while let Some(held) = hold.take(|_| true) {
            self.streams[held.waiting.stream].held -= 1;
            self.drop_packets(held.waiting.stream, 1, reason);
            hold.release(held);
        }
        self.hold = Some(hold);
    }
}
