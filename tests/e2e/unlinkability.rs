//! The attacker with everything that is on the recorder's disk and no identity: all segments of several runs, the configuration with the
//! customers' public keys, the node's key. Asked: whose is this entry, which camera is this stream, and which entries and streams of
//! different segments belong together? What this test knows and the attacker does not are the identities: with them it holds each answer
//! against the truth.
//!
//! Not hidden, and said so in docs/THREATS.md: how many streams and customers a segment has, what kind of key each has and how many
//! recipients, how much each stream sends and when. Here all send alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use harborseal_tests::harness::cli::files_under;
use harborseal_tests::harness::memory::{Needle, Search};
use harborseal_tests::harness::secrets::{Tables, identity};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const CUSTOMERS: [&str; 4] = [
    "anna-of-the-mill",
    "bert-of-the-mill",
    "carla-of-the-mill",
    "dora-of-the-mill",
];
const RUNS: usize = 3;

/// Each customer has one camera; their names and descriptions differ in length as people's do.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"64MiB\"");
    for (at, customer) in CUSTOMERS.iter().enumerate() {
        lab.customer(customer);
        let lines = "a=tool:a camera that says much of itself\n".repeat(3 * at);
        let sdp = format!(
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={customer}\nt=0 0\nm=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n{lines}"
        );
        let id = format!("behind-the-mill-{}", "x".repeat(7 * at));
        lab.camera(Camera::new(&id, customer, 1 + at as u32).sdp(sdp));
    }
    lab
}

