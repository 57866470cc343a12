//! The demo's folder: where it is, what is written into it, and how it goes away again.
//!
//! ```text
//! DIR/  alice.identity bob.identity   engine.toml   data/   sent.log engine.log   camera-00000.mp4
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use harborseal_loadgen::{Clip, FleetSpec};
use harborseal_segment::identity::Identity;
use harborseal_segment::random::os_random;

use super::super::error::{CliError, Plain};
use super::super::output::people;
use crate::config::units::format_bytes;
use crate::statement::Enrolment;
use crate::uring::sys;

pub const NAMES: [&str; 2] = ["alice", "bob"];

const MIB: u64 = 1 << 20;
/// Segments are preallocated, the current one and the next: with an eighth of the data each they neither fill a small disk nor
/// rotate all the time.
const SEGMENT_BYTES: (u64, u64) = (256 * MIB, 1024 * MIB);
/// A camera's STREAM block in each segment: its description makes it one page, rarely two.
const STREAM_BLOCK_BYTES: u64 = 8192;
/// Sent logs, footers, indexes, the film, and what the padding of chunks costs at low rates: 8 % and something.
const OVERHEAD_PERCENT: u64 = 8;
const OVERHEAD_BYTES: u64 = 64 * MIB;

/// The folder of one demo.
pub struct Lab {
    dir: PathBuf,
    /// The folder itself is ours to remove; else only what we put in.
    made: bool,
}

/// A customer of the demo.
pub struct Customer {
    pub name: &'static str,
    pub identity: Identity,
}

impl Lab {
    /// Makes the folder (or takes an empty one), on a file system with room for what `spec` will send.
    pub fn create(dir: Option<&Path>, spec: &FleetSpec) -> Result<Lab, CliError> {
        let lab = match dir {
            Some(dir) => Lab::at(dir)?,
            None => Lab::temporary(needed_bytes(spec))?,
        };
        lab.check_space(spec).inspect_err(|_| {
            lab.remove();
        })?;
        Ok(lab)
    }

