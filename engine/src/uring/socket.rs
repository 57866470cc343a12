//! UDP sockets: one `SO_REUSEPORT` group per listen address, one socket per shard, steered by SSRC.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::steer;

/// How to make the sockets of a group.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Receive buffer asked for, in the kernel's accounting (which counts its own overhead per packet).
    pub receive_buffer_bytes: usize,
    /// Receive batches of equally long packets of one sender as one (`UDP_GRO`).
    pub gro: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        // 32 MiB holds about 50 ms of 4 Gb/s: longer than any stall of the shard we accept.
        SocketOptions {
            receive_buffer_bytes: 32 << 20,
            gro: true,
        }
    }
}

/// The sockets of one listen address, in shard order, with what they got.
#[derive(Debug)]
pub struct Group {
    /// The address bound, with the port the kernel chose if port 0 was asked for.
    pub local: SocketAddr,
    /// `sockets[i]` receives what `steer` says belongs to shard i.
    pub sockets: Vec<UdpSocket>,
    pub report: SocketReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketReport {
    pub receive_buffer_asked_bytes: usize,
    /// What the kernel granted: less than asked for when `net.core.rmem_max` binds a process without CAP_NET_ADMIN.
    pub receive_buffer_bytes: usize,
    /// UDP_GRO accepted.
    pub gro: bool,
}

/// Why a listen address could not be set up: address, step, cause, and what to do about it.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    pub step: &'static str,
    pub cause: io::Error,
}

impl BindError {
    /// What mends it, as a phrase with a command where there is one.
    pub fn remedy(&self) -> String {
        let port = self.address.port();
        match self.cause.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                format!("another process has it; `ss -ulpn 'sport = :{port}'` names it")
            }
            Some(libc::EADDRNOTAVAIL) => {
                "no interface of this machine has this address; `ip -brief address` lists them".into()
            }
            Some(libc::EACCES | libc::EPERM) if port < 1024 => format!(
                "ports below 1024 need a privilege: use a higher one, or `setcap cap_net_bind_service=+ep` on the \
                 binary, or `sysctl net.ipv4.ip_unprivileged_port_start={port}`"
            ),
            Some(libc::EACCES | libc::EPERM) => {
                "a security policy forbids it (container, seccomp, firewall)".into()
            }
            Some(libc::EAFNOSUPPORT) => {
                "this kernel has that address family switched off; `sysctl net.ipv6.conf.all.disable_ipv6`"
                    .into()
            }
            Some(libc::EMFILE | libc::ENFILE) => "too many open files; raise `ulimit -n`".into(),
            Some(libc::ENOPROTOOPT | libc::EINVAL) => {
                "this kernel is too old: Linux 6.1 or newer is needed".into()
            }
            _ => "see the cause".into(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot listen on UDP {} ({}): {}: {}",
            self.address,
            self.step,
            self.cause,
            self.remedy()
        )
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Binds one socket per shard to `address`; the kernel steers each packet to the shard of its SSRC.
///
/// Fails if any other socket has the address, even one of this user that would share it: a second engine on the
/// same port would silently take half of the streams.
pub fn bind_group(address: SocketAddr, shards: usize, options: &SocketOptions) -> Result<Group, BindError> {
    let fail = |step| move |cause: io::Error| BindError { address, step, cause };
    let shards = shards.max(1);
    claim(address).map_err(fail("bind"))?;
    let mut local = address;
    let mut sockets = Vec::with_capacity(shards);
    let mut report = None;
    for shard in 0..shards {
        let socket = open(address).map_err(fail("socket"))?;
        let got = configure(&socket, options).map_err(fail("socket options"))?;
        report.get_or_insert(got);
        rustix::net::bind(&socket, &local).map_err(|errno| fail("bind")(errno.into()))?;
        let socket = UdpSocket::from(socket);
        if shard == 0 {
            local = socket.local_addr().map_err(fail("address"))?;
            if shards > 1 {
                // Attached before the others join: until they do, an index past the group's end falls back to
                // the kernel's hash, and what that misplaces the shards hand over among themselves.
                attach_steering(socket.as_fd(), shards).map_err(fail("steering filter"))?;
            }
        }
        sockets.push(socket);
    }
    let report = report.expect("a group has at least one socket");
    Ok(Group {
        local,
        sockets,
        report,
    })
}

/// Binds and closes a socket that shares with nobody, so that an address in use is noticed.
fn claim(address: SocketAddr) -> io::Result<()> {
    let socket = open(address)?;
    Ok(rustix::net::bind(&socket, &address)?)
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // A v6 socket that also took v4 would clash with the v4 group of the same port.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn configure(socket: &OwnedFd, options: &SocketOptions) -> io::Result<SocketReport> {
    sockopt::set_socket_reuseport(socket, true)?;
    // The kernel doubles what is set, to pay for its overhead, and reports the double. Forcing needs
    // CAP_NET_ADMIN; otherwise the request is silently cut to net.core.rmem_max.
    let asked = options.receive_buffer_bytes;
    if sockopt::set_socket_recv_buffer_size_force(socket, asked / 2).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, asked / 2)?;
    }
    let got = sockopt::socket_recv_buffer_size(socket)?;
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1i32)?;
    let gro = options.gro && set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, &1i32).is_ok();
    Ok(SocketReport {
        receive_buffer_asked_bytes: asked,
        receive_buffer_bytes: got,
        gro,
    })
}

