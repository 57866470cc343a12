//! Segments as a writer makes them: blocks, streams, packets, tables.

use super::super::expect::Vector;
use super::super::forge::{BEGAN_S, Forge, NS, Stream, packet, rtp, rtp_bytes, seg};
use super::super::keys::{ALICE, BOB, Slot};
use super::super::tables::Tables;
use super::super::wire::*;
use super::{one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    vec![
        minimal(),
        no_blocks(),
        no_streams(),
        a_stream_without_chunks(),
        chunks_and_checkpoints(),
        two_streams_of_one_camera(),
        two_customers(),
        rtcp(),
        an_empty_packet(),
        the_longest_packet(),
        the_last_microsecond(),
        packets_lost(),
        nothing_known_of_the_stream(),
        names_beyond_ascii(),
        a_long_padding(),
        a_block_of_1_mib(),
        a_body_crc_of_zero(),
        several_index_blocks(),
        longer_rows(),
        the_name_says_nothing(),
    ]
}

fn minimal() -> Vector {
    let (mut forge, mut stream) = one_camera("minimal");
    forge.chunk(&mut stream, rtp(3));
    forge.sync();
    forge.checkpoint(|_| {});
    forge.close();
    let about = "one customer, one camera, one chunk, closed";
    let musts = [3, 4, 5, 6, 7, 10, 15, 16, 22, 23, 27, 32, 33, 34, 37, 38, 41];
    Vector::good("minimal", about, &musts)
        .file(forge)
        .streams(&[&stream])
        .recover("closed")
}

fn no_blocks() -> Vector {
    let mut forge = Forge::new(seg("no-blocks"));
    forge.close();
    let about = "SEGMENT and FOOTER only: there is nothing to index";
    Vector::good("no-blocks", about, &[7])
        .file(forge)
        .streams(&[])
        .recover("closed")
}

