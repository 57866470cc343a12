//! Where an export begins and ends: ranges, open GOPs, recovery points, new senders.

use std::path::Path;

use harborseal::media::{Error, Range, Stream};

use crate::tools::{
    Clip, Shot, encode, export, export_to, ffmpeg, frame_hashes, frame_hashes_despite_words, sdp,
    shoot_with_ffmpeg, shown_times, text,
};

const START_NS: u64 = 1_790_000_000_000_000_000;
const FRAME_NS: u64 = 40_000_000;

fn live(clip: &Clip, filter: &str) -> Shot {
    shoot_with_ffmpeg(&clip.movie, &["-bsf:v", filter]).live(START_NS)
}

#[test]
fn a_range_begins_at_the_key_frame_before_it_and_shows_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        100,
        &["-c:v", "libx264", "-g", "25", "-bf", "0"],
    );
    let shot = live(&clip, "h264_mp4toannexb");
    let all = frame_hashes(&clip.elementary);
    for (first, last) in [(0, 100), (10, 60), (25, 50), (26, 27), (99, 100), (49, 76)] {
        // A frame has arrived with its last packet, some microseconds after it was due.
        let range = Range {
            from_ns: Some(START_NS + first * FRAME_NS),
            to_ns: Some(START_NS + last * FRAME_NS),
        };
        let out = folder.path().join("out.mp4");
        let report = export_to(&out, &[(shot.stream(), &shot.packets)], range).unwrap();
        assert_eq!(
            frame_hashes(&out),
            all[first as usize..last as usize],
            "frames {first} to {last}"
        );
        assert_eq!(
            (report.frames, report.notes),
            (last - first, vec![]),
            "frames {first} to {last}"
        );
        let times = shown_times(&out);
        assert!(
            times[0].abs() < 1e-6,
            "presentation begins at 0, not at {}",
            times[0]
        );
    }
}

#[test]
fn a_range_with_b_frames_shows_what_arrived_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = ["-c:v", "libx264", "-g", "25", "-bf", "2", "-b_strategy", "0"];
    let clip = encode(folder.path(), "clip", "320x240", 100, &encoder);
    let shot = live(&clip, "h264_mp4toannexb");
    let all = frame_hashes(&clip.elementary);
    let range = Range {
        from_ns: Some(START_NS + 30 * FRAME_NS),
        to_ns: None,
    };
    let out = folder.path().join("out.mp4");
    export_to(&out, &[(shot.stream(), &shot.packets)], range).unwrap();
    let shown = frame_hashes(&out);
    // What is shown is a tail of the whole, from about the thirtieth frame on.
    assert_eq!(shown, all[all.len() - shown.len()..]);
    assert!((67..=73).contains(&shown.len()), "{} frames", shown.len());
    assert!(shown_times(&out)[0].abs() < 1e-6);
}

#[test]
fn frames_before_the_first_key_frame_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        75,
        &["-c:v", "libx264", "-g", "25", "-bf", "0"],
    );
    let mut shot = live(&clip, "h264_mp4toannexb");
    let tenth = shot.frames()[10].1[0];
    shot.packets.drain(..tenth);
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    assert_eq!(frame_hashes(&out), frame_hashes(&clip.elementary)[25..]);
    assert!(
        report.notes[0].starts_with("15 frames left out"),
        "{:?}",
        report.notes
    );
}

