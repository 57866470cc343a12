//! What this machine offers of what the engine uses: for `harborseal check` and the start-up report.

use std::io;

use super::memory::{Huge, Pages, Region, RegionOptions};
use super::ring::{Ring, RingOptions};
use super::socket::{SocketOptions, bind_group};
use super::sys::{self, Waker};

/// How much the engine depends on a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It does not run without.
    Required,
    /// It runs with more CPU, more memory or less protection.
    Wanted,
}

/// One thing the engine uses, and whether it is there.
#[derive(Clone, Debug)]
pub struct Feature {
    pub name: &'static str,
    pub need: Need,
    pub supported: bool,
    /// What was found, or why it is not there.
    pub detail: String,
    /// What to do if it is not; empty if nothing needs doing.
    pub remedy: String,
}

/// Everything asked of kernel, limits and memory.
#[derive(Clone, Debug)]
pub struct Probe {
    pub kernel: String,
    pub features: Vec<Feature>,
}

impl Probe {
    /// Whether everything required is there.
    pub fn usable(&self) -> bool {
        self.features
            .iter()
            .all(|feature| feature.supported || feature.need == Need::Wanted)
    }
}

/// Tries each feature for a moment: makes a ring, a socket group on loopback, and `memory_bytes` of memory at most.
pub fn probe(memory_bytes: usize) -> Probe {
    let mut features = Vec::new();
    probe_ring(&mut features);
    probe_sockets(&mut features);
    probe_memory(&mut features, memory_bytes);
    probe_limits(&mut features);
    Probe {
        kernel: sys::kernel_release(),
        features,
    }
}

fn feature(name: &'static str, need: Need, result: Result<String, (String, String)>) -> Feature {
    let supported = result.is_ok();
    let (detail, remedy) = match result {
        Ok(detail) => (detail, String::new()),
        Err(pair) => pair,
    };
    Feature {
        name,
        need,
        supported,
        detail,
        remedy,
    }
}

const NEWER_KERNEL: &str = "a newer kernel has it (Linux 6.12 or later has everything used here)";

fn probe_ring(features: &mut Vec<Feature>) {
    let options = RingOptions {
        receive_bytes: 2 << 20,
        flights: 2,
        ..RingOptions::default()
    };
    let ring = Waker::new().and_then(|waker| Ring::new(&options, &waker));
    let report = match ring {
        Ok(ring) => ring.report(),
        Err(error) => {
            features.push(feature(
                "io_uring",
                Need::Required,
                Err((error.to_string(), ring_remedy(&error))),
            ));
            return;
        }
    };
    features.push(feature("io_uring", Need::Required, Ok("available".into())));
    for &flag in &report.core.flags {
        features.push(feature(flag, Need::Wanted, Ok("in use".into())));
    }
    for &(name, errno) in &report.core.refused {
        let why = format!("refused: {}", io::Error::from_raw_os_error(errno));
        features.push(feature(name, Need::Wanted, Err((why, NEWER_KERNEL.into()))));
    }
    let min_wait = if report.core.min_wait {
        Ok("in use".into())
    } else {
        Err(("not offered".into(), NEWER_KERNEL.into()))
    };
    features.push(feature("min_wait", Need::Wanted, min_wait));
    let buffers = report.buffers;
    let incremental = if buffers.incremental {
        Ok("in use".into())
    } else {
        Err((
            "refused: plain buffers of 68 KiB are used, which hold one datagram each".into(),
            NEWER_KERNEL.into(),
        ))
    };
    features.push(feature("incremental receive buffers", Need::Wanted, incremental));
}

/// What to do when no ring can be made.
pub fn ring_remedy(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "io_uring is forbidden here: `sysctl kernel.io_uring_disabled=0`, and in a container a \
                              seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
            .into(),
        Some(libc::ENOSYS) => "this kernel was built without io_uring, or a seccomp profile hides it; Linux 6.1 or newer is needed".into(),
        Some(libc::ENOMEM) => "raise the locked-memory limit (`ulimit -l`), or free memory".into(),
        Some(libc::EMFILE | libc::ENFILE) => "too many open files; raise `ulimit -n`".into(),
        _ => "Linux 6.1 or newer is needed".into(),
    }
}

