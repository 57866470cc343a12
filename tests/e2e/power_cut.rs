//! Power cuts on a real kernel: Debian's, in a guest whose disk logs every write and flush. The disk is built again as it
//! was after every flush the guest ever did, and between flushes with a random part of what was under way; each image is mounted,
//! recovered and verified, and must hold all that the engine had called durable, byte by byte.
//!
//! `HARBORSEAL_POWER_CUT_SECONDS` makes the engine's lives longer (two seconds each otherwise); `tests/power-cuts` sets it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use harborseal_tests::harness::engine::count;
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::rtp::Random;
use harborseal_tests::harness::tools::{text, tool};
use harborseal_tests::harness::{Camera, Lab, Stream, blocks, harborseal, root};
use harborseal_tests::power_cut::guest::{FileSystem, Kernel, Life, Plan, boot};
use harborseal_tests::power_cut::replay::Replay;
use harborseal_tests::power_cut::writes::Writes;
use serde_json::Value;

const STREAMS: u32 = 4;
/// Every so many flushes the part behind the flush is torn, too.
const TORN_EVERY: usize = 2;
/// Every so many images the engine itself starts on before `recover` does.
const RESTART_EVERY: usize = 8;

#[test]
fn nothing_durable_is_missing_after_a_power_cut_at_any_flush_of_ext4() {
    cut_everywhere(
        "power_cut::nothing_durable_is_missing_after_a_power_cut_at_any_flush_of_ext4",
        FileSystem::Ext4,
    );
}

#[test]
fn nothing_durable_is_missing_after_a_power_cut_at_any_flush_of_xfs() {
    cut_everywhere(
        "power_cut::nothing_durable_is_missing_after_a_power_cut_at_any_flush_of_xfs",
        FileSystem::Xfs,
    );
}

fn cut_everywhere(name: &str, file_system: FileSystem) {
    if !root::have_root(name, "mounting a file system takes root") {
        return;
    }
    let kernel = match Kernel::find() {
        Ok(kernel) => kernel,
        Err(why) => return root::not_run(name, &why),
    };
    let lab = lab();
    let (made, disk, log) = (lab.path("made.img"), lab.path("disk.img"), lab.path("log.img"));
    file_system.make(&made);
    tool("cp", &["--sparse=always", text(&made), text(&disk)]);
    // Killed and started again: recovery of the first life writes while the second records, and is cut like everything else.
    let millis = seconds() * 1000;
    let lives = [true, false].map(|killed| Life { millis, killed });
    let plan = Plan {
        file_system,
        config: &lab.config(),
        port: lab.port,
        streams: STREAMS,
        lives: &lives,
        inside: Path::new(env!("CARGO_BIN_EXE_power-cut-inside")),
    };
    boot(&kernel, &plan, &disk, &log);
    let cuts = Cuts {
        lab: &lab,
        last: uncut(&lab, &disk),
    };
    let writes = Writes::open(&log).expect("QEMU has written its log");
    cuts.misses_what_came_later(&writes, &made);
    cuts.try_all(&writes, &made);
}

fn seconds() -> u64 {
    std::env::var("HARBORSEAL_POWER_CUT_SECONDS").map_or(2, |seconds| {
        seconds.parse().expect("HARBORSEAL_POWER_CUT_SECONDS is a number")
    })
}

/// Short segments and commits five times a second: every kind of change to the disk, at no more flushes than can be tried.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"16MiB\"");
    lab.section("commit", "interval = \"200ms\"");
    lab.section("memory", "limit = \"128MiB\"\nallow_unlocked = true");
    lab.data_dir(Path::new("/disk/data"));
    lab.customer("alice");
    for ssrc in 1..=STREAMS {
        lab.camera(Camera::new(&camera(ssrc), "alice", ssrc));
    }
    lab.write_config();
    lab.data_dir(Path::new("mount/data"));
    std::fs::create_dir(lab.path("mount")).expect("the laboratory's folder can be written");
    lab
}

fn camera(ssrc: u32) -> String {
    format!("camera-{ssrc}")
}

/// A mounted image; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(lab: &Lab, image: &Path, options: &str) -> Mounted {
        let folder = lab.path("mount");
        tool("mount", &["-o", options, text(image), text(&folder)]);
        Mounted(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(&self.0).status();
        assert!(
            std::thread::panicking() || unmounted.is_ok_and(|status| status.success()),
            "what looked at the image has let go of it"
        );
    }
}

/// Segments of a disk that was never cut, by id.
type Segments = BTreeMap<String, Vec<u8>>;

fn segments(lab: &Lab) -> Segments {
    let files = lab.segments().into_iter();
    files
        .map(|path| {
            let name = path.file_stem().and_then(|name| name.to_str()).expect("UTF-8");
            (
                name.to_owned(),
                std::fs::read(&path).expect("a segment can be read"),
            )
        })
        .collect()
}

