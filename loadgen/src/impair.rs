//! What is done to a stream's packets on purpose, between schedule and kernel: loss, duplicates, damage, other places, other times,
//! other identities.
//!
//! No clock, no sockets: packets go in, packets and what was done to them come out. Invariants: everything follows from the seed and
//! the order of the stream's packets, so a repeated run does the same; each packet comes out exactly once (lost ones as a note
//! without bytes), a duplicate once more; the counts are taken where the packets come out, so they say what was done and not
//! what was drawn.

use crate::camera::mix;
use crate::plan::Impairments;
use crate::result::Impaired;
use crate::rtp::HEADER_BYTES;
use crate::sentlog::Flags;

/// What leaves, or would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub bytes: Vec<u8>,
    /// The mark's.
    pub sequence: u64,
    pub intended_ns: u64,
    /// What was done to it. A lost one has its bytes still, but they go nowhere.
    pub flags: Flags,
}

/// Another identity of the stream, or part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Restart {
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
    },
    SequenceJump,
    TimestampJump,
    PayloadType,
    Rebind,
}

/// The impairments of one stream.
pub struct Impairer {
    rules: Impairments,
    random: Random,
    /// State of the loss chain.
    bad: bool,
    held: Vec<Held>,
    /// When what left last left.
    last_due_ns: u64,
    changes: [Option<Recurring>; 5],
    pub done: Impaired,
}

/// A packet that takes a later place.
struct Held {
    packet: Packet,
    twice: bool,
    /// Packets of the stream that go before it still.
    places: u32,
    /// Whether one has.
    overtaken: bool,
}

/// Something that happens every so often.
#[derive(Clone, Copy)]
struct Recurring {
    next_ns: u64,
    every_ns: u64,
}

impl Impairer {
    /// For the stream of this number, which begins at `begins_ns`.
    pub fn new(rules: Impairments, seed: u64, stream: u32, begins_ns: u64) -> Impairer {
        let mut random = Random(mix(seed ^ 0x696d_7061_6972) ^ u64::from(stream).rotate_left(32));
        let every = [
            rules.restart_every_ns,
            rules.sequence_jump_every_ns,
            rules.timestamp_jump_every_ns,
            rules.payload_type_every_ns,
            rules.rebind_every_ns,
        ];
        let changes = every.map(|every_ns| {
            let first = random.below(every_ns.max(1));
            (every_ns > 0).then_some(Recurring {
                next_ns: begins_ns + first,
                every_ns,
            })
        });
        let stationary = rules.bursts.map_or(0.0, |chain| chain.bad_share());
        Impairer {
            bad: random.chance(stationary),
            rules,
            random,
            held: Vec::new(),
            last_due_ns: 0,
            changes,
            done: Impaired::default(),
        }
    }

    /// When a burst leaves that is due at `due_ns`: never before the one ahead of it.
    pub fn leaves_ns(&mut self, due_ns: u64) -> u64 {
        if self.rules.jitter_ns > 0 {
            let late = self.random.below(self.rules.jitter_ns + 1);
            self.last_due_ns = self.last_due_ns.max(due_ns + late);
            return self.last_due_ns;
        }
        due_ns
    }

    /// What changes with a frame that is due at `due_ns`. A moment that passed while the stream was off counts once.
    pub fn changes(&mut self, due_ns: u64, mut apply: impl FnMut(Change)) {
        for kind in 0..self.changes.len() {
            let Some(recurring) = &mut self.changes[kind] else {
                continue;
            };
            if due_ns < recurring.next_ns {
                continue;
            }
            let missed = (due_ns - recurring.next_ns) / recurring.every_ns;
            recurring.next_ns += (missed + 1) * recurring.every_ns;
            let done = &mut self.done;
            let (count, change) = match kind {
                0 => (
                    &mut done.restarts,
                    Change::Restart {
                        ssrc: self.random.next() as u32,
                        sequence: self.random.next() as u16,
                        timestamp: self.random.next() as u32,
                    },
                ),
                1 => (&mut done.sequence_jumps, Change::SequenceJump),
                2 => (&mut done.timestamp_jumps, Change::TimestampJump),
                3 => (&mut done.payload_type_changes, Change::PayloadType),
                _ => (&mut done.rebinds, Change::Rebind),
            };
            *count += 1;
            apply(change);
        }
    }

