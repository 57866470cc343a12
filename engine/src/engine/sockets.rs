//! The sockets of all shards: every listen address, and the port above it where RTCP comes there.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::StartError;
use crate::config::{Config, Rtcp};
use crate::uring::socket::{BindError, Group, SocketOptions, bind_group};

/// How long an address in use is tried again.
const BIND_PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Bound {
    pub(super) addresses: Vec<SocketAddr>,
    /// Each shard's sockets, in the order of the addresses.
    pub(super) by_shard: Vec<Vec<UdpSocket>>,
}

/// Binds every listen address, and the port above it where RTCP comes there, once for each shard.
pub(super) fn bind(config: &Config, shards: usize, notes: &mut Vec<String>) -> Result<Bound, StartError> {
    let listen = &config.settings.listen;
    let mut addresses: Vec<SocketAddr> = listen.rtp.clone();
    if listen.rtcp == Rtcp::Both {
        for rtp in &listen.rtp {
            let above = rtp
                .port()
                .checked_add(1)
                .map(|port| SocketAddr::new(rtp.ip(), port));
            if let Some(above) = above.filter(|above| !addresses.contains(above)) {
                addresses.push(above);
            }
        }
    }
    let options = SocketOptions::default();
    let mut by_shard: Vec<Vec<UdpSocket>> = (0..shards).map(|_| Vec::new()).collect();
    let mut granted_bytes = usize::MAX;
    for address in &addresses {
        let group = bind_patiently(*address, shards, &options).map_err(|error| {
            // The error names its own remedy.
            let above = !listen.rtp.contains(address);
            let remedy = if above {
                "or set listen.rtcp = \"same\""
            } else {
                ""
            };
            StartError {
                message: error.to_string(),
                remedy: remedy.to_owned(),
                configuration: false,
            }
        })?;
        granted_bytes = granted_bytes.min(group.report.receive_buffer_bytes);
        for (shard, socket) in by_shard.iter_mut().zip(group.sockets) {
            shard.push(socket);
        }
    }
    if granted_bytes < options.receive_buffer_bytes {
        notes.push(format!(
            "socket buffers hold {} KiB of the {} KiB asked for: bursts may be lost before the engine; \
             `sysctl net.core.rmem_max={}` raises them",
            granted_bytes / 1024,
            options.receive_buffer_bytes / 1024,
            options.receive_buffer_bytes
        ));
    }
    Ok(Bound { addresses, by_shard })
}

/// Binds; an address still in use is tried again for a while. The kernel takes an io_uring's sockets down only some time
/// after its process is gone, so an engine that is started again at once would find its own address taken.
fn bind_patiently(address: SocketAddr, shards: usize, options: &SocketOptions) -> Result<Group, BindError> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match bind_group(address, shards, options) {
            Err(error) if error.cause.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}