/// Records for some segments of each run, everybody sending alike.
fn record(lab: &Lab) {
    let mut streams: Vec<Stream> = (0..CUSTOMERS.len())
        .map(|at| Stream::new(1 + at as u32))
        .collect();
    for _ in 0..RUNS {
        let engine = lab.start();
        let mut sender = Sender::from("127.0.0.1", lab.address());
        let until = Instant::now() + Duration::from_secs(7);
        while Instant::now() < until {
            for stream in &mut streams {
                sender.send(&stream.packet());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        lab.settle_and_stop(engine);
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Every window of 32 bytes of what the attacker has beside the segments, and hashes of the whole: what a hint or an id could have been
/// made from without anybody's secret.
fn guesses(lab: &Lab) -> Vec<[u8; 32]> {
    let mut known = vec![std::fs::read(lab.config()).expect("the configuration")];
    known.extend(
        files_under(&lab.data())
            .into_iter()
            .filter(|file| file.extension().is_none_or(|extension| extension != "hseal"))
            .map(|file| std::fs::read(file).expect("root reads all")),
    );
    for customer in CUSTOMERS {
        let public = identity(&lab.identity(customer)).public().clone();
        known.push(public.kem_key_bytes().to_vec());
        known.push(public.signing_key().to_vec());
        known.push(public.to_text().into_bytes());
    }
    let mut guesses: Vec<[u8; 32]> = known.iter().map(|bytes| Sha256::digest(bytes).into()).collect();
    for bytes in &known {
        guesses.extend(
            bytes
                .array_windows::<32>()
                .step_by(if bytes.len() > 4096 { 16 } else { 1 }),
        );
    }
    guesses
}

#[test]
fn with_everything_on_disk_and_no_identity_nothing_of_past_segments_can_be_linked() {
    let lab = lab();
    record(&lab);
    let tables: Vec<Tables> = lab.segments().iter().map(|path| Tables::read(path)).collect();
    // Those made ready at the end and never used are deleted; a run's last one may be short of a stream.
    let full: Vec<&Tables> = tables
        .iter()
        .filter(|segment| segment.streams.len() == CUSTOMERS.len())
        .collect();
    assert!(full.len() >= 4 * RUNS, "{} segments with all cameras", full.len());

    nothing_repeats(&tables);
    everything_of_one_kind_has_one_shape(&full);
    places_tell_nothing(&lab, &full);
    no_hint_follows_from_what_is_on_disk(&lab, &full);
    no_name_or_key_stands_in_a_segment(&lab);
}

/// Hints, encapsulated keys, wrapped secrets, stream ids and commitments: each once in the world.
fn nothing_repeats(tables: &[Tables]) {
    let mut seen: BTreeMap<Vec<u8>, &str> = BTreeMap::new();
    let mut once = |what: &'static str, bytes: &[u8]| {
        let before = seen.insert(bytes.to_vec(), what);
        assert_eq!(before, None, "a second time, as {what}");
    };
    for segment in tables {
        once("segment id", &segment.id.0);
        for entry in &segment.entries {
            once("hint", &entry.hint);
            once("ct", &entry.ct);
            // Not only whole: no part of what X-Wing encapsulates comes back either.
            entry.enc.chunks(32).for_each(|part| once("part of enc", part));
        }
        for stream in &segment.streams {
            once("stream id", &stream.id.0);
            once("commitment", &stream.commitment);
        }
    }
}

/// What can be measured of an entry or a stream without opening it is the same for all of them.
fn everything_of_one_kind_has_one_shape(full: &[&Tables]) {
    let entries: BTreeSet<_> = full
        .iter()
        .flat_map(|segment| &segment.entries)
        .map(|entry| {
            (
                entry.kem,
                entry.scope,
                entry.i,
                entry.n,
                entry.erasable,
                entry.enc.len(),
                entry.ct.len(),
            )
        })
        .collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let streams: BTreeSet<_> = full
        .iter()
        .flat_map(|segment| &segment.streams)
        .map(|stream| stream.body_len)
        .collect();
    assert_eq!(
        streams.len(),
        1,
        "names and descriptions of different lengths show: {streams:?}"
    );
}

/// Which slot is whose, and who stands where among the entries and streams: shuffled anew each time. Over some twenty segments everybody
/// has been in several places; that somebody stays in at most two of four by chance happens once in a hundred thousand runs.
fn places_tell_nothing(lab: &Lab, full: &[&Tables]) {
    for customer in CUSTOMERS {
        let identity = identity(&lab.identity(customer));
        let mut slots = BTreeSet::new();
        let mut entries = BTreeSet::new();
        let mut streams = BTreeSet::new();
        for segment in full {
            let (slot, _) = segment.opened_by(&identity).expect("an entry for each customer");
            slots.insert(slot);
            entries.insert(segment.entries.iter().position(|entry| entry.slot == slot));
            streams.insert(segment.streams.iter().position(|stream| stream.slot == slot));
        }
        for (what, places) in [
            ("slots", slots.len()),
            ("entries", entries.len()),
            ("streams", streams.len()),
        ] {
            assert!(
                places >= 3,
                "always the same {what}: {places} places in {} segments",
                full.len()
            );
        }
    }
}

/// hint = HMAC(H, segment_id): H is no value that is on the disk, and neither is a hint that of another segment ratcheted on.
fn no_hint_follows_from_what_is_on_disk(lab: &Lab, full: &[&Tables]) {
    let guesses = guesses(lab);
    assert!(guesses.len() > 4000, "{} guesses", guesses.len());
    let hints: BTreeSet<[u8; 16]> = full
        .iter()
        .flat_map(|segment| &segment.entries)
        .map(|entry| entry.hint)
        .collect();
    let stream_ids: BTreeSet<[u8; 16]> = full
        .iter()
        .flat_map(|segment| &segment.streams)
        .map(|stream| stream.id.0)
        .collect();
    let check = |made: [u8; 32], what: &str| {
        let made: [u8; 16] = *made.first_chunk().expect("32 bytes hold 16");
        assert!(!hints.contains(&made), "a hint follows from {what}");
        assert!(!stream_ids.contains(&made), "a stream id follows from {what}");
    };
    for segment in full {
        for guess in &guesses {
            check(hmac(guess, &segment.id.0), "what is on the disk");
        }
        for other in &hints {
            check(hmac(other, &segment.id.0), "another hint");
        }
    }
    // The check is able to find something: with an identity's H, it is the hint.
    let identity = identity(&lab.identity(CUSTOMERS[0]));
    let (_, opened) = full[0].opened_by(&identity).expect("an entry");
    let made = hmac(opened.hint.as_bytes(), &full[0].id.0);
    assert!(hints.contains(made.first_chunk::<16>().expect("32 bytes hold 16")));
}

fn no_name_or_key_stands_in_a_segment(lab: &Lab) {
    let mut needles = Vec::new();
    for customer in CUSTOMERS {
        let public = identity(&lab.identity(customer)).public().clone();
        let text = public.to_text();
        needles.push(Needle::new(customer, customer.as_bytes()));
        needles.push(Needle::new(
            "hash of a public key",
            &Sha256::digest(public.kem_key_bytes())[..16],
        ));
        needles.push(Needle::new(
            "hash of a public key's text",
            &Sha256::digest(&text)[..16],
        ));
        needles.push(Needle::new("a signing key", &public.signing_key()[..16]));
        let parts = public.kem_key_bytes().chunks_exact(16);
        needles.extend(parts.map(|part| Needle::new("part of a public key", part)));
    }
    needles.push(Needle::new("a camera's id", b"behind-the-mill"));
    needles.push(Needle::new("a description", b"a camera that says much"));
    let search = Search::new(&needles);
    for segment in lab.segments() {
        assert_eq!(search.found_in_file(&segment), [] as [String; 0]);
    }
}
