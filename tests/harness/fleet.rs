//! A fleet of the load generator, the engine that records it, and the verdict on what was stored.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harborseal_loadgen::SentLog;
use harborseal_loadgen::fleet::{self, Control, RunOptions};
use harborseal_loadgen::plan::Plan;
use harborseal_loadgen::profile::{EngineConfig, Profile};
use harborseal_loadgen::result::{EngineFigures, RunResult};
use harborseal_loadgen::send::Method;
use harborseal_loadgen::stats::Books;
use harborseal_loadgen::verify::{self, Known, NamedIdentity, Verdict};
use harborseal_segment::identity::Identity;
use harborseal_segment::random::os_random;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::engine::{BOUND, Engine};
use super::{cli, lab, net};

/// A profile's fleet, an engine's configuration that knows it, and a folder for all of it.
pub struct Fleet {
    folder: tempfile::TempDir,
    pub port: u16,
    pub profile: Profile,
    pub plan: Plan,
    pub method: Method,
    identities: Vec<PathBuf>,
    public_keys: Vec<String>,
    /// Put behind the configuration.
    pub more_config: String,
}

/// One run and what the engine said at its end.
pub struct Ran {
    pub result: RunResult,
    pub books: Books,
}

impl Fleet {
    /// From the text of a profile, with settings.
    #[track_caller]
    pub fn new(profile: &str, settings: &[&str]) -> Fleet {
        let port = net::free_port_pair();
        let mut settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        // Tests beside each other send from addresses of their own.
        let [high, low] = port.to_be_bytes();
        settings.push(format!("addresses=\"127.{high}.{low}.1:20000\""));
        let profile = Profile::parse("test.toml", profile, &settings).expect("a valid profile");
        let target = format!("127.0.0.1:{port}").parse().expect("an address");
        let plan = Plan::from_profile(&profile, vec![target]).expect("the profile can be planned");
        let folder = cli::fresh_folder();
        let (mut identities, mut public_keys) = (Vec::new(), Vec::new());
        for customer in &plan.customers {
            let identity = Identity::generate(&mut os_random());
            let path = folder.path().join(format!("{customer}.identity"));
            std::fs::write(&path, identity.to_file_text()).expect("the folder can be written");
            identities.push(path);
            public_keys.push(identity.public().to_text());
        }
        Fleet {
            folder,
            port,
            profile,
            plan,
            method: Method::Gso,
            identities,
            public_keys,
            more_config: String::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The identities' files, in the plan's order of customers.
    pub fn identities(&self) -> &[PathBuf] {
        &self.identities
    }

    /// Starts an engine that knows this fleet.
    #[track_caller]
    pub fn start(&self) -> Engine {
        Engine::start(&self.config())
    }

    /// Starts one that writes its lines to `lines.jsonl`.
    #[track_caller]
    pub fn start_writing_lines(&self) -> Writing {
        let lines = std::fs::File::create(self.path("lines.jsonl")).expect("the folder can be written");
        let mut command = Command::new(cli::binary());
        command
            .args(["run", "--log", "json", "--config"])
            .arg(self.config());
        command.stdout(lines).stderr(Stdio::null()).stdin(Stdio::null());
        let mut engine = Writing(command.spawn().expect("the engine can be started"));
        let until = Instant::now() + BOUND;
        while !std::fs::read_to_string(self.path("lines.jsonl")).is_ok_and(|lines| lines.contains("ready")) {
            let ended = engine.0.try_wait().expect("the engine is our child");
            assert!(
                ended.is_none() && Instant::now() < until,
                "the engine is not ready: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        engine
    }

    /// `harborseal-loadgen run` of a profile's text to this engine, into the folder `run`.
    pub fn run_command(&self, profile: &str, settings: &[&str]) -> Command {
        let path = self.path("profile.toml");
        std::fs::write(&path, profile).expect("the folder can be written");
        let mut command = Command::new(cli::build_folder().join("harborseal-loadgen"));
        command
            .arg("run")
            .arg(path)
            .args(["--quiet", "--target", &format!("127.0.0.1:{}", self.port)]);
        command.args(settings.iter().flat_map(|setting| ["-s", setting]));
        // A machine busy with other tests may send late; that is not the question here.
        command
            .args(["-s", "lateness_budget=\"60s\""])
            .arg("-o")
            .arg(self.path("run"));
        command
    }

    /// Writes the engine's configuration.
    fn config(&self) -> PathBuf {
        let config = EngineConfig {
            profile: &self.profile,
            plan: &self.plan,
            data_dir: "data",
            cpus: &lab::allowed_cpus()[..1],
            public_keys: &self.public_keys,
            sources: &["127.0.0.1".parse().expect("an address")],
        };
        let path = self.path("engine.toml");
        let text = config.to_toml() + &self.more_config;
        std::fs::write(&path, text).expect("the folder can be written");
        path
    }

    /// Sends the fleet, to where the plan says.
    #[track_caller]
    pub fn send(&self) -> RunResult {
        let options = RunOptions {
            method: self.method,
            sent_log: Some(self.path("sent.log")),
            ..RunOptions::default()
        };
        fleet::run_plan(&self.plan, &options, &Control::default()).expect("the fleet can be sent")
    }

    /// Sends the fleet to an engine and stops it when it has taken everything.
    #[track_caller]
    pub fn record(&self) -> Ran {
        let engine = self.start();
        let result = self.send();
        net::wait_until_taken(self.port);
        Ran {
            result,
            books: books(&engine.stop()),
        }
    }

    /// The same until the machine, busy with other tests, lost nothing between sender and engine: what is lost there says nothing about
    /// expectation and finding.
    #[track_caller]
    pub fn record_all(&self) -> Ran {
        for _ in 0..4 {
            self.forget();
            let ran = self.record();
            if ran.is_whole() {
                return ran;
            }
        }
        panic!("this machine loses packets on its loopback every time");
    }

    /// Takes away what was stored.
    pub fn forget(&self) {
        if let Err(gone) = std::fs::remove_dir_all(self.data()) {
            assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
        }
    }

    pub fn log(&self) -> SentLog {
        SentLog::open(&self.path("sent.log")).expect("the run left its log")
    }

    /// Holds what is stored against what was sent.
    #[track_caller]
    pub fn verdict(&self, ran: Option<&Ran>) -> Verdict {
        self.verdict_of(&self.data(), ran)
    }

    #[track_caller]
    pub fn verdict_of(&self, segments: &Path, ran: Option<&Ran>) -> Verdict {
        let identities = self.identities.iter().map(|path| {
            NamedIdentity::read(path.to_str().expect("the laboratory's paths are UTF-8"))
                .expect("an identity")
        });
        let engine = ran.map(Ran::engine);
        let known = Known {
            impaired: ran.map(|ran| &ran.result.impaired),
            engine: engine.as_ref(),
            dropped_of: ran.and_then(|ran| ran.books.dropped_of()),
        };
        verify::verify(
            &self.log(),
            &[segments.to_owned()],
            identities.collect(),
            known,
            &|_| {},
        )
        .expect("everything can be read")
    }
}

/// An engine that writes its lines to a file; killed when dropped.
pub struct Writing(Child);

impl Writing {
    #[track_caller]
    pub fn stop(&mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("the engine is ours to signal");
        let status = cli::wait(&mut self.0, BOUND);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Either it has ended already, or a test failed and nobody else will end it.
        if self.0.try_wait().ok().flatten().is_none() {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

impl Ran {
    /// Whether everything that was to be sent left, and came to the engine.
    pub fn is_whole(&self) -> bool {
        self.engine().never_received == 0 && self.result.load.not_sent == 0
    }

    /// The engine's account of it.
    pub fn engine(&self) -> EngineFigures {
        let (load, impaired) = (&self.result.load, &self.result.impaired);
        let sent = load.sent + load.rtcp_sent + impaired.junk + impaired.unknown;
        self.books.figures(sent).expect("the engine said its last word")
    }
}

/// The books that an engine's last word makes.
pub fn books(last: &Value) -> Books {
    let mut books = Books::default();
    books.begin();
    assert!(books.take(&last.to_string(), Some(Instant::now())));
    books
}
