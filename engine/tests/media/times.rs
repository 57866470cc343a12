//! Wall-clock time: sender reports, else arrival.

use harborseal::media::{Range, Stream};

use crate::tools::{Recorded, Shot, encode, export, export_to, probe, shoot_with_ffmpeg, shown_times};

/// 2026-09-21T14:13:20Z.
const START_NS: u64 = 1_790_000_000_000_000_000;
const S: u64 = 1_000_000_000;

fn clip_of_one_second(folder: &std::path::Path) -> Shot {
    let clip = encode(folder, "clip", "320x240", 25, &["-c:v", "libx264", "-bf", "2"]);
    shoot_with_ffmpeg(&clip.movie, &["-bsf:v", "h264_mp4toannexb"]).live(START_NS)
}

/// A sender report: the clock of `ssrc` stood at `rtp_time` at `unix_ns`.
fn report(ssrc: u32, rtp_time: u32, unix_ns: u64, arrival_ns: u64) -> Recorded {
    let mut bytes = vec![0x80, 200, 0, 6];
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(((unix_ns / S + 2_208_988_800) as u32).to_be_bytes());
    bytes.extend((((u128::from(unix_ns % S)) << 32) / u128::from(S)).to_be_bytes()[12..].iter());
    bytes.extend(rtp_time.to_be_bytes());
    bytes.extend([0; 8]);
    Recorded {
        arrival_ns,
        rtcp: true,
        bytes,
    }
}

fn creation_time(path: &std::path::Path) -> String {
    probe(path, "format_tags=creation_time")
}

#[test]
fn without_reports_the_film_begins_when_it_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let shot = clip_of_one_second(folder.path());
    let out = folder.path().join("out.mp4");
    export(&out, &shot);
    assert_eq!(creation_time(&out), "2026-09-21T14:13:20.000000Z");
}

#[test]
fn a_sender_report_tells_when_the_film_begins_unless_the_cameras_clock_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let shot = clip_of_one_second(folder.path());
    let (ssrc, rtp_time) = (shot.stream().ssrc, shot.packets[0].rtp_time());
    for (ahead_s, want) in [
        (90, "2026-09-21T14:14:50.000000Z"),
        (7_200, "2026-09-21T14:13:20.000000Z"),
    ] {
        for arrival_ns in [START_NS - 1, START_NS + S / 2] {
            let half_later = report(
                ssrc,
                rtp_time.wrapping_add(45_000),
                START_NS + ahead_s * S + S / 2,
                arrival_ns,
            );
            let mut shot = Shot {
                sdp: shot.sdp.clone(),
                packets: shot.packets.clone(),
            };
            shot.packets.push(half_later);
            shot.packets.sort_by_key(|p| p.arrival_ns);
            let out = folder.path().join("out.mp4");
            export(&out, &shot);
            assert_eq!(creation_time(&out), want, "report {ahead_s} s ahead");
        }
    }
}

#[test]
fn two_senders_are_placed_by_their_reports() {
    let folder = tempfile::tempdir().unwrap();
    let first = clip_of_one_second(folder.path());
    let mut second = Shot {
        sdp: first.sdp.clone(),
        packets: first.packets.clone(),
    };
    for packet in &mut second.packets {
        packet.set_ssrc(7);
        packet.set_rtp_time(packet.rtp_time().wrapping_add(1_000_000_000));
        // It arrives 5 s later, but took 2 s longer on its way.
        packet.arrival_ns += 5 * S;
    }
    let mut one = first.packets.clone();
    one.push(report(
        first.stream().ssrc,
        first.packets[0].rtp_time(),
        START_NS,
        START_NS + S / 10,
    ));
    let mut two = second.packets.clone();
    two.push(report(
        7,
        second.packets[0].rtp_time(),
        START_NS + 3 * S,
        START_NS + 5 * S + S / 10,
    ));
    let streams: [(Stream, &[Recorded]); 2] = [(first.stream(), &one), (second.stream(), &two)];
    let out = folder.path().join("out.mp4");
    export_to(&out, &streams, Range::default()).unwrap();
    let times = shown_times(&out);
    assert_eq!(times.len(), 50);
    assert!(
        (times[25] - 3.0).abs() < 0.001,
        "the second begins at {} s",
        times[25]
    );
}
