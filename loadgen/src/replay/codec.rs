//! Which codec a captured stream carries, as far as its packets tell, and the description (SDP) a recorder needs of it.
//!
//! Payload types below 35 say it themselves (RFC 3551 §6). Of dynamic ones the payloads do: a video stream repeats its parameter
//! sets, and the headers of H.264's (RFC 6184 §1.3) and H.265's (RFC 7798 §1.1.4) units exclude each other.

use super::find::{Found, Stream};
use crate::plan::Media;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::SocketAddr;

/// Packets looked at: at 2 Mb/s ten seconds, a few key frames.
const PACKETS_LOOKED_AT: usize = 2_000;
const H264_SPS: u8 = 7;
const H264_PPS: u8 = 8;
const H265_VPS: u8 = 32;
const H265_PPS: u8 = 34;

/// What was told from the packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    H264 {
        sps: Vec<u8>,
        pps: Vec<u8>,
    },
    H265 {
        vps: Vec<u8>,
        sps: Vec<u8>,
        pps: Vec<u8>,
    },
    /// A payload type of RFC 3551, its encoding and clock.
    Static(u8, &'static str, u32),
    Unknown,
}

/// Names and clocks of the static types that still occur.
const STATIC: [(u8, &str, u32); 9] = [
    (0, "PCMU", 8_000),
    (3, "GSM", 8_000),
    (8, "PCMA", 8_000),
    (9, "G722", 8_000),
    (10, "L16/44100/2", 44_100),
    (11, "L16", 44_100),
    (14, "MPA", 90_000),
    (26, "JPEG", 90_000),
    (33, "MP2T", 90_000),
];

impl Codec {
    /// As a plan names it. It has no word for codecs we do not make; who needs it asks the SDP.
    pub fn media(&self) -> Media {
        match self {
            Codec::H265 { .. } => Media::H265,
            Codec::Static(_, _, 8_000) => Media::Pcmu,
            _ => Media::H264,
        }
    }
}

impl Codec {
    /// For tables.
    pub fn name(&self) -> &'static str {
        match self {
            Codec::H264 { .. } => "h264",
            Codec::H265 { .. } => "h265",
            Codec::Static(_, name, _) => name,
            Codec::Unknown => "unknown",
        }
    }
}

/// The codec of a found stream.
pub fn guess(found: &Found, stream: usize) -> Codec {
    let stream = &found.streams[stream];
    let of_type = |(kind, name, clock): &(u8, &'static str, u32)| {
        let only = stream.payload_types.iter().all(|other| other == kind);
        only.then_some(Codec::Static(*kind, name, *clock))
    };
    if let Some(known) = STATIC.iter().find_map(of_type) {
        return known;
    }
    let mut sets = Sets::default();
    for payload in payloads(found, stream).take(PACKETS_LOOKED_AT) {
        sets.look_at(payload);
    }
    sets.codec()
}

/// The media bytes of a stream's RTP packets.
fn payloads<'a>(found: &'a Found, stream: &'a Stream) -> impl Iterator<Item = &'a [u8]> {
    let rtp = stream.packets.iter().filter(|packet| !packet.rtcp);
    rtp.map(|packet| payload(found.bytes(packet)))
}

/// Behind the header, its sources and extension; what `find` let through has them whole.
fn payload(packet: &[u8]) -> &[u8] {
    let mut at = 12 + 4 * usize::from(packet[0] & 0x0f);
    if packet[0] & 0x10 != 0 {
        let words = packet
            .get(at + 2..at + 4)
            .map_or(0, |words| super::find::u16_at(words, 0));
        at += 4 + 4 * usize::from(words);
    }
    packet.get(at..).unwrap_or_default()
}

#[derive(Default)]
struct Sets {
    h264: [Option<Vec<u8>>; 2],
    h265: [Option<Vec<u8>>; 3],
}

impl Sets {
    fn look_at(&mut self, payload: &[u8]) {
        self.look_at_h264(payload);
        self.look_at_h265(payload);
    }

