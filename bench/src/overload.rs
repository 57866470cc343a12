//! `overload`: no cliffs. At 150 % of what the engine can take it goes on storing what it can, every packet is accounted for, SIGTERM is obeyed, and
//! when the load falls to 50 % the loss ends at once; a disk that is slow for a while costs packets while it is slow.
//!
//! One core of cameras can hardly send more than the engine can take with all of its core. So, as root, the engine gets a part of it
//! (`--core-share`, a control group), and the capacity that is found and exceeded is that of the part; the result says so.

mod report;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use harborseal::uring::sys;

use crate::cgroup::Group;
use crate::lab::{Account, Engine, EngineOptions, Place, free_port, needed_bytes};
use crate::limit::{Limit, Rate, START_GSO, START_SINGLE, Searches, Who};
use crate::load::{Cameras, Load, LoadOptions, Sent};
use crate::output::{Output, progress};
use crate::runs::{SETTLE, Site};
use report::{Overloaded, Report, SlowDisk, Stopped};
use watch::{Look, Watch};

const LOOK: Duration = Duration::from_millis(50);
/// Of the engine's core as root, if nothing else is asked for.
const CORE_SHARE: f64 = 0.25;
/// For the search for the capacity.
const SEARCH: Duration = Duration::from_secs(60);
const SEARCH_PRECISION: f64 = 0.08;
const TRIAL_SECONDS: f64 = 2.5;
/// Of capacity: while it is too much, and after.
const TOO_MUCH: f64 = 1.5;
const ENOUGH: f64 = 0.5;
/// How long each lasts if nothing else is asked for.
const SECONDS: f64 = 6.0;
/// The stop comes so long after the first packet.
const STOP_AFTER: Duration = Duration::from_secs(2);
/// The disk is slow for a share of the run in its middle.
const SLOW_FROM: f64 = 0.25;
const SLOW_TO: f64 = 0.6;
/// How long that run sends.
const SLOW_SECONDS: f64 = 20.0;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// What the engine can take, in packets per second; without it, it is searched for
    #[arg(long, value_name = "PACKETS/S")]
    capacity: Option<f64>,
    /// Give the engine this part of its core [default: 0.25 as root, else all of it]
    #[arg(long, value_name = "SHARE")]
    core_share: Option<f64>,
    /// Slow the disk down to this for a third of one more run (root)
    #[arg(long, value_name = "BYTES/S")]
    slow_disk: Option<u64>,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Measures. False if an account does not close, or the load did not come.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let is_root = rustix::process::geteuid().is_root();
    ensure!(
        is_root || options.slow_disk.is_none(),
        "--slow-disk slows the disk down by a control group, and that needs root"
    );
    let core_share = options.core_share.or(is_root.then_some(CORE_SHARE));
    let load = options.load.load(SECONDS)?;
    let bench = Bench {
        options,
        load: &load,
        site: Site {
            core_share,
            ..Site::open(&options.engine, &options.place, 1, needed_bytes(&load))?
        },
    };
    let (capacity, search) = match options.capacity {
        Some(capacity) => (capacity, None),
        None => bench.capacity()?,
    };
    let overloaded = bench.overloaded(capacity)?;
    progress(format_args!("{}", overloaded.line()));
    let stopped = bench.stopped(capacity)?;
    progress(format_args!("{}", stopped.line()));
    let slow_disk = options
        .slow_disk
        .map(|rate| bench.slow_disk(capacity, rate))
        .transpose()?;
    let site = bench.site;
    site.lab.remove()?;
    let report = Report::new(
        site.machine,
        site.cpus,
        load.describe(),
        (capacity, core_share, search),
        (overloaded, stopped, slow_disk),
    );
    options.output.write(&report.table(), &report)?;
    Ok(report.valid)
}

struct Bench<'a> {
    options: &'a Options,
    load: &'a Load,
    site: Site<'a>,
}

/// An engine under watch.
struct Watched {
    engine: Engine,
    watch: Watch,
    group: Option<Group>,
}

