//! The sections that have defaults, with the bounds of every key and the arithmetic behind them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{ConfigError, Root, Section, Value};
use super::{
    Chunk, Commit, Control, Listen, Memory, Process, Recovery, Retention, Rtcp, Seal, SealBackend, Segment,
};
use super::{Settings, Shards, units};
use crate::stream::registry::Registry;
use crate::uring::sys;

const MIB: u64 = 1 << 20;

/// Chunks of a camera that sends little are sealed by the deadline alone: below 20 ms every packet would get its own
/// block of 4 KiB; beyond 10 s a crash would cost more than anybody expects.
const DEADLINE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));

/// An fdatasync takes about a millisecond on a good disk; beyond a second the latency is the interval's alone.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// A second is for tests; beyond a day a lost footer costs a long scan.
const SEGMENT_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// Sixteen blocks of 64 KiB, and as much again for keys, streams and index.
const SEGMENT_BYTES_MIN: u64 = 2 * MIB;

/// A century: only there so that sums of times cannot overflow.
const RETENTION_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(100 * 366 * 86_400));

/// What the process needs beside its shards: registry, key preparation, control plane.
const MEMORY_BASE_BYTES: u64 = 32 * MIB;

/// What a shard needs to run at all: 8 MiB of receive buffers and a pool of 24 MiB, 384 chunks of 64 KiB.
const MEMORY_SHARD_BYTES: u64 = 32 * MIB;

/// The least `memory.limit` for `shards` shards, in bytes.
pub fn memory_min_bytes(shards: usize) -> u64 {
    MEMORY_BASE_BYTES + shards as u64 * MEMORY_SHARD_BYTES
}

/// The CPUs this process may run on, in order. Empty if the kernel does not say.
pub fn usable_cpus() -> Vec<usize> {
    sys::allowed_cpus().unwrap_or_default()
}

/// Reads every section but the customers and cameras.
pub fn parse(root: &Root<'_>, registry: &Registry, usable_cpus: &[usize]) -> Result<Settings, ConfigError> {
    let shards = shards(root.section("shards"), usable_cpus)?;
    let chunk = chunk(root.section("chunk"))?;
    Ok(Settings {
        listen: listen(root.section("listen"))?,
        memory: memory(root.section("memory"), shards.cpus.len())?,
        commit: commit(root.section("commit"), &chunk)?,
        segment: segment(root.section("segment"), registry)?,
        retention: retention(root.section("retention"))?,
        control: control(root.section("control"))?,
        recovery: recovery(root.section("recovery"))?,
        seal: seal(root.section("seal"))?,
        process: process(root.section("process"))?,
        shards,
        chunk,
    })
}

