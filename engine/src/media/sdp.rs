//! What a camera's session description says of its payloads (RFC 8866, RFC 6184 §8, RFC 7798 §7, RFC 3640 §4).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sdp_types::{Media, Session};

use super::Stream;

/// Clock rates that are believed, Hz. Times then fit 64 bits whatever arrives.
const CLOCK_RATES: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// One payload type of an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// RTP payload type.
    pub number: u8,
    /// Encoding name in capitals, such as `H264`.
    pub encoding: String,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Format parameters, names in lower case.
    parameters: Vec<(String, String)>,
}

impl Payload {
    /// A format parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A numeric format parameter; `default` when it is absent or no number.
    pub fn number_parameter(&self, name: &str, default: u32) -> u32 {
        self.parameter(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    /// The parameter sets the description carries, in the order in which a decoder needs them.
    pub fn parameter_sets(&self) -> Vec<Vec<u8>> {
        ["sprop-vps", "sprop-sps", "sprop-pps", "sprop-parameter-sets"]
            .into_iter()
            .filter_map(|name| self.parameter(name))
            .flat_map(|list| list.split(','))
            .filter_map(|text| decode_base64(text.trim()))
            .filter(|set| !set.is_empty())
            .collect()
    }
}

/// Padded or not: cameras write both.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(bare))
        .ok()
}

/// The payload types that `stream` may send. Empty if it has no description, or one that cannot be parsed.
pub(super) fn payloads(stream: &Stream) -> Vec<Payload> {
    let Ok(session) = Session::parse(stream.sdp.as_bytes()) else {
        return Vec::new();
    };
    let lines: &[Media] = match session.medias.get(usize::from(stream.media_index)) {
        Some(line) => std::slice::from_ref(line),
        // A camera without a configured SSRC has no mapping; its payload types still tell.
        None if stream.media_index == Stream::UNKNOWN_MEDIA => &session.medias,
        None => &[],
    };
    lines.iter().flat_map(payloads_of_line).collect()
}

/// Read by hand, because cameras write spaces where the typed attributes of `sdp-types` allow none.
fn payloads_of_line(line: &Media) -> Vec<Payload> {
    // RFC 3711: what the camera itself encrypted is stored as it came, and no codec reads it.
    let secured = line.proto.to_ascii_uppercase().contains("SAVP");
    let numbers = line
        .fmt
        .split_ascii_whitespace()
        .filter_map(|n| n.parse::<u8>().ok());
    numbers
        .filter_map(|number| {
            let mapped = attributes(line, "rtpmap", number).find_map(mapping);
            let (encoding, clock_rate) = mapped.or_else(|| assigned(number))?;
            Some(Payload {
                number,
                encoding: if secured {
                    format!("{encoding} in SRTP")
                } else {
                    encoding
                },
                clock_rate,
                parameters: attributes(line, "fmtp", number).flat_map(parameters).collect(),
            })
        })
        .collect()
}

/// What stands behind `a=NAME:NUMBER`, for each such line.
fn attributes<'a>(line: &'a Media, name: &'a str, number: u8) -> impl Iterator<Item = &'a str> {
    let values = line
        .attributes
        .iter()
        .filter(move |a| a.attribute == name)
        .filter_map(|a| a.value.as_deref());
    values.filter_map(move |value| {
        let value = value.trim();
        let (of, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        (of.parse() == Ok(number)).then_some(rest.trim())
    })
}

/// `ENCODING/RATE`, perhaps with more behind it.
fn mapping(text: &str) -> Option<(String, u32)> {
    let mut fields = text.split('/').map(str::trim);
    let encoding = fields.next()?.to_ascii_uppercase();
    let clock_rate = fields
        .next()?
        .parse()
        .ok()
        .filter(|rate| CLOCK_RATES.contains(rate))?;
    Some((encoding, clock_rate))
}

/// `NAME=VALUE; NAME; …`
fn parameters(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(';').map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (name.trim().to_ascii_lowercase(), value.trim().to_owned())
    })
}

