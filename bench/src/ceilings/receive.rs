//! Receive and discard on loopback, with the engine's own ring: the floor under every packet.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use harborseal::uring::ring::BufferMode;
use harborseal::uring::{Event, Flow, Ring, RingOptions, SocketOptions, Waker, bind_group, sys};

use super::Case;
use crate::flood;
use crate::sample::Sample;

const PACKET_BYTES: u16 = 1200;

struct Receive {
    /// Packets per send (UDP_SEGMENT).
    batch: u16,
    gro: bool,
    buffers: BufferMode,
    /// No optional set-up flags.
    plain_flags: bool,
    min_wait_us: u32,
    send_cpu: usize,
}

pub fn cases(send_cpu: usize) -> Vec<Box<dyn Case>> {
    let base = Receive {
        batch: 1,
        gro: true,
        buffers: BufferMode::Auto,
        plain_flags: false,
        min_wait_us: 0,
        send_cpu,
    };
    let plain = BufferMode::Plain;
    let cases = [
        Receive { ..base },
        Receive {
            min_wait_us: 1000,
            ..base
        },
        Receive {
            buffers: plain,
            ..base
        },
        Receive {
            buffers: plain,
            plain_flags: true,
            ..base
        },
        Receive { batch: 10, ..base },
        Receive {
            batch: 10,
            min_wait_us: 1000,
            ..base
        },
        Receive {
            batch: 10,
            buffers: plain,
            ..base
        },
        Receive {
            batch: 10,
            gro: false,
            ..base
        },
        Receive { batch: 40, ..base },
        Receive {
            batch: 40,
            buffers: plain,
            ..base
        },
    ];
    cases
        .into_iter()
        .map(|case| Box::new(case) as Box<dyn Case>)
        .collect()
}

impl Case for Receive {
    fn name(&self) -> String {
        let mut name = match (self.batch, self.gro) {
            (1, _) => "single".to_owned(),
            (n, true) => format!("GSO×{n}, GRO"),
            (n, false) => format!("GSO×{n}, no GRO"),
        };
        name += if self.buffers == BufferMode::Auto {
            ", incremental ring"
        } else {
            ", plain ring"
        };
        if self.plain_flags {
            name += ", no flags";
        }
        if self.min_wait_us > 0 {
            name += &format!(", waits of {} µs", self.min_wait_us);
        }
        name
    }

    fn run(&mut self, seconds: f64) -> anyhow::Result<Sample> {
        let socket_options = SocketOptions {
            gro: self.gro,
            ..SocketOptions::default()
        };
        let group = bind_group(([127, 0, 0, 1], 0).into(), 1, &socket_options)?;
        let options = RingOptions {
            buffers: self.buffers,
            plain_flags: self.plain_flags,
            lock: false,
            ..RingOptions::default()
        };
        let mut ring = Ring::new(&options, &Waker::new()?).context("making a ring")?;
        for socket in group.sockets {
            ring.add_socket(socket);
        }
        ring.resume();
        ring.submit()?;
        let flood = flood::Options {
            to: group.local,
            packet_bytes: PACKET_BYTES,
            batch: self.batch,
            cpu: self.send_cpu,
            seconds: seconds + 10.0,
        };
        let _flood = Flood::start(&flood)?;
        self.discard_some(&mut ring, 0.01)?;
        self.discard_some(&mut ring, (seconds / 5.0).min(0.2))?;
        self.discard_some(&mut ring, seconds)
    }
}

impl Receive {
    /// As `discard`, begun again if not one packet came: without packets there is no cost of one. On a busy machine
    /// the sender may not run for many milliseconds.
    fn discard_some(&self, ring: &mut Ring, seconds: f64) -> anyhow::Result<Sample> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let sample = self.discard(ring, seconds)?;
            if sample.count > 0 {
                return Ok(sample);
            }
            anyhow::ensure!(Instant::now() < deadline, "the sender sent nothing for 5 s");
        }
    }

    /// Receives for a while; looks at every packet's length and at nothing else.
    fn discard(&self, ring: &mut Ring, seconds: f64) -> anyhow::Result<Sample> {
        let (mut count, mut bytes) = (0, 0);
        let cpu_ns = sys::Usage::of_process().cpu_ns();
        let start_ns = sys::monotonic_ns();
        let end_ns = start_ns + (seconds * 1e9) as u64;
        let mut now_ns = start_ns;
        while now_ns < end_ns {
            ring.wait(self.min_wait_us, 10_000)?;
            ring.drain(1024, |event| {
                if let Event::Datagram(datagram) = event {
                    for packet in datagram.packets() {
                        count += 1;
                        bytes += packet.len() as u64;
                    }
                }
                Flow::Continue
            })?;
            now_ns = sys::monotonic_ns();
        }
        let cpu_ns = sys::Usage::of_process().cpu_ns() - cpu_ns;
        Ok(Sample {
            count,
            bytes,
            wall_ns: now_ns - start_ns,
            cpu_ns,
        })
    }
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
