//! The session description of a camera (RFC 8866; RFC 6184 §8.2.1, RFC 7798 §7.1, RFC 3551), as a recorder needs it to make its
//! file playable.

use crate::camera::cname;
use crate::clip::Clip;
use crate::mark::{MARK_ID, MARK_URI};
use crate::plan::Media;
use crate::rtp::{CLOCK_RATE, PAYLOAD_TYPE};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::SocketAddr;

/// One stream of a camera.
pub struct Track<'a> {
    pub media: Media,
    pub payload_type: u8,
    pub clock_rate: u32,
    /// `None`: it may change.
    pub ssrc: Option<u32>,
    /// What its pictures are, if it has any.
    pub picture: Option<Picture>,
    /// H.264 sequence and picture parameter sets, if it has any.
    pub parameter_sets: Option<(&'a [u8], &'a [u8])>,
}

/// Frame rate and size of a video track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Picture {
    pub fps: f64,
    pub width: u32,
    pub height: u32,
}

/// The text for one camera of a fleet that sends `clip` with this SSRC to `target`.
pub fn sdp(clip: &Clip, index: u32, ssrc: u32, target: SocketAddr) -> String {
    let track = Track {
        media: Media::H264,
        payload_type: PAYLOAD_TYPE,
        clock_rate: CLOCK_RATE,
        ssrc: Some(ssrc),
        picture: None,
        parameter_sets: Some(clip.parameter_sets()),
    };
    describe(&cname(index), &[track], target)
}

/// The text for a camera called `name` that sends `tracks` to `target`.
pub fn describe(name: &str, tracks: &[Track<'_>], target: SocketAddr) -> String {
    let family = if target.is_ipv4() { "IP4" } else { "IP6" };
    let ip = target.ip();
    let session = tracks.iter().find_map(|track| track.ssrc).unwrap_or(0);
    let mut lines = vec![
        "v=0".to_owned(),
        format!("o=- {session} 1 IN {family} {ip}"),
        format!("s={name}"),
        format!("c=IN {family} {ip}"),
        "t=0 0".to_owned(),
    ];
    for track in tracks {
        track.lines(name, target.port(), &mut lines);
    }
    lines.push(String::new());
    lines.join("\r\n")
}

impl Track<'_> {
    fn lines(&self, name: &str, port: u16, lines: &mut Vec<String>) {
        let (kind, encoding) = match self.media {
            Media::H264 => ("video", "H264"),
            Media::H265 => ("video", "H265"),
            Media::Pcmu => ("audio", "PCMU"),
        };
        let format = self.payload_type;
        lines.push(format!("m={kind} {port} RTP/AVP {format}"));
        lines.push(format!("a=rtpmap:{format} {encoding}/{}", self.clock_rate));
        match self.media {
            Media::H264 => lines.push(self.h264_format()),
            Media::H265 => {}
            Media::Pcmu => lines.push("a=ptime:20".to_owned()),
        }
        if let Some(picture) = self.picture {
            let Picture { fps, width, height } = picture;
            lines.push(format!("a=framerate:{fps}")); // RFC 8866 §6.13
            lines.push(format!("a=imageattr:{format} send [x={width},y={height}]")); // RFC 6236
        }
        lines.push(format!("a=extmap:{MARK_ID} {MARK_URI}"));
        if let Some(ssrc) = self.ssrc {
            lines.push(format!("a=ssrc:{ssrc} cname:{name}"));
        }
        lines.push("a=sendonly".to_owned());
    }

    fn h264_format(&self) -> String {
        let format = self.payload_type;
        let Some((sps, pps)) = self.parameter_sets else {
            return format!("a=fmtp:{format} packetization-mode=1");
        };
        // profile_idc, constraint flags, level_idc: the three bytes behind the NAL header (H.264 §7.3.2.1.1).
        let profile: String = sps
            .iter()
            .skip(1)
            .take(3)
            .map(|byte| format!("{byte:02X}"))
            .collect();
        let sets = format!("{},{}", BASE64_STANDARD.encode(sps), BASE64_STANDARD.encode(pps));
        format!("a=fmtp:{format} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_the_codec_its_parameter_sets_and_the_ssrc() {
        let text = sdp(&Clip::builtin(), 4, 99, "[::1]:5004".parse().expect("an address"));
        assert!(text.starts_with("v=0\r\n") && text.ends_with("a=sendonly\r\n"));
        for part in [
            "c=IN IP6 ::1\r\n",
            "m=video 5004 RTP/AVP 96\r\n",
            "H264/90000",
            "profile-level-id=4D",
            "ssrc:99 ",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn each_track_has_its_own_lines() {
        let track = |media, payload_type, clock_rate, ssrc| Track {
            media,
            payload_type,
            clock_rate,
            ssrc,
            picture: (media != Media::Pcmu).then_some(Picture {
                fps: 12.5,
                width: 1920,
                height: 1080,
            }),
            parameter_sets: None,
        };
        let tracks = [
            track(Media::H265, 96, 90_000, None),
            track(Media::Pcmu, 0, 8_000, Some(7)),
        ];
        let text = describe(
            "yard-00001",
            &tracks,
            "192.0.2.1:5004".parse().expect("an address"),
        );
        for part in [
            "s=yard-00001\r\n",
            "m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\na=framerate:12.5\r\n",
            "a=imageattr:96 send [x=1920,y=1080]\r\n",
            "m=audio 5004 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n",
            "a=ssrc:7 cname:yard-00001\r\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.matches("a=ssrc").count(), 1);
    }
}
