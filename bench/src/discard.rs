//! Receive and discard: what the kernel alone costs, with the engine's own ring.
//!
//! Everything that stands between wire and packet is the engine's: ring, socket options, size of the receive buffers, huge pages,
//! locked memory, batches, and how long it waits for company ([`harborseal::shard::MIN_WAIT_US`]). What is left out is everything
//! that looks into a packet: only lengths are counted. A constant that the engine changes changes here with it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use harborseal::engine::memory::Plan;
use harborseal::shard::{DRAIN_LIMIT, MIN_WAIT_US, PUBLISH_NS};
use harborseal::uring::{Event, Flow, Ring, RingOptions, SocketOptions, Waker, bind_group, sys};
use harborseal_bench::parts::SealRates;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::account::Cpu;
use crate::child::{Process, Stop, myself, object};

/// What a receiver took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Taken {
    pub packets: u64,
    pub bytes: u64,
    /// What the kernel delivered at once: a batch of packets with GRO.
    pub datagrams: u64,
    pub wakeups: u64,
    /// System calls made on the ring.
    pub ring_enters: u64,
    /// By the kernel's own counter, which counts batches.
    pub kernel_drop_batches: u64,
    /// Of a receiver that seals, and was asked to time it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealing: Option<SealRates>,
}

/// Receives until `end` says so; looks at every packet's length and at nothing else.
pub fn discard(
    ring: &mut Ring,
    min_wait_us: u32,
    timeout_us: u64,
    mut end: impl FnMut() -> bool,
) -> anyhow::Result<Taken> {
    let mut taken = Taken::default();
    while !end() {
        ring.wait(min_wait_us, timeout_us)?;
        taken.wakeups += 1;
        ring.drain(DRAIN_LIMIT, |event| {
            if let Event::Datagram(datagram) = event {
                taken.datagrams += 1;
                for packet in datagram.packets() {
                    taken.packets += 1;
                    taken.bytes += packet.len() as u64;
                }
            }
            Flow::Continue
        })?;
    }
    Ok(taken)
}

/// The hidden command: a receiver in a process of its own.
#[derive(Args, Debug)]
pub struct Child {
    /// As the engine's memory.limit, of which the receive buffers are a part.
    #[arg(long)]
    memory_mib: u64,
    /// One receiver on each.
    #[arg(long, value_delimiter = ',', required = true)]
    cpus: Vec<usize>,
}

pub fn run_child(options: &Child) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let shards = options.cpus.len();
    let plan = Plan::new(options.memory_mib << 20, shards);
    let group = bind_group(([127, 0, 0, 1], 0).into(), shards, &SocketOptions::default())?;
    let (ready, ready_of_all) = mpsc::channel();
    let receivers: Vec<_> = group
        .sockets
        .into_iter()
        .zip(options.cpus.clone())
        .map(|(socket, cpu)| {
            let (stop, ready) = (Arc::clone(&stop), ready.clone());
            std::thread::spawn(move || -> anyhow::Result<Taken> {
                sys::pin_to_cpu(cpu).with_context(|| format!("cannot run on CPU {cpu}"))?;
                let options = RingOptions {
                    receive_bytes: plan.receive_bytes,
                    ..RingOptions::default()
                };
                let mut ring = Ring::new(&options, &Waker::new()?).context("making a ring")?;
                ring.add_socket(socket);
                ring.resume();
                ring.submit()?;
                ready.send(()).context("the main thread waits for this")?;
                drop(ready);
                let timeout_us = PUBLISH_NS / 1000;
                let mut taken = discard(&mut ring, MIN_WAIT_US, timeout_us, || {
                    stop.load(Ordering::Relaxed)
                })?;
                taken.kernel_drop_batches = ring.kernel_drops(0);
                taken.ring_enters = ring.counters().enters;
                Ok(taken)
            })
        })
        .collect();
    drop(ready);
    ensure!(
        ready_of_all.iter().count() == receivers.len(),
        "a receiver did not start"
    );
    println!("{}", serde_json::json!({ "listen": group.local }));
    let mut sum = Taken::default();
    for receiver in receivers {
        let taken = receiver.join().expect("a receiver does not panic")?;
        sum.packets += taken.packets;
        sum.bytes += taken.bytes;
        sum.datagrams += taken.datagrams;
        sum.wakeups += taken.wakeups;
        sum.ring_enters += taken.ring_enters;
        sum.kernel_drop_batches += taken.kernel_drop_batches;
    }
    println!("{}", serde_json::to_string(&sum)?);
    Ok(())
}

/// A receiver that listens.
pub struct Receiver {
    process: Process,
    pub listen: SocketAddr,
    started: Cpu,
}

impl Receiver {
    pub fn start(cpus: &[usize], memory_mib: u64, stop: &Stop) -> anyhow::Result<Receiver> {
        let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
        let arguments = [
            "discard".to_owned(),
            format!("--memory-mib={memory_mib}"),
            format!("--cpus={}", list.join(",")),
        ];
        Self::of("discard receiver", cpus, arguments, stop)
    }

    /// Starts one of our own commands that says where it listens, and at SIGTERM what it took.
    pub fn of(
        name: &'static str,
        cpus: &[usize],
        arguments: impl IntoIterator<Item = String>,
        stop: &Stop,
    ) -> anyhow::Result<Receiver> {
        let mut process = Process::start(name, cpus, &myself(arguments)?)?;
        let listen = process.wait_for(Duration::from_secs(10), stop, |line| {
            object(line)?["listen"].as_str()?.parse().ok()
        })?;
        let started = Cpu::of_process(process.pid())?;
        Ok(Receiver {
            process,
            listen,
            started,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// CPU time since it was ready.
    pub fn cpu_so_far(&self) -> anyhow::Result<Cpu> {
        Ok(Cpu::of_process(self.process.pid())?.since(self.started))
    }

    /// Stops it; what it took, and what it cost from ready to gone.
    pub fn stop(self, stop: &Stop) -> anyhow::Result<(Taken, Cpu)> {
        self.process.signal(Signal::TERM);
        let (mut taken, started) = (None, self.started);
        let (cpu, _) = self.process.finish(Duration::from_secs(10), stop, |line| {
            taken = serde_json::from_str(&line).ok().or(taken);
        })?;
        Ok((
            taken.context("the receiver did not report what it took")?,
            cpu.since(started),
        ))
    }
}