    fn at(dir: &Path) -> Result<Lab, CliError> {
        let remedy = "name a new folder, or an empty one";
        let made = match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => false,
            Ok(false) => {
                return Err(CliError::usage(format_args!("{} is not empty", dir.display())).remedy(remedy));
            }
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                let create = DirBuilder::new().mode(0o700).recursive(true).create(dir);
                create.map_err(|why| CliError::file("make", dir, &why))?;
                true
            }
            Err(why) if why.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(CliError::usage(format_args!("{} is no folder", dir.display())).remedy(remedy));
            }
            Err(why) => return Err(CliError::file("read", dir, &why)),
        };
        let dir = dir
            .canonicalize()
            .map_err(|why| CliError::file("find", dir, &why))?;
        Ok(Lab { dir, made })
    }

    /// A new folder in the first of the usual places that is on a disk and has room; else in the first that works.
    fn temporary(needed_bytes: u64) -> Result<Lab, CliError> {
        let places = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
        let good = |place: &&PathBuf| {
            let room = sys::free_space(place).is_ok_and(|(free, _)| free >= needed_bytes);
            room && !in_memory(place)
        };
        let place = places.iter().find(good).unwrap_or(&places[0]);
        let dir = tempfile::Builder::new()
            .prefix("harborseal-demo-")
            .tempdir_in(place)
            .map_err(|why| CliError::file("make a folder in", place, &why))?;
        Ok(Lab {
            dir: dir.keep(),
            made: true,
        })
    }

    fn check_space(&self, spec: &FleetSpec) -> Result<(), CliError> {
        let needed = needed_bytes(spec);
        let (free, _) =
            sys::free_space(&self.dir).map_err(|why| CliError::file("ask for space on", &self.dir, &why))?;
        if in_memory(&self.dir) {
            people(format_args!(
                "note: {} is in memory, not on a disk: what is written there says nothing about disks",
                self.dir.display()
            ));
        }
        if free < needed {
            return Err(CliError::io(format_args!(
                "{} has {} free, and this demo needs {}",
                self.dir.display(),
                rounded(free),
                rounded(needed)
            ))
            .remedy("take a folder with more room (--dir DIR), or fewer --cameras or --seconds"));
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("engine.toml")
    }

    pub fn sent_log(&self) -> PathBuf {
        self.dir.join("sent.log")
    }

    pub fn engine_log(&self) -> PathBuf {
        self.dir.join("engine.log")
    }

    pub fn identity(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.identity"))
    }

    /// Two identities, as two customers would make them with `harborseal keygen` and `harborseal enrol` on machines of their own.
    pub fn make_customers(&self) -> Result<[Customer; 2], CliError> {
        let write = |path: &Path, text: &str| {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|why| CliError::file("write", path, &why))
        };
        let make = |name| -> Result<Customer, CliError> {
            let identity = Identity::generate(&mut os_random());
            write(&self.identity(name), &identity.to_file_text())?;
            let made_s = sys::realtime_ns() / 1_000_000_000;
            let enrolment = Enrolment::first(identity.public(), &[], &identity, made_s);
            write(&self.dir.join(format!("{name}.enrolment")), &enrolment)?;
            Ok(Customer { name, identity })
        };
        let [alice, bob] = NAMES.map(make);
        Ok([alice?, bob?])
    }

    /// The engine's configuration, the cameras' descriptions in it: cameras are alice's and bob's by turns.
    pub fn write_config(
        &self,
        spec: &FleetSpec,
        customers: &[Customer; 2],
        cpu: usize,
    ) -> Result<(), CliError> {
        let mut text = format!(
            "# Written by `harborseal demo`. config/engine.toml explains every key.\n\
             data_dir = \"data\"\n\n\
             [listen]\nrtp = {}\nrtcp = \"same\"\n\n\
             [shards]\ncpus = [{cpu}]\n\n\
             [memory]\nallow_unlocked = true      # so that it runs with any limit; the demo says what it did without\n\n\
             [segment]\nmax_bytes = \"{}MiB\"\n",
            toml_list(&spec.targets),
            segment_bytes(spec) / MIB,
        );
        for customer in customers {
            let name = customer.name;
            text += &format!("\n[[customer]]\nname = \"{name}\"\nenrolment = \"{name}.enrolment\"\n");
        }
        let clip = Clip::builtin();
        for camera in 0..spec.cameras {
            let (id, owner, ssrc) = (camera_id(camera), NAMES[owner(camera)], spec.ssrc(camera));
            // Inline: to make thousands of small files can take seconds.
            let sdp = spec.sdp(&clip, camera).replace("\r\n", "\\r\\n");
            text += &format!(
                "\n[[camera]]\nid = \"{id}\"\ncustomer = \"{owner}\"\nsource = \"127.0.0.1\"\nssrc = {ssrc}\nsdp = \"{sdp}\"\n"
            );
        }
        let path = self.config();
        fs::write(&path, text).map_err(|why| CliError::file("write", &path, &why))
    }

    /// Whether there is anything yet that is worth a look.
    pub fn sending_began(&self) -> bool {
        self.sent_log().exists()
    }

    /// Removes what the demo made, and says so.
    pub fn remove(&self) -> String {
        let result = match self.made {
            true => fs::remove_dir_all(&self.dir),
            false => empty(&self.dir),
        };
        match result {
            Ok(()) => "its files are removed".to_owned(),
            Err(why) => format!("cannot remove {}: {}", self.dir.display(), Plain(&why)),
        }
    }
}

pub fn camera_id(camera: u32) -> String {
    format!("camera-{camera:05}")
}

/// The index of a camera's customer.
pub fn owner(camera: u32) -> usize {
    camera as usize % NAMES.len()
}

/// Where the engine will listen: free UDP ports on loopback, as many as it takes for their socket buffers to hold a burst
/// together. They could be taken again before the engine binds them; then the engine says so.
pub fn free_ports() -> Result<Vec<SocketAddr>, CliError> {
    let why = |why| CliError::io(format_args!("no UDP port on loopback: {}", Plain(&why)));
    let sockets = (0..ports_for(socket_buffer_bytes())).map(|_| UdpSocket::bind("127.0.0.1:0"));
    let sockets = sockets.collect::<Result<Vec<_>, _>>().map_err(why)?;
    let addresses = sockets.iter().map(UdpSocket::local_addr);
    addresses.collect::<Result<_, _>>().map_err(why)
}

/// What a socket's buffer can be here: root may go beyond `net.core.rmem_max`, and the kernel doubles what is set (socket(7)).
fn socket_buffer_bytes() -> u64 {
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    match limit {
        Some(bytes) if !rustix::process::geteuid().is_root() => bytes.saturating_mul(2),
        _ => u64::MAX,
    }
}

