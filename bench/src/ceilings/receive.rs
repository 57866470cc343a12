//! Receive and discard on loopback: with the engine's own ring, and without a ring. The floor under every packet.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use harborseal::uring::ring::BufferMode;
use harborseal::uring::{Group, Ring, RingOptions, SocketOptions, Waker, bind_group, sys};

use super::{Case, recvmmsg};
use crate::discard::discard;
use crate::flood;
use crate::sample::Sample;

const PACKET_BYTES: u16 = 1200;
/// Longest sleep of the receiver, in microseconds.
const TIMEOUT_US: u64 = 10_000;

/// How packets are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Recvmmsg,
    Ring {
        buffers: BufferMode,
        /// No optional set-up flags.
        plain_flags: bool,
        min_wait_us: u32,
    },
}

const INCREMENTAL: Way = Way::Ring {
    buffers: BufferMode::Auto,
    plain_flags: false,
    min_wait_us: 0,
};
const PLAIN: Way = Way::Ring {
    buffers: BufferMode::Plain,
    plain_flags: false,
    min_wait_us: 0,
};
const NO_FLAGS: Way = Way::Ring {
    buffers: BufferMode::Plain,
    plain_flags: true,
    min_wait_us: 0,
};
const WAITING: Way = Way::Ring {
    buffers: BufferMode::Auto,
    plain_flags: false,
    min_wait_us: 1000,
};

struct Receive {
    /// Packets per send (UDP_SEGMENT).
    batch: u16,
    gro: bool,
    way: Way,
    send_cpu: usize,
}

pub fn cases(send_cpu: usize) -> Vec<Box<dyn Case>> {
    let cases = [
        (1, true, INCREMENTAL),
        (1, true, WAITING),
        (1, true, PLAIN),
        (1, true, NO_FLAGS),
        (1, true, Way::Recvmmsg),
        (10, true, INCREMENTAL),
        (10, true, WAITING),
        (10, true, PLAIN),
        (10, true, Way::Recvmmsg),
        (10, false, INCREMENTAL),
        (10, false, PLAIN),
        (10, false, Way::Recvmmsg),
        (40, true, INCREMENTAL),
        (40, true, PLAIN),
        (40, true, Way::Recvmmsg),
    ];
    let case = |(batch, gro, way)| {
        let case = Receive {
            batch,
            gro,
            way,
            send_cpu,
        };
        Box::new(case) as Box<dyn Case>
    };
    cases.into_iter().map(case).collect()
}

impl Case for Receive {
    fn name(&self) -> String {
        let shape = match (self.batch, self.gro) {
            (1, _) => "single".to_owned(),
            (n, true) => format!("GSO×{n}, GRO"),
            (n, false) => format!("GSO×{n}, no GRO"),
        };
        let way = match self.way {
            Way::Recvmmsg => "recvmmsg",
            NO_FLAGS => "plain ring, no flags",
            PLAIN => "plain ring",
            WAITING => "incremental ring, waits of 1000 µs",
            Way::Ring { .. } => "incremental ring",
        };
        format!("{shape}, {way}")
    }

    fn run(&mut self, seconds: f64) -> anyhow::Result<Sample> {
        let socket_options = SocketOptions {
            gro: self.gro,
            ..SocketOptions::default()
        };
        let group = bind_group(([127, 0, 0, 1], 0).into(), 1, &socket_options)?;
        let flood = flood::Options {
            to: group.local,
            packet_bytes: PACKET_BYTES,
            batch: self.batch,
            cpu: self.send_cpu,
            seconds: seconds + 10.0,
        };
        let mut take = self.receiver(group)?;
        let _flood = Flood::start(&flood)?;
        take_some(&mut take, 0.01)?;
        take_some(&mut take, (seconds / 5.0).min(0.2))?;
        take_some(&mut take, seconds)
    }
}

impl Receive {
    /// What receives for so many seconds.
    fn receiver(&self, group: Group) -> anyhow::Result<Box<dyn FnMut(f64) -> anyhow::Result<Sample>>> {
        match self.way {
            Way::Recvmmsg => {
                let socket = group
                    .sockets
                    .into_iter()
                    .next()
                    .context("a group of one has a socket")?;
                let mut receiver = recvmmsg::Receiver::new(socket, self.gro, PACKET_BYTES)?;
                Ok(Box::new(move |seconds| receiver.discard(seconds)))
            }
            Way::Ring {
                buffers,
                plain_flags,
                min_wait_us,
            } => {
                let options = RingOptions {
                    buffers,
                    plain_flags,
                    lock: false,
                    ..RingOptions::default()
                };
                let mut ring = Ring::new(&options, &Waker::new()?).context("making a ring")?;
                for socket in group.sockets {
                    ring.add_socket(socket);
                }
                ring.resume();
                ring.submit()?;
                Ok(Box::new(move |seconds| {
                    discard_for(&mut ring, min_wait_us, seconds)
                }))
            }
        }
    }
}

/// Receives; begins again if not one packet came: without packets there is no cost of one. On a busy machine the sender may
/// not run for many milliseconds.
fn take_some(take: &mut impl FnMut(f64) -> anyhow::Result<Sample>, seconds: f64) -> anyhow::Result<Sample> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let sample = take(seconds)?;
        if sample.count > 0 {
            return Ok(sample);
        }
        anyhow::ensure!(Instant::now() < deadline, "the sender sent nothing for 5 s");
    }
}

fn discard_for(ring: &mut Ring, min_wait_us: u32, seconds: f64) -> anyhow::Result<Sample> {
    let cpu_ns = sys::Usage::of_process().cpu_ns();
    let start_ns = sys::monotonic_ns();
    let end_ns = start_ns + (seconds * 1e9) as u64;
    let taken = discard(ring, min_wait_us, TIMEOUT_US, || sys::monotonic_ns() >= end_ns)?;
    Ok(Sample {
        count: taken.packets,
        bytes: taken.bytes,
        wall_ns: sys::monotonic_ns() - start_ns,
        cpu_ns: sys::Usage::of_process().cpu_ns() - cpu_ns,
    })
}

/// The sending process; stopped and reaped when dropped.
struct Flood(Child);

impl Flood {
    fn start(options: &flood::Options) -> anyhow::Result<Flood> {
        let program = std::env::current_exe().context("finding this program")?;
        let child = Command::new(program)
            .args(options.to_arguments())
            .stdin(Stdio::piped())
            .spawn();
        Ok(Flood(child.context("starting the sender")?))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to do.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
