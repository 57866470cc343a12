//! UDP ports of receivers: free ones, whether they are bound, and what the kernel dropped on them (/proc/net/udp).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::child::Stop;

/// Below the usual range of ephemeral ports (32768 and up, ip_local_port_range).
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// Hundreds of processes take a while to start.
const BOUND: Duration = Duration::from_secs(60);

/// So many even ports on loopback with a free one above each, as receivers of RTP and RTCP want them (RFC 3550 §11). They could be
/// taken again before they are bound; then the receiver says so.
pub fn free_pairs(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let free = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let pairs = (FIRST..LAST)
        .step_by(2)
        .filter(|&port| free(port) && free(port + 1));
    let ports: Vec<SocketAddr> = pairs
        .take(count)
        .map(|port| (Ipv4Addr::LOCALHOST, port).into())
        .collect();
    ensure!(
        ports.len() == count,
        "there are only {} free pairs of UDP ports, {count} are needed",
        ports.len()
    );
    Ok(ports)
}

/// Waits until somebody listens on all of them.
pub fn wait_until_bound(
    targets: &[SocketAddr],
    stop: &Stop,
    mut look_after: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let until = Instant::now() + BOUND;
    loop {
        let sockets = sockets()?;
        let bound = targets
            .iter()
            .filter(|target| sockets.iter().any(|socket| socket.port == target.port()))
            .count();
        if bound == targets.len() {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "only {bound} of {} ports are listened on",
            targets.len()
        );
        look_after()?;
        stop.sleep(Duration::from_millis(100))?;
    }
}

/// Packets the kernel dropped on these ports because nobody took them in time.
pub fn dropped(targets: &[SocketAddr]) -> anyhow::Result<u64> {
    let sockets = sockets()?;
    let ours = sockets
        .iter()
        .filter(|socket| targets.iter().any(|target| target.port() == socket.port));
    Ok(ours.map(|socket| socket.drops).sum())
}

struct Socket {
    port: u16,
    drops: u64,
}

fn sockets() -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        // A machine without IPv6 has only the first.
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        let lines = text
            .lines()
            .skip(1)
            .map(|line| parse(line).with_context(|| format!("{path}: {line}")));
        for socket in lines {
            sockets.push(socket?);
        }
    }
    Ok(sockets)
}

/// `sl local_address rem_address st … drops`; the address is `HEX:PORT` in hexadecimal.
fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace();
    let port = fields.nth(1)?.rsplit_once(':')?.1;
    Some(Socket {
        port: u16::from_str_radix(port, 16).ok()?,
        drops: fields.next_back()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_seen_with_its_port_and_drops() {
        let line = " 2040: 0100007F:4E20 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 82 2 00000000ab 17";
        let socket = parse(line).expect("as the kernel prints it");
        assert_eq!((socket.port, socket.drops), (20_000, 17));
        let bound = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let address = bound.local_addr().expect("bound");
        assert!(
            sockets()
                .expect("Linux has /proc")
                .iter()
                .any(|socket| socket.port == address.port())
        );
        assert_eq!(dropped(&[address]).expect("Linux has /proc"), 0);
    }
}
