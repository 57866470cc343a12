//! A laboratory: one folder with identities, a configuration and an engine's data, and the ports it listens on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::cli::{self, Outcome, harborseal};
use super::engine::{BOUND, Engine};
use super::net::{self, Sender};
use super::packets::{self, Packet};
use super::rtp::Stream;

/// A camera of the configuration.
#[derive(Clone, Debug)]
pub struct Camera {
    pub id: String,
    pub customer: String,
    pub source: String,
    /// Empty: the key is left out.
    pub ssrcs: Vec<u32>,
    /// A file's name or an inline description; `None`: the key is left out.
    pub sdp: Option<String>,
}

impl Camera {
    /// A camera of `customer` that sends `ssrc` from 127.0.0.1.
    pub fn new(id: &str, customer: &str, ssrc: u32) -> Camera {
        Camera {
            id: id.to_owned(),
            customer: customer.to_owned(),
            source: "127.0.0.1".to_owned(),
            ssrcs: vec![ssrc],
            sdp: None,
        }
    }

    pub fn source(mut self, source: impl ToString) -> Camera {
        self.source = source.to_string();
        self
    }

    pub fn ssrcs(mut self, ssrcs: &[u32]) -> Camera {
        self.ssrcs = ssrcs.to_vec();
        self
    }

    pub fn sdp(mut self, sdp: impl ToString) -> Camera {
        self.sdp = Some(sdp.to_string());
        self
    }
}

/// What the configuration says, and where everything lies.
pub struct Lab {
    // Last use of the folder is its removal.
    folder: tempfile::TempDir,
    /// The port of the first listen address; the one after it is free for RTCP.
    pub port: u16,
    listen: Vec<String>,
    cpus: Vec<usize>,
    /// Whole sections by name, in the order of their names.
    sections: BTreeMap<String, String>,
    /// Each with the line that says what it is sealed to.
    customers: Vec<(String, String)>,
    /// Lines at the top of the file.
    top: Vec<String>,
    /// More lines of a customer's section.
    customer_lines: BTreeMap<String, String>,
    cameras: Vec<Camera>,
    data_dir: PathBuf,
}

