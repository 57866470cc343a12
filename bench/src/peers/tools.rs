//! What a user could pick instead: how each is started on the same cameras, and what it does not do.

use std::ffi::OsString;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use harborseal_loadgen::Clip;
use harborseal_loadgen::sdp::sdp;
use rustix::process::Signal;

use super::harborseal::Harborseal;
use super::{Options, Receiving, sockets};
use crate::account::{self, Cpu};
use crate::child::{Process, Stop};
use crate::lab::{Lab, free_port};
use crate::load::Load;
use crate::machine::Cpus;
use crate::output::progress;

/// Where every search begins: what costs a process per camera is felt, and nothing is lost yet.
pub const FIRST_STREAMS: u32 = 50;
/// More processes of one receiver than this measure the scheduler.
const PROCESSES_MAX: u32 = 512;
/// tcpdump's ring buffer, in KiB: eight times its default.
const CAPTURE_KIB: u32 = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    Harborseal,
    Tcpdump,
    Ffmpeg,
    Gstreamer,
}

impl Tool {
    pub const ALL: [Tool; 4] = [Tool::Harborseal, Tool::Tcpdump, Tool::Ffmpeg, Tool::Gstreamer];

    pub fn name(self) -> &'static str {
        match self {
            Tool::Harborseal => "harborseal",
            Tool::Tcpdump => "tcpdump",
            Tool::Ffmpeg => "ffmpeg",
            Tool::Gstreamer => "gstreamer",
        }
    }

    pub fn does_not(self) -> &'static [&'static str] {
        match self {
            Tool::Harborseal => &[],
            Tool::Tcpdump => &["encrypt", "demultiplex (all cameras in one file)", "sync to disk"],
            Tool::Ffmpeg => &[
                "encrypt",
                "demultiplex (a process and port per camera)",
                "sync to disk",
                "keep packets or arrival times",
            ],
            Tool::Gstreamer => &[
                "encrypt",
                "demultiplex (a process and port per camera)",
                "sync to disk",
                "keep packets or arrival times",
            ],
        }
    }

    /// The most streams that make sense to try.
    pub fn most(self) -> u32 {
        match self {
            Tool::Harborseal | Tool::Tcpdump => u32::MAX,
            Tool::Ffmpeg | Tool::Gstreamer => PROCESSES_MAX,
        }
    }

    /// From one number of streams to the next: what takes thousands is not looked for in small steps.
    pub fn growth(self) -> u32 {
        match self {
            Tool::Harborseal | Tool::Tcpdump => 4,
            Tool::Ffmpeg | Tool::Gstreamer => 2,
        }
    }

    /// Whose account of losses it is.
    pub fn lost_by(self) -> &'static str {
        match self {
            Tool::Harborseal => "sent less stored",
            Tool::Tcpdump => "its own count of what the kernel dropped (bursts, not packets)",
            Tool::Ffmpeg | Tool::Gstreamer => "the kernel's drops on its sockets",
        }
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Tool::Harborseal => None,
            Tool::Tcpdump => Some("tcpdump"),
            Tool::Ffmpeg => Some("ffmpeg"),
            Tool::Gstreamer => Some("gst-launch-1.0"),
        }
    }

    /// Debian's packages that bring it.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Tool::Harborseal => &[],
            Tool::Tcpdump => &["tcpdump"],
            Tool::Ffmpeg => &["ffmpeg"],
            Tool::Gstreamer => &[
                "gstreamer1.0-tools",
                "gstreamer1.0-plugins-base",
                "gstreamer1.0-plugins-good",
                "gstreamer1.0-plugins-bad",
            ],
        }
    }

    fn is_here(self) -> bool {
        let asked = self
            .program()
            .map(|program| Command::new(program).arg(self.version_option()).output());
        asked.is_none_or(|outcome| outcome.is_ok_and(|output| output.status.success()))
    }

    fn version_option(self) -> &'static str {
        if self == Tool::Ffmpeg {
            "-version"
        } else {
            "--version"
        }
    }

    pub fn version(self) -> String {
        let Some(program) = self.program() else {
            return env!("CARGO_PKG_VERSION").to_owned();
        };
        let output = Command::new(program).arg(self.version_option()).output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    }

    /// The command as it is run, with names where each camera has its own.
    pub fn shown_command(self) -> Vec<String> {
        let camera = Camera {
            target: ([127, 0, 0, 1], 5004).into(),
            parameter_sets: "SPS,PPS".to_owned(),
            sdp: "CAMERA.sdp".into(),
            out: "CAMERA.mkv".into(),
        };
        let command = match self {
            Tool::Harborseal => ["harborseal", "run", "--config=engine.toml", "--log=json"]
                .map(OsString::from)
                .to_vec(),
            Tool::Tcpdump => tcpdump("all.pcap".as_ref(), 5004),
            Tool::Ffmpeg => camera.ffmpeg(),
            Tool::Gstreamer => camera.gstreamer(),
        };
        command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    /// Starts it; where it wants the cameras' packets.
    pub fn start(
        self,
        lab: &Lab,
        load: &Load,
        options: &Options,
        cpus: &Cpus,
        stop: &Stop,
    ) -> anyhow::Result<(Box<dyn Receiving>, Vec<SocketAddr>)> {
        match self {
            Tool::Harborseal => {
                let (receiver, targets) = Harborseal::start(lab, load, options, cpus, stop)?;
                Ok((Box::new(receiver), targets))
            }
            Tool::Tcpdump => {
                let target = free_port()?;
                // Somebody has to listen, or the cameras are told that nobody does; what fills its buffer is dropped for free.
                let sink = UdpSocket::bind(target).with_context(|| format!("listening on {target}"))?;
                let command = tcpdump(&lab.dir().join("all.pcap"), target.port());
                let mut process = Process::start("tcpdump", &cpus.engine, &command)?;
                let listens = |line: &str| line.contains("listening on").then_some(());
                process.wait_for(Duration::from_secs(10), stop, listens)?;
                let receiver = Capture {
                    process,
                    stop: stop.clone(),
                    _sink: sink,
                };
                Ok((Box::new(receiver), vec![target]))
            }
            Tool::Ffmpeg => Processes::start("ffmpeg", lab, load, cpus, stop, Camera::ffmpeg),
            Tool::Gstreamer => Processes::start("gst-launch-1.0", lab, load, cpus, stop, Camera::gstreamer),
        }
    }
}