/// 6 MiB are 50 ms of 1 Gb/s, and the longest time that a busy machine keeps a thread waiting is some tens of that.
fn ports_for(buffer_bytes: u64) -> u64 {
    (6 * MIB).div_ceil(buffer_bytes.max(1)).clamp(1, PORTS_MAX)
}

/// Sixteen make Debian's default of 208 KiB into 6.5 MiB.
const PORTS_MAX: u64 = 16;

fn payload_bytes(spec: &FleetSpec) -> u64 {
    (f64::from(spec.cameras) * spec.mbps * spec.seconds * 1e6 / 8.0) as u64
}

fn segment_bytes(spec: &FleetSpec) -> u64 {
    let (least, most) = SEGMENT_BYTES;
    let eighth = (payload_bytes(spec) / 8).clamp(least, most);
    // The engine refuses segments that could not hold their descriptions and as much again.
    let streams = 2 * STREAM_BLOCK_BYTES * u64::from(spec.cameras) + 16 * MIB;
    eighth.max(streams).next_multiple_of(MIB)
}

/// Chunks of slow cameras are mostly padding: two a second, at least a page each.
fn needed_bytes(spec: &FleetSpec) -> u64 {
    let payload = payload_bytes(spec);
    let padding = (f64::from(spec.cameras) * (spec.seconds + 2.0) * 2.0 * 4096.0) as u64;
    let segments = payload / segment_bytes(spec) + 2;
    let streams = segments * STREAM_BLOCK_BYTES * u64::from(spec.cameras);
    let ahead = 2 * segment_bytes(spec);
    payload + payload * OVERHEAD_PERCENT / 100 + padding + streams + ahead + OVERHEAD_BYTES
}

fn toml_list(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn rounded(bytes: u64) -> String {
    match bytes {
        0..MIB => format_bytes(bytes),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn in_memory(path: &Path) -> bool {
    const TMPFS_MAGIC: i128 = 0x0102_1994; // statfs(2)
    rustix::fs::statfs(path).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS_MAGIC)
}

fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::super::error::ExitStatus;

    fn spec(cameras: u32, seconds: f64) -> FleetSpec {
        FleetSpec::new(
            cameras,
            1.0,
            seconds,
            vec!["127.0.0.1:5004".parse().expect("an address")],
        )
    }

    #[test]
    fn a_folder_that_is_not_empty_or_none_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("mine");
        fs::write(&file, "precious").expect("write");
        for taken in [dir.path(), &file] {
            let error = Lab::create(Some(taken), &spec(1, 1.0)).err().expect("refused");
            assert_eq!(error.status(), ExitStatus::Usage, "{error}");
        }
        assert_eq!(fs::read(&file).expect("still there"), b"precious");
    }

    #[test]
    fn no_room_is_said_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let new = dir.path().join("new");
        let error = Lab::create(Some(&new), &spec(1_000_000, 1e6))
            .err()
            .expect("refused");
        assert_eq!(error.status(), ExitStatus::Io);
        assert!(error.to_string().contains("--dir"), "{error}");
        assert!(!new.exists());
    }

    #[test]
    fn small_socket_buffers_are_made_up_for_by_more_ports() {
        assert_eq!(ports_for(u64::MAX), 1);
        assert_eq!(ports_for(2 * 4_194_304), 1);
        assert_eq!(ports_for(2 * 212_992), 15);
        assert_eq!(ports_for(0), 16);
    }

    #[test]
    fn the_configuration_is_one_that_the_engine_takes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lab = Lab::create(Some(dir.path()), &spec(5, 1.0)).expect("an empty folder");
        let customers = lab.make_customers().expect("a writable folder");
        let cpu = crate::config::usable_cpus()[0];
        lab.write_config(&spec(5, 1.0), &customers, cpu)
            .expect("a writable folder");
        let config = crate::config::Config::load(&lab.config()).expect("a valid configuration");
        assert_eq!(
            (config.registry.cameras.len(), config.registry.customers.len()),
            (5, 2)
        );
        assert_eq!(lab.remove(), "its files are removed");
        assert!(dir.path().exists() && fs::read_dir(dir.path()).expect("empty").next().is_none());
    }
}
