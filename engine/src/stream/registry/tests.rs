//! Every rule of admission.

use super::*;

const VIDEO: Media = Media {
    media_index: 0,
    clock_rate_hz: 90_000,
};
const AUDIO: Media = Media {
    media_index: 1,
    clock_rate_hz: 8_000,
};

fn camera(source: &str, ssrcs: &[u32]) -> Camera {
    let medias = [VIDEO, AUDIO];
    let streams = ssrcs
        .iter()
        .zip(medias)
        .map(|(&ssrc, media)| Stream { ssrc, media })
        .collect();
    let source = source.parse().expect("a source");
    Camera {
        id: "c".into(),
        customer: 0,
        source,
        streams,
        unlisted: VIDEO,
        sdp: None,
    }
}

fn registry(cameras: &[(&str, &[u32])]) -> Result<Registry, Conflict> {
    Registry::new(
        Vec::new(),
        cameras
            .iter()
            .map(|(source, ssrcs)| camera(source, ssrcs))
            .collect(),
    )
}

fn admit(registry: &Registry, ssrc: u32, from: &str, rtcp: bool) -> Result<u32, Reason> {
    registry
        .admit(ssrc, from.parse().expect("an address"), rtcp)
        .map(|a| a.camera)
}

fn conflict(a: (&str, &[u32]), b: (&str, &[u32])) -> Option<Conflict> {
    let one = registry(&[a, b]).err();
    let other = registry(&[b, a]).err();
    assert_eq!(one.is_some(), other.is_some(), "order must not matter");
    one
}

#[test]
fn a_registered_ssrc_from_its_source_is_admitted_and_only_from_there() {
    let r = registry(&[("10.0.0.1", &[7, 8]), ("10.0.0.2", &[9])]).expect("no conflict");
    let video = r
        .admit(7, "10.0.0.1:999".parse().expect("address"), false)
        .expect("admitted");
    assert_eq!(
        video,
        Admitted {
            camera: 0,
            media: VIDEO
        }
    );
    let audio = r
        .admit(8, "10.0.0.1:999".parse().expect("address"), true)
        .expect("admitted");
    assert_eq!(audio.media, AUDIO);
    assert_eq!(admit(&r, 9, "10.0.0.1:999", false), Err(Reason::WrongSource));
    assert_eq!(admit(&r, 10, "10.0.0.1:999", false), Err(Reason::UnknownSsrc));
}

#[test]
fn ipv4_mapped_addresses_are_the_ipv4_address() {
    let r = registry(&[
        ("10.0.0.1", &[7]),
        ("::ffff:10.0.0.2", &[8]),
        ("10.1.0.0/16", &[9]),
    ])
    .expect("no conflict");
    assert_eq!(admit(&r, 7, "[::ffff:10.0.0.1]:5", false), Ok(0));
    assert_eq!(admit(&r, 8, "10.0.0.2:5", false), Ok(1));
    assert_eq!(admit(&r, 9, "[::ffff:10.1.2.3]:5", false), Ok(2));
    assert_eq!(admit(&r, 7, "[::10.0.0.1]:5", false), Err(Reason::WrongSource));
}

#[test]
fn a_port_in_the_source_is_required_and_rtcp_may_come_from_the_next() {
    let r = registry(&[("10.0.0.1:5000", &[7]), ("[2001:db8::1]:65535", &[8])]).expect("no conflict");
    assert_eq!(admit(&r, 7, "10.0.0.1:5000", false), Ok(0));
    assert_eq!(admit(&r, 7, "10.0.0.1:5000", true), Ok(0));
    assert_eq!(admit(&r, 7, "10.0.0.1:5001", true), Ok(0));
    assert_eq!(admit(&r, 7, "10.0.0.1:5001", false), Err(Reason::WrongSource));
    assert_eq!(admit(&r, 7, "10.0.0.1:4999", true), Err(Reason::WrongSource));
    assert_eq!(admit(&r, 8, "[2001:db8::1]:65535", false), Ok(1));
    assert_eq!(admit(&r, 8, "[2001:db8::1]:0", true), Err(Reason::WrongSource));
}

#[test]
fn prefixes_end_at_their_edges() {
    let r = registry(&[
        ("10.0.1.77/24", &[7]),
        ("2001:db8::/33", &[8]),
        ("0.0.0.0/0", &[9]),
        ("::/0", &[10]),
    ]);
    let r = r.expect("no conflict");
    for (ssrc, from, want) in [
        (7, "10.0.1.0:1", Ok(0)),
        (7, "10.0.1.255:1", Ok(0)),
        (7, "10.0.0.255:1", Err(Reason::WrongSource)),
        (7, "10.0.2.0:1", Err(Reason::WrongSource)),
        (8, "[2001:db8:7fff:ffff::1]:1", Ok(1)),
        (8, "[2001:db8:8000::]:1", Err(Reason::WrongSource)),
        (9, "255.255.255.255:1", Ok(2)),
        (9, "[2001:db8::1]:1", Err(Reason::WrongSource)),
        (10, "1.2.3.4:1", Ok(3)),
    ] {
        assert_eq!(admit(&r, ssrc, from, false), want, "{ssrc} from {from}");
    }
}

