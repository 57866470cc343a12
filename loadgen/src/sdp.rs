//! The session description of a camera (RFC 8866, RFC 6184 §8.2.1), as a recorder needs it to make its file playable.

use crate::camera::cname;
use crate::clip::Clip;
use crate::mark::{MARK_ID, MARK_URI};
use crate::rtp::{CLOCK_RATE, PAYLOAD_TYPE};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::SocketAddr;

/// The text for one camera that sends `clip` with this SSRC to `target`.
pub fn sdp(clip: &Clip, index: u32, ssrc: u32, target: SocketAddr) -> String {
    let (sps, pps) = clip.parameter_sets();
    let family = if target.is_ipv4() { "IP4" } else { "IP6" };
    let (ip, port) = (target.ip(), target.port());
    // profile_idc, constraint flags, level_idc: the three bytes behind the NAL header (H.264 §7.3.2.1.1).
    let profile: String = sps
        .iter()
        .skip(1)
        .take(3)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let sets = format!("{},{}", BASE64_STANDARD.encode(sps), BASE64_STANDARD.encode(pps));
    let name = cname(index);
    [
        "v=0".to_owned(),
        format!("o=- {ssrc} 1 IN {family} {ip}"),
        format!("s={name}"),
        format!("c=IN {family} {ip}"),
        "t=0 0".to_owned(),
        format!("m=video {port} RTP/AVP {PAYLOAD_TYPE}"),
        format!("a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_RATE}"),
        format!("a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}"),
        format!("a=extmap:{MARK_ID} {MARK_URI}"),
        format!("a=ssrc:{ssrc} cname:{name}"),
        "a=sendonly\r\n".to_owned(),
    ]
    .join("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_the_codec_its_parameter_sets_and_the_ssrc() {
        let text = sdp(&Clip::builtin(), 4, 99, "[::1]:5004".parse().expect("an address"));
        assert!(text.starts_with("v=0\r\n") && text.ends_with("\r\n"));
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
}