#[test]
fn leading_pictures_that_cannot_be_decoded_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = [
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=25:min-keyint=25:scenecut=0:bframes=4:open-gop=1:log-level=none",
    ];
    let clip = encode(folder.path(), "clip", "320x240", 75, &encoder);
    let mut shot = live(&clip, "hevc_mp4toannexb");
    shot.sdp = sdp("H265", "");
    let is_cra = |index: usize| {
        shot.packets[index].bytes[12] >> 1 & 0x3F == 21
            || (shot.packets[index].bytes[12] >> 1 & 0x3F == 49 && shot.packets[index].bytes[14] & 0x3F == 21)
    };
    let frames = shot.frames();
    let cra = frames
        .iter()
        .position(|(_, packets)| packets.iter().any(|&i| is_cra(i)))
        .expect("x265 writes CRA");
    let first = frames[cra].1[0];
    let shown_at = frames[cra].0;
    shot.packets.drain(..first);
    let leading = frames[cra + 1..]
        .iter()
        .filter(|(time, _)| (time.wrapping_sub(shown_at) as i32) < 0)
        .count();
    assert!(leading > 0, "the clip has leading pictures");
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    let all = frame_hashes(&clip.elementary);
    let shown = frame_hashes(&out);
    assert_eq!(shown.len(), frames.len() - cra - leading);
    assert_eq!(shown, all[all.len() - shown.len()..]);
    assert!(
        report.notes[0].contains("refer to frames before"),
        "{:?}",
        report.notes
    );
}

#[test]
fn a_camera_without_key_frames_begins_at_a_recovery_point() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = [
        "-c:v",
        "libx264",
        "-g",
        "25",
        "-bf",
        "2",
        "-x264-params",
        "open-gop=1:min-keyint=25:scenecut=0",
    ];
    let clip = encode(folder.path(), "clip", "320x240", 100, &encoder);
    let mut shot = live(&clip, "h264_mp4toannexb");
    // x264 begins with an IDR; without its packets there is none.
    let tenth = shot.frames()[10].1[0];
    shot.packets.drain(..tenth);
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    assert!(
        report.notes.iter().any(|n| n.contains("recovery point")),
        "{:?}",
        report.notes
    );
    let all = frame_hashes(&clip.elementary);
    // The stream tells the decoder to forget frames that it never had.
    let shown = frame_hashes_despite_words(&out);
    assert_eq!(shown, all[all.len() - shown.len()..]);
    assert!((70..=76).contains(&shown.len()), "{} frames", shown.len());
}

#[test]
fn gradual_refresh_is_shown_from_where_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = [
        "-c:v",
        "libx264",
        "-g",
        "25",
        "-bf",
        "0",
        "-x264-params",
        "intra-refresh=1:scenecut=0",
    ];
    let clip = encode(folder.path(), "clip", "320x240", 150, &encoder);
    let mut shot = live(&clip, "h264_mp4toannexb");
    let tenth = shot.frames()[10].1[0];
    shot.packets.drain(..tenth);
    let out = folder.path().join("out.mp4");
    export(&out, &shot);
    let all = frame_hashes(&clip.elementary);
    let shown = frame_hashes(&out);
    assert_eq!(
        shown,
        all[all.len() - shown.len()..],
        "every frame shown is whole"
    );
    assert!((85..=125).contains(&shown.len()), "{} frames", shown.len());
}

/// `shot` as another sender, later.
fn later(shot: &Shot, ssrc: u32, after_ns: u64, number: u16, rtp_time: u32) -> Shot {
    let first = shot.packets[0].clone();
    let packets = shot.packets.iter().cloned().map(|mut packet| {
        packet.set_ssrc(ssrc);
        packet.set_number(packet.number().wrapping_sub(first.number()).wrapping_add(number));
        packet.set_rtp_time(
            packet
                .rtp_time()
                .wrapping_sub(first.rtp_time())
                .wrapping_add(rtp_time),
        );
        packet.arrival_ns += after_ns;
        packet
    });
    Shot {
        sdp: shot.sdp.clone(),
        packets: packets.collect(),
    }
}

fn assert_gap(out: &Path, frames: usize, seconds: f64) {
    let times = shown_times(out);
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert_eq!(times.len(), frames);
    assert!(
        (longest - seconds).abs() < 0.05,
        "{}: the gap lasts {longest} s, not {seconds} s: {times:?}",
        out.display()
    );
    assert!(
        times.windows(2).all(|pair| pair[1] > pair[0]),
        "time runs forward: {times:?}"
    );
}