/// The disk as the guest left it: verified, and compared with what was sent.
fn uncut(lab: &Lab, disk: &Path) -> Segments {
    let image = lab.path("uncut.img");
    tool("cp", &["--sparse=always", text(disk), text(&image)]);
    let mounted = Mounted::new(lab, &image, "loop");
    lab.verify("alice");
    for ssrc in 1..=STREAMS {
        let back = rtp_only(lab.read_back("alice", &camera(ssrc)));
        assert!(!back.is_empty(), "stream {ssrc}: nothing came back");
        // The kill may have cost packets, but none can be another, or in another place.
        let mut stream = Stream::new(ssrc);
        for packet in &back {
            let found = (0..100_000).any(|_| stream.packet() == *packet);
            assert!(
                found,
                "stream {ssrc}: a packet that was not sent, or not in this place"
            );
        }
    }
    let segments = segments(lab);
    drop(mounted);
    segments
}

struct Cuts<'a> {
    lab: &'a Lab,
    /// Every segment as it was at the end.
    last: Segments,
}

impl Cuts<'_> {
    fn try_all(&self, writes: &Writes, made: &Path) {
        let begun = Instant::now();
        let (state, image) = (self.lab.path("state.img"), self.lab.path("cut.img"));
        let mut replay = Replay::new(writes, made, &state).expect("the log can be read");
        let mut random = Random::new(writes.requests.len() as u64);
        let (mut flushes, mut torn, mut claims) = (0, 0, 0);
        while replay.to_next_flush().expect("the log can be read") {
            flushes += 1;
            let at = format!("cut after flush {flushes}, request {}", replay.position());
            replay.cut(&image);
            claims += self.check(&image, &replay.said, flushes % RESTART_EVERY == 0, &at);
            if flushes % TORN_EVERY == 0 {
                torn += 1;
                let at = format!("torn behind flush {flushes}, request {}", replay.position());
                let said = replay.torn_cut(&image, &mut random).expect("the log can be read");
                claims += self.check(&image, &said, torn % RESTART_EVERY == 0, &at);
            }
        }
        let requests = writes.requests.len();
        println!(
            "{requests} requests, {flushes} flushes: {flushes} images cut behind a flush, {torn} torn, {claims} claims held, {:.0} s",
            begun.elapsed().as_secs_f64()
        );
        assert!(flushes > 20 && claims > 20, "the guest recorded next to nothing");
    }

    /// Mounts the image, recovers it, and holds it against all that was claimed. Returns how many claims that were.
    #[track_caller]
    fn check(&self, image: &Path, said: &[Value], restart: bool, at: &str) -> usize {
        let mounted = Mounted::new(self.lab, image, "loop");
        let _says_where = SaysWhere(at);
        let claims = claimed(said);
        // The engine itself starts on what the cut has left, however early that came.
        if restart || !said.iter().any(|event| event["event"] == "ready") {
            self.lab.start().stop();
        }
        if !self.lab.segments().is_empty() {
            harborseal(["recover", text(&self.lab.data())]).ok();
        }
        if !claims.is_empty() {
            let report = self.lab.verify("alice");
            assert_eq!(count(&report, "missing"), 0, "{at}: {report}");
        }
        self.held(&claims).unwrap_or_else(|lost| panic!("{at}: {lost}"));
        drop(mounted);
        claims.len()
    }
}

impl Cuts<'_> {
    /// Whether all that was claimed of the mounted disk is there: what is lost, otherwise.
    fn held(&self, claims: &Claims) -> Result<(), String> {
        let found = segments(self.lab);
        for (segment, (offset, block_no)) in claims {
            let bytes = found.get(segment).ok_or(format!(
                "segment {segment} is gone, which was durable up to {offset}"
            ))?;
            let end = *offset as usize;
            if bytes.get(..end).is_none() || bytes.get(..end) != self.last[segment].get(..end) {
                return Err(format!("segment {segment} is not what it was below {offset}"));
            }
            let last = blocks::walk(bytes, *offset).map_err(|error| format!("{segment}: {error}"))?;
            if last != Some(*block_no) {
                return Err(format!(
                    "{segment}: {last:?} is the last block below {offset}, not {block_no}"
                ));
            }
        }
        Ok(())
    }

    /// The checker's own check: what the engine said later is not yet true of an earlier disk, and must be missed there.
    fn misses_what_came_later(&self, writes: &Writes, made: &Path) {
        let (state, image) = (self.lab.path("state.img"), self.lab.path("cut.img"));
        let mut replay = Replay::new(writes, made, &state).expect("the log can be read");
        let flush = |replay: &mut Replay<'_>| replay.to_next_flush().expect("the log can be read");
        while claimed(&replay.said).is_empty() && flush(&mut replay) {}
        replay.cut(&image);
        let true_by_now = claimed(&replay.said);
        while claimed(&replay.said) == true_by_now && flush(&mut replay) {}
        let true_later = claimed(&replay.said);
        let _mounted = Mounted::new(self.lab, &image, "loop");
        self.held(&true_by_now).expect("what was said before the cut");
        self.held(&true_later).expect_err("what was said after the cut");
    }
}

/// Says where it happened when a check fails further down.
struct SaysWhere<'a>(&'a str);

impl Drop for SaysWhere<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// The highest watermark of each segment, and the last block below it.
type Claims = BTreeMap<String, (u64, u64)>;

fn claimed(said: &[Value]) -> Claims {
    let mut claims = Claims::new();
    for event in said.iter().filter(|event| event["event"] == "durable") {
        let segment = event["segment"].as_str().expect("a segment's id").to_owned();
        claims.insert(segment, (count(event, "offset"), count(event, "block_no")));
    }
    claims
}