fn listen(section: Section<'_>) -> Result<Listen, ConfigError> {
    let rtcp = match section
        .get("rtcp")
        .map(|value| Ok((value, value.text()?)))
        .transpose()?
    {
        None | Some((_, "both")) => Rtcp::Both,
        Some((_, "same")) => Rtcp::Same,
        Some((value, _)) => return Err(value.error("must be \"both\" or \"same\"")),
    };
    let mut rtp: Vec<(SocketAddr, Value<'_>)> = Vec::new();
    for value in section.require("rtp")?.items() {
        let address = socket_address(&value)?;
        if rtcp == Rtcp::Both && address.port() == u16::MAX {
            return Err(value.error(
                "no port is above 65535, where RTCP would arrive; take a lower one, or rtcp = \"same\"",
            ));
        }
        if let Some((_, other)) = rtp
            .iter()
            .find(|(other, _)| other.ip() == address.ip() && near(*other, address, rtcp))
        {
            let line = other.line();
            return Err(value.error(format_args!(
                "takes the same port as line {line} (RTCP arrives one above RTP)"
            )));
        }
        rtp.push((address, value));
    }
    if rtp.is_empty() {
        return Err(section
            .require("rtp")?
            .error("must name at least one address:port"));
    }
    Ok(Listen {
        rtp: rtp.into_iter().map(|(address, _)| address).collect(),
        rtcp,
    })
}

fn near(a: SocketAddr, b: SocketAddr, rtcp: Rtcp) -> bool {
    a.port().abs_diff(b.port()) <= u16::from(rtcp == Rtcp::Both)
}

fn socket_address(value: &Value<'_>) -> Result<SocketAddr, ConfigError> {
    let text = value.text()?;
    let address: SocketAddr = text.parse().map_err(|_| {
        value.error(format_args!(
            "{text:?} is no address:port; IPv6 is written [address]:port"
        ))
    })?;
    if address.port() == 0 {
        return Err(value.error("port 0 cannot be listened on"));
    }
    Ok(address)
}

fn shards(section: Section<'_>, usable: &[usize]) -> Result<Shards, ConfigError> {
    let Some(value) = section.get("cpus") else {
        return Ok(Shards::default());
    };
    if let Ok(text) = value.text() {
        return match text {
            "all" if !usable.is_empty() => Ok(Shards {
                cpus: usable.to_vec(),
            }),
            "all" => Err(value.error("the kernel does not say which CPUs there are; list them")),
            _ => Err(value.error("must be a list of CPU numbers, or \"all\"")),
        };
    }
    let mut cpus = Vec::new();
    for item in value.items() {
        let cpu = item.number(u64::from(u16::MAX))? as usize;
        if !usable.is_empty() && !usable.contains(&cpu) {
            return Err(item.error(format_args!(
                "this process cannot run on CPU {cpu}; it may use {usable:?}"
            )));
        }
        if cpus.contains(&cpu) {
            return Err(item.error(format_args!("CPU {cpu} is listed twice")));
        }
        cpus.push(cpu);
    }
    if cpus.is_empty() {
        Err(value.error("must list at least one CPU"))
    } else {
        Ok(Shards { cpus })
    }
}

fn memory(section: Section<'_>, shards: usize) -> Result<Memory, ConfigError> {
    let default = Memory::default();
    let (least, size) = (memory_min_bytes(shards), units::format_bytes);
    let sum = format!(
        "{} + {shards} shards × {} = {}",
        size(MEMORY_BASE_BYTES),
        size(MEMORY_SHARD_BYTES),
        size(least)
    );
    let limit_bytes = match section.get("limit") {
        Some(value) => {
            let bytes = value.bytes(0)?;
            if bytes < least {
                return Err(value.error(format_args!("{} is too little: {sum} is the least", size(bytes))));
            }
            bytes
        }
        None if default.limit_bytes < least => {
            return Err(section.error(format!(
                "memory.limit must be set: its default is too little, {sum} is the least"
            )));
        }
        None => default.limit_bytes,
    };
    let allow_unlocked = section
        .get("allow_unlocked")
        .map_or(Ok(default.allow_unlocked), |value| value.flag())?;
    Ok(Memory {
        limit_bytes,
        allow_unlocked,
    })
}

fn chunk(section: Section<'_>) -> Result<Chunk, ConfigError> {
    let deadline = section
        .get("deadline")
        .map_or(Ok(Chunk::default().deadline), |value| value.duration(DEADLINE))?;
    Ok(Chunk { deadline })
}

fn commit(section: Section<'_>, chunk: &Chunk) -> Result<Commit, ConfigError> {
    let Some(value) = section.get("interval") else {
        return Ok(Commit {
            interval: Commit::default().interval.min(chunk.deadline),
        });
    };
    let interval = value.duration(INTERVAL)?;
    if interval > chunk.deadline {
        let deadline = units::format_duration(chunk.deadline);
        return Err(value.error(format_args!("must not be above chunk.deadline, {deadline}")));
    }
    Ok(Commit { interval })
}

fn segment(section: Section<'_>, registry: &Registry) -> Result<Segment, ConfigError> {
    let default = Segment::default();
    let max_age = section
        .get("max_age")
        .map_or(Ok(default.max_age), |value| value.duration(SEGMENT_AGE))?;
    let Some(value) = section.get("max_bytes") else {
        return Ok(Segment { max_age, ..default });
    };
    let bytes = value.bytes(SEGMENT_BYTES_MIN)?;
    // Three KEY entries to a block of 4 KiB, and a STREAM block of about 4 KiB for each camera, stand before the chunks.
    let (customers, cameras) = (registry.customers.len() as u64, registry.cameras.len() as u64);
    let least = 2 * 4096 * (customers.div_ceil(3) + cameras);
    if bytes < least {
        let least = units::format_bytes(least.next_multiple_of(MIB));
        return Err(value.error(format_args!(
            "{cameras} cameras of {customers} customers need at least {least}: half of it is for their keys and descriptions"
        )));
    }
    Ok(Segment {
        max_age,
        max_bytes: bytes / 4096 * 4096,
    })
}

fn retention(section: Section<'_>) -> Result<Retention, ConfigError> {
    let max_age = section
        .get("max_age")
        .map(|value| value.duration(RETENTION_AGE))
        .transpose()?;
    let max_bytes = section
        .get("max_bytes")
        .map(|value| value.bytes(MIB))
        .transpose()?;
    let min_free_bytes = section.get("min_free").map(|value| value.bytes(0)).transpose()?;
    Ok(Retention {
        max_age,
        max_bytes,
        min_free_bytes,
    })
}

fn control(section: Section<'_>) -> Result<Control, ConfigError> {
    Ok(Control {
        listen: section
            .get("listen")
            .map(|value| socket_address(&value))
            .transpose()?,
    })
}

fn recovery(section: Section<'_>) -> Result<Recovery, ConfigError> {
    let default = Recovery::default().rate_limit_bytes_per_s;
    let rate = section
        .get("rate_limit")
        .map_or(Ok(default), |value| value.bytes_per_s(MIB))?;
    Ok(Recovery {
        rate_limit_bytes_per_s: rate,
    })
}

fn seal(section: Section<'_>) -> Result<Seal, ConfigError> {
    let Some(value) = section.get("backend") else {
        return Ok(Seal::default());
    };
    let backend = match value.text()? {
        "auto" => SealBackend::Auto,
        "aws-lc" if cfg!(not(feature = "aws-lc")) => {
            return Err(value.error("is not built in: build with the feature `aws-lc`, or take \"auto\""));
        }
        #[cfg(feature = "aws-lc")]
        "aws-lc" => SealBackend::AwsLc,
        "ring" => SealBackend::Ring,
        "aes-gcm" => SealBackend::AesGcm,
        _ => return Err(value.error("must be \"auto\", \"aws-lc\", \"ring\" or \"aes-gcm\"")),
    };
    Ok(Seal { backend })
}

/// Relative folders are relative to the file; the caller knows where that is.
fn process(section: Section<'_>) -> Result<Process, ConfigError> {
    let user = match section.get("user") {
        None => None,
        Some(value) => match value.text()? {
            "" => return Err(value.error("must name a user; leave it out to stay who starts it")),
            name => Some(name.to_owned()),
        },
    };
    let require_sandbox = section
        .get("require_sandbox")
        .map_or(Ok(false), |value| value.flag())?;
    let mut read = Vec::new();
    for item in section
        .get("read")
        .map(|value| value.items())
        .into_iter()
        .flatten()
    {
        read.push(PathBuf::from(item.text()?));
    }
    Ok(Process {
        user,
        require_sandbox,
        read,
    })
}
