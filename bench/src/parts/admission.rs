//! Parse, admit, account: from bytes of a stranger to a stream of a camera.

use std::net::SocketAddr;
use std::sync::Arc;

use harborseal::rtp::Packet;
use harborseal::stream::registry::{Camera, Customer, Media, Registry, Source, Stream};
use harborseal::stream::table::Streams;
use harborseal_segment::identity::Identity;
use harborseal_segment::random::FixedBytes;

/// Two customers, whose cameras these are by turns, all on loopback.
pub fn registry(ssrcs: &[u32]) -> Arc<Registry> {
    let customer = |name: &str, seed| Customer {
        name: name.into(),
        public_key: Identity::generate(&mut FixedBytes(&[seed; 64])).public().clone(),
        erasable: false,
        enrolment: None,
    };
    let media = Media {
        media_index: 0,
        clock_rate_hz: 90_000,
    };
    let camera = |(n, &ssrc): (usize, &u32)| Camera {
        id: format!("camera-{n:05}").into(),
        customer: n as u32 % 2,
        source: Source::host([127, 0, 0, 1].into()),
        streams: vec![Stream { ssrc, media }],
        unlisted: media,
        sdp: None,
    };
    let cameras = ssrcs.iter().enumerate().map(camera).collect();
    let registry = Registry::new(vec![customer("alice", 1), customer("bob", 2)], cameras);
    Arc::new(registry.unwrap_or_else(|_| panic!("the SSRCs differ")))
}

/// What a packet turned out to be.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    /// Index of its stream; the same as the engine would give it.
    pub stream: u32,
    pub rtcp: bool,
}

/// The tables, and the stream of the latest packet: a batch mostly holds packets of one.
pub struct Admission {
    registry: Arc<Registry>,
    streams: Streams,
    latest: Option<(u32, SocketAddr, u32)>,
    pub refused: u64,
}

impl Admission {
    pub fn new(registry: Arc<Registry>) -> Admission {
        Admission {
            registry,
            streams: Streams::default(),
            latest: None,
            refused: 0,
        }
    }

    /// Parses, admits and accounts one packet.
    #[inline]
    pub fn take(&mut self, data: &[u8], from: SocketAddr, arrival_ns: u64) -> Option<Admitted> {
        let found = Packet::parse(data)
            .ok()
            .and_then(|packet| self.admit(packet, from, arrival_ns));
        self.refused += u64::from(found.is_none());
        found
    }

    /// Admits and accounts a parsed packet.
    #[inline]
    pub fn admit(&mut self, packet: Packet, from: SocketAddr, arrival_ns: u64) -> Option<Admitted> {
        let stream = self.stream_of(packet, from, arrival_ns)?;
        let of_stream = &mut self.streams[stream];
        of_stream.received += 1;
        of_stream.last_packet_ns = arrival_ns;
        if let Packet::Rtp {
            sequence, timestamp, ..
        } = packet
        {
            of_stream.account.receive(sequence, timestamp, arrival_ns);
        }
        Some(Admitted {
            stream,
            rtcp: matches!(packet, Packet::Rtcp { .. }),
        })
    }

    fn stream_of(&mut self, packet: Packet, from: SocketAddr, arrival_ns: u64) -> Option<u32> {
        let ssrc = packet.ssrc();
        let rtcp = matches!(packet, Packet::Rtcp { .. });
        if let Some((latest, source, stream)) = self.latest
            && latest == ssrc
            && source == from
            && !rtcp
        {
            return Some(stream);
        }
        let admitted = self.registry.admit(ssrc, from, rtcp).ok()?;
        let stream = match self.streams.find(admitted.camera, ssrc) {
            Some(stream) => stream,
            None => {
                let opened = self
                    .streams
                    .open(admitted.camera, ssrc, admitted.media, arrival_ns, arrival_ns);
                opened.ok()?.0
            }
        };
        self.latest = Some((ssrc, from, stream));
        Some(stream)
    }

    /// Forgets whose the latest packet was, so that the next one is looked up.
    pub fn forget_latest(&mut self) {
        self.latest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{Packets, SOURCE, Shape};

    #[test]
    fn every_packet_is_admitted_to_its_stream_and_strangers_are_not() {
        let shape = Shape {
            streams: 5,
            burst: 3,
            bytes: 100,
        };
        let mut admission = Admission::new(registry(&shape.ssrcs()));
        let mut packets = Packets::new(shape);
        for burst in 0..20 {
            for packet in packets.next_burst().chunks(shape.bytes) {
                let admitted = admission
                    .take(packet, SOURCE, 1_000_000 * burst)
                    .expect("registered");
                assert_eq!((admitted.stream, admitted.rtcp), (burst as u32 % 5, false));
            }
        }
        assert!(admission.take(&[0x80; 12], SOURCE, 1).is_none());
        assert_eq!(admission.refused, 1);
        assert!(
            admission
                .streams
                .iter()
                .all(|(_, stream)| stream.account.lost() == 0 && stream.received == 12)
        );
    }
}
