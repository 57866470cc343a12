//! The cameras: what they send, and the process that sends it (the load generator's library, in a child of its own).
//!
//! A load is one of the load generator's profiles. Every receiver of one bench gets the same: same cameras, same packets, same
//! times, whatever listens.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use harborseal::uring::sys;
use harborseal_loadgen::Control;
use harborseal_loadgen::fleet::{RunOptions, run_plan};
use harborseal_loadgen::plan::Plan;
use harborseal_loadgen::profile::Profile;
use harborseal_loadgen::result::RunResult;
use harborseal_loadgen::send::Method;
use serde::{Deserialize, Serialize};

use crate::child::{Process, Stop, myself, object};

/// What of a load can be chosen. Without a choice it is 4,000 cameras of 2 Mb/s: 8 Gb/s.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// What the cameras send: a profile of harborseal-loadgen, by name or file [default: line-rate; for `peers`: clip]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// A setting of the profile, as `harborseal-loadgen run -s`; may be given several times
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Streams; without it the profile's (line-rate: 4000)
    #[arg(long, value_name = "N")]
    pub streams: Option<u32>,
    /// Rate of each in Mb/s, RTP headers included; without it the profile's (line-rate: 2)
    #[arg(long, value_name = "R")]
    pub mbps: Option<f64>,
    /// How long they send, once for each run [default: line-rate 20, peers 5, stages and fleet 4]
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// Longest packet; without it the profile's (line-rate: 1200)
    #[arg(long, value_name = "BYTES")]
    pub packet_bytes: Option<u16>,
    /// Send each packet by itself: nothing for the receiver to coalesce
    #[arg(long)]
    pub no_gso: bool,
}

impl LoadOptions {
    /// The load, of `seconds` where nothing else was asked for.
    pub fn load(&self, seconds: f64) -> anyhow::Result<Load> {
        let mut options = self.clone();
        options.seconds.get_or_insert(seconds);
        Load::new(options)
    }

    fn profile(&self) -> &str {
        self.profile.as_deref().unwrap_or("line-rate")
    }

    /// The load exactly as it was asked for.
    pub fn as_given(&self) -> anyhow::Result<Load> {
        Load::new(self.clone())
    }

    fn settings(&self) -> Vec<String> {
        // A profile's own warm-up is made for its own length.
        let warm_up = self
            .seconds
            .map(|seconds| format!("warm_up={}", seconds * WARM_UP_SHARE));
        let mut settings: Vec<String> = warm_up.into_iter().chain(self.settings.iter().cloned()).collect();
        let mut set =
            |key: &str, value: Option<String>| settings.extend(value.map(|value| format!("{key}={value}")));
        set(
            "group.*.packet_bytes",
            self.packet_bytes.map(|bytes| bytes.to_string()),
        );
        set("seconds", self.seconds.map(|seconds| seconds.to_string()));
        set("streams", self.streams.map(|streams| streams.to_string()));
        set("mbps", self.mbps.map(|mbps| mbps.to_string()));
        settings
    }

    /// As arguments of one of our own children.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--profile={}", self.profile())];
        arguments.extend(self.settings().iter().map(|setting| format!("--set={setting}")));
        arguments.extend(self.no_gso.then(|| "--no-gso".to_owned()));
        arguments
    }
}

/// A load, decided.
pub struct Load {
    options: LoadOptions,
    pub profile: Profile,
}

/// A load in a result.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    profile: String,
    settings: Vec<String>,
    cameras: u64,
    streams: u64,
    seconds: f64,
    /// With all cameras on.
    gbps: f64,
    packets_per_second: f64,
    gso: bool,
}

impl Load {
    fn new(options: LoadOptions) -> anyhow::Result<Load> {
        let profile = Profile::load(options.profile(), &options.settings())?;
        Ok(Load { options, profile })
    }

    /// The same with another number of streams and seconds.
    pub fn scaled(&self, streams: u32, seconds: f64) -> anyhow::Result<Load> {
        let mut options = self.options.clone();
        options.streams = Some(streams);
        options.seconds = Some(seconds);
        Load::new(options)
    }

    /// The same for at most so long.
    pub fn lasting(&self, seconds: f64) -> anyhow::Result<Load> {
        let mut options = self.options.clone();
        options.seconds = Some(self.seconds().min(seconds));
        Load::new(options)
    }

    /// The same with more settings of the profile.
    pub fn with(&self, settings: impl IntoIterator<Item = String>) -> anyhow::Result<Load> {
        let mut options = self.options.clone();
        options.settings.extend(settings);
        Load::new(options)
    }

