//! Payload structures and parameter sets, on bytes of x264 and x265 and on bytes drawn from the RFCs.

use super::sets::{Sets, Snapshot};
use super::*;

/// Of libx264: 320×240, High, no B-frames.
pub(in crate::media) const H264_SPS: &str = "6764000dacb20283f60220000003002000000641e28549";
pub(in crate::media) const H264_PPS: &str = "68ebc3cb22c0";
/// Of libx264: 1920×1080 interlaced, shown at 4:3.
const H264_INTERLACED_SPS: &str = "67640028acd94078044fdffe0006000820000003002000000643e2c5b2c0";
const H264_INTERLACED_PPS: &str = "68fba3cb22c0";
/// Of libx265: 320×240, Main, B-frames.
pub(in crate::media) const H265_VPS: &str = "40010c01ffff01600000030090000003000003003c959009";
pub(in crate::media) const H265_SPS: &str =
    "42010101600000030090000003000003003ca00a080f16595924932bc05a020000030002000003003210";
pub(in crate::media) const H265_PPS: &str = "4401c172b46240";

pub(in crate::media) fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// What a payload gives out, in words.
fn unpack(codec: Codec, payload: &str) -> (Vec<String>, Result<(), Malformed>) {
    let mut seen = Vec::new();
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let result = codec.unpack(&hex(payload), &mut |unit| {
        seen.push(match unit {
            Unit::Whole(nal) => format!("whole {}", bytes(nal)),
            Unit::Piece(p) => {
                let ends = [p.first.then_some("first "), p.last.then_some("last ")];
                let ends: String = ends.into_iter().flatten().collect();
                format!("{ends}piece {} {}", bytes(p.header), bytes(p.bytes))
            }
            Unit::OrderNumber(number) => format!("number {number}"),
        });
        Ok(())
    });
    (seen, result)
}

#[test]
fn h264_payloads_give_their_nal_units() {
    let all = |payload, want: &[&str]| {
        let (seen, result) = unpack(Codec::H264, payload);
        assert_eq!(
            (seen.iter().map(String::as_str).collect::<Vec<_>>(), result),
            (want.to_vec(), Ok(()))
        );
    };
    all("6742c01e", &["whole 6742c01e"]);
    all("78000267aa000368bbcc", &["whole 67aa", "whole 68bbcc"]);
    all("7c85aabb", &["first piece 65 aabb"]);
    all("7c05cc", &["piece 65 cc"]);
    all("5c41dd", &["last piece 41 dd"]);
    all("1e00", &[]);
}

#[test]
fn h264_payloads_that_are_cut_or_interleaved_are_refused() {
    for cut in ["78", "7800", "780005aa", "780001670002", "7c", "5c"] {
        let (_, result) = unpack(Codec::H264, cut);
        assert_eq!(
            result,
            if cut == "78" { Ok(()) } else { Err(Malformed::Cut) },
            "{cut}"
        );
    }
    for interleaved in ["790000000167", "7a0000", "7b0000", "7d850001aa"] {
        assert_eq!(unpack(Codec::H264, interleaved).1, Err(Malformed::Interleaved));
    }
}

#[test]
fn h265_payloads_give_their_nal_units() {
    let all = |don, payload: &str, want: &[&str]| {
        let (seen, result) = unpack(Codec::H265 { don }, &payload.replace(' ', ""));
        assert_eq!(
            (seen.iter().map(String::as_str).collect::<Vec<_>>(), result),
            (want.to_vec(), Ok(()))
        );
    };
    all(false, "4001 0c01", &["whole 40010c01"]);
    all(
        false,
        "6001 0003 4001aa 0004 4201bbcc",
        &["whole 4001aa", "whole 4201bbcc"],
    );
    all(false, "6201 93 aabb", &["first piece 2601 aabb"]);
    all(false, "6201 53 cc", &["last piece 2601 cc"]);
    // With decoding order numbers (RFC 7798 §4.4.1–4.4.3).
    all(true, "2601 0007 aabb", &["number 7", "whole 2601aabb"]);
    all(
        true,
        "6001 0007 0003 4001aa 02 0003 4201bb",
        &["number 7", "whole 4001aa", "number 10", "whole 4201bb"],
    );
    all(true, "6201 93 0007 aabb", &["number 7", "first piece 2601 aabb"]);
    all(true, "6201 13 aabb", &["piece 2601 aabb"]);
    // PACI around a NAL unit (type 1, 3 bytes of extension) and around a piece (type 49, none).
    all(false, "6401 0238 aabbcc ddee", &["whole 0201ddee"]);
    all(false, "6401 6200 93 aabb", &["first piece 2601 aabb"]);
}