#[test]
fn a_camera_that_begins_anew_is_one_film_with_the_gap_as_long_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        50,
        &["-c:v", "libx264", "-g", "25", "-bf", "2"],
    );
    let first = live(&clip, "h264_mp4toannexb");
    let hashes = frame_hashes(&clip.elementary);
    let twice: Vec<String> = hashes.iter().chain(&hashes).cloned().collect();
    let old = first.stream().ssrc;
    // Another SSRC; the same SSRC from elsewhere; the same SSRC, numbers and times exactly as before.
    let (number, rtp_time) = (first.packets[0].number(), first.packets[0].rtp_time());
    for (turn, (ssrc, number, rtp_time)) in [
        (7, 100, 4_000_000_000),
        (old, number.wrapping_add(30_000), 12_345),
        (old, number, rtp_time),
    ]
    .into_iter()
    .enumerate()
    {
        let second = later(&first, ssrc, 10_000_000_000, number, rtp_time);
        let out = folder.path().join(format!("{turn}.mp4"));
        let streams: Vec<(Stream, &[_])> = if ssrc == old {
            vec![
                (first.stream(), &first.packets),
                (first.stream(), &second.packets),
            ]
        } else {
            vec![
                (first.stream(), &first.packets),
                (second.stream(), &second.packets),
            ]
        };
        let report = export_to(&out, &streams, Range::default()).unwrap();
        assert_eq!(frame_hashes(&out), twice, "turn {turn}");
        assert_eq!(report.frames, 100);
        // 50 frames are 2 s, so 8 s pass between the end of the first and the beginning of the second.
        assert_gap(&out, 100, 8.04);
    }
}

#[test]
fn an_outage_of_the_recorder_is_not_bridged() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        150,
        &["-c:v", "libx264", "-g", "25", "-bf", "0"],
    );
    let mut shot = live(&clip, "h264_mp4toannexb");
    let frames = shot.frames();
    let (from, to) = (frames[50].1[0], frames[100].1[0]);
    shot.packets.drain(from..to);
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    let all = frame_hashes(&clip.elementary);
    let want: Vec<String> = all[..50].iter().chain(&all[100..]).cloned().collect();
    assert_eq!(frame_hashes(&out), want);
    assert_eq!(report.gaps, 1);
    assert_gap(&out, 100, 51.0 * 0.04);
}

#[test]
fn what_cannot_be_exported_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        25,
        &["-c:v", "libx264", "-bf", "0"],
    );
    let shot = live(&clip, "h264_mp4toannexb");
    let try_export = |name: &str, sdp: String, range| {
        let stream = Stream {
            sdp: sdp.into(),
            ..shot.stream()
        };
        export_to(&folder.path().join(name), &[(stream, &shot.packets)], range).unwrap_err()
    };
    let all = Range::default();
    assert!(matches!(
        try_export("out.avi", sdp("H264", ""), all),
        Error::UnknownExtension { .. }
    ));
    assert!(matches!(
        try_export("out.mp4", sdp("VP8", ""), all),
        Error::NoVideo(_)
    ));
    assert!(matches!(
        try_export("out.mp4", String::new(), all),
        Error::NoVideo(_)
    ));
    assert!(matches!(
        try_export("none/out.mp4", sdp("H264", ""), all),
        Error::Io { .. }
    ));
    for name in ["out.mp4", "out.pcapng", "out.rtpdump"] {
        let later = Range {
            from_ns: Some(START_NS * 2),
            to_ns: None,
        };
        assert!(
            matches!(try_export(name, sdp("H264", ""), later), Error::NothingInRange(_)),
            "{name}"
        );
        let before = Range {
            from_ns: None,
            to_ns: Some(START_NS),
        };
        assert!(
            matches!(
                try_export(name, sdp("H264", ""), before),
                Error::NothingInRange(_)
            ),
            "{name}"
        );
    }
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        names.iter().all(|n| n.to_string_lossy().starts_with("clip")),
        "{names:?}"
    );
    // The clip itself is sound, so that the above proves something.
    ffmpeg(&["-i", text(&clip.movie), "-f", "null", "-"]);
}