    /// The same cameras, their rates such that they send about so many packets a second in all.
    pub fn at_rate(&self, packets_per_second: f64) -> anyhow::Result<Load> {
        let offered = self.profile.offered();
        let mut options = self.options.clone();
        options.mbps = Some(offered.mbps / offered.cameras as f64 * packets_per_second / offered.pps);
        Load::new(options)
    }

    pub fn plan(&self, targets: Vec<SocketAddr>) -> anyhow::Result<Plan> {
        Ok(Plan::from_profile(&self.profile, targets)?)
    }

    pub fn streams(&self) -> u64 {
        self.profile.streams()
    }

    pub fn seconds(&self) -> f64 {
        self.profile.duration_ns() as f64 / 1e9
    }

    /// RTP of one run, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.gbps() * 1e9 / 8.0 * self.seconds()) as u64
    }

    /// Whether each packet is sent by itself.
    pub fn is_single(&self) -> bool {
        self.options.no_gso
    }

    /// With all cameras on.
    pub fn gbps(&self) -> f64 {
        self.profile.offered().mbps / 1000.0
    }

    pub fn describe(&self) -> Description {
        let offered = self.profile.offered();
        Description {
            profile: self.options.profile().to_owned(),
            settings: self.options.settings(),
            cameras: offered.cameras,
            streams: offered.streams,
            seconds: self.seconds(),
            gbps: offered.mbps / 1000.0,
            packets_per_second: offered.pps,
            gso: !self.options.no_gso,
        }
    }

    /// As arguments of one of our own children.
    pub fn arguments(&self) -> Vec<String> {
        self.options.arguments()
    }

    /// Whether all cameras are on from begin to end, so that there is one rate to be held to.
    fn is_constant(&self) -> bool {
        self.profile.stages.iter().all(|stage| stage.share == (1.0, 1.0))
    }
}

impl std::fmt::Display for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape = if self.gso {
            "GSO bursts"
        } else {
            "single datagrams"
        };
        write!(
            f,
            "{}: {} streams, {:.3} Gb/s, {:.0} packets/s, {} s, {shape}",
            self.profile, self.streams, self.gbps, self.packets_per_second, self.seconds
        )
    }
}

/// What the cameras sent, as their process reports it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Datagrams that the kernel took: RTP, sender reports, and whatever else the profile sends.
    pub packets: u64,
    pub rtp: u64,
    pub rtp_bytes: u64,
    /// Due, and not taken by the kernel.
    pub not_sent: u64,
    /// While all cameras were on.
    pub gbps: f64,
    pub packets_per_second: f64,
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
    fn of(result: RunResult) -> Sent {
        let (load, sending, impaired) = (result.load, result.sending, result.impaired);
        Sent {
            packets: load.sent + load.rtcp_sent + impaired.junk + impaired.unknown,
            rtp: load.sent,
            rtp_bytes: load.sent_bytes,
            not_sent: load.not_sent + load.rtcp_not_sent,
            gbps: load.gbps,
            packets_per_second: load.packets_per_second,
            seconds: load.duration_s,
            packets_per_message: sending.packets_per_message,
            lateness_ms_p99: sending.lateness_ms.p99,
            cpu_ns_per_packet: sending.cpu_ns_per_packet,
            valid: result.valid,
            invalid_because: result.invalid_because,
        }
    }
}

/// Left out of the load generator's figures at the beginning.
const WARM_UP_SHARE: f64 = 0.1;
/// How far below what was asked a load may stay, as a share. (Whole bursts at the ends of the time that is looked at.)
const RATE_TOLERANCE: f64 = 0.03;

/// Why the load is not the one asked for, if so: what the generator says of itself, and whether the rate came.
pub fn objections(load: &Load, sent: &Sent) -> Vec<String> {
    let mut objections = sent.invalid_because.clone();
    if !sent.valid && objections.is_empty() {
        objections.push("the load generator calls its run invalid".to_owned());
    }
    let asked = load.gbps();
    if load.is_constant() && sent.gbps < asked * (1.0 - RATE_TOLERANCE) {
        objections.push(format!("{:.3} Gb/s came of the {asked:.3} asked for", sent.gbps));
    }
    objections
}

/// The hidden command: sends, reports.
#[derive(Args, Debug)]
pub struct Child {
    #[command(flatten)]
    load: LoadOptions,
    #[arg(long)]
    target: Vec<SocketAddr>,
    #[arg(long)]
    cpu: usize,
    /// As fast as it goes, whatever the schedule says
    #[arg(long)]
    unpaced: bool,
}

