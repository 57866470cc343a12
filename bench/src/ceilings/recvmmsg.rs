//! Receive and discard with recvmmsg(2), the way without io_uring: what it costs at least, for comparison.
//!
//! It is spared what the engine needs of every datagram: sender, receive stamp and drop counter are not asked for.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Context;
use harborseal::uring::sys;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

use crate::sample::Sample;

/// Datagrams in one call.
const BATCH: usize = 64;
/// A batch of packets that UDP_GRO made one is at most this long.
const GRO_BYTES: usize = 65_536;
/// As long as any frame on an Ethernet.
const SINGLE_BYTES: usize = 2048;
/// After this long without a packet it looks at the clock.
const PATIENCE: Duration = Duration::from_millis(10);

pub struct Receiver {
    socket: UdpSocket,
    buffers: Vec<u8>,
    buffer_bytes: usize,
    headers: MultiHeaders<()>,
    packet_bytes: u64,
}

impl Receiver {
    pub fn new(socket: UdpSocket, gro: bool, packet_bytes: u16) -> anyhow::Result<Receiver> {
        socket.set_nonblocking(false).context("making the socket wait")?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .context("setting a time limit")?;
        let buffer_bytes = if gro { GRO_BYTES } else { SINGLE_BYTES };
        Ok(Receiver {
            socket,
            buffers: vec![0; BATCH * buffer_bytes],
            buffer_bytes,
            headers: MultiHeaders::preallocate(BATCH, None),
            packet_bytes: packet_bytes.into(),
        })
    }

    /// Receives for a while. All packets are of one length, so that a batch's length tells how many it holds.
    pub fn discard(&mut self, seconds: f64) -> anyhow::Result<Sample> {
        let (mut count, mut bytes) = (0, 0);
        let cpu_ns = sys::Usage::of_process().cpu_ns();
        let start_ns = sys::monotonic_ns();
        let end_ns = start_ns + (seconds * 1e9) as u64;
        let mut now_ns = start_ns;
        while now_ns < end_ns {
            let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = {
                let mut buffers = self.buffers.chunks_exact_mut(self.buffer_bytes);
                std::array::from_fn(|_| {
                    [IoSliceMut::new(
                        buffers.next().expect("as many as the array holds"),
                    )]
                })
            };
            let flags = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers,
                &mut slices,
                flags,
                None,
            ) {
                Ok(messages) => {
                    for message in messages {
                        bytes += message.bytes as u64;
                        count += (message.bytes as u64).div_ceil(self.packet_bytes);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("recvmmsg"),
            }
            now_ns = sys::monotonic_ns();
        }
        Ok(Sample {
            count,
            bytes,
            wall_ns: now_ns - start_ns,
            cpu_ns: sys::Usage::of_process().cpu_ns() - cpu_ns,
        })
    }
}