#[test]
fn equal_ssrcs_of_disjoint_sources_are_told_apart() {
    let r = registry(&[
        ("10.0.0.4", &[7]),
        ("10.0.0.0/30", &[7]),
        ("10.0.0.5:6000", &[7]),
        ("10.0.0.5:6002", &[7]),
        ("2001:db8::1", &[7]),
        ("1.1.1.1", &[7]),
    ])
    .expect("no conflict");
    for (from, want) in [
        ("10.0.0.4:9", Ok(0)),
        ("10.0.0.0:9", Ok(1)),
        ("10.0.0.3:9", Ok(1)),
        ("10.0.0.5:6000", Ok(2)),
        ("10.0.0.5:6002", Ok(3)),
        ("10.0.0.5:6003", Err(Reason::WrongSource)),
        ("10.0.0.5:5999", Err(Reason::WrongSource)),
        ("[2001:db8::1]:9", Ok(4)),
        ("1.1.1.1:9", Ok(5)),
        ("1.1.1.0:9", Err(Reason::WrongSource)),
    ] {
        assert_eq!(admit(&r, 7, from, false), want, "from {from}");
    }
    assert_eq!(admit(&r, 7, "10.0.0.5:6001", true), Ok(2));
    assert_eq!(admit(&r, 7, "10.0.0.5:6003", true), Ok(3));
}

#[test]
fn one_packet_never_fits_two_cameras() {
    let same: &[u32] = &[7];
    assert_eq!(
        conflict(("10.0.0.1", same), ("10.0.0.1", same)),
        Some(Conflict {
            first: 0,
            second: 1,
            ssrc: Some(7)
        })
    );
    assert!(conflict(("10.0.0.1", same), ("10.0.0.0/8", same)).is_some());
    assert!(conflict(("10.0.0.1:5000", same), ("10.0.0.1", same)).is_some());
    assert!(conflict(("10.0.0.1:5000", same), ("0.0.0.0/0", same)).is_some());
    assert!(conflict(("10.0.0.1:5000", same), ("10.0.0.1:5000", same)).is_some());
    assert!(
        conflict(("10.0.0.1:5000", same), ("10.0.0.1:5001", same)).is_some(),
        "RTCP of the first"
    );
    assert!(conflict(("10.0.0.1", &[7, 8]), ("10.0.0.1", &[9, 8])).is_some());
    assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.1:5000", &[])).is_some_and(|c| c.ssrc.is_none()));
    assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.1:5001", &[])).is_some());

    assert!(conflict(("10.0.0.1:5000", same), ("10.0.0.1:5002", same)).is_none());
    assert!(conflict(("10.0.0.1", same), ("10.0.0.1", &[8])).is_none());
    assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.1", same)).is_none());
    assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.2:5000", &[])).is_none());
}

#[test]
fn a_wide_source_is_found_behind_narrow_ones_between() {
    let wide_then_two = registry(&[("10.0.0.0/8", &[7]), ("9.0.0.0/16", &[7]), ("10.200.0.1", &[7])]);
    assert_eq!(
        wide_then_two.err(),
        Some(Conflict {
            first: 0,
            second: 2,
            ssrc: Some(7)
        })
    );
}

#[test]
fn a_camera_without_ssrc_is_told_by_its_address_and_may_change_its_ssrc() {
    let r = registry(&[("10.0.0.1:5000", &[]), ("10.0.0.9", &[7])]).expect("no conflict");
    assert_eq!(admit(&r, 1, "10.0.0.1:5000", false), Ok(0));
    assert_eq!(admit(&r, 2, "[::ffff:10.0.0.1]:5000", false), Ok(0));
    assert_eq!(admit(&r, 2, "10.0.0.1:5001", true), Ok(0));
    assert_eq!(admit(&r, 2, "10.0.0.1:5001", false), Err(Reason::UnknownSsrc));
    assert_eq!(admit(&r, 2, "10.0.0.1:5002", true), Err(Reason::UnknownSsrc));
    // Its freedom to choose holds for an SSRC that another camera has, too.
    assert_eq!(admit(&r, 7, "10.0.0.1:5000", false), Ok(0));
    assert_eq!(admit(&r, 7, "10.0.0.1:5004", false), Err(Reason::WrongSource));
}

#[test]
fn what_is_no_source_is_refused() {
    for text in [
        "",
        "camera.local",
        "10.0.0.1:0",
        "10.0.0.1/33",
        "::/129",
        "10.0.0/8",
        "2001:db8::1:5000/",
        "/8",
    ] {
        assert!(text.parse::<Source>().is_err(), "{text:?}");
    }
}

#[test]
fn the_hash_spreads_ssrcs_that_count_up() {
    let hash = |ssrc: u32| {
        let mut mix = Mix::default();
        mix.write_u32(ssrc);
        mix.finish()
    };
    // 4,096 balls in 4,096 boxes fill 63 % of them if thrown at random; low bits choose the box in std's table.
    for stride in [1u32, 2, 256, 65_536] {
        let boxes: std::collections::HashSet<u64> = (0..4096u32).map(|i| hash(i * stride) & 4095).collect();
        assert!(boxes.len() > 2200, "stride {stride}: {}", boxes.len());
    }
}
