//! The folder a bench works in, on a real disk with room, and the engine in it: its configuration, its life, its account.
//!
//! ```text
//! DIR/harborseal-bench-a1b2c3/   engine.toml   data/          gone at the end, however that comes
//! ```

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use harborseal::uring::sys;
use harborseal_loadgen::profile::EngineConfig;
use harborseal_segment::identity::Identity;
use harborseal_segment::random::os_random;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::account::{self, Cpu};
use crate::child::{Process, Stop, myself, object, option};
use crate::load::Load;
use crate::output::progress;

/// Ten thousand cameras load in under a second; a machine that needs longer than this is in trouble.
const READY_BOUND: Duration = Duration::from_secs(30);
/// Stopping makes everything durable, then writes indexes and footers.
const STOP_BOUND: Duration = Duration::from_secs(60);
/// Beyond payload: record headers, block headers and padding at ordinary rates, INDEX and FOOTER.
const OVERHEAD_PERCENT: u64 = 6;
/// Space that segments reserve ahead of what is written, and what a file system keeps for itself: so much, and a quarter.
const RESERVE_BYTES: u64 = 512 << 20;
/// A camera's STREAM block in a segment and the padding of a chunk that was not full.
const STREAM_BYTES: u64 = 16 << 10;

#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Folder on the disk to measure; without it /tmp or /var/tmp, the first that is no memory and has room
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A folder of our own.
pub struct Lab {
    folder: TempDir,
}

impl Lab {
    /// Makes it where `needed_bytes` are free.
    pub fn create(place: &Place, needed_bytes: u64) -> anyhow::Result<Lab> {
        let usual = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
        let places: &[PathBuf] = match &place.dir {
            Some(dir) => std::slice::from_ref(dir),
            None => &usual,
        };
        let mut refused = String::new();
        for dir in places {
            // Whoever names a folder in memory may have it, and is told.
            if place.dir.is_some() && is_memory(dir) {
                progress(format_args!(
                    "WARNING: {} is in memory: no figure here is of a disk",
                    dir.display()
                ));
            }
            match objection(dir, needed_bytes, place.dir.is_some()) {
                None => {
                    let made = tempfile::Builder::new()
                        .prefix("harborseal-bench-")
                        .tempdir_in(dir);
                    let folder = made.with_context(|| format!("making a folder in {}", dir.display()))?;
                    return Ok(Lab { folder });
                }
                Some(why) => write!(refused, "; {} {why}", dir.display())?,
            }
        }
        bail!(
            "no place for {:.1} GB of segments{refused}. Name a folder with --dir, or ask for fewer --seconds",
            needed_bytes as f64 / 1e9
        )
    }

    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Where the engine's segments are.
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Removes what a run wrote, and waits until the disk has done with it, so that the next run does not pay for it.
    pub fn empty(&self) -> anyhow::Result<()> {
        let data = self.data();
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        }
        let folder = std::fs::File::open(self.dir()).context("opening our own folder")?;
        rustix::fs::syncfs(&folder).context("syncfs")
    }

    /// Whether there still is room, before more is written than was thought of at first.
    pub fn make_sure_of(&self, needed_bytes: u64) -> anyhow::Result<()> {
        match objection(self.dir(), needed_bytes, true) {
            None => Ok(()),
            Some(why) => bail!(
                "{:.1} GB are needed for the next run, and {} {why}",
                needed_bytes as f64 / 1e9,
                self.dir().display()
            ),
        }
    }

    /// Removes it now rather than when dropped, so that a failure is seen.
    pub fn remove(self) -> anyhow::Result<()> {
        self.folder.close().context("removing the folder of the bench")
    }
}

/// Why segments cannot be written here, if so.
fn objection(dir: &Path, needed_bytes: u64, named: bool) -> Option<String> {
    if !named && is_memory(dir) {
        return Some("is in memory, not on a disk".to_owned());
    }
    match sys::free_space(dir) {
        Ok((free, _)) if free >= needed_bytes => None,
        Ok((free, _)) => Some(format!("has {:.1} GB free", free as f64 / 1e9)),
        Err(error) => Some(format!("does not tell its space: {error}")),
    }
}

fn is_memory(dir: &Path) -> bool {
    const TMPFS_MAGIC: i128 = 0x0102_1994; // statfs(2)
    rustix::fs::statfs(dir).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS_MAGIC)
}

/// What one run of the engine may write.
pub fn needed_bytes(load: &Load) -> u64 {
    let payload = load.bytes();
    // A chunk at least twice a second and one STREAM block a minute, for every camera.
    let padding = load.streams() * STREAM_BYTES * (load.seconds() as u64 / 30 + 1);
    payload + payload * OVERHEAD_PERCENT / 100 + padding + payload / 4 + RESERVE_BYTES
}

/// How the engine runs.
#[derive(Args, Clone, Debug)]
pub struct EngineOptions {
    /// The engine's memory.limit, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub memory_mib: u64,
    /// Measure this `harborseal` instead of the engine this bench was built with
    #[arg(long, value_name = "PATH")]
    pub engine: Option<PathBuf>,
}

/// A running engine.
pub struct Engine {
    process: Process,
    cpus: Vec<usize>,
    pub listen: SocketAddr,
    /// Its CPU time when it was ready: the price of starting, not of packets.
    pub started: Cpu,
    /// Threads that had to be bound to the engine's CPUs from outside.
    repinned: u64,
}

