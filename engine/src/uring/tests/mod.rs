//! The room against the real kernel: sockets on loopback, files with O_DIRECT. Every test is bounded in time.

mod files;

mod receive;
mod regions;
mod sockets;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::ring::BufferMode;
use super::*;

/// A ring small enough to run many tests side by side.
fn options(buffers: BufferMode) -> RingOptions {
    RingOptions {
        receive_bytes: 2 << 20,
        buffers,
        flights: 8,
        lock: false,
        ..RingOptions::default()
    }
}

fn ring(buffers: BufferMode) -> (Ring, Waker) {
    let waker = Waker::new().unwrap();
    (Ring::new(&options(buffers), &waker).unwrap(), waker)
}

/// As on a kernel that knows none of the optional flags, nor incremental buffers.
fn old_kernel() -> (Ring, Waker) {
    let waker = Waker::new().unwrap();
    let options = RingOptions {
        plain_flags: true,
        restrict: false,
        ..options(BufferMode::Plain)
    };
    (Ring::new(&options, &waker).unwrap(), waker)
}

/// The rings that must all behave alike.
fn every_ring() -> [(&'static str, Ring); 3] {
    [
        ("incremental", ring(BufferMode::Auto).0),
        ("plain buffers", ring(BufferMode::Plain).0),
        ("plain buffers, no flags", old_kernel().0),
    ]
}

/// Binds one socket, adds it to the ring, and returns where to send to.
fn listen(ring: &mut Ring) -> SocketAddr {
    let group = bind_group(([127, 0, 0, 1], 0).into(), 1, &SocketOptions::default()).unwrap();
    let local = group.local;
    for socket in group.sockets {
        ring.add_socket(socket);
    }
    ring.resume();
    ring.submit().unwrap();
    local
}

fn sender_to(address: SocketAddr) -> UdpSocket {
    let own: SocketAddr = if address.is_ipv4() {
        ([127, 0, 0, 1], 0).into()
    } else {
        (std::net::Ipv6Addr::LOCALHOST, 0).into()
    };
    let socket = UdpSocket::bind(own).unwrap();
    socket.connect(address).unwrap();
    socket
}

/// Turns the loop until `done` says so; fails the test after ten seconds.
fn turn(ring: &mut Ring, mut on: impl FnMut(Event<'_>) -> Flow, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(
            Instant::now() < deadline,
            "what was waited for did not happen in 10 s"
        );
        ring.wait(0, 10_000).unwrap();
        ring.drain(usize::MAX, &mut on).unwrap();
    }
}

/// Turns the loop for a while, whatever happens.
fn turn_for(ring: &mut Ring, time: Duration, mut on: impl FnMut(Event<'_>) -> Flow) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        ring.wait(0, 5_000).unwrap();
        ring.drain(usize::MAX, &mut on).unwrap();
    }
}
