//! Whole clips through RTP and back.

use crate::tools::{encode, export, frame_hashes, shoot_with_ffmpeg};

/// Encodes, sends, exports, and compares every frame with the elementary stream's.
fn assert_comes_back(name: &str, size: &str, encoder: &[&str], sender: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(folder.path(), name, size, 75, encoder);
    let shot = shoot_with_ffmpeg(&clip.movie, sender);
    let out = folder.path().join("out.mp4");
    let report = export(&out, &shot);
    let want = frame_hashes(&clip.elementary);
    assert_eq!(want.len(), 75);
    assert_eq!(frame_hashes(&out), want);
    assert_eq!((report.frames, report.gaps, report.notes), (75, 0, vec![]));
}

#[test]
fn h264_without_b_frames_parameter_sets_in_the_sdp() {
    assert_comes_back(
        "plain",
        "320x240",
        &["-c:v", "libx264", "-g", "25", "-bf", "0"],
        &[],
    );
}

#[test]
fn h264_with_b_pyramid() {
    let encoder = [
        "-c:v",
        "libx264",
        "-g",
        "25",
        "-bf",
        "3",
        "-b_strategy",
        "0",
        "-x264-params",
        "b-pyramid=normal",
    ];
    assert_comes_back("b", "320x240", &encoder, &[]);
}

#[test]
fn h264_with_several_slices_and_in_band_parameter_sets() {
    let encoder = [
        "-c:v",
        "libx264",
        "-g",
        "25",
        "-bf",
        "2",
        "-x264-params",
        "slices=4:aud=1",
    ];
    assert_comes_back("slices", "640x480", &encoder, &["-bsf:v", "h264_mp4toannexb"]);
}

#[test]
fn h264_interlaced() {
    let encoder = [
        "-c:v",
        "libx264",
        "-g",
        "25",
        "-bf",
        "2",
        "-flags",
        "+ildct+ilme",
        "-x264-params",
        "tff=1",
    ];
    assert_comes_back("interlaced", "320x240", &encoder, &[]);
}

#[test]
fn h265_without_b_frames() {
    let encoder = [
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=25:bframes=0:log-level=none",
    ];
    assert_comes_back("plain", "320x240", &encoder, &[]);
}

#[test]
fn h265_with_b_frames_and_closed_gop() {
    let encoder = [
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=25:bframes=4:open-gop=0:log-level=none",
    ];
    assert_comes_back("b", "320x240", &encoder, &["-bsf:v", "hevc_mp4toannexb"]);
}

#[test]
fn h265_with_b_frames_and_open_gop() {
    let encoder = [
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=25:bframes=4:open-gop=1:slices=2:log-level=none",
    ];
    assert_comes_back("open", "320x240", &encoder, &[]);
}

#[test]
fn h264_of_odd_size_with_ten_bits_and_more_colour() {
    let encoder = ["-c:v", "libx264", "-g", "25", "-pix_fmt", "yuv422p10le"];
    assert_comes_back("ten", "322x242", &encoder, &[]);
}

#[test]
fn h265_of_odd_size_with_ten_bits_and_more_colour() {
    let encoder = [
        "-c:v",
        "libx265",
        "-pix_fmt",
        "yuv444p10le",
        "-x265-params",
        "keyint=25:log-level=none",
    ];
    assert_comes_back("ten", "322x242", &encoder, &[]);
}