    /// A single unit, or an aggregate of them (RFC 6184 §5.6, §5.7.1).
    fn look_at_h264(&mut self, payload: &[u8]) {
        let Some(&header) = payload.first() else { return };
        match header & 0x1f {
            24 => units(&payload[1..]).for_each(|unit| self.h264_unit(unit)),
            1..=23 => self.h264_unit(payload),
            _ => {}
        }
    }

    fn h264_unit(&mut self, unit: &[u8]) {
        // Parameter sets are never disposable (H.264 §7.4.1): nal_ref_idc is not 0.
        let Some(&header) = unit
            .first()
            .filter(|&&header| header & 0x80 == 0 && header & 0x60 != 0)
        else {
            return;
        };
        match header & 0x1f {
            H264_SPS if unit.len() > 4 => self.h264[0] = Some(unit.to_vec()),
            H264_PPS if unit.len() > 1 => self.h264[1] = Some(unit.to_vec()),
            _ => {}
        }
    }

    /// A single unit, or an aggregate (RFC 7798 §4.4.1, §4.4.2).
    fn look_at_h265(&mut self, payload: &[u8]) {
        let Some(kind) = h265_kind(payload) else { return };
        match kind {
            48 => units(&payload[2..]).for_each(|unit| self.h265_unit(unit)),
            _ => self.h265_unit(payload),
        }
    }

    fn h265_unit(&mut self, unit: &[u8]) {
        if let Some(kind @ H265_VPS..=H265_PPS) = h265_kind(unit) {
            self.h265[usize::from(kind - H265_VPS)] = Some(unit.to_vec());
        }
    }

    fn codec(self) -> Codec {
        let ([vps, sps_5, pps_5], [sps, pps]) = (self.h265, self.h264);
        match (vps, sps_5, pps_5, sps, pps) {
            (Some(vps), Some(sps), Some(pps), _, _) => Codec::H265 { vps, sps, pps },
            (_, _, _, Some(sps), Some(pps)) => Codec::H264 { sps, pps },
            _ => Codec::Unknown,
        }
    }
}

/// The type of an H.265 unit of the base layer (layer 0, temporal id 0, as parameter sets have it).
fn h265_kind(unit: &[u8]) -> Option<u8> {
    match unit {
        [first, 1, _, ..] if first & 0x81 == 0 => Some(first >> 1),
        _ => None,
    }
}

/// The units of an aggregate: each behind its length in two bytes.
fn units(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let unit = rest.get(2..2 + len)?;
        rest = &rest[2 + len..];
        Some(unit)
    })
}

/// The description of one camera of a clone: each of its streams whose codec could be told; `None` where none could.
pub fn sdp(found: &Found, name: &str, streams: &[(usize, u32)], target: SocketAddr) -> Option<String> {
    let sections: Vec<String> = streams
        .iter()
        .filter_map(|&(stream, ssrc)| section(found, stream, name, ssrc, target.port()))
        .collect();
    let (_, first_ssrc) = streams.first()?;
    let family = if target.is_ipv4() { "IP4" } else { "IP6" };
    let ip = target.ip();
    let session = [
        "v=0".to_owned(),
        format!("o=- {first_ssrc} 1 IN {family} {ip}"),
        format!("s={name}"),
        format!("c=IN {family} {ip}"),
        "t=0 0\r\n".to_owned(),
    ];
    (!sections.is_empty()).then(|| session.join("\r\n") + &sections.concat())
}

