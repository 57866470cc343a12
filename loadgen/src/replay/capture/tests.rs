//! Captures made by hand, byte for byte, good and bad.

use super::*;
use proptest::prelude::*;

type Read = (Option<u64>, u16, Vec<u8>);

fn read(bytes: &[u8]) -> Result<(Vec<Read>, bool), CaptureError> {
    let mut capture = Capture::new(Path::new("test.pcap"), bytes)?;
    let mut frames = Vec::new();
    while let Some(frame) = capture.next_frame()? {
        frames.push((frame.at_ns, frame.link, frame.bytes.to_vec()));
    }
    Ok((frames, capture.ended_within_a_record()))
}

fn words(big: bool, words: &[u32]) -> Vec<u8> {
    let bytes = |word: &u32| {
        if big {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    };
    words.iter().flat_map(bytes).collect()
}

fn pcap(big: bool, magic: u32, records: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = words(big, &[magic, 0, 0, 0, 4, 1]);
    for &(seconds, fraction, original, data) in records {
        bytes.extend(words(big, &[seconds, fraction, data.len() as u32, original]));
        bytes.extend(data);
    }
    bytes
}

fn block(big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let len = 12 + body.len().next_multiple_of(4) as u32;
    let mut bytes = words(big, &[kind, len]);
    bytes.extend(body);
    bytes.resize(len as usize - 4, 0);
    bytes.extend(words(big, &[len]));
    bytes
}

fn section(big: bool) -> Vec<u8> {
    let body = words(big, &[BYTE_ORDER, 1, u32::MAX, u32::MAX]);
    block(big, SECTION, &body)
}

fn interface(big: bool, link: u16, options: &[u8]) -> Vec<u8> {
    let link = if big {
        u32::from(link) << 16
    } else {
        u32::from(link)
    };
    let mut body = words(big, &[link, 0]);
    body.extend(options);
    block(big, INTERFACE, &body)
}

fn enhanced(big: bool, interface: u32, time: u64, data: &[u8]) -> Vec<u8> {
    let head = [
        interface,
        (time >> 32) as u32,
        time as u32,
        data.len() as u32,
        9_999,
    ];
    let mut body = words(big, &head);
    body.extend(data);
    block(big, ENHANCED_PACKET, &body)
}

#[test]
fn pcap_of_both_orders_and_units_reads_with_cut_packets() {
    for big in [true, false] {
        for (magic, ns) in [(MICROSECONDS, 5_000), (NANOSECONDS, 5)] {
            let file = pcap(big, magic, &[(1, 5, 9_000, b"cut"), (2, 0, 0, b"")]);
            let (frames, cut) = read(&file).expect("a good capture");
            let first = (Some(1_000_000_000 + ns), 1, b"cut".to_vec());
            assert_eq!(
                (frames, cut),
                (vec![first, (Some(2_000_000_000), 1, vec![])], false)
            );
        }
    }
}

#[test]
fn pcapng_of_both_orders_reads_and_knows_each_interfaces_unit() {
    for big in [true, false] {
        let option = |code: u32, value: u8| {
            let head = if big { code << 16 | 1 } else { 1 << 16 | code };
            let mut bytes = words(big, &[head]);
            bytes.extend([value, 0, 0, 0]); // and no end of options
            bytes
        };
        let mut file = section(big);
        file.extend(interface(big, 1, &[]));
        file.extend(interface(big, 113, &option(9, 9)));
        file.extend(interface(big, 101, &option(9, 0x80 | 10)));
        file.extend(block(big, 0x8000_0001, b"private"));
        file.extend(enhanced(big, 0, 1_000_001, b"micro"));
        file.extend(enhanced(big, 1, 7, b"nano"));
        file.extend(enhanced(big, 2, 1536, b"binary"));
        let simple = [&words(big, &[6])[..], b"simple"].concat();
        file.extend(block(big, SIMPLE_PACKET, &simple));
        // Another section forgets the interfaces of the one before.
        file.extend(section(!big));
        file.extend(interface(!big, 276, &[]));
        file.extend(enhanced(!big, 0, 2, b"second"));
        let (frames, cut) = read(&file).expect("a good capture");
        let expected = vec![
            (Some(1_000_001_000), 1, b"micro".to_vec()),
            (Some(7), 113, b"nano".to_vec()),
            (Some(1_500_000_000), 101, b"binary".to_vec()),
            (None, 1, b"simple".to_vec()),
            (Some(2_000), 276, b"second".to_vec()),
        ];
        assert_eq!((frames, cut), (expected, false));
    }
}

#[test]
fn a_capture_that_ends_within_a_record_gives_what_came_before() {
    let mut ng = section(false);
    ng.extend(interface(false, 1, &[]));
    let whole = ng.len();
    ng.extend(enhanced(false, 0, 1, b"first"));
    let first = ng.len();
    ng.extend(enhanced(false, 0, 2, b"second"));
    for end in whole + 1..ng.len() {
        let (frames, cut) = read(&ng[..end]).expect("no damage, only an end");
        assert_eq!(
            (frames.len(), cut),
            (usize::from(end >= first), end != first),
            "{end}"
        );
    }
    let old = pcap(true, MICROSECONDS, &[(1, 0, 5, b"first"), (2, 0, 6, b"second")]);
    for end in 25..old.len() {
        let (frames, cut) = read(&old[..end]).expect("no damage, only an end");
        assert_eq!((frames.len(), cut), (usize::from(end >= 45), end != 45), "{end}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let refused = |bytes: &[u8]| read(bytes).expect_err("must be refused").to_string();
    assert!(refused(b"").contains("not even"));
    assert!(refused(b"GIF89a").contains("neither pcap nor pcapng"));
    assert!(refused(&[0x1f, 0x8b, 8, 0, 0]).contains("gunzip"));
    assert!(refused(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0]).contains("unzstd"));
    assert!(refused(&words(false, &[MICROSECONDS, 2])).contains("header is cut"));
    let mut absurd = pcap(false, MICROSECONDS, &[(1, 0, 1, b"x")]);
    absurd.extend(words(false, &[1, 1, 0xffff_fff0, 5]));
    let text = refused(&absurd);
    assert!(text.contains("byte 41") && text.contains("4294967280"), "{text}");
    let with = |block: Vec<u8>| [section(false), interface(false, 1, &[]), block].concat();
    assert!(refused(&with(enhanced(false, 3, 1, b"x"))).contains("interface 3"));
    let lies = words(false, &[0, 0, 0, 4_000, 4_000]);
    assert!(refused(&with(block(false, ENHANCED_PACKET, &lies))).contains("4000 bytes"));
    assert!(refused(&with(words(false, &[ENHANCED_PACKET, 13]))).contains("13 bytes"));
    assert!(refused(&with(words(false, &[99, 16, 7, 20]))).contains("differ"));
    let long = block(false, INTERFACE, &words(false, &[1, 0, 100 << 16 | 2]));
    assert!(refused(&with(long)).contains("option"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(
        start in 0usize..6, body in proptest::collection::vec(any::<u8>(), 0..200), flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = match start {
            0 => pcap(false, MICROSECONDS, &[(1, 0, 5, b"first"), (2, 0, 6, b"second")]),
            1 => pcap(true, NANOSECONDS, &[]),
            2 => [section(true), interface(true, 1, &[]), enhanced(true, 0, 9, b"packet")].concat(),
            3 => [section(false), interface(false, 1, b"\x09\0\x01\0\x7f\0\0\0"), enhanced(false, 0, u64::MAX, b"p")].concat(),
            4 => [section(false), interface(false, 1, b"\x09\0\x01\0\xff\0\0\0\x0e\0\x08\0\xff\xff\xff\xff\xff\xff\xff\x7f"), enhanced(false, 0, u64::MAX, b"p")].concat(),
            _ => Vec::new(),
        };
        bytes.extend(body);
        for (at, value) in flips {
            if let Some(at) = usize::from(at).checked_rem(bytes.len()) {
                bytes[at] = value;
            }
        }
        let _ = read(&bytes); // an error or frames, and no panic
    }
}