#[test]
fn h265_payloads_that_are_cut_or_nested_are_refused() {
    let refused = |don, payload: &str| {
        unpack(Codec::H265 { don }, &payload.replace(' ', ""))
            .1
            .unwrap_err()
    };
    for cut in [
        "40",
        "6001 00",
        "6001 0003 40",
        "6001 0001 40",
        "6201",
        "6401 02",
        "6401 0230 aa",
    ] {
        assert_eq!(refused(false, cut), Malformed::Cut, "{cut}");
    }
    for cut in ["2601 00", "6001 00", "6201 93 00", "6001 0007 0002 4001 05"] {
        assert_eq!(refused(true, cut), Malformed::Cut, "{cut}");
    }
    assert_eq!(refused(false, "6401 6400 6401"), Malformed::Nested);
}

#[test]
fn h264_parameter_sets_tell_size_aspect_and_order() {
    let sps = h264::Sps::parse(&hex(H264_SPS)).unwrap();
    assert_eq!(
        (sps.id, sps.width, sps.height, sps.profile),
        (0, 320, 240, [0x64, 0, 0x0D])
    );
    assert!(sps.in_order, "no B-frames: num_reorder_frames is 0");
    let sps = h264::Sps::parse(&hex(H264_INTERLACED_SPS)).unwrap();
    assert_eq!(
        (sps.width, sps.height, sps.aspect, sps.in_order),
        (1920, 1080, Some((3, 4)), false)
    );
}

#[test]
fn h265_parameter_sets_tell_size_profile_and_order() {
    let sps = h265::Sps::parse(&hex(H265_SPS)).unwrap();
    assert_eq!(
        (sps.id, sps.width, sps.height, sps.temporal_layers),
        (0, 320, 240, 1)
    );
    assert_eq!(
        (
            sps.profile_tier_level[0],
            sps.profile_tier_level[11],
            sps.in_order
        ),
        (1, 60, false)
    );
}

#[test]
fn a_cut_parameter_set_is_none_and_no_panic() {
    for set in [
        H264_SPS,
        H264_INTERLACED_SPS,
        H265_SPS,
        H265_PPS,
        H265_VPS,
        H264_PPS,
    ] {
        let whole = hex(set);
        for length in 0..whole.len() {
            for codec in [Codec::H264, Codec::H265 { don: false }] {
                Sets::new(codec).insert(&whole[..length]);
            }
        }
    }
    assert_eq!(h264::Sps::parse(&hex(&H264_SPS[..10])), None);
}

fn snapshot(sets: &mut Sets) -> Snapshot {
    (*sets.snapshot().unwrap()).clone()
}

#[test]
fn sets_are_in_force_from_when_they_are_complete() {
    let mut sets = Sets::new(Codec::H265 { don: false });
    for set in [H265_SPS, H265_PPS] {
        sets.insert(&hex(set));
        assert!(sets.snapshot().is_none());
    }
    sets.insert(&hex(H265_VPS));
    assert_eq!(snapshot(&mut sets).pps.len(), 1);
}

#[test]
fn a_changed_sequence_set_forgets_its_pictures_sets_and_a_repeated_one_nothing() {
    let mut sets = Sets::new(Codec::H264);
    sets.insert(&hex(H264_SPS));
    sets.insert(&hex(H264_PPS));
    let first = sets.snapshot().unwrap();
    sets.insert(&hex(H264_SPS));
    // Zeros behind it are no change.
    sets.insert(&[hex(H264_PPS), vec![0, 0]].concat());
    assert!(std::sync::Arc::ptr_eq(&first, &sets.snapshot().unwrap()));
    sets.insert(&hex(H264_INTERLACED_SPS));
    assert!(
        sets.snapshot().is_none(),
        "the old picture set belongs to the old sequence set"
    );
    sets.insert(&hex(H264_INTERLACED_PPS));
    assert_ne!(*first, snapshot(&mut sets));
}

#[test]
fn recovery_points_are_found_among_other_messages() {
    // A message of type 5 and 2 bytes, then type 6: count 2 (ue 011), exact.
    assert_eq!(Codec::H264.recovery_count(&hex("060502aabb06016480")), Some(2));
    assert_eq!(Codec::H264.recovery_count(&hex("0601013280")), None);
    // se(v): 011 is −1, which is in the past; 00100 is 2.
    assert_eq!(
        Codec::H265 { don: false }.recovery_count(&hex("4e0106016080")),
        Some(0)
    );
    assert_eq!(
        Codec::H265 { don: false }.recovery_count(&hex("4e0106012080")),
        Some(2)
    );
    assert_eq!(Codec::H264.recovery_count(&hex("06ffff")), None);
}