/// Payload types that need no rtpmap (RFC 3551 §6), as far as cameras send them.
fn assigned(number: u8) -> Option<(String, u32)> {
    let (encoding, clock_rate) = match number {
        0 => ("PCMU", 8_000),
        8 => ("PCMA", 8_000),
        9 => ("G722", 8_000),
        14 => ("MPA", 90_000),
        26 => ("JPEG", 90_000),
        32 => ("MPV", 90_000),
        33 => ("MP2T", 90_000),
        _ => return None,
    };
    Some((encoding.into(), clock_rate))
}

/// The codec of a stream in words for people and `list`, such as `H264`; `unknown` without a description.
pub fn codec_name(stream: &Stream) -> String {
    let mut names: Vec<String> = payloads(stream).into_iter().map(|p| p.encoding).collect();
    names.dedup();
    if names.is_empty() {
        "unknown".into()
    } else {
        names.join("+")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n\
        m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; profile-level-id=42e01e; sprop-parameter-sets=Z0LgHtoCgPY=,aM48gA\r\n\
        m=audio 5006 RTP/AVP 0 97\r\na=rtpmap:97 MPEG4-GENERIC/16000/1\r\na=fmtp:97 sizeLength=13;config=1408\r\n";

    fn stream(media_index: u16, sdp: &str) -> Stream {
        Stream {
            ssrc: 1,
            media_index,
            sdp: sdp.into(),
        }
    }

    #[test]
    fn an_m_line_gives_its_payloads_with_parameters() {
        let video = payloads(&stream(0, CAMERA));
        assert_eq!(video.len(), 1);
        assert_eq!(
            (video[0].number, video[0].encoding.as_str(), video[0].clock_rate),
            (96, "H264", 90_000)
        );
        let sets = video[0].parameter_sets();
        assert_eq!((sets[0][0], sets[1][0]), (0x67, 0x68));
        let audio = payloads(&stream(1, CAMERA));
        assert_eq!(audio[0].encoding, "PCMU");
        assert_eq!(audio[1].parameter("sizelength"), Some("13"));
    }

    #[test]
    fn an_unmapped_stream_may_send_any_payload_and_a_wrong_index_none() {
        assert_eq!(payloads(&stream(Stream::UNKNOWN_MEDIA, CAMERA)).len(), 3);
        assert!(payloads(&stream(2, CAMERA)).is_empty());
    }

    #[test]
    fn what_the_camera_encrypted_is_no_codec_to_be_read() {
        let secured = CAMERA.replace("RTP/AVP 96", "RTP/SAVP 96");
        assert_eq!(codec_name(&stream(0, &secured)), "H264 in SRTP");
    }

    #[test]
    fn spaces_and_extra_fields_do_no_harm() {
        for map in ["96  H264/90000", "96 h264/90000/1 ", " 96 H264/90000"] {
            let sdp = CAMERA.replace("96 H264/90000", map);
            assert_eq!(payloads(&stream(0, &sdp))[0].encoding, "H264", "{map:?}");
        }
        let odd = CAMERA.replace(
            "96 packetization-mode=1; sprop",
            "96  Packetization-Mode = 1 ;;sprop",
        );
        let payload = &payloads(&stream(0, &odd))[0];
        assert_eq!(
            (
                payload.parameter("packetization-mode"),
                payload.parameter_sets().len()
            ),
            (Some("1"), 2)
        );
    }

    #[test]
    fn bare_line_feeds_are_read_and_nonsense_is_no_codec() {
        assert_eq!(codec_name(&stream(0, &CAMERA.replace("\r\n", "\n"))), "H264");
        assert_eq!(codec_name(&stream(0, "nonsense")), "unknown");
        assert_eq!(codec_name(&stream(0, "")), "unknown");
    }
}
