//! Real streams, impaired: order, duplicates, wraps, markers, loss.

use std::collections::HashSet;
use std::path::Path;

use harborseal::media::Range;

use crate::tools::{Shot, encode, export, export_to, frame_hashes, shoot_with_ffmpeg, unit_hashes};

const START_NS: u64 = 1_790_000_000_000_000_000;
const X264: [&str; 8] = [
    "-c:v",
    "libx264",
    "-g",
    "25",
    "-bf",
    "2",
    "-x264-params",
    "slices=3",
];

/// A shot of 75 frames with B-frames and three slices each, and the hashes of its frames.
fn shot(folder: &Path) -> (Shot, Vec<String>) {
    let clip = encode(folder, "clip", "320x240", 75, &X264);
    let shot = shoot_with_ffmpeg(&clip.movie, &["-bsf:v", "h264_mp4toannexb"]).live(START_NS);
    (shot, frame_hashes(&clip.elementary))
}

#[test]
fn packets_in_any_order_and_twice_give_every_frame_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shot, want) = shot(folder.path());
    let arrivals: Vec<u64> = shot.packets.iter().map(|p| p.arrival_ns).collect();
    for (turn, group) in shot.packets.chunks_mut(23).enumerate() {
        let middle = (turn * 7) % group.len();
        group.rotate_left(middle);
        group[middle / 2..].reverse();
    }
    for (packet, arrival_ns) in shot.packets.iter_mut().zip(arrivals) {
        packet.arrival_ns = arrival_ns;
    }
    let twice = shot.packets.iter().step_by(3).cloned().map(|mut p| {
        p.arrival_ns += 40_000_000;
        p
    });
    let twice: Vec<_> = twice.collect();
    shot.packets.extend(twice);
    shot.packets.sort_by_key(|p| p.arrival_ns);
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    assert_eq!(frame_hashes(&out), want);
    assert_eq!((report.frames, report.gaps), (75, 0));
}

#[test]
fn sequence_numbers_and_timestamps_wrap() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shot, want) = shot(folder.path());
    let middle = shot.packets[shot.packets.len() / 2].clone();
    for packet in &mut shot.packets {
        packet.set_number(packet.number().wrapping_sub(middle.number()));
        packet.set_rtp_time(packet.rtp_time().wrapping_sub(middle.rtp_time()));
    }
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    assert_eq!(frame_hashes(&out), want);
    assert_eq!((report.frames, report.gaps, report.notes), (75, 0, vec![]));
}

#[test]
fn markers_may_be_missing_or_on_every_packet() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shot, want) = shot(folder.path());
    for marker in [false, true] {
        shot.packets.iter_mut().for_each(|p| p.set_marker(marker));
        let out = folder.path().join(format!("{marker}.mp4"));
        assert_eq!(export(&out, &shot).frames, 75, "markers all {marker}");
        assert_eq!(frame_hashes(&out), want, "markers all {marker}");
    }
}

/// Exports `shot` without the packets whose index is in `lost`, and expects exactly the frames that lost nothing.
fn assert_only_whole_frames(folder: &Path, shot: &Shot, lost: &HashSet<usize>) {
    let whole = folder.join("whole.mp4");
    export(&whole, shot);
    let units = unit_hashes(&whole);
    let frames = shot.frames();
    assert_eq!(units.len(), frames.len(), "one access unit per timestamp");
    let untouched = |indices: &Vec<usize>| indices.iter().all(|i| !lost.contains(i));
    let want: Vec<&String> = units
        .iter()
        .zip(&frames)
        .filter(|(_, (_, indices))| untouched(indices))
        .map(|(unit, _)| unit)
        .collect();
    let kept: Vec<_> = (0..)
        .zip(&shot.packets)
        .filter(|(i, _)| !lost.contains(i))
        .map(|(_, p)| p.clone())
        .collect();
    let out = folder.join("lossy.mp4");
    let report = export_to(&out, &[(shot.stream(), &kept)], Range::default()).unwrap();
    assert_eq!(unit_hashes(&out).iter().collect::<Vec<_>>(), want);
    assert_eq!(report.frames, want.len() as u64);
}

#[test]
fn a_frame_that_lost_any_packet_is_left_out_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    // No information ahead of the pictures: then each packet is a piece of a picture, and its loss is the picture's.
    let clip = encode(folder.path(), "clip", "640x480", 75, &X264);
    let shot = shoot_with_ffmpeg(&clip.movie, &["-bsf:v", "filter_units=remove_types=6"]).live(START_NS);
    let frames = shot.frames();
    // First, middle and last packets of key frames, P and B; two frames in a row; a whole frame.
    let mut lost: HashSet<usize> = HashSet::new();
    lost.insert(frames[10].1[0]);
    lost.insert(frames[20].1[frames[20].1.len() / 2]);
    lost.insert(*frames[30].1.last().unwrap());
    lost.extend([*frames[40].1.last().unwrap(), frames[41].1[0]]);
    lost.extend(&frames[45].1);
    lost.insert(frames[50].1[3]);
    assert_only_whole_frames(folder.path(), &shot, &lost);
}

#[test]
fn under_30_percent_loss_no_frame_is_invented() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(folder.path(), "clip", "320x240", 75, &X264);
    let shot = shoot_with_ffmpeg(&clip.movie, &["-bsf:v", "filter_units=remove_types=6"]).live(START_NS);
    let mut state = 12345u64;
    let mut lost = HashSet::new();
    let first_frame = shot.frames()[0].1.len();
    for index in first_frame..shot.packets.len() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if (state >> 33) % 10 < 3 {
            lost.insert(index);
        }
    }
    assert_only_whole_frames(folder.path(), &shot, &lost);
}

#[test]
fn bytes_changed_at_random_never_stop_an_export() {
    let folder = tempfile::tempdir().unwrap();
    for hevc in [false, true] {
        let encoder = if hevc {
            ["-c:v", "libx265", "-x265-params", "log-level=none"].as_slice()
        } else {
            &X264
        };
        let clip = encode(folder.path(), "clip", "320x240", 25, encoder);
        let shot = shoot_with_ffmpeg(&clip.movie, &[]).live(START_NS);
        for seed in 1..40u64 {
            let mut state = seed;
            let mut damaged = Shot {
                sdp: shot.sdp.clone(),
                packets: shot.packets.clone(),
            };
            for packet in &mut damaged.packets {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                let at = (state >> 33) as usize % packet.bytes.len();
                // SSRC and version stay: admission has seen to those.
                if at > 0 && !(8..12).contains(&at) {
                    packet.bytes[at] ^= (state >> 20) as u8;
                }
                if state.is_multiple_of(7) {
                    packet.bytes.truncate(12 + at);
                }
            }
            let out = folder.path().join("damaged.mp4");
            // Nothing may be left to show; a panic fails the test.
            let _ = export_to(&out, &[(shot.stream(), &damaged.packets)], Range::default());
        }
    }
}