/// Splits the wanted receivers into those that can run here and what is to be said of the others. Installs what is missing, as root and
/// if it may.
pub fn provide(wanted: &[Tool], install: bool) -> anyhow::Result<(Vec<Tool>, Vec<String>)> {
    let missing: Vec<Tool> = wanted.iter().copied().filter(|tool| !tool.is_here()).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.packages()).copied().collect();
    let root = rustix::process::geteuid().is_root();
    if !packages.is_empty() && install && root {
        progress(format_args!(
            "installing, as root: apt-get install {}",
            packages.join(" ")
        ));
        for arguments in [
            &["update", "-qq"][..],
            &["install", "-y", "-qq", "--no-install-recommends"],
        ] {
            let more: &[&str] = if arguments[0] == "install" { &packages } else { &[] };
            let outcome = Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(arguments)
                .args(more)
                .output();
            if let Err(error) = outcome {
                progress(format_args!("apt-get does not run: {error}"));
            }
        }
    }
    let (present, absent): (Vec<Tool>, Vec<Tool>) = wanted.iter().partition(|tool| tool.is_here());
    let left_out = absent.iter().map(|tool| {
        let packages = tool.packages().join(" ");
        format!(
            "{} is not installed; `apt-get install {packages}` as root brings it",
            tool.name()
        )
    });
    ensure!(
        !present.is_empty(),
        "none of the receivers is installed: {}",
        left_out.clone().collect::<Vec<_>>().join("; ")
    );
    Ok((present.clone(), left_out.collect()))
}

fn tcpdump(file: &Path, port: u16) -> Vec<OsString> {
    let mut command: Vec<OsString> = ["tcpdump", "-i", "lo", "-n", "-Z", "root", "-B"]
        .map(OsString::from)
        .to_vec();
    command.extend([CAPTURE_KIB.to_string().into(), "-w".into(), file.into()]);
    command.extend(["udp", "and", "dst", "port"].map(OsString::from));
    command.push(port.to_string().into());
    command
}

/// One camera of a receiver that takes one each.
struct Camera {
    target: SocketAddr,
    parameter_sets: String,
    sdp: std::path::PathBuf,
    out: std::path::PathBuf,
}

impl Camera {
    fn ffmpeg(&self) -> Vec<OsString> {
        let mut command: Vec<OsString> = [
            "ffmpeg",
            "-nostdin",
            "-v",
            "error",
            "-protocol_whitelist",
            "file,udp,rtp",
            "-i",
        ]
        .map(OsString::from)
        .to_vec();
        command.push(self.sdp.clone().into());
        command.extend(["-c", "copy", "-y"].map(OsString::from));
        command.push(self.out.clone().into());
        command
    }

    fn gstreamer(&self) -> Vec<OsString> {
        let port = self.target.port();
        let sets = &self.parameter_sets;
        let caps = format!(
            "caps=application/x-rtp,media=(string)video,clock-rate=(int)90000,encoding-name=(string)H264,payload=(int)96,sprop-parameter-sets=(string)\"{sets}\""
        );
        let mut command: Vec<OsString> = vec!["gst-launch-1.0".into(), "-q".into(), "udpsrc".into()];
        command.push(format!("port={port}").into());
        command.push(caps.into());
        let rest = [
            "!",
            "rtpjitterbuffer",
            "!",
            "rtph264depay",
            "!",
            "h264parse",
            "!",
            "matroskamux",
            "!",
            "filesink",
        ];
        command.extend(rest.map(OsString::from));
        command.push(crate::child::option("location", &self.out));
        command
    }
}

/// A process for each camera.
struct Processes {
    processes: Vec<Process>,
    targets: Vec<SocketAddr>,
}