fn section(found: &Found, stream: usize, name: &str, ssrc: u32, port: u16) -> Option<String> {
    let payload_type = *found.streams[stream].payload_types.first()?;
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let (kind, map, parameters) = match guess(found, stream) {
        Codec::H264 { sps, pps } => {
            let profile: String = sps[1..4].iter().map(|byte| format!("{byte:02X}")).collect();
            let sets = format!("{},{}", base64(&sps), base64(&pps));
            let text = format!("packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}");
            ("video", "H264/90000".to_owned(), Some(text))
        }
        Codec::H265 { vps, sps, pps } => {
            let sets = [("vps", vps), ("sps", sps), ("pps", pps)];
            let text = sets.map(|(set, bytes)| format!("sprop-{set}={}", base64(&bytes)));
            ("video", "H265/90000".to_owned(), Some(text.join(";")))
        }
        Codec::Static(kind, encoding, clock) => {
            let media = if kind >= 26 { "video" } else { "audio" };
            let map = match encoding.contains('/') {
                true => encoding.to_owned(),
                false => format!("{encoding}/{clock}"),
            };
            (media, map, None)
        }
        Codec::Unknown => return None,
    };
    let mut lines = vec![
        format!("m={kind} {port} RTP/AVP {payload_type}"),
        format!("a=rtpmap:{payload_type} {map}"),
    ];
    lines.extend(parameters.map(|text| format!("a=fmtp:{payload_type} {text}")));
    lines.push(format!("a=ssrc:{ssrc} cname:{name}"));
    lines.push("a=sendonly\r\n".to_owned());
    Some(lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::{found, rtp};
    use super::super::link::tests::ipv4_packet;
    use super::*;

    fn stream_of(payload_type: u8, payloads: &[&[u8]]) -> Found {
        let packet = |(n, payload): (usize, &&[u8])| {
            let mut packet = rtp(n as u16, 900 * n as u32, 7);
            packet[1] = payload_type;
            packet.truncate(12);
            packet.extend(*payload);
            (n as u64 * 10_000_000, ipv4_packet(5004, &packet))
        };
        let filler: [&[u8]; 6] = [&[0x41, 9, 9]; 6];
        let all: Vec<_> = payloads.iter().chain(&filler).enumerate().map(packet).collect();
        found(&all, &[])
    }

    const SPS: &[u8] = &[0x67, 0x4d, 0x40, 0x1f, 1];
    const PPS: &[u8] = &[0x68, 2, 3];

    fn sdp_of(found: &Found) -> Option<String> {
        sdp(
            found,
            "clone-00000",
            &[(0, 99)],
            "127.0.0.1:5004".parse().expect("an address"),
        )
    }

    #[test]
    fn h264_is_told_by_its_parameter_sets_alone_or_together() {
        let together = [&[0x78, 0, 5][..], SPS, &[0, 3], PPS].concat();
        for payloads in [vec![SPS, PPS], vec![&together[..]]] {
            let found = stream_of(96, &payloads);
            assert_eq!(
                guess(&found, 0),
                Codec::H264 {
                    sps: SPS.to_vec(),
                    pps: PPS.to_vec()
                }
            );
            let text = sdp_of(&found).expect("a known codec");
            assert!(
                text.contains("m=video 5004 RTP/AVP 96\r\n") && text.contains("profile-level-id=4D401F"),
                "{text}"
            );
        }
    }

    #[test]
    fn h265_is_told_by_its_parameter_sets() {
        let sets: [&[u8]; 3] = [&[0x40, 1, 0x0c, 1], &[0x42, 1, 1, 2], &[0x44, 1, 0xc1, 3]];
        let found = stream_of(98, &sets);
        assert!(matches!(guess(&found, 0), Codec::H265 { .. }));
        assert!(
            sdp_of(&found)
                .expect("a known codec")
                .contains("a=rtpmap:98 H265/90000\r\n")
        );
    }

    #[test]
    fn static_payload_types_say_it_themselves_and_others_stay_unknown() {
        let found = stream_of(8, &[]);
        assert_eq!(guess(&found, 0), Codec::Static(8, "PCMA", 8_000));
        assert!(
            sdp_of(&found)
                .expect("a known codec")
                .contains("m=audio 5004 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n")
        );
        let found = stream_of(111, &[]);
        assert_eq!((guess(&found, 0), sdp_of(&found)), (Codec::Unknown, None));
    }

    #[test]
    fn payloads_that_are_cut_short_are_no_parameter_sets() {
        let cut: [&[u8]; 6] = [
            &[],
            &[0x78],
            &[0x78, 0, 9, 0x67],
            &[0x60, 1],
            &[0x60, 1, 9, 9, 9],
            &[0x67],
        ];
        assert_eq!(guess(&stream_of(96, &cut), 0), Codec::Unknown);
    }
}
