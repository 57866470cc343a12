//! One step each: what the micro-benchmarks time and count. Set up once, then run any number of times.

use std::hint::black_box;

use harborseal::log::Now;
use harborseal::rtp::Packet;
use harborseal::shard::core::Datagram;
use harborseal_segment::cipher::Backend;

use super::{Admission, Admitted, NullDisk, Packets, Packing, SOURCE, Sealing, Shape, registry};

/// Parse: one burst of packets.
pub struct Parse {
    packets: Packets,
}

impl Parse {
    pub fn new(shape: Shape) -> Parse {
        Parse {
            packets: Packets::new(shape),
        }
    }

    pub fn run(&mut self) -> u32 {
        let bytes = self.packets.packet_bytes();
        let parsed = self
            .packets
            .next_burst()
            .chunks(bytes)
            .map(|packet| Packet::parse(black_box(packet)));
        parsed.flatten().fold(0, |sum, packet| sum ^ packet.ssrc())
    }
}

/// Admit and account: one burst of packets that are parsed already, the first of them looked up.
pub struct Admit {
    admission: Admission,
    ssrcs: Vec<u32>,
    burst: u16,
    stream: usize,
    sequence: u16,
}

impl Admit {
    pub fn new(shape: Shape) -> Admit {
        let ssrcs = shape.ssrcs();
        let mut admit = Admit {
            admission: Admission::new(registry(&ssrcs)),
            ssrcs,
            burst: shape.burst as u16,
            stream: 0,
            sequence: 0,
        };
        // Every stream is open before anything is measured.
        (0..shape.streams).for_each(|_| admit.run());
        admit
    }

    pub fn run(&mut self) {
        let ssrc = self.ssrcs[self.stream];
        for n in 0..self.burst {
            let packet = Packet::Rtp {
                ssrc,
                sequence: self.sequence.wrapping_add(n),
                timestamp: u32::from(self.sequence),
            };
            black_box(
                self.admission
                    .admit(black_box(packet), SOURCE, u64::from(self.sequence) * 1_000_000),
            );
        }
        self.stream += 1;
        if self.stream == self.ssrcs.len() {
            self.stream = 0;
            self.sequence = self.sequence.wrapping_add(self.burst);
        }
    }
}

/// Pack: one burst of packets into their stream's chunk; a full chunk is finished and its buffer used again.
pub struct Pack {
    packing: Packing,
    packets: Packets,
    streams: u32,
    stream: u32,
}

impl Pack {
    pub fn new(shape: Shape) -> std::io::Result<Pack> {
        let pool_bytes = (shape.streams as usize + 16) * harborseal::chunk::BUFFER_BYTES;
        let mut pack = Pack {
            packing: Packing::new(shape.streams, pool_bytes, false, None)?,
            packets: Packets::new(shape),
            streams: shape.streams,
            stream: 0,
        };
        (0..shape.streams).for_each(|_| pack.run());
        Ok(pack)
    }

    pub fn run(&mut self) {
        let bytes = self.packets.packet_bytes();
        let admitted = Admitted {
            stream: self.stream,
            rtcp: false,
        };
        for packet in self.packets.next_burst().chunks(bytes) {
            self.packing.pack(admitted, black_box(packet), 0);
        }
        self.stream = (self.stream + 1) % self.streams;
    }
}

/// Seal: one full chunk, header, AES-256-GCM and checksum.
pub struct Seal {
    sealing: Sealing,
    chunk: Vec<u8>,
    body_len: usize,
    streams: u32,
    stream: u32,
}

impl Seal {
    pub fn new(streams: u32, backend: Backend) -> Seal {
        let chunk = vec![0xA5; harborseal::chunk::BUFFER_BYTES];
        Seal {
            sealing: Sealing::new(streams, backend),
            body_len: chunk.len() - harborseal_segment::block::HEADER_LEN,
            chunk,
            streams,
            stream: 0,
        }
    }

    pub fn run(&mut self) -> u32 {
        let sealed = self
            .sealing
            .seal(self.stream, self.body_len, black_box(&mut self.chunk));
        self.stream = (self.stream + 1) % self.streams;
        sealed
    }

    /// Bytes sealed by one run.
    pub fn bytes(&self) -> usize {
        self.body_len
    }
}

/// Append: chunks of one small packet each are placed, gathered into writes, committed and settled, on a disk that takes everything
/// at once. Small, so that next to nothing of it is packing and sealing.
pub struct Append {
    shard: NullDisk,
    packets: Packets,
    now: Now,
}

impl Append {
    /// Chunks in one run.
    pub const CHUNKS: u32 = 64;

    pub fn new() -> std::io::Result<Append> {
        let shape = Shape {
            streams: Self::CHUNKS,
            burst: 1,
            bytes: 16,
        };
        let mut append = Append {
            shard: NullDisk::new(registry(&shape.ssrcs()), 16 << 20, false, Backend::Ring)?,
            packets: Packets::new(shape),
            now: Now {
                mono_ns: 1_000_000_000,
                real_ns: 1_800_000_000_000_000_000,
            },
        };
        append.run();
        // The first round writes each stream's own blocks, and waits for the segment; what is measured are chunks alone.
        append.feed();
        append.run();
        append.run();
        append.feed();
        Ok(append)
    }

    /// One packet for every stream. To be called before each run, unmeasured.
    pub fn feed(&mut self) {
        for _ in 0..Self::CHUNKS {
            let datagram = Datagram {
                socket: 0,
                from: SOURCE,
                arrival_ns: self.now.real_ns,
                gro_size: 0,
                rxq_ovfl: 0,
                truncated: false,
                data: self.packets.next_burst(),
            };
            self.shard.receive(&datagram, self.now);
        }
    }

    /// The chunks' deadline comes; they become durable.
    pub fn run(&mut self) {
        // Sealed; written, after waiting for company; synced; settled.
        for step_ns in [500_000_000, 20_000_000, 20_000_000, 20_000_000] {
            self.now.mono_ns += step_ns;
            self.now.real_ns += step_ns;
            self.shard.advance(self.now);
        }
    }

    /// Packets received and not yet stored.
    pub fn under_way(&mut self) -> u64 {
        let (received, stored, dropped) = self.shard.counts(self.now);
        received - stored - dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_does_what_it_says() {
        let shape = Shape {
            streams: 10,
            burst: 8,
            bytes: 200,
        };
        assert_eq!(Parse::new(shape).run(), 0, "eight times one SSRC, exclusive or");
        assert_eq!(Admit::new(shape).admission.refused, 0);
        let mut pack = Pack::new(shape).expect("memory");
        (0..500).for_each(|_| pack.run());
        assert!(pack.packing.chunks > 0);
        assert_eq!(Seal::new(2, Backend::Ring).run(), 65_536);
        let mut append = Append::new().expect("memory");
        assert_eq!(append.under_way(), u64::from(Append::CHUNKS));
        append.run();
        assert_eq!(append.under_way(), 0);
    }
}