pub fn run_child(options: &Child) -> anyhow::Result<()> {
    let plan = options.load.as_given()?.plan(options.target.clone())?;
    let how = RunOptions {
        method: if options.load.no_gso {
            Method::Sendmmsg
        } else {
            Method::Gso
        },
        cpu: Some(options.cpu),
        sent_log: None,
        paced: !options.unpaced,
    };
    let (control, ended) = (Control::default(), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| say_when_it_begins(&control, &ended));
        let result = run_plan(&plan, &how, &control);
        ended.store(true, Ordering::Relaxed);
        result
    });
    let sent = Sent::of(result?);
    println!("{}", serde_json::to_string(&sent)?);
    Ok(())
}

/// Tells the parent when the first packet left; ends with that.
fn say_when_it_begins(control: &Control, ended: &AtomicBool) {
    while control.sent.load(Ordering::Relaxed) == 0 {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("{}", serde_json::json!({ "began_ns": sys::monotonic_ns() }));
}

/// The cameras, sending.
pub struct Cameras {
    process: Process,
    bound: Duration,
}

impl Cameras {
    /// They send at once.
    pub fn start(load: &Load, targets: &[SocketAddr], cpu: usize) -> anyhow::Result<Cameras> {
        Self::start_with(load, targets, cpu, &[])
    }

    /// The same packets, as fast as they go.
    pub fn start_unpaced(load: &Load, targets: &[SocketAddr], cpu: usize) -> anyhow::Result<Cameras> {
        Self::start_with(load, targets, cpu, &["--unpaced"])
    }

    fn start_with(load: &Load, targets: &[SocketAddr], cpu: usize, more: &[&str]) -> anyhow::Result<Cameras> {
        let mut arguments: Vec<OsString> = vec!["load".into(), format!("--cpu={cpu}").into()];
        arguments.extend(load.arguments().into_iter().map(OsString::from));
        arguments.extend(more.iter().map(OsString::from));
        arguments.extend(targets.iter().map(|target| format!("--target={target}").into()));
        Ok(Cameras {
            process: Process::start("fleet", &[cpu], &myself(arguments)?)?,
            // A generator that cannot keep up takes longer; a machine on which it takes three times as long is told so.
            bound: Duration::from_secs_f64(3.0 * load.seconds() + 30.0),
        })
    }

    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Waits for the first packet; when it left, on the monotonic clock, which all processes share.
    pub fn began_ns(&mut self, stop: &Stop) -> anyhow::Result<u64> {
        self.process
            .wait_for(self.bound, stop, |line| object(line)?["began_ns"].as_u64())
    }

    /// Waits for their end.
    pub fn finish(self, stop: &Stop) -> anyhow::Result<Sent> {
        let mut report = None;
        let mut said = String::new();
        self.process.finish(self.bound, stop, |line| {
            match serde_json::from_str::<Sent>(&line) {
                Ok(sent) => report = Some(sent),
                // What it says of its beginning is no complaint.
                Err(_) if object(&line).is_some() => {}
                Err(_) => said = line,
            }
        })?;
        report.with_context(|| format!("the fleet did not send: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LoadOptions {
        LoadOptions {
            profile: None,
            settings: vec!["group.camera.sigma=0".to_owned()],
            streams: Some(100),
            mbps: Some(1.0),
            seconds: None,
            packet_bytes: None,
            no_gso: false,
        }
    }

    #[test]
    fn a_load_that_did_not_come_is_not_called_valid() {
        let load = options().load(1.0).expect("a profile");
        let sent = |gbps, valid| Sent {
            gbps,
            valid,
            ..Sent::default()
        };
        assert_eq!(objections(&load, &sent(0.0995, true)), [""; 0]);
        assert!(objections(&load, &sent(0.09, true))[0].contains("0.090 Gb/s came"));
        assert_eq!(objections(&load, &sent(0.1, false)).len(), 1);
    }

    #[test]
    fn a_child_gets_the_very_load() {
        let load = options().load(3.0).expect("a profile");
        assert_eq!((load.streams(), load.seconds()), (100, 3.0));
        assert!((load.gbps() - 0.1).abs() < 0.002, "{}", load.gbps());
        let arguments = load.arguments();
        let again = LoadOptions {
            settings: arguments
                .iter()
                .filter_map(|text| Some(text.strip_prefix("--set=")?.to_owned()))
                .collect(),
            streams: None,
            mbps: None,
            ..options()
        };
        assert_eq!(Load::new(again).expect("a profile").profile, load.profile);
        assert_eq!(arguments[0], "--profile=line-rate");
        let faster = load.at_rate(2.0 * load.profile.offered().pps).expect("a profile");
        assert!(
            (faster.gbps() / load.gbps() - 2.0).abs() < 0.1,
            "{}",
            faster.gbps()
        );
        let more = load.scaled(200, 1.0).expect("a profile");
        assert_eq!((more.streams(), more.seconds()), (200, 1.0));
    }
}
