//! The attacker with everything: root on the recorder while it records, who reads its memory, makes a core of it, and looks through its
//! folders, what it prints and what it measures. Looked for: the secrets of segments closed and open (recovered here with the customer's
//! identity), the node's key, and the plaintext of packets that are sealed.

use std::time::{Duration, Instant};

use harborseal_tests::harness::cli::{files_under, fresh_folder};
use harborseal_tests::harness::memory::{Needle, Search, core_of};
use harborseal_tests::harness::root::have_root;
use harborseal_tests::harness::secrets::{Tables, identity};
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, net, rtp};

const CUSTOMER: &str = "alice-of-the-water-tower";
const CAMERA: &str = "camera-behind-the-water-tower";
const SSRC: u32 = 0x1EA4_0001;

/// In what was sent long ago, in what is sent now. Both once in every payload.
const OLD: &[u8] = b"<<what alice filmed a while ago: 51b0c9d2>>";
const NEW: &[u8] = b"<<what alice films at this time: e7730a4f>>";

/// docs/THREATS.md: how long a packet's plaintext may be found in memory after it came, with the default deadline.
const STATED_AGE: Duration = Duration::from_secs(4);

fn lab(backend: &str) -> Lab {
    let mut lab = Lab::new();
    lab.section("memory", "limit = \"64MiB\"\nallow_unlocked = true");
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"64MiB\"");
    lab.section("seal", &format!("backend = \"{backend}\""));
    lab.section("control", &format!("listen = \"127.0.0.1:{}\"", lab.port));
    lab.customer(CUSTOMER);
    lab.camera(Camera::new(CAMERA, CUSTOMER, SSRC));
    lab
}

fn send_for(time: Duration, lab: &Lab, stream: &mut Stream, payload: &[u8]) {
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let until = Instant::now() + time;
    while Instant::now() < until {
        sender.send(&rtp::packet(
            stream.ssrc,
            stream.seq,
            stream.rtp_time,
            false,
            &payload.repeat(20),
        ));
        stream.packet();
        std::thread::sleep(Duration::from_millis(4));
    }
    net::wait_until_taken(lab.port);
}

/// Everything secret of every segment there is now, and the node's key.
fn secrets(lab: &Lab) -> Vec<Needle> {
    let identity = identity(&lab.identity(CUSTOMER));
    let of_segment = |path: &std::path::PathBuf| Tables::read(path).secrets_of(&identity);
    let mut needles: Vec<Needle> = lab.segments().iter().flat_map(of_segment).collect();
    assert!(
        needles.len() >= 5 * 4,
        "several segments, each with S, H, K_st and K_enc: {}",
        needles.len()
    );
    let text = std::fs::read_to_string(lab.data().join("keys/node.key")).expect("root reads it");
    let seed: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    needles.push(Needle::new("the node's key", &seed));
    needles.push(Needle::new("the node's key, as text", &text.as_bytes()[..64]));
    needles
}

#[track_caller]
fn assert_memory_is_clean(engine: &Engine, needles: &[Needle]) {
    assert_readable_memory_is_clean(engine, needles);
    assert_core_is_clean(engine, needles);
}

#[track_caller]
fn assert_readable_memory_is_clean(engine: &Engine, needles: &[Needle]) {
    let (found, _) = Search::new(&control()).found_in_process(engine.pid());
    assert!(!found.is_empty(), "the scan finds nothing at all");

    let search = Search::new(needles);
    let (found, read_bytes) = search.found_in_process(engine.pid());
    assert!(
        read_bytes > 10 << 20,
        "only {read_bytes} bytes of memory were read"
    );
    assert_eq!(found, [] as [String; 0], "in /proc/PID/mem");
}

/// What the configuration says is in memory for as long as it is in force: a scan can find what is there.
fn control() -> [Needle; 1] {
    [Needle::new("the camera's id", CAMERA.as_bytes())]
}

#[track_caller]
fn assert_core_is_clean(engine: &Engine, needles: &[Needle]) {
    let folder = fresh_folder();
    let core = core_of(engine.pid(), folder.path());
    assert!(
        !Search::new(&control()).found_in_file(&core).is_empty(),
        "a core with nothing in it"
    );
    assert_eq!(
        Search::new(needles).found_in_file(&core),
        [] as [String; 0],
        "in a core"
    );
}

fn look_into_everything(backend: &str) {
    let lab = lab(backend);
    let engine = lab.start();
    let mut stream = Stream::new(SSRC);
    send_for(Duration::from_secs(3), &lab, &mut stream, OLD);
    send_for(STATED_AGE, &lab, &mut stream, NEW);
    let mut needles = secrets(&lab);
    needles.push(Needle::new("old plaintext", &OLD[..24]));
    assert_memory_is_clean(&engine, &needles);
    std::thread::sleep(STATED_AGE);
    needles.push(Needle::new("plaintext, sealed by now", &NEW[..24]));
    assert_memory_is_clean(&engine, &needles);

    let metrics = net::http_get(lab.port, "/metrics").1;
    let mut said = engine.lines();
    said.push(metrics);
    lab.settle_and_stop(engine);

    needles.extend([CAMERA, CUSTOMER].map(|name| Needle::new(name, name.as_bytes())));
    let search = Search::new(&needles);
    assert_eq!(search.found_in(said.join("\n").as_bytes()), [], "in what it says");
    for file in files_under(&lab.data()) {
        let its_own = file.ends_with("keys/node.key");
        let found = search.found_in_file(&file);
        assert!(its_own || found.is_empty(), "{found:?}");
    }
}

/// The same of memory alone, and only once.
fn look_into_memory(backend: &str) {
    let lab = lab(backend);
    let engine = lab.start();
    let mut stream = Stream::new(SSRC);
    send_for(Duration::from_secs(6), &lab, &mut stream, OLD);
    assert_readable_memory_is_clean(&engine, &secrets(&lab));
    lab.settle_and_stop(engine);
}

#[test]
fn neither_memory_nor_core_nor_folders_hold_secrets_or_old_plaintext() {
    let test = "neither_memory_nor_core_nor_folders_hold_secrets_or_old_plaintext";
    if have_root(test, "reads another process's memory") {
        look_into_everything("auto");
    }
}

#[test]
fn the_other_sealing_libraries_leave_nothing_in_memory_either() {
    let test = "the_other_sealing_libraries_leave_nothing_in_memory_either";
    if have_root(test, "reads another process's memory") {
        look_into_memory("ring");
        look_into_memory("aes-gcm");
    }
}
