//! Export: what any camera sends, made into files. The packets are whole RTP, as the engine stored them, with anything in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal::media::{Export, Packet, Range, Stream};
use harborseal_loadgen::clip::Clip;

use super::input::Input;

const START_NS: u64 = 1_795_000_000_000_000_000;
const MAX_PACKETS: usize = 200;

/// recipe: format u8 · description u8 · range u8 · packets: what u8 · len u8 · payload
pub fn export(data: &[u8]) {
    let mut input = Input::new(data);
    let extension = ["mp4", "mp4", "pcapng", "rtpdump"][usize::from(input.u8() % 4)];
    let sdp: Arc<str> = description(input.u8()).into();
    let streams = [0, 1].map(|media_index| Stream {
        ssrc: 7 + u32::from(media_index),
        media_index,
        sdp: sdp.clone(),
    });
    let range = input.u8();
    let range = Range {
        from_ns: (range & 1 != 0).then_some(START_NS + u64::from(range & 0x0E) * 20_000_000),
        to_ns: (range & 16 != 0).then_some(START_NS + u64::from(range >> 5) * 100_000_000),
    };
    let folder = tempfile::tempdir_in(memory()).expect("a folder can be made");
    let path = folder.path().join(format!("out.{extension}"));
    let Ok(mut export) = Export::create(&path, &streams, range) else {
        return;
    };
    let mut camera = Camera::default();
    for _ in 0..MAX_PACKETS {
        if input.is_empty() {
            break;
        }
        let (stream, rtcp) = camera.next(&mut input);
        let packet = Packet {
            arrival_ns: camera.arrival_ns,
            rtcp,
            bytes: &camera.packet,
        };
        export
            .push(&streams[stream], packet)
            .expect("memory takes what is written");
        export.has_begun();
    }
    match export.finish() {
        Err(error) => assert!(
            !error.to_string().is_empty() && !path.exists(),
            "an error leaves no file"
        ),
        Ok(report) => {
            let written = std::fs::read(&path).expect("it was finished");
            assert_eq!(written.len() as u64, report.bytes);
            if extension == "mp4" {
                assert_boxes(&written);
            }
        }
    }
}

/// Where files cost nothing.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.into()
    } else {
        std::env::temp_dir()
    }
}

fn description(which: u8) -> String {
    let encoding = ["H264/90000", "H265/90000", "H264/1", "MP4V-ES/90000"][usize::from(which % 4)];
    let parameters = match which / 4 % 4 {
        0 => String::new(),
        // Sets of a small picture, so that slices alone make a film.
        1 => "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LAHtkA8BF/LgIgAAADACAAAAZR4sXJ,aMuMsg==\r\n".into(),
        2 => "a=fmtp:96 packetization-mode=2;sprop-max-don-diff=3;sprop-interleaving-depth=4\r\n".into(),
        _ => "a=fmtp:96 sprop-max-don-diff=1;tx-mode=MRST\r\n".into(),
    };
    format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n\
         m=video 5004 RTP/AVP 96\r\na=rtpmap:96 {encoding}\r\n{parameters}\
         m=audio 5006 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n"
    )
}

/// A sender whose numbers go on by themselves; the input says where they do not.
struct Camera {
    sequence: u16,
    timestamp: u32,
    arrival_ns: u64,
    packet: Vec<u8>,
}

impl Default for Camera {
    fn default() -> Self {
        Camera {
            sequence: 65_530,
            timestamp: 0xFFFF_F000,
            arrival_ns: START_NS,
            packet: Vec::new(),
        }
    }
}

impl Camera {
    /// what: bit 0 marker · 1 the next picture · 2 a number is left out · 3 late · 4 other stream · 5 RTCP · 6 raw · 7 unused
    fn next(&mut self, input: &mut Input<'_>) -> (usize, bool) {
        let what = input.u8();
        let bit = |n: u8| what >> n & 1 != 0;
        let len = usize::from(input.u8());
        let payload = input.bytes(len);
        let stream = usize::from(bit(4));
        self.arrival_ns += 1_000_000;
        if bit(1) {
            self.timestamp = self.timestamp.wrapping_add(3600);
            self.arrival_ns += 40_000_000;
        }
        self.sequence = self.sequence.wrapping_add(1 + u16::from(bit(2)));
        let sequence = self.sequence.wrapping_sub(if bit(3) { 3 } else { 0 });
        self.packet.clear();
        if bit(5) {
            // A sender report that says what time it is, then whatever the input has.
            self.packet.extend_from_slice(&[0x80, 200, 0, 6]);
            self.packet.extend_from_slice(&(7 + stream as u32).to_be_bytes());
            let seconds = self.arrival_ns / 1_000_000_000 + 2_208_988_800;
            self.packet.extend_from_slice(&(seconds as u32).to_be_bytes());
            self.packet.extend_from_slice(&[0; 4]);
            self.packet.extend_from_slice(&self.timestamp.to_be_bytes());
            self.packet.extend_from_slice(&[0; 8]);
            self.packet.extend_from_slice(payload);
            return (stream, true);
        }
        if !bit(6) {
            self.packet
                .extend_from_slice(&[0x80, (96 + stream as u8) | u8::from(bit(0)) << 7]);
            self.packet.extend_from_slice(&sequence.to_be_bytes());
            self.packet.extend_from_slice(&self.timestamp.to_be_bytes());
            self.packet.extend_from_slice(&(7 + stream as u32).to_be_bytes());
        }
        self.packet.extend_from_slice(payload);
        (stream, false)
    }
}

/// The boxes of an MP4 stand one behind the other and end with the file (ISO/IEC 14496-12 §4.2).
fn assert_boxes(file: &[u8]) {
    let mut at = 0;
    while at < file.len() {
        let head = file.get(at..at + 8).expect("a box has a head");
        let len = match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
            1 => {
                let long = file.get(at + 8..at + 16).expect("a long box has its length");
                u64::from_be_bytes(long.try_into().expect("eight bytes")) as usize
            }
            len => len as usize,
        };
        assert!(
            len >= 8 && at + len <= file.len(),
            "a box of {len} bytes at {at} of {}",
            file.len()
        );
        at += len;
    }
}

/// An elementary stream that a person gives to the load generator.
pub fn clip(data: &[u8]) {
    let Ok(clip) = Clip::parse(data, 25) else { return };
    let (sps, pps) = clip.parameter_sets();
    assert!(!sps.is_empty() && !pps.is_empty());
    let nals: usize = clip.frames().iter().map(|frame| clip.nals(frame).len()).sum();
    assert!(nals >= 2 && clip.frames()[0].key && nals <= data.len());
}
