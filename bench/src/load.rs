//! The cameras: what they send, and the process that sends it (the load generator's library, in a child of its own).
//!
//! Every receiver of one bench gets the same load: same cameras, same packets, same times, whatever listens.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use harborseal_loadgen::{Control, FleetSpec, send::Rtcp};
use serde::{Deserialize, Serialize};

use crate::child::{Process, Stop, myself};

#[derive(Args, Clone, Debug, Serialize)]
pub struct Load {
    /// Cameras, each with one stream
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pub streams: u32,
    /// Rate of each in Mb/s, RTP headers included
    #[arg(long, value_name = "R", default_value_t = 2.0)]
    pub mbps: f64,
    /// How long each sends, once for each run
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    pub seconds: f64,
    /// Packets that may leave back to back
    #[arg(long, value_name = "PACKETS", default_value_t = 8)]
    pub burst: usize,
    /// Send each packet by itself: nothing for the receiver to coalesce
    #[arg(long)]
    pub no_gso: bool,
}

impl Load {
    pub fn spec(&self, targets: Vec<SocketAddr>) -> anyhow::Result<FleetSpec> {
        let spec = FleetSpec {
            burst_packets: self.burst,
            gso: !self.no_gso,
            rtcp: Rtcp::Same,
            ..FleetSpec::new(self.streams, self.mbps, self.seconds, targets)
        };
        spec.check()?;
        Ok(spec)
    }

    /// Payload of one run.
    pub fn bytes(&self) -> u64 {
        (f64::from(self.streams) * self.mbps * self.seconds * 1e6 / 8.0) as u64
    }

    pub fn gbps(&self) -> f64 {
        f64::from(self.streams) * self.mbps / 1000.0
    }
}

/// What the cameras sent, as their process reports it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// RTP packets that the kernel took.
    pub rtp: u64,
    pub rtp_bytes: u64,
    /// Sender reports that the kernel took.
    pub rtcp: u64,
    /// Due, and not taken by the kernel.
    pub not_sent: u64,
    /// While all cameras were on.
    pub gbps: f64,
    pub seconds: f64,
    pub packets_per_message: f64,
    pub lateness_ms_p99: f64,
    /// Of the sending thread; on loopback the kernel's work of delivering is in it.
    pub cpu_ns_per_packet: f64,
    /// The load generator's own judgement: whether the load was the one asked for, and why not.
    pub valid: bool,
    pub invalid_because: Vec<String>,
}

impl Sent {
    pub fn packets(&self) -> u64 {
        self.rtp + self.rtcp
    }
}

/// How far below what was asked a load may stay, as a share. (Whole bursts at the ends of the time with all cameras on.)
const RATE_TOLERANCE: f64 = 0.02;

/// Why the load is not the one asked for, if so: what the generator says of itself, and whether the rate came.
pub fn objections(load: &Load, sent: &Sent) -> Vec<String> {
    let mut objections = sent.invalid_because.clone();
    if !sent.valid && objections.is_empty() {
        objections.push("the load generator calls its run invalid".to_owned());
    }
    let asked = load.gbps();
    if sent.gbps < asked * (1.0 - RATE_TOLERANCE) {
        objections.push(format!("{:.3} Gb/s came of the {asked:.3} asked for", sent.gbps));
    }
    objections
}

/// The hidden command: sends, reports.
#[derive(Args, Debug)]
pub struct Child {
    #[command(flatten)]
    load: Load,
    #[arg(long)]
    target: Vec<SocketAddr>,
    #[arg(long)]
    cpu: usize,
}

pub fn run_child(options: &Child) -> anyhow::Result<()> {
    let spec = FleetSpec {
        cpu: Some(options.cpu),
        ..options.load.spec(options.target.clone())?
    };
    let report = harborseal_loadgen::run(&spec, &Control::default())?;
    let sent = Sent {
        rtp: report.sent,
        rtp_bytes: report.sent_bytes,
        rtcp: report.rtcp_sent,
        not_sent: report.not_sent + report.rtcp_not_sent,
        gbps: report.gbps,
        seconds: report.duration_s,
        packets_per_message: report.packets_per_send,
        lateness_ms_p99: report.lateness_ms_p99,
        cpu_ns_per_packet: report.cpu_ns_per_packet as f64,
        valid: report.valid,
        invalid_because: report.invalid_because,
    };
    println!("{}", serde_json::to_string(&sent)?);
    Ok(())
}

/// The cameras, sending.
pub struct Cameras {
    process: Process,
    bound: Duration,
}

impl Cameras {
    /// They send at once.
    pub fn start(load: &Load, targets: &[SocketAddr], cpu: usize) -> anyhow::Result<Cameras> {
        let mut arguments: Vec<OsString> = vec![
            "load".into(),
            format!("--streams={}", load.streams).into(),
            format!("--mbps={}", load.mbps).into(),
            format!("--seconds={}", load.seconds).into(),
            format!("--burst={}", load.burst).into(),
            format!("--cpu={cpu}").into(),
        ];
        if load.no_gso {
            arguments.push("--no-gso".into());
        }
        arguments.extend(targets.iter().map(|target| format!("--target={target}").into()));
        // A generator that cannot keep up takes longer; a machine on which it takes three times as long is told so.
        let seconds = load.spec(targets.to_vec())?.duration_s();
        Ok(Cameras {
            process: Process::start("fleet", &[cpu], &myself(arguments)?)?,
            bound: Duration::from_secs_f64(3.0 * seconds + 30.0),
        })
    }

    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Waits for their end.
    pub fn finish(self, stop: &Stop) -> anyhow::Result<Sent> {
        let mut report = None;
        let mut said = String::new();
        let (_, _) = self.process.finish(self.bound, stop, |line| {
            match serde_json::from_str::<Sent>(&line) {
                Ok(sent) => report = Some(sent),
                Err(_) => said = line,
            }
        })?;
        report.with_context(|| format!("the fleet did not send: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_did_not_come_is_not_called_valid() {
        let load = Load {
            streams: 100,
            mbps: 1.0,
            seconds: 1.0,
            burst: 8,
            no_gso: false,
        };
        let sent = |gbps, valid| Sent {
            gbps,
            valid,
            ..Sent::default()
        };
        assert_eq!(objections(&load, &sent(0.0995, true)), [""; 0]);
        assert!(objections(&load, &sent(0.09, true))[0].contains("0.090 Gb/s came"));
        assert_eq!(objections(&load, &sent(0.1, false)).len(), 1);
    }
}