fn no_streams() -> Vector {
    let mut forge = Forge::new(seg("no-streams"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    forge.checkpoint(|_| {});
    forge.close();
    Vector::good("no-streams", "a customer, and nothing of theirs", &[22])
        .file(forge)
        .streams(&[])
}

fn a_stream_without_chunks() -> Vector {
    let (mut forge, mut stream) = one_camera("a-stream-without-chunks");
    stream.info.opened_ns = 0;
    let mut forge_again = Forge::new(forge.seg.clone());
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge_again.slots(&[&alice]);
    forge_again.stream(&stream);
    forge = forge_again;
    forge.close();
    let about = "a stream of which no packet has come: its row has no times";
    Vector::good("a-stream-without-chunks", about, &[])
        .file(forge)
        .streams(&[&stream])
}

fn chunks_and_checkpoints() -> Vector {
    let (mut forge, mut stream) = one_camera("chunks-and-checkpoints");
    for _ in 0..3 {
        forge.chunk(&mut stream, rtp(2));
        forge.sync();
        forge.checkpoint(|_| {});
    }
    forge.chunk(&mut stream, rtp(1));
    forge.close();
    let about = "watermarks rise, each checkpoint signs the leaves before it";
    Vector::good("chunks-and-checkpoints", about, &[9, 24, 27])
        .file(forge)
        .streams(&[&stream])
}

fn two_streams_of_one_camera() -> Vector {
    let (mut forge, mut video) = one_camera("two-streams-of-one-camera");
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut audio = Stream::new(&forge.seg, &alice, "front-door", 2);
    (audio.info.media_index, audio.info.clock_rate) = (1, 8000);
    forge.chunk(&mut video, rtp(2));
    forge.stream(&audio);
    forge.chunk(&mut audio, rtp(4));
    forge.chunk(&mut video, rtp(2));
    forge.chunk(&mut audio, rtp(4));
    forge.close();
    let about = "video and audio by turns; the second STREAM stands behind a CHUNK of the first";
    Vector::good("two-streams-of-one-camera", about, &[6, 24, 25])
        .file(forge)
        .streams(&[&video, &audio])
}

fn two_customers() -> Vector {
    let mut forge = Forge::new(seg("two-customers"));
    let alice = Slot::new(&forge.seg, 1, &[ALICE]);
    let bob = Slot::new(&forge.seg, 0, &[BOB]);
    forge.slots(&[&bob, &alice]);
    let mut hers = Stream::new(&forge.seg, &alice, "yard", 7);
    let mut his = Stream::new(&forge.seg, &bob, "yard", 7);
    forge.stream(&hers);
    forge.stream(&his);
    forge.chunk(&mut hers, rtp(2));
    forge.chunk(&mut his, rtp(3));
    forge.close();
    let about =
        "two customers whose cameras have one name and one SSRC; each opens their own, slots in no order";
    Vector::good("two-customers", about, &[19, 25, 41])
        .file(forge)
        .streams(&[&hers, &his])
}

fn rtcp() -> Vector {
    let (mut forge, mut stream) = one_camera("rtcp");
    let report: Vec<u8> = [&[0x80, 200, 0, 6][..], &[0x11; 24]].concat();
    let packets = vec![
        packet(0, 0, &rtp_bytes(0, 40)),
        packet(1, 1, &report),
        packet(2, 0, &rtp_bytes(1, 40)),
    ];
    forge.chunk(&mut stream, packets);
    Vector::good("rtcp", "a sender report between two RTP packets", &[23])
        .file(forge)
        .streams(&[&stream])
}

fn an_empty_packet() -> Vector {
    let (mut forge, mut stream) = one_camera("an-empty-packet");
    let packets = vec![
        packet(0, 0, &rtp_bytes(0, 12)),
        packet(1, 0, b""),
        packet(1, 0, &rtp_bytes(1, 13)),
    ];
    forge.chunk(&mut stream, packets);
    let about = "a record of no bytes, and two packets at one instant";
    Vector::good("an-empty-packet", about, &[23])
        .file(forge)
        .streams(&[&stream])
}

fn the_longest_packet() -> Vector {
    let (mut forge, mut stream) = one_camera("the-longest-packet");
    forge.chunk(&mut stream, vec![packet(0, 0, &rtp_bytes(0, 65_535))]);
    let about = "65,535 bytes, in a chunk of more than 64 KiB";
    Vector::good("the-longest-packet", about, &[23])
        .file(forge)
        .streams(&[&stream])
}

fn the_last_microsecond() -> Vector {
    let (mut forge, mut stream) = one_camera("the-last-microsecond");
    let mut packets = rtp(2);
    packets[1].delta_us = u32::MAX;
    forge.chunk(&mut stream, packets);
    let about = "the longest chunk: its last packet came 2^32 − 1 µs after the first";
    Vector::good("the-last-microsecond", about, &[23])
        .file(forge)
        .streams(&[&stream])
}

fn packets_lost() -> Vector {
    let (mut forge, mut stream) = one_camera("packets-lost");
    let mut text = stream.text(rtp(2));
    text.lost_before = 17;
    let draft = forge.chunk_draft(&stream, &text);
    forge.push_chunk(&mut stream, text, draft);
    let about = "the camera's network lost 17 packets: the chunk tells, and nothing is wrong";
    Vector::good("packets-lost", about, &[])
        .file(forge)
        .streams(&[&stream])
}

fn with_info(name: &str, change: impl FnOnce(&mut Info)) -> (Forge, Stream) {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    change(&mut stream.info);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    (forge, stream)
}

fn nothing_known_of_the_stream() -> Vector {
    let (forge, stream) = with_info("nothing-known-of-the-stream", |info| {
        (info.media_index, info.clock_rate) = (0xFFFF, 0);
        (info.camera_id, info.sdp) = (Vec::new(), Vec::new());
    });
    let about = "no SDP, no clock rate, no m-line, an empty name";
    Vector::good("nothing-known-of-the-stream", about, &[])
        .file(forge)
        .streams(&[&stream])
}

fn names_beyond_ascii() -> Vector {
    let (forge, stream) = with_info("names-beyond-ascii", |info| {
        info.camera_id = "Tür 3 · 北門".into();
        info.sdp = "v=0\r\ns=Überwachung\r\n".into();
    });
    Vector::good("names-beyond-ascii", "UTF-8 in camera id and SDP", &[])
        .file(forge)
        .streams(&[&stream])
}

fn a_long_padding() -> Vector {
    let (mut forge, mut stream) = one_camera("a-long-padding");
    let text = stream.text(rtp(2));
    let draft = Draft {
        total_len: Some(3 * 4096),
        ..forge.chunk_draft(&stream, &text)
    };
    forge.push_chunk(&mut stream, text, draft);
    let about = "a block may be longer than its body needs";
    Vector::good("a-long-padding", about, &[3, 10])
        .file(forge)
        .streams(&[&stream])
}

fn a_block_of_1_mib() -> Vector {
    let (mut forge, mut stream) = one_camera("a-block-of-1-mib");
    let text = stream.text(rtp(1));
    let draft = Draft {
        total_len: Some(1 << 20),
        ..forge.chunk_draft(&stream, &text)
    };
    forge.push_chunk(&mut stream, text, draft);
    Vector::good("a-block-of-1-mib", "the longest block", &[10])
        .file(forge)
        .streams(&[&stream])
}

/// The four bytes that bring a CRC32C of `before` to 0.
fn to_zero(before: &[u8]) -> [u8; 4] {
    // Each bit of the last four bytes flips a fixed pattern of the CRC: solve for the pattern that is there.
    let crc = |tail: u32| crc32c::crc32c(&[before, &tail.to_le_bytes()].concat());
    let zero = crc(0);
    let mut rows: Vec<(u32, u32)> = (0..32).map(|bit| (crc(1 << bit) ^ zero, 1 << bit)).collect();
    let (mut left, mut tail) = (zero, 0);
    for bit in 0..32 {
        let at = rows.iter().position(|(pattern, _)| pattern & (1 << bit) != 0);
        let (pattern, choice) = rows.swap_remove(at.expect("CRC32C of four bytes is a bijection"));
        for row in &mut rows {
            if row.0 & (1 << bit) != 0 {
                *row = (row.0 ^ pattern, row.1 ^ choice);
            }
        }
        if left & (1 << bit) != 0 {
            (left, tail) = (left ^ pattern, tail ^ choice);
        }
    }
    tail.to_le_bytes()
}

fn a_body_crc_of_zero() -> Vector {
    let (mut forge, stream) = one_camera("a-body-crc-of-zero");
    let text = b"a private block ";
    let body = [&text[..], &to_zero(text)].concat();
    assert_eq!(crc32c::crc32c(&body), 0);
    forge.push(forge.draft(0x80, body));
    forge.close();
    let about = "a CRC of 0 is as good as any other";
    Vector::good("a-body-crc-of-zero", about, &[10])
        .file(forge)
        .streams(&[&stream])
}

fn several_index_blocks() -> Vector {
    let (mut forge, mut stream) = two_chunks("several-index-blocks");
    let bob = Slot::new(&forge.seg, 4, &[BOB]);
    forge.slots(&[&bob]);
    let mut other = Stream::new(&forge.seg, &bob, "gate", 9);
    forge.stream(&other);
    forge.chunk(&mut other, rtp(2));
    forge.chunk(&mut stream, rtp(2));
    let (data_end, tables) = (forge.end(), Tables::of(&forge));
    let footer = forge.tables_of(SEALED | SIGNED, data_end, tables, 1);
    forge.footer(&footer);
    let about = "one row in each INDEX block: parts count from 0 in each kind";
    Vector::good("several-index-blocks", about, &[31])
        .file(forge)
        .streams(&[&stream, &other])
}

fn longer_rows() -> Vector {
    let (mut forge, stream) = two_chunks("longer-rows");
    let (data_end, mut tables) = (forge.end(), Tables::of(&forge));
    for rows in [&mut tables.chunks, &mut tables.streams, &mut tables.keys] {
        rows.iter_mut().for_each(|row| row.extend([0xEE; 8]));
    }
    let footer = forge.tables_of(SEALED | SIGNED, data_end, tables, 1000);
    forge.footer(&footer);
    let about = "rows 8 bytes longer than version 1.0 knows them";
    Vector::good("longer-rows", about, &[14, 30])
        .file(forge)
        .streams(&[&stream])
}

fn the_name_says_nothing() -> Vector {
    let mut forge = Forge::new(Seg {
        created_s: BEGAN_S + 1,
        ..seg("the-name-says-nothing")
    });
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    stream.clock_ns = 3 * NS;
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(1));
    forge.close();
    let about = "the file's name is not its id, and a packet may be older than the segment";
    Vector::good("the-name-says-nothing", about, &[8])
        .file(forge)
        .streams(&[&stream])
}
