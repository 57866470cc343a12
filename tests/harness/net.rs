//! Ports and senders. A sender never outruns the engine: it watches the kernel's receive queue, so that what is sent
//! is received however slow the machine, and a test can ask for exact counts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A port that is free, the one after it too, for UDP and TCP over IPv4 and IPv6. Below the range from which the
/// kernel hands out ports of its own; each call gives another pair.
pub fn free_port_pair() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs of the tests at once should not meet: start anywhere.
    let start = (std::process::id() % 500) as u16 * 20;
    for _ in 0..5000 {
        let offset = (start + NEXT.fetch_add(2, Ordering::Relaxed)) % 12_000;
        let port = 20_000 + offset;
        if [port, port + 1].into_iter().all(is_free) {
            return port;
        }
    }
    panic!("no free pair of ports between 20000 and 32000");
}

fn is_free(port: u16) -> bool {
    UdpSocket::bind(("0.0.0.0", port)).is_ok()
        && std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
        && (!have_ipv6() || UdpSocket::bind(("::1", port)).is_ok())
}

/// True where the loopback has its IPv6 address.
pub fn have_ipv6() -> bool {
    UdpSocket::bind(("::1", 0)).is_ok()
}

/// Bytes waiting in the receive queues of all sockets bound to `port`, as the kernel charges them (headers of its own
/// included), and the datagrams or batches it dropped there.
pub fn receive_queue(port: u16) -> (u64, u64) {
    let mut waiting = 0;
    let mut dropped = 0;
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(queues), Some(drops)) = (fields.get(1), fields.get(4), fields.last())
            else {
                continue;
            };
            let Some((_, local_port)) = local.rsplit_once(':') else {
                continue;
            };
            if u16::from_str_radix(local_port, 16) != Ok(port) {
                continue;
            }
            let (_, receive) = queues.split_once(':').expect("tx_queue:rx_queue");
            waiting += u64::from_str_radix(receive, 16).expect("hexadecimal");
            dropped += drops.parse::<u64>().expect("decimal");
        }
    }
    (waiting, dropped)
}

/// Sends datagrams from one socket, and holds back while the engine has many waiting.
pub struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
    unpaced_bytes: usize,
    /// Sends whether or not the engine takes it.
    regardless: bool,
    /// Datagrams sent so far.
    pub sent: u64,
}

impl Sender {
    /// From an address of this machine (any of 127.0.0.0/8 is) and any port.
    pub fn from(source: &str, to: SocketAddr) -> Sender {
        let source: IpAddr = source.parse().expect("an address");
        Sender::from_port(SocketAddr::new(source, 0), to)
    }

    /// From exactly this address and port.
    pub fn from_port(source: SocketAddr, to: SocketAddr) -> Sender {
        let socket = UdpSocket::bind(source).expect("the source address is this machine's");
        Sender {
            socket,
            to,
            unpaced_bytes: 0,
            regardless: false,
            sent: 0,
        }
    }

    /// As a camera does: sends on, whether or not the engine takes it.
    pub fn regardless(mut self) -> Sender {
        self.regardless = true;
        self
    }

    /// The address it sends from.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// The socket, for what only the kernel can say.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends one datagram.
    pub fn send(&mut self, datagram: &[u8]) {
        self.send_to(datagram, self.to);
    }

    /// Sends one datagram to another port of the engine.
    pub fn send_to(&mut self, datagram: &[u8], to: SocketAddr) {
        // The kernel charges a small datagram 768 bytes and more; the default receive buffer is 208 KiB.
        self.unpaced_bytes += datagram.len() + 1024;
        if self.unpaced_bytes > 48 * 1024 && !self.regardless {
            self.unpaced_bytes = 0;
            wait_for_room(to.port());
        }
        self.socket
            .send_to(datagram, to)
            .expect("a datagram can be sent over loopback");
        self.sent += 1;
    }

    /// Sends all of them, in order.
    pub fn send_all<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a Vec<u8>>) {
        for datagram in datagrams {
            self.send(datagram);
        }
    }

    /// Sends datagrams of one size (the last may be shorter) as one GSO batch: the receiving socket may get them as
    /// one buffer. At most 64 and 64 KiB together (Linux `UDP_SEGMENT`).
    pub fn send_batch(&mut self, datagrams: &[Vec<u8>]) {
        use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
        let size = datagrams[0].len();
        assert!(datagrams.len() <= 64 && datagrams.iter().rev().skip(1).all(|d| d.len() == size));
        wait_for_room(self.to.port());
        setsockopt(
            &self.socket,
            UdpGsoSegment,
            &i32::try_from(size).expect("a datagram's size"),
        )
        .expect("Linux has UDP_SEGMENT since 4.18");
        let batch = datagrams.concat();
        assert!(
            batch.len() <= 65_507,
            "a batch is one datagram to IP: {} bytes",
            batch.len()
        );
        self.socket
            .send_to(&batch, self.to)
            .expect("a batch can be sent over loopback");
        setsockopt(&self.socket, UdpGsoSegment, &0).expect("UDP_SEGMENT can be switched off");
        self.sent += datagrams.len() as u64;
    }
}

/// Waits until the engine has taken everything that was sent to `port` out of its sockets.
#[track_caller]
pub fn wait_until_taken(port: u16) {
    let until = Instant::now() + Duration::from_secs(30);
    while receive_queue(port).0 > 0 {
        assert!(
            Instant::now() < until,
            "the engine leaves datagrams of port {port} in its sockets"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the sockets of `port` have little waiting. Bounded: an engine that has stopped receiving is for the
/// test to find, not for the sender to hang on.
fn wait_for_room(port: u16) {
    let until = Instant::now() + Duration::from_secs(20);
    while receive_queue(port).0 > 48 * 1024 && Instant::now() < until {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// `GET path` of the control plane on 127.0.0.1: the status and the body.
#[track_caller]
pub fn http_get(port: u16, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut connection =
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("the control plane listens");
    connection
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time-out can be set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .expect("the control plane takes a request");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .expect("the control plane answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("HTTP/1.1 STATUS …");
    (status, body.to_owned())
}