impl Bench<'_> {
    /// The highest rate without loss, roughly.
    fn capacity(&self) -> anyhow::Result<(f64, Option<Limit>)> {
        let searches = Searches {
            load: self.load,
            site: &self.site,
            precision: SEARCH_PRECISION,
            final_s: TRIAL_SECONDS,
            start: if self.options.load.no_gso {
                START_SINGLE
            } else {
                START_GSO
            },
            until: Instant::now() + SEARCH,
        };
        let found = searches.one(Who::Engine, 1, 1, None)?;
        match found.rate {
            Rate::Is(rate) => Ok((rate, Some(found))),
            _ => anyhow::bail!(
                "the engine's capacity was not found ({}): as root a smaller --core-share finds it, or name it with --capacity",
                found.found.text
            ),
        }
    }

    fn start(&self, load: &Load, core_share: Option<f64>) -> anyhow::Result<Watched> {
        self.site.lab.empty()?;
        self.site.lab.make_sure_of(needed_bytes(load))?;
        // TCP and UDP ports are apart; who takes it in between would be told by the engine.
        let control = free_port()?;
        let more = format!("\n[control]\nlisten = \"{control}\"\n");
        let engine = Engine::start_with(
            &self.site.lab,
            self.site.engine,
            &self.site.cpus.engine,
            load,
            &more,
            &self.site.stop,
        )?;
        let group = core_share.map(Group::of_cpu).transpose()?;
        if let Some(group) = &group {
            group.take(engine.pid())?;
        }
        let watch = Watch {
            listen: engine.listen,
            control,
        };
        Ok(Watched { engine, watch, group })
    }

    /// Looks until the cameras have ended and what they sent is durable. `each` is called with every look.
    fn watch(
        &self,
        watched: &mut Watched,
        cameras: Cameras,
        mut each: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Sent, Vec<Look>)> {
        let mut looks = Vec::new();
        let mut look = |watched: &mut Watched| -> anyhow::Result<()> {
            watched.engine.look_after()?;
            let look = watched.watch.look()?;
            each(look.at_ns)?;
            looks.push(look);
            Ok(())
        };
        while !cameras.has_ended() {
            self.site.stop.sleep(LOOK)?;
            look(watched)?;
        }
        let sent = cameras.finish(&self.site.stop)?;
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            self.site.stop.sleep(LOOK)?;
            look(watched)?;
        }
        Ok((sent, looks))
    }

    fn end(&self, watched: Watched) -> anyhow::Result<Account> {
        let account = watched.engine.stop(&self.site.stop)?;
        if let Some(group) = watched.group {
            group.remove()?;
        }
        self.site.lab.empty()?;
        Ok(account)
    }

    /// 150 % for a while, then 50 % as long.
    fn overloaded(&self, capacity: f64) -> anyhow::Result<Overloaded> {
        let long_s = self.load.seconds();
        let shape = format!(
            "load={{ shape = \"spike\", base = {}, peak = 1.0, at = \"1ms\", length = \"{long_s}s\" }}",
            ENOUGH / TOO_MUCH
        );
        let load = self.load.at_rate(capacity * TOO_MUCH)?;
        let load = load
            .scaled(u32::try_from(load.streams())?, 2.0 * long_s)?
            .with([shape])?;
        let mut watched = self.start(&load, self.site.core_share)?;
        let mut cameras = Cameras::start(&load, &[watched.engine.listen], self.site.cpus.fleet)?;
        let began_ns = cameras.began_ns(&self.site.stop)?;
        let (sent, looks) = self.watch(&mut watched, cameras, |_| Ok(()))?;
        let account = self.end(watched)?;
        let fell_ns = began_ns + (long_s * 1e9) as u64;
        Overloaded::new(capacity, (began_ns, fell_ns), &load, sent, looks, &account)
    }

    /// SIGTERM in the middle of 150 %.
    fn stopped(&self, capacity: f64) -> anyhow::Result<Stopped> {
        let load = self.load.at_rate(capacity * TOO_MUCH)?;
        let load = load.lasting(STOP_AFTER.as_secs_f64() * 2.0)?;
        let watched = self.start(&load, self.site.core_share)?;
        let mut cameras = Cameras::start(&load, &[watched.engine.listen], self.site.cpus.fleet)?;
        cameras.began_ns(&self.site.stop)?;
        self.site.stop.sleep(STOP_AFTER)?;
        let dropped_by_then = watched.watch.look()?;
        let account = self.end(watched)?;
        // They go on sending to nobody, as cameras do.
        cameras.finish(&self.site.stop)?;
        Stopped::new(dropped_by_then, &account)
    }

    /// Half of capacity with all of the core, so that only the disk can be the limit; the disk is slow in the middle.
    fn slow_disk(&self, capacity: f64, bytes_per_second: u64) -> anyhow::Result<SlowDisk> {
        let load = self.load.at_rate(capacity * ENOUGH)?;
        let load = load.scaled(u32::try_from(load.streams())?, SLOW_SECONDS)?;
        let mut watched = self.start(&load, None)?;
        let disk = Group::of_disk()?;
        disk.take(watched.engine.pid())?;
        let mut cameras = Cameras::start(&load, &[watched.engine.listen], self.site.cpus.fleet)?;
        let began_ns = cameras.began_ns(&self.site.stop)?;
        let at = |share: f64| began_ns + (SLOW_SECONDS * share * 1e9) as u64;
        let (mut slowed_ns, mut freed_ns) = (None, None);
        let (sent, looks) = self.watch(&mut watched, cameras, |now_ns| {
            if slowed_ns.is_none() && now_ns >= at(SLOW_FROM) {
                disk.slow_down(self.site.lab.dir(), Some(bytes_per_second))?;
                slowed_ns = Some(sys::monotonic_ns());
            }
            if freed_ns.is_none() && now_ns >= at(SLOW_TO) {
                disk.slow_down(self.site.lab.dir(), None)?;
                freed_ns = Some(sys::monotonic_ns());
            }
            Ok(())
        })?;
        let account = self.end(watched)?;
        disk.remove()?;
        let slow = slowed_ns.zip(freed_ns);
        let slow = slow.context("the run ended before the disk had been slow")?;
        SlowDisk::new(bytes_per_second, slow, &load, sent, looks, &account)
    }
}
