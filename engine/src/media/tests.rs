//! Whatever packets say, an export ends with a file or an error, never with a panic.

use super::codec::tests::{H264_PPS, H264_SPS, H265_PPS, H265_SPS, H265_VPS, hex};
use super::*;
use proptest::prelude::*;

/// A packet as a camera gone mad would send it: its place jumps, its payload is a NAL unit or a lie about one.
#[derive(Clone, Debug)]
struct Wild {
    step: u16,
    tick_step: u32,
    wait_ns: u64,
    marker: bool,
    rtcp: bool,
    ssrc: u32,
    head: u8,
    set: usize,
    body: Vec<u8>,
}

fn wild() -> impl Strategy<Value = Wild> {
    let step = prop_oneof![20 => Just(1u16), 2 => Just(0), 2 => 0..20u16, 1 => any::<u16>()];
    let tick_step = prop_oneof![10 => Just(0u32), 10 => Just(3_600), 2 => any::<u32>()];
    let wait_ns = prop_oneof![20 => 0..50_000_000u64, 2 => 0..1u64 << 40, 1 => any::<u64>()];
    let rest = (
        any::<bool>(),
        prop::bool::weighted(0.05),
        1..4u32,
        any::<u8>(),
        0..20usize,
    );
    (
        step,
        tick_step,
        wait_ns,
        rest,
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(
            |(step, tick_step, wait_ns, (marker, rtcp, ssrc, head, set), body)| Wild {
                step,
                tick_step,
                wait_ns,
                marker,
                rtcp,
                ssrc,
                head,
                set,
                body,
            },
        )
}

fn bytes(packet: &Wild, number: u16, rtp_time: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    if packet.rtcp {
        let mut report = vec![0x80, 200, 0, 6];
        report.extend(packet.ssrc.to_be_bytes());
        report.extend(&packet.body);
        return report;
    }
    let mut rtp = vec![0x80, 96 | u8::from(packet.marker) << 7];
    rtp.extend(number.to_be_bytes());
    rtp.extend(rtp_time.to_be_bytes());
    rtp.extend(packet.ssrc.to_be_bytes());
    match sets.get(packet.set) {
        Some(set) => rtp.extend(set),
        None => {
            rtp.push(packet.head);
            rtp.extend(&packet.body);
        }
    }
    rtp
}

fn export_wild(encoding: &str, parameters: &str, sets: &[&str], packets: &[Wild], range: Range) {
    let sdp = format!(
        "v=0\no=- 0 0 IN IP4 0.0.0.0\ns=x\nt=0 0\nm=video 0 RTP/AVP 96\na=rtpmap:96 {encoding}/90000\na=fmtp:96 {parameters}\n"
    );
    let sets: Vec<Vec<u8>> = sets.iter().map(|set| hex(set)).collect();
    let folder = tempfile::tempdir().unwrap();
    for name in ["out.mp4", "out.pcapng", "out.rtpdump"] {
        let stream = |ssrc| Stream {
            ssrc,
            media_index: 0,
            sdp: sdp.as_str().into(),
        };
        let mut export = Export::create(&folder.path().join(name), &[stream(1)], range).unwrap();
        let (mut number, mut rtp_time, mut arrival_ns) = (65_000u16, 0u32, 1_790_000_000_000_000_000u64);
        for packet in packets {
            number = number.wrapping_add(packet.step);
            rtp_time = rtp_time.wrapping_add(packet.tick_step);
            arrival_ns = arrival_ns.wrapping_add(packet.wait_ns);
            let bytes = bytes(packet, number, rtp_time, &sets);
            let packet = Packet {
                arrival_ns,
                rtcp: packet.rtcp,
                bytes: &bytes,
            };
            // rtpdump cannot span more than 49 days, and says so.
            if export.push(&stream(packet_ssrc(&bytes)), packet).is_err() {
                break;
            }
        }
        let _ = export.finish();
    }
}

fn packet_ssrc(bytes: &[u8]) -> u32 {
    if bytes[1] == 200 {
        1
    } else {
        u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packets_stop_an_export(packets in prop::collection::vec(wild(), 0..300), from in 0..100u64) {
        let from_ns = Some(1_790_000_000_000_000_000 + from * 10_000_000);
        for range in [Range::default(), Range { from_ns, to_ns: None }] {
            export_wild("H264", "", &[H264_SPS, H264_PPS], &packets, range);
            export_wild("H265", "", &[H265_VPS, H265_SPS, H265_PPS], &packets, range);
            export_wild("H265", "sprop-max-don-diff=2", &[H265_VPS, H265_SPS, H265_PPS], &packets, range);
        }
    }
}