/// Makes the kernel pick the socket of index `steer_payload(payload, shards)`; the index is bind order.
fn attach_steering(socket: BorrowedFd<'_>, shards: usize) -> io::Result<()> {
    let mut program = steer::program(u32::try_from(shards).expect("shards are CPUs, far below 2^32"));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Plain structures of the socket API, safe to hand to the kernel as bytes.
trait OptionValue {}
impl OptionValue for i32 {}
/// Its pointer must stay valid for the call: `attach_steering` keeps the program on its stack.
impl OptionValue for libc::sock_fprog {}

fn set_option<T: OptionValue>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let (ptr, len) = (
        std::ptr::from_ref(value).cast(),
        size_of::<T>() as libc::socklen_t,
    );
    // SAFETY: the kernel reads `len` bytes at `ptr`, a live T of exactly that size, during the call only;
    // a sock_fprog's inner pointer is to a live array of `len` instructions (see OptionValue).
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a socket holds and has lost, from the kernel (`SO_MEMINFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketMemory {
    /// Bytes waiting to be received, in the kernel's accounting.
    pub queued_bytes: u32,
    pub limit_bytes: u32,
    /// Datagrams (with GRO: batches) dropped because the buffer was full, since the socket was made.
    pub drops: u32,
}

pub fn socket_memory(socket: BorrowedFd<'_>) -> io::Result<SocketMemory> {
    const SO_MEMINFO: libc::c_int = 55;
    // linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC, _RCVBUF, … _DROPS.
    const RMEM_ALLOC: usize = 0;
    const RCVBUF: usize = 1;
    const DROPS: usize = 8;
    const VARS: usize = 9;
    let mut values = [0u32; VARS];
    let mut len = size_of::<[u32; VARS]>() as libc::socklen_t;
    let ptr = values.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes at `ptr`, which is an array of exactly that size.
    if unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, ptr, &mut len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(SocketMemory {
        queued_bytes: values[RMEM_ALLOC],
        limit_bytes: values[RCVBUF],
        drops: values[DROPS],
    })
}

/// Makes a sending socket cut what it sends into datagrams of `segment_bytes` (`UDP_SEGMENT`); 0 turns it off.
/// One send makes at most 64 of them (128 since Linux 6.9). For tests and measurements: the engine itself sends nothing.
pub fn set_segment_bytes(socket: &UdpSocket, segment_bytes: u16) -> io::Result<()> {
    set_option(
        socket.as_fd(),
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        &i32::from(segment_bytes),
    )
}
