//! Parameter sets: in the SDP only, in band only, changing on the way; and the packet forms they come in.

use crate::tools::{
    Recorded, Shot, encode, export, frame_hashes, probe, sdp, shoot_with_ffmpeg, shoot_with_gstreamer,
};

const START_NS: u64 = 1_790_000_000_000_000_000;

/// Whether a packet is, or aggregates or begins, an H.264 NAL unit of a type in `types`.
fn is_h264(packet: &Recorded, types: &[u8]) -> bool {
    types.contains(&(packet.bytes[12] & 0x1F))
}

#[test]
fn parameter_sets_only_in_the_sdp() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        50,
        &["-c:v", "libx264", "-g", "25"],
    );
    let shot = shoot_with_ffmpeg(&clip.movie, &[]);
    assert!(shot.sdp.contains("sprop-parameter-sets="));
    assert!(
        shot.packets.iter().all(|p| p.rtcp || !is_h264(p, &[7, 8, 24])),
        "no set is in band"
    );
    let out = folder.path().join("out.mp4");
    export(&out, &shot);
    assert_eq!(frame_hashes(&out), frame_hashes(&clip.elementary));
}

#[test]
fn parameter_sets_only_in_band_for_both_codecs() {
    let folder = tempfile::tempdir().unwrap();
    for (encoder, encoding, filter) in [
        (
            ["-c:v", "libx264", "-g", "25", "-bf", "2"].as_slice(),
            "H264",
            "h264_mp4toannexb",
        ),
        (
            &["-c:v", "libx265", "-x265-params", "keyint=25:log-level=none"],
            "H265",
            "hevc_mp4toannexb",
        ),
    ] {
        let clip = encode(folder.path(), encoding, "320x240", 50, encoder);
        let mut shot = shoot_with_ffmpeg(&clip.movie, &["-bsf:v", filter]);
        shot.sdp = sdp(encoding, "");
        let out = folder.path().join(format!("{encoding}.mp4"));
        export(&out, &shot);
        assert_eq!(frame_hashes(&out), frame_hashes(&clip.elementary), "{encoding}");
    }
}

/// `second` made to follow `first` as if one camera had sent both: same SSRC, numbers and times running on.
fn append(first: &mut Shot, second: Shot) {
    let last = first.packets.last().unwrap().clone();
    let start = second.packets[0].clone();
    let latest = first
        .packets
        .iter()
        .map(|p| p.rtp_time())
        .max_by_key(|t| t.wrapping_sub(last.rtp_time()) as i32);
    let (latest, ssrc) = (latest.unwrap(), first.stream().ssrc);
    for mut packet in second.packets {
        packet.set_ssrc(ssrc);
        packet.set_number(
            packet
                .number()
                .wrapping_sub(start.number())
                .wrapping_add(last.number() + 1),
        );
        packet.set_rtp_time(
            packet
                .rtp_time()
                .wrapping_sub(start.rtp_time())
                .wrapping_add(latest + 3_600),
        );
        packet.arrival_ns = packet.arrival_ns - start.arrival_ns + last.arrival_ns + 40_000_000;
        first.packets.push(packet);
    }
}

#[test]
fn a_change_of_resolution_mid_stream_keeps_every_frame() {
    let folder = tempfile::tempdir().unwrap();
    for (encoder, encoding, filter) in [
        (
            ["-c:v", "libx264", "-g", "25", "-bf", "2"].as_slice(),
            "H264",
            "h264_mp4toannexb",
        ),
        (
            &[
                "-c:v",
                "libx265",
                "-x265-params",
                "keyint=25:open-gop=0:log-level=none",
            ],
            "H265",
            "hevc_mp4toannexb",
        ),
    ] {
        let mut want = Vec::new();
        let mut whole: Option<Shot> = None;
        for (turn, size) in ["320x240", "640x480", "320x240"].into_iter().enumerate() {
            let clip = encode(folder.path(), &format!("{encoding}{turn}"), size, 30, encoder);
            want.extend(frame_hashes(&clip.elementary));
            let mut shot = shoot_with_ffmpeg(&clip.movie, &["-bsf:v", filter]).live(START_NS);
            shot.sdp = sdp(encoding, "");
            match &mut whole {
                None => whole = Some(shot),
                Some(whole) => append(whole, shot),
            }
        }
        let out = folder.path().join(format!("{encoding}.mp4"));
        let report = export(&out, &whole.unwrap());
        assert_eq!(frame_hashes(&out), want, "{encoding}");
        assert_eq!(report.notes, Vec::<String>::new());
        // The third part uses the first one's sample entry again.
        assert_eq!(
            probe(&out, "stream=codec_name"),
            if encoding == "H264" { "h264" } else { "hevc" }
        );
    }
}

#[test]
fn gstreamer_h264_aggregated_and_fragmented() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        75,
        &[
            "-c:v",
            "libx264",
            "-g",
            "25",
            "-bf",
            "2",
            "-x264-params",
            "slices=4:aud=1",
        ],
    );
    for mode in ["none", "zero-latency", "max-stap"] {
        let payloader =
            format!("h264parse config-interval=-1 ! rtph264pay pt=96 mtu=700 aggregate-mode={mode}");
        let shot = shoot_with_gstreamer(&clip.movie, "H264", &payloader);
        assert_eq!(
            shot.packets.iter().any(|p| is_h264(p, &[24])),
            mode != "none",
            "STAP-A with {mode}"
        );
        assert!(shot.packets.iter().any(|p| is_h264(p, &[28])), "FU-A with {mode}");
        let out = folder.path().join(format!("{mode}.mp4"));
        let report = export(&out, &shot);
        assert_eq!(frame_hashes(&out), frame_hashes(&clip.elementary), "{mode}");
        assert_eq!((report.frames, report.notes), (75, vec![]), "{mode}");
    }
}

#[test]
fn gstreamer_h265_aggregated_and_fragmented() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = [
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=25:slices=3:open-gop=0:log-level=none",
    ];
    let clip = encode(folder.path(), "clip", "640x480", 75, &encoder);
    for mode in ["none", "zero-latency", "max"] {
        let payloader =
            format!("h265parse config-interval=-1 ! rtph265pay pt=96 mtu=700 aggregate-mode={mode}");
        let shot = shoot_with_gstreamer(&clip.movie, "H265", &payloader);
        let has = |kind: u8| shot.packets.iter().any(|p| p.bytes[12] >> 1 & 0x3F == kind);
        assert_eq!(
            (has(48), has(49)),
            (mode != "none", true),
            "AP and FU with {mode}"
        );
        let out = folder.path().join(format!("{mode}.mp4"));
        let report = export(&out, &shot);
        assert_eq!(frame_hashes(&out), frame_hashes(&clip.elementary), "{mode}");
        assert_eq!((report.frames, report.notes), (75, vec![]), "{mode}");
    }
}
