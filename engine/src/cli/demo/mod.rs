//! `harborseal demo`: the whole path on one machine in one command, and the proof that it holds.
//!
//! Engine and fleet are processes of their own, started from this same binary. What counts as stored is what the
//! customers' identities open from the segments, held packet by packet against the sender's log; the engine's ledger is only
//! what that is compared with. Nothing stays behind but the folder that the table names, and after Ctrl-C not even that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harborseal_loadgen::FleetSpec;
use harborseal_loadgen::cli::RunArgs;
use serde_json::Value;

use super::error::{CliError, ExitStatus};
use super::output::{self, Output, people};
use crate::text::counted;

mod audit;
mod children;
mod film;
mod health;
mod lab;
mod outcome;
mod progress;
mod read_back;

use children::{Engine, Fleet};
use lab::Lab;
use outcome::Outcome;

/// After the last packet was sent, everything received must have had time to become durable: the chunk deadline (500 ms) and
/// a commit, with room for a busy machine. SIGTERM would see to it too; this way the ordinary path is shown.
const SETTLE: Duration = Duration::from_millis(1000);

/// Watch it work: a thousand cameras recorded, verified and opened again, on this machine.
///
/// Makes two customers' identities, starts the engine on loopback and sends it a fleet of cameras with real H.264 video. Then it
/// stops the engine, verifies every segment, opens them with both identities, compares packet by packet with what the fleet says
/// it sent, exports one camera to an MP4, and shows that the other customer's identity opens nothing of it. Needs no root, and tells
/// beforehand if the disk has too little room. The files stay, for a look; the last line says how to remove them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The status is 0 if every packet sent is stored, or if every one that was lost is accounted for (a load that the machine cannot
carry); 1 if anything is not as promised.")]
pub struct Args {
    /// Number of cameras, half of them alice's, half bob's
    #[arg(long, value_name = "N", default_value_t = 1000)]
    cameras: u32,
    /// Rate of each camera in Mb/s
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    mbps: f64,
    /// How long each camera sends
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Folder to work in, new or empty; without it a temporary one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// The demo's processes, for its own use.
#[derive(Debug, clap::Subcommand)]
pub enum ChildArgs {
    /// The engine: `harborseal run`, ended with its parent
    Engine(super::run::Args),
    /// The fleet: `harborseal-loadgen run`, ended with its parent
    Fleet(Box<RunArgs>),
}

/// Runs the demo. Its status is 0 if every packet sent was stored, or if every one that was not is accounted for.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let stop = Stop::listen()?;
    let spec = FleetSpec::new(args.cameras, args.mbps, args.seconds, lab::free_ports()?);
    spec.check().map_err(CliError::usage)?;
    let lab = Lab::create(args.dir.as_deref(), &spec)?;
    match show(&lab, spec, &stop) {
        Err(_) if stop.asked() => {
            let removed = lab.remove();
            Err(CliError::damage(format_args!(
                "stopped before its end; {removed}"
            )))
        }
        Err(error) if !lab.sending_began() => {
            lab.remove();
            Err(error)
        }
        Err(error) => {
            people(format_args!("what there is so far is in {}", lab.dir().display()));
            Err(error)
        }
        Ok(outcome) => conclude(&outcome, &lab, args.output),
    }
}

/// One of the demo's processes: ends when the demo does, however that ends.
pub fn run_child(args: &ChildArgs) -> Result<ExitStatus, CliError> {
    children::end_with_parent()?;
    match args {
        ChildArgs::Engine(args) => super::run::run(args),
        ChildArgs::Fleet(args) => {
            let report = harborseal_loadgen::cli::send(args).map_err(CliError::io)?;
            output::json(&report)?;
            Ok(ExitStatus::Ok)
        }
    }
}

/// The story, step by step.
fn show(lab: &Lab, spec: FleetSpec, stop: &Stop) -> Result<Outcome, CliError> {
    let cpus = Cpus::choose();
    people(format_args!("in {}", lab.dir().display()));
    let customers = lab.make_customers()?;
    lab.write_config(&spec, &customers, cpus.engine)?;
    people(format_args!(
        "two customers, {}; {cpus}",
        counted(spec.cameras as usize, "camera")
    ));
    if spec.targets.len() > 1 {
        let ports = spec.targets.len();
        people(format_args!(
            "socket buffers are small here (net.core.rmem_max), so the cameras are spread over {ports} ports"
        ));
    }

    let mut engine = Engine::start(lab, stop)?;
    let fleet = Fleet::start(lab, &spec, cpus.fleet)?;
    let sent = fleet.finish(&mut engine, stop)?;
    stop.sleep(SETTLE)?;
    let ledger = engine.stop()?;
    people("recorded and stopped: every segment has its footer");

    let back = read_back::read_back(lab, &spec, customers, stop)?;
    let film = film::export(lab, back.best_camera, stop)?;
    Outcome::new(&spec, &sent, &ledger, back, film)
}

/// Prints the table and, if asked for, the object; what they say decides the status.
fn conclude(outcome: &Outcome, lab: &Lab, output: Output) -> Result<ExitStatus, CliError> {
    let table = outcome.table(lab.dir());
    match output.json {
        true => people(table),
        false => output::data(table)?,
    }
    if output.json {
        output::json(&outcome.json(lab.dir()))?;
    }
    match outcome.faults().as_slice() {
        [] => Ok(ExitStatus::Ok),
        faults => Err(CliError::damage(faults.join("; "))),
    }
}

/// Which CPUs record and send.
struct Cpus {
    engine: usize,
    fleet: usize,
}

impl Cpus {
    fn choose() -> Cpus {
        let usable = crate::config::usable_cpus();
        let engine = usable.first().copied().unwrap_or(0);
        let fleet = usable.get(1).copied().unwrap_or(engine);
        Cpus { engine, fleet }
    }
}

impl std::fmt::Display for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cpus { engine, fleet } = self;
        match engine == fleet {
            true => write!(
                f,
                "engine and fleet share CPU {engine}, the only one: expect losses"
            ),
            false => write!(f, "engine on CPU {engine}, fleet on CPU {fleet}"),
        }
    }
}

/// Ctrl-C or SIGTERM: noticed at every step, so that children end and files go.
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    fn listen() -> Result<Stop, CliError> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&asked))
                .map_err(|error| CliError::io(format_args!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(Stop(asked))
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once a stop is asked for; [`run`] says the rest.
    fn check(&self) -> Result<(), CliError> {
        match self.asked() {
            true => Err(CliError::damage("stopped")),
            false => Ok(()),
        }
    }

    /// Sleeps, but not past a stop.
    fn sleep(&self, time: Duration) -> Result<(), CliError> {
        const STEP: Duration = Duration::from_millis(20);
        let steps = time.as_millis().div_ceil(STEP.as_millis());
        for _ in 0..steps {
            self.check()?;
            std::thread::sleep(STEP);
        }
        self.check()
    }
}

/// A number of one of the children's objects; they are our own, so a missing one is a fault of the program.
fn number(object: &Value, key: &str) -> Result<u64, CliError> {
    object[key]
        .as_u64()
        .ok_or_else(|| CliError::damage(format_args!("a child process did not report `{key}`")))
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