fn probe_sockets(features: &mut Vec<Feature>) {
    let options = SocketOptions::default();
    let group = bind_group(([127, 0, 0, 1], 0).into(), 2, &options);
    let report = match &group {
        Ok(group) => group.report,
        Err(error) => {
            let why = format!("{}: {}", error.step, error.cause);
            features.push(feature(
                "steered sockets",
                Need::Required,
                Err((why, error.remedy())),
            ));
            return;
        }
    };
    features.push(feature(
        "steered sockets",
        Need::Required,
        Ok("SO_REUSEPORT with a filter by SSRC".into()),
    ));
    let gro = if report.gro {
        Ok("in use".into())
    } else {
        Err(("refused".into(), NEWER_KERNEL.into()))
    };
    features.push(feature("UDP_GRO", Need::Wanted, gro));
    let (asked, got) = (report.receive_buffer_asked_bytes, report.receive_buffer_bytes);
    let room = format!("{} KiB of {} KiB asked for", got >> 10, asked >> 10);
    let buffer = if got >= asked {
        Ok(room)
    } else {
        Err((
            room,
            format!("`sysctl net.core.rmem_max={asked}`, or give the process CAP_NET_ADMIN"),
        ))
    };
    features.push(feature("socket receive buffer", Need::Wanted, buffer));
    let v6 = bind_group((std::net::Ipv6Addr::LOCALHOST, 0).into(), 1, &options);
    let v6 = match v6 {
        Ok(_) => Ok("available".into()),
        Err(error) => Err((error.cause.to_string(), error.remedy())),
    };
    features.push(feature("IPv6", Need::Wanted, v6));
}

fn probe_memory(features: &mut Vec<Feature>, bytes: usize) {
    let options = RegionOptions {
        bytes: bytes.max(4096),
        lock: true,
        huge: Huge::Auto,
        wipe_on_drop: false,
    };
    let report = match Region::new(options) {
        Ok(region) => region.report(),
        Err(error) => {
            let remedy = "lower `memory.limit`, or free memory".into();
            features.push(feature(
                "memory",
                Need::Required,
                Err((error.to_string(), remedy)),
            ));
            return;
        }
    };
    let mib = report.bytes >> 20;
    let locked = match report.lock_errno {
        None => Ok(format!("{mib} MiB stay out of swap")),
        Some(errno) => Err((
            format!(
                "{mib} MiB cannot be locked: {}",
                io::Error::from_raw_os_error(errno)
            ),
            format!(
                "`ulimit -l {}` or LimitMEMLOCK=infinity in the unit; or allow_unlocked = true",
                (report.bytes >> 10) + 65_536
            ),
        )),
    };
    features.push(feature("locked memory", Need::Wanted, locked));
    let huge = match report.pages {
        Pages::Hugetlb => Ok("reserved huge pages".into()),
        Pages::Transparent => Ok("transparent huge pages".into()),
        Pages::Small => Err((
            "ordinary pages".into(),
            format!("`sysctl vm.nr_hugepages={}`", mib / 2 + 1),
        )),
    };
    features.push(feature("huge pages", Need::Wanted, huge));
    let dumps = if report.undumpable {
        Ok("left out".into())
    } else {
        Err(("MADV_DONTDUMP refused".into(), NEWER_KERNEL.into()))
    };
    features.push(feature("core dumps", Need::Wanted, dumps));
}

fn probe_limits(features: &mut Vec<Feature>) {
    let files = sys::open_files_limit().soft;
    let enough = files.is_none_or(|files| files >= 1024);
    let found = files.map_or("unlimited".into(), |files| files.to_string());
    let result = if enough {
        Ok(found)
    } else {
        Err((found, "`ulimit -n 1024` or more".into()))
    };
    features.push(feature("open files", Need::Wanted, result));
}