impl Lab {
    /// One shard on one CPU, one listen address on 127.0.0.1, small limits.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Lab {
        Lab::with(cli::fresh_folder())
    }

    /// The same in a folder of `parent`, where others than who built this may come.
    pub fn in_folder(parent: &Path) -> Lab {
        Lab::with(tempfile::tempdir_in(parent).expect("a folder can be made"))
    }

    fn with(folder: tempfile::TempDir) -> Lab {
        // Tests that run beside each other take turns on the CPUs.
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let cpus = allowed_cpus();
        let cpu = cpus[TURN.fetch_add(1, Ordering::Relaxed) % cpus.len()];
        let port = net::free_port_pair();
        let mut lab = Lab {
            folder,
            port,
            listen: vec![format!("127.0.0.1:{port}")],
            cpus: vec![cpu],
            sections: BTreeMap::new(),
            customers: Vec::new(),
            top: Vec::new(),
            customer_lines: BTreeMap::new(),
            cameras: Vec::new(),
            data_dir: PathBuf::from("data"),
        };
        lab.section("memory", "limit = \"192MiB\"\nallow_unlocked = true");
        lab.section("segment", "max_age = \"60s\"\nmax_bytes = \"256MiB\"");
        lab
    }

    /// As many shards as given, each on a CPU of its own as far as there are.
    pub fn shards(&mut self, count: usize) {
        let cpus = allowed_cpus();
        assert!(cpus.len() >= count, "this test needs {count} CPUs");
        self.cpus = cpus[..count].to_vec();
    }

    /// Sets a section of the configuration, in place of what it had.
    pub fn section(&mut self, name: &str, text: &str) {
        self.sections.insert(name.to_owned(), text.to_owned());
    }

    /// Listens on these addresses instead.
    pub fn listen(&mut self, addresses: &[String]) {
        self.listen = addresses.to_vec();
    }

    /// Puts the data folder elsewhere.
    pub fn data_dir(&mut self, folder: &Path) {
        self.data_dir = folder.to_owned();
    }

    /// Makes an identity and an enrolment of it, and registers that.
    #[track_caller]
    pub fn customer(&mut self, name: &str) {
        self.customer_with(name, &[]);
    }

    /// The same with more arguments for `keygen`; a `--passphrase-file FILE` among them is for `enrol`, too.
    #[track_caller]
    pub fn customer_with(&mut self, name: &str, more: &[&str]) {
        self.identity_made_with(name, more);
        let passphrase = more.iter().position(|it| *it == "--passphrase-file");
        let opening = passphrase.map_or(&[][..], |at| &more[at..at + 2]);
        self.enrol(name, opening, name);
        self.customer_enrolled(name);
    }

    /// Makes `OUT.enrolment`, signed by an identity.
    #[track_caller]
    pub fn enrol(&self, identity: &str, more: &[&str], out: &str) {
        let (identity, out) = (self.identity(identity), self.path(&format!("{out}.enrolment")));
        let arguments: [&std::ffi::OsStr; 5] = [
            "enrol".as_ref(),
            "--identity".as_ref(),
            identity.as_ref(),
            "-o".as_ref(),
            out.as_ref(),
        ];
        harborseal(arguments.into_iter().chain(more.iter().map(std::ffi::OsStr::new))).ok();
    }

    /// Registers a customer by a line of one's own, in place of the one of that name.
    pub fn customer_by(&mut self, name: &str, line: &str) {
        self.customers.retain(|(other, _)| other != name);
        self.customers.push((name.to_owned(), line.to_owned()));
    }

    /// Puts a line at the top of the configuration.
    pub fn top(&mut self, line: &str) {
        self.top.push(line.to_owned());
    }

    /// Registers a customer by its enrolment, `NAME.enrolment`, which is made already.
    pub fn customer_enrolled(&mut self, name: &str) {
        self.customer_by(name, &format!("enrolment = \"{name}.enrolment\""));
    }

    /// Makes the footage of a customer erasable.
    pub fn erasable(&mut self, name: &str) {
        self.customer_lines
            .insert(name.to_owned(), "erasable = true\n".to_owned());
    }

    /// Makes an identity that the engine never hears of; returns its public key.
    #[track_caller]
    pub fn identity_made(&self, name: &str) -> String {
        self.identity_made_with(name, &[])
    }

    #[track_caller]
    fn identity_made_with(&self, name: &str, more: &[&str]) -> String {
        let identity = self.identity(name);
        let arguments = ["keygen".as_ref(), "-o".as_ref(), identity.as_os_str()];
        let made = harborseal(arguments.into_iter().chain(more.iter().map(std::ffi::OsStr::new))).ok();
        made.stdout
            .lines()
            .last()
            .expect("keygen prints the public key last")
            .to_owned()
    }

    /// The path of an identity's file.
    pub fn identity(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.identity"))
    }

    /// Registers a camera.
    pub fn camera(&mut self, camera: Camera) {
        self.cameras.push(camera);
    }

    /// Takes a camera out of the configuration.
    pub fn remove_camera(&mut self, id: &str) {
        self.cameras.retain(|camera| camera.id != id);
    }

    /// Where packets go.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A path in the laboratory's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The engine's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join(&self.data_dir)
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.path("engine.toml")
    }

    /// The configuration as it stands.
    pub fn config_text(&self) -> String {
        let mut text = String::new();
        let data_dir = self.data_dir.display();
        let _ = writeln!(
            text,
            "data_dir = \"{data_dir}\"\n{}[listen]\nrtp = {:?}",
            self.top
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
            self.listen
        );
        let _ = writeln!(text, "[shards]\ncpus = {:?}", self.cpus);
        for (name, section) in &self.sections {
            let _ = writeln!(text, "[{name}]\n{section}");
        }
        for (name, line) in &self.customers {
            let _ = writeln!(text, "[[customer]]\nname = \"{name}\"\n{line}");
            text.push_str(self.customer_lines.get(name).map_or("", String::as_str));
        }
        for camera in &self.cameras {
            let Camera {
                id,
                customer,
                source,
                ssrcs,
                sdp,
            } = camera;
            let _ = writeln!(
                text,
                "[[camera]]\nid = \"{id}\"\ncustomer = \"{customer}\"\nsource = \"{source}\""
            );
            match ssrcs.as_slice() {
                [] => {}
                [one] => drop(writeln!(text, "ssrc = {one}")),
                several => drop(writeln!(text, "ssrc = {several:?}")),
            }
            if let Some(sdp) = sdp {
                let _ = writeln!(text, "sdp = {}", toml_string(sdp));
            }
        }
        text
    }

    /// Writes the configuration.
    pub fn write_config(&self) {
        std::fs::write(self.config(), self.config_text()).expect("the folder can be written");
    }

    /// Writes the configuration and starts an engine on it.
    #[track_caller]
    pub fn start(&self) -> Engine {
        self.write_config();
        Engine::start(&self.config())
    }

    /// Waits until everything sent to the two ports has been taken, then stops the engine and returns its `final`
    /// event. What was sent before is then either stored or counted.
    #[track_caller]
    pub fn settle_and_stop(&self, engine: Engine) -> serde_json::Value {
        net::wait_until_taken(self.port);
        net::wait_until_taken(self.port + 1);
        engine.stop()
    }

    /// Sends until the engine's figures satisfy `enough`: 8 MB/s, where the sender does not wait for the engine, so that a small disk
    /// fills within seconds, whatever the machine.
    #[track_caller]
    pub fn send_until(
        &self,
        engine: &Engine,
        sender: &mut Sender,
        stream: &mut Stream,
        what: &str,
        enough: impl Fn(&serde_json::Value) -> bool,
    ) {
        let until = Instant::now() + BOUND;
        let seen = engine.events().len();
        while !engine.events()[seen..]
            .iter()
            .any(|event| event["event"] == "progress" && enough(event))
        {
            assert!(Instant::now() < until, "no {what}: {:#?}", engine.events().last());
            sender.send_all(&stream.packets(40));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every segment under the data folder.
    pub fn segments(&self) -> Vec<PathBuf> {
        let files = cli::files_under(&self.data());
        files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "hseal"))
            .collect()
    }

    /// Every packet stored of a camera, in the order of arrival, opened with its customer's identity.
    #[track_caller]
    pub fn read_back(&self, identity: &str, camera: &str) -> Vec<Packet> {
        let out = self.path(&format!("{camera}.{}.rtpdump", fresh_number()));
        self.export(identity, camera, &out, &[]).ok();
        let packets = packets::read_rtpdump(&out);
        std::fs::remove_file(&out).expect("just written");
        packets
    }

    /// `harborseal export` of a camera to `out`.
    pub fn export(&self, identity: &str, camera: &str, out: &Path, more: &[&str]) -> Outcome {
        let identity = self.identity(identity);
        let mut arguments: Vec<&std::ffi::OsStr> =
            vec!["export".as_ref(), "--identity".as_ref(), identity.as_ref()];
        arguments.extend::<[&std::ffi::OsStr; 4]>([
            "--camera".as_ref(),
            camera.as_ref(),
            "-o".as_ref(),
            out.as_ref(),
        ]);
        arguments.extend(more.iter().map(std::ffi::OsStr::new));
        let data = self.data();
        arguments.push(data.as_ref());
        harborseal(arguments)
    }

    /// `harborseal verify --json` over the data folder, opening every chunk of `identity` too; must find no damage.
    #[track_caller]
    pub fn verify(&self, identity: &str) -> serde_json::Value {
        let (identity, data) = (self.identity(identity), self.data());
        let arguments: [&std::ffi::OsStr; 5] = [
            "verify".as_ref(),
            "--json".as_ref(),
            "--identity".as_ref(),
            identity.as_ref(),
            data.as_ref(),
        ];
        harborseal(arguments).ok().json()
    }
}

/// The CPUs this process may run on: a container may have fewer than the machine.
pub fn allowed_cpus() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.expect("the kernel lists the allowed CPUs").trim();
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().expect("a CPU's number");
        cpus.extend(number(first)..=number(last));
    }
    cpus
}

fn fresh_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn toml_string(text: &str) -> String {
    if text.contains('\n') {
        format!("'''\n{text}'''")
    } else {
        format!("\"{text}\"")
    }
}
