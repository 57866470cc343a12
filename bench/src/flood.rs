//! The sender: one core, as fast as it goes, in a process of its own so that its CPU time is not ours.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use harborseal::uring::{socket, sys};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long)]
    pub to: SocketAddr,
    /// Payload bytes of one packet.
    #[arg(long)]
    pub packet_bytes: u16,
    /// Packets handed to the kernel at once (UDP_SEGMENT); 1: one by one.
    #[arg(long)]
    pub batch: u16,
    #[arg(long)]
    pub cpu: usize,
    /// Ends after this time even if nobody stops it.
    #[arg(long)]
    pub seconds: f64,
}

impl Options {
    pub fn to_arguments(&self) -> Vec<String> {
        let Options {
            to,
            packet_bytes,
            batch,
            cpu,
            seconds,
        } = self;
        format!(
            "flood --to {to} --packet-bytes {packet_bytes} --batch {batch} --cpu {cpu} --seconds {seconds}"
        )
        .split(' ')
        .map(str::to_owned)
        .collect()
    }
}

/// Sends until the time is over or standard input is closed, which is what the death of the parent does.
pub fn run(options: &Options) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let _end = std::io::stdin().read(&mut [0; 1]);
        std::process::exit(0);
    });
    sys::pin_to_cpu(options.cpu).with_context(|| format!("cannot run on CPU {}", options.cpu))?;
    let any: SocketAddr = if options.to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let sender = UdpSocket::bind(any)?;
    sender.connect(options.to)?;
    if options.batch > 1 {
        socket::set_segment_bytes(&sender, options.packet_bytes).context("this kernel has no UDP_SEGMENT")?;
    }
    let bytes = vec![0x80; usize::from(options.packet_bytes) * usize::from(options.batch)];
    let deadline = Instant::now() + Duration::from_secs_f64(options.seconds);
    while Instant::now() < deadline {
        for _ in 0..64 {
            match sender.send(&bytes) {
                Ok(_) => {}
                // The receiver is not there yet or no more, or the device queue is full: go on until told.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::WouldBlock) => {}
                Err(error) if error.raw_os_error() == Some(105) => {} // ENOBUFS
                Err(error) => return Err(error).context("sending"),
            }
        }
    }
    Ok(())
}