/// What the engine had to say and what it cost, from ready to gone.
pub struct Account {
    /// The last line: its ledger.
    pub ledger: Value,
    pub cpu: Cpu,
    /// Of it, until everything received was durable; the rest is closing segments and giving memory back.
    pub cpu_recording: Cpu,
    pub threads: std::collections::BTreeMap<String, u64>,
    pub memory_bytes: u64,
    pub repinned: u64,
    /// From SIGTERM until it was gone.
    pub stop_ms: f64,
}

impl Account {
    /// A count of the engine's last line.
    pub fn number(&self, key: &str) -> anyhow::Result<u64> {
        let number = self.ledger[key].as_u64();
        number.with_context(|| format!("the engine's last line has no `{key}`"))
    }
}

impl Engine {
    /// Writes a configuration for these cameras and starts the engine with all its threads on `cpus`, one shard on each.
    pub fn start(
        lab: &Lab,
        options: &EngineOptions,
        cpus: &[usize],
        load: &Load,
        stop: &Stop,
    ) -> anyhow::Result<Engine> {
        Engine::start_with(lab, options, cpus, load, "", stop)
    }

    /// The same with more sections in its configuration.
    pub fn start_with(
        lab: &Lab,
        options: &EngineOptions,
        cpus: &[usize],
        load: &Load,
        more_config: &str,
        stop: &Stop,
    ) -> anyhow::Result<Engine> {
        let listen = free_port()?;
        let config = lab.dir().join("engine.toml");
        let text = configuration(load, listen, cpus, options.memory_mib)? + more_config;
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let mut command = match &options.engine {
            Some(path) => vec![path.clone().into_os_string(), "run".into()],
            None => myself(["engine"])?,
        };
        command.push(option("--config", &config));
        command.push("--log=json".into());
        let mut process = Process::start("engine", cpus, &command)?;
        process.wait_for(READY_BOUND, stop, |line| {
            object(line).filter(|object| object["event"] == "ready")
        })?;
        let started = Cpu::of_process(process.pid())?;
        let repinned = account::pin_all(process.pid(), cpus)?;
        Ok(Engine {
            process,
            cpus: cpus.to_vec(),
            listen,
            started,
            repinned,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// To be called now and then: keeps kernel workers, which begin anywhere, on the engine's CPUs, and its pipes empty.
    pub fn look_after(&mut self) -> anyhow::Result<()> {
        self.process.drain(|_| ());
        if self.process.has_ended() {
            bail!("the engine ended by itself: {}", self.process.complaint());
        }
        self.repinned += account::pin_all(self.process.pid(), &self.cpus)?;
        Ok(())
    }

    /// Stops it as an operator would.
    pub fn stop(mut self, stop: &Stop) -> anyhow::Result<Account> {
        self.look_after()?;
        let pid = self.process.pid();
        let cpu_recording = Cpu::of_process(pid)?.since(self.started);
        let threads = account::threads(pid)?;
        let memory_bytes = account::memory_bytes(pid)?;
        let asked = Instant::now();
        self.process.signal(Signal::TERM);
        let mut ledger = None;
        let mut said = String::new();
        let (cpu, well) = self
            .process
            .finish(STOP_BOUND, stop, |line| match object(&line) {
                Some(event) if event["event"] == "final" => ledger = Some(event),
                None if !line.trim().is_empty() => said = line,
                _ => {}
            })?;
        let stop_ms = asked.elapsed().as_secs_f64() * 1e3;
        match ledger {
            Some(ledger) if well => Ok(Account {
                ledger,
                cpu: cpu.since(self.started),
                cpu_recording,
                threads,
                memory_bytes,
                repinned: self.repinned,
                stop_ms,
            }),
            _ => bail!("the engine did not end as it should: {said}"),
        }
    }
}

/// A free UDP port on loopback. It could be taken again before its user binds it; then that says so.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("no UDP port on loopback")?;
    Ok(socket.local_addr()?)
}

/// Everything at its default, but for where it is. The customers' identities are made and thrown away: nothing here is read.
fn configuration(load: &Load, listen: SocketAddr, cpus: &[usize], memory_mib: u64) -> anyhow::Result<String> {
    let plan = load.plan(vec![listen])?;
    let new_key = |_: &String| Identity::generate(&mut os_random()).public().to_text();
    let public_keys: Vec<String> = plan.customers.iter().map(new_key).collect();
    let source = load.profile.source.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let config = EngineConfig {
        profile: &load.profile,
        plan: &plan,
        data_dir: "data",
        cpus,
        public_keys: &public_keys,
        sources: &[source],
    };
    Ok(with_memory_limit(&config.to_toml(), memory_mib))
}

/// The engine's memory is the bench's to choose: with as much as a load needs at least, memory would be a figure of the load.
fn with_memory_limit(config: &str, memory_mib: u64) -> String {
    let line = |line: &str| match line.starts_with("limit = ") {
        true => format!("limit = \"{memory_mib}MiB\"\n"),
        false => format!("{line}\n"),
    };
    config.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_room_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = Place {
            dir: Some(dir.path().to_owned()),
        };
        let error = Lab::create(&place, 1 << 60)
            .err()
            .expect("nobody has an exbibyte");
        assert!(error.to_string().contains("--dir"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("still there").count(), 0);
    }

    #[test]
    fn only_the_memory_limit_is_changed() {
        let config = "[memory]\nlimit = \"192MiB\"\nallow_unlocked = true\n";
        let changed = with_memory_limit(config, 1024);
        assert_eq!(changed, "[memory]\nlimit = \"1024MiB\"\nallow_unlocked = true\n");
    }
}