    /// The stream's next packet; `out` gets what leaves now, in order, and what is lost in its place.
    pub fn packet(&mut self, mut packet: Packet, mut out: impl FnMut(Packet)) {
        if self.loses() {
            packet.flags |= Flags::LOST;
            self.done.lost += 1;
            out(packet);
            return; // it takes no place: nothing held comes nearer by it
        }
        self.damage(&mut packet);
        let twice = self.random.chance(self.rules.duplicate);
        if self.rules.reorder_depth > 0 && self.random.chance(self.rules.reorder) {
            let places = 1 + self.random.below(u64::from(self.rules.reorder_depth)) as u32;
            self.held.push(Held {
                packet,
                twice,
                places,
                overtaken: false,
            });
            return;
        }
        self.leave(packet, twice, &mut out);
        for held in &mut self.held {
            held.places -= 1;
            held.overtaken = true;
        }
        self.release(|held| held.places == 0, &mut out);
    }

    /// Gives out what is still held: the stream ends.
    pub fn end(&mut self, mut out: impl FnMut(Packet)) {
        self.release(|_| true, &mut out);
    }

    fn release(&mut self, which: impl Fn(&Held) -> bool, out: &mut impl FnMut(Packet)) {
        let mut at = 0;
        while at < self.held.len() {
            if !which(&self.held[at]) {
                at += 1;
                continue;
            }
            let mut held = self.held.remove(at);
            if held.overtaken {
                held.packet.flags |= Flags::DELAYED;
                self.done.reordered += 1;
            }
            self.leave(held.packet, held.twice, out);
        }
    }

    fn leave(&mut self, packet: Packet, twice: bool, out: &mut impl FnMut(Packet)) {
        let counts = [
            (Flags::CORRUPT, &mut self.done.corrupted),
            (Flags::TRUNCATED, &mut self.done.truncated),
            (Flags::RUNT, &mut self.done.runts),
        ];
        for (flag, count) in counts {
            *count += u64::from(packet.flags.has(flag));
        }
        let copy = twice.then(|| packet.clone());
        out(packet);
        if let Some(mut copy) = copy {
            copy.flags |= Flags::DUPLICATE;
            self.done.duplicated += 1;
            out(copy);
        }
    }

    /// Whether this packet is lost: by itself, or as the chain's state has it.
    fn loses(&mut self) -> bool {
        let alone = self.random.chance(self.rules.loss);
        let Some(chain) = self.rules.bursts else {
            return alone;
        };
        let change = if self.bad { chain.to_good } else { chain.to_bad };
        self.bad ^= self.random.chance(change);
        let loss = if self.bad { chain.loss_bad } else { chain.loss_good };
        self.random.chance(loss) || alone
    }

    /// Cuts it, or flips bits behind its header; not both, so that each count has its own packets.
    fn damage(&mut self, packet: &mut Packet) {
        let cut = self.random.chance(self.rules.truncate);
        let corrupt = self.random.chance(self.rules.corrupt);
        let len = packet.bytes.len();
        if cut && len > 1 {
            let keep = 1 + self.random.below(len as u64 - 1) as usize;
            packet.bytes.truncate(keep);
            packet.flags |= if keep < HEADER_BYTES {
                Flags::RUNT
            } else {
                Flags::TRUNCATED
            };
        } else if corrupt && len > HEADER_BYTES {
            let bits = (len - HEADER_BYTES) as u64 * 8;
            let mut flipped = [0; 3];
            let count = 1 + self.random.below(3) as usize;
            for at in 0..count {
                // A bit flipped twice would be as it was.
                flipped[at] = loop {
                    let bit = self.random.below(bits);
                    if !flipped[..at].contains(&bit) {
                        break bit;
                    }
                };
                packet.bytes[HEADER_BYTES + flipped[at] as usize / 8] ^= 1 << (flipped[at] % 8);
            }
            packet.flags |= Flags::CORRUPT;
        }
    }
}

impl crate::plan::GilbertElliott {
    /// The share of packets that meet the bad state, in the long run.
    pub fn bad_share(&self) -> f64 {
        let sum = self.to_bad + self.to_good;
        if sum > 0.0 { self.to_bad / sum } else { 0.0 }
    }

    /// The share of packets lost, in the long run.
    pub fn loss(&self) -> f64 {
        let bad = self.bad_share();
        bad * self.loss_bad + (1.0 - bad) * self.loss_good
    }
}

/// A sequence of numbers that one seed decides: SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        number
    }

    /// Evenly in 0..`bound`, which is not 0 (Lemire's multiplication; its bias, bound/2^64, is below anything counted here).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        // Nothing is drawn for what cannot be: a rule that is off changes nothing of the others.
        probability > 0.0 && ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