impl Processes {
    fn start(
        name: &'static str,
        lab: &Lab,
        load: &Load,
        cpus: &Cpus,
        stop: &Stop,
        command: fn(&Camera) -> Vec<OsString>,
    ) -> anyhow::Result<(Box<dyn Receiving>, Vec<SocketAddr>)> {
        let targets = sockets::free_pairs(load.streams() as usize)?;
        let plan = load.plan(targets.clone())?;
        let clip = Clip::builtin();
        let mut receiver = Processes {
            processes: Vec::new(),
            targets: targets.clone(),
        };
        for (index, stream) in (0..).zip(&plan.streams) {
            let target = targets[stream.target as usize];
            let description = sdp(&clip, index, stream.ssrc, target);
            let camera = Camera {
                target,
                parameter_sets: between(&description, "sprop-parameter-sets=", "\r\n").to_owned(),
                sdp: lab.dir().join(format!("{index:05}.sdp")),
                out: lab.dir().join(format!("{index:05}.mkv")),
            };
            std::fs::write(&camera.sdp, description)
                .with_context(|| format!("writing {}", camera.sdp.display()))?;
            receiver
                .processes
                .push(Process::start(name, &cpus.engine, &command(&camera))?);
            stop.check()?;
        }
        sockets::wait_until_bound(&targets, stop, || receiver.look_after())?;
        Ok((Box::new(receiver), targets))
    }
}

/// What stands in a text between two others.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let rest = text.split_once(before).map_or("", |(_, rest)| rest);
    rest.split(behind).next().unwrap_or("")
}

impl Receiving for Processes {
    fn cpu_ns(&mut self) -> anyhow::Result<u64> {
        self.processes
            .iter()
            .map(|process| Ok(Cpu::of_process(process.pid())?.total_ns))
            .sum()
    }

    fn memory_bytes(&mut self) -> anyhow::Result<u64> {
        // Proportional: what processes of one program share counts once.
        self.processes
            .iter()
            .map(|process| account::proportional_memory_bytes(process.pid()))
            .sum()
    }

    fn stop(self: Box<Self>, _sent: u64) -> anyhow::Result<u64> {
        let dropped = sockets::dropped(&self.targets)?;
        self.processes
            .iter()
            .for_each(|process| process.signal(Signal::INT));
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && !self.processes.iter().all(Process::has_ended) {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(dropped) // whatever has not ended by now is ended when dropped
    }

    fn look_after(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.drain(|_| ());
            ensure!(
                !process.has_ended(),
                "a receiver ended by itself: {}",
                process.complaint()
            );
        }
        Ok(())
    }
}

/// tcpdump, and the socket that makes the kernel take what it captures.
struct Capture {
    process: Process,
    stop: Stop,
    _sink: UdpSocket,
}

impl Receiving for Capture {
    fn cpu_ns(&mut self) -> anyhow::Result<u64> {
        Ok(Cpu::of_process(self.process.pid())?.total_ns)
    }

    fn memory_bytes(&mut self) -> anyhow::Result<u64> {
        account::proportional_memory_bytes(self.process.pid())
    }

    fn stop(self: Box<Self>, _sent: u64) -> anyhow::Result<u64> {
        self.process.signal(Signal::INT);
        let mut dropped = None;
        self.process.finish(Duration::from_secs(20), &self.stop, |line| {
            dropped = dropped_by_kernel(&line).or(dropped);
        })?;
        dropped.context("tcpdump did not say how many packets were dropped")
    }

    fn look_after(&mut self) -> anyhow::Result<()> {
        ensure!(
            !self.process.has_ended(),
            "tcpdump ended by itself: {}",
            self.process.complaint()
        );
        Ok(())
    }
}

/// `17 packets dropped by kernel`
fn dropped_by_kernel(line: &str) -> Option<u64> {
    line.strip_suffix(" packets dropped by kernel")
        .or_else(|| line.strip_suffix(" packet dropped by kernel"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcpdumps_own_count_is_read() {
        assert_eq!(dropped_by_kernel("17 packets dropped by kernel"), Some(17));
        assert_eq!(dropped_by_kernel("1 packet dropped by kernel"), Some(1));
        assert_eq!(dropped_by_kernel("17 packets captured"), None);
    }

    #[test]
    fn what_stands_between_is_found() {
        let text = "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0,aM4=\r\na=x\r\n";
        assert_eq!(between(text, "sprop-parameter-sets=", "\r\n"), "Z0,aM4=");
        assert_eq!(between("nothing", "x=", "\r\n"), "");
    }

    #[test]
    fn every_tool_is_shown_as_it_is_run() {
        assert!(Tool::Ffmpeg.shown_command().join(" ").contains("-c copy"));
        assert!(
            Tool::Gstreamer
                .shown_command()
                .join(" ")
                .contains("rtph264depay ! h264parse ! matroskamux")
        );
        assert!(Tool::Tcpdump.shown_command().join(" ").ends_with("dst port 5004"));
    }
}
