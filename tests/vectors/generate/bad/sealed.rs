//! What only the customer can find: sealed blocks that do not open, or open to what the format forbids (docs/FORMAT.md §5).

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, packet, rtp, rtp_bytes, seg};
use super::super::keys::{ALICE, Entry, Slot, key_body, secret, stream_keys};
use super::super::wire::*;
use super::{checked, closed, one_camera};

pub fn all() -> Vec<Vector> {
    let mut all = plaintexts();
    all.extend([
        another_commitment(),
        a_stream_forged_whole(),
        a_stream_that_does_not_authenticate(),
        a_chunk_that_does_not_authenticate(),
        a_body_forged_under_its_crc(),
        a_chunk_sealed_under_another_number(),
        a_chunk_of_another_stream(),
        a_chunk_with_another_arrival(),
        a_chunk_forged_with_another_key(),
        a_hint_of_another_h(),
        a_short_stream_text(),
        a_camera_id_that_is_no_text(),
        an_sdp_longer_than_the_body(),
        chunks_so_far_jumps(),
        chunks_so_far_stays(),
    ]);
    all
}

fn bad(name: &str, about: &'static str, musts: &[u32], forge: Forge) -> Vector {
    Vector::bad(name, about, musts).identity(ALICE).raw(forge.bytes)
}

/// Alice's KEY, then her STREAM as `change` leaves it.
fn stream(name: &str, change: impl FnOnce(&mut Draft)) -> (Forge, Stream, u64) {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let mut draft = forge.stream_draft(&stream);
    change(&mut draft);
    let at = forge.push(draft);
    (forge, stream, at)
}

fn another_commitment() -> Vector {
    let name = "another-commitment";
    let (mut forge, mut stream, at) = stream(name, |draft| draft.extension[7] ^= 1);
    forge.chunk(&mut stream, rtp(2));
    stream.readers.clear();
    let about = "C in the STREAM is another; body and tag are right under K_enc, and nothing is opened";
    bad(name, about, &[38, 41], forge)
        .streams(&[&stream])
        .error("commitment", at)
}

fn a_stream_forged_whole() -> Vector {
    let name = "a-stream-forged-whole";
    let (forge, mut stream, at) = stream(name, |draft| {
        let (enc, commitment) = stream_keys(&secret("a key of the forger's own"));
        draft.key = Some(enc);
        draft.extension = commitment.to_vec();
    });
    stream.readers.clear();
    let about = "a STREAM under a key of the forger's own, with the commitment that fits it";
    bad(name, about, &[38], forge)
        .streams(&[&stream])
        .error("commitment", at)
}

fn a_stream_that_does_not_authenticate() -> Vector {
    let name = "a-stream-that-does-not-authenticate";
    let (mut forge, mut stream, at) = stream(name, |_| {});
    forge.edit(at, |block| block[96] ^= 1);
    stream.readers.clear();
    let about = "one bit of the tag; the commitment is right";
    bad(name, about, &[41], forge)
        .streams(&[&stream])
        .error("not_authentic", at)
}

/// A second chunk behind a good one, in an open segment; what opens is the first.
fn chunk(
    name: &str,
    about: &'static str,
    musts: &[u32],
    change: impl FnOnce(&mut ChunkText, &mut Draft),
) -> (Vector, u64) {
    let (mut forge, mut stream) = checked(name);
    let mut text = stream.text(rtp(3));
    let mut draft = forge.chunk_draft(&stream, &text);
    change(&mut text, &mut draft);
    let at = forge.push_chunk(&mut stream, text, draft);
    (bad(name, about, musts, forge).streams(&[&stream.without(1)]), at)
}

fn a_chunk_that_does_not_authenticate() -> Vector {
    let name = "a-chunk-that-does-not-authenticate";
    let (mut forge, mut stream) = checked(name);
    let at = forge.chunk(&mut stream, rtp(3));
    forge.edit(at, |block| block[128] ^= 1);
    let about = "one bit of the ciphertext, under CRCs that fit: not a byte of it is handed out";
    bad(name, about, &[41], forge)
        .streams(&[&stream.without(1)])
        .error("not_authentic", at)
}

/// Changes the end of a sealed body so that its CRC stays the same: by the CRC's own polynomial, bit by bit from the lowest.
pub fn change_under_the_crc(block: &mut [u8]) {
    let pattern: u64 = 0x1_05EC_76F1;
    let end = usize::from(u16::from_le_bytes([block[6], block[7]])) + u32_at(block, 12) as usize;
    let body = &mut block[end - 16..end];
    for bit in (0..33).filter(|bit| pattern >> bit & 1 == 1) {
        body[bit / 8] ^= 1 << (bit % 8);
    }
    let crc = crc32c::crc32c(&block[128..end]);
    assert_eq!(crc, u32_at(block, 112), "the body is another, its CRC is not");
}

fn a_body_forged_under_its_crc() -> Vector {
    let name = "a-body-forged-under-its-crc";
    let (mut forge, mut stream, at) = closed(name);
    let header = forge.block(at)[..128].to_vec();
    forge.damage(at, change_under_the_crc);
    assert_eq!(forge.block(at)[..128], header);
    stream = stream.without(0);
    let about =
        "a body changed so that its CRC stays the same, and so header, leaf and root: only the tag tells";
    bad(name, about, &[41], forge)
        .streams(&[&stream])
        .error("not_authentic", at)
}

fn a_chunk_sealed_under_another_number() -> Vector {
    let name = "a-chunk-sealed-under-another-number";
    let (mut forge, mut stream) = checked(name);
    let text = stream.text(rtp(3));
    let draft = forge.chunk_draft(&stream, &text);
    let number = draft.block_no;
    let at = forge.push_chunk(
        &mut stream,
        text,
        Draft {
            block_no: number + 7,
            ..draft
        },
    );
    forge.edit(at, |block| put(block, 32, &number.to_le_bytes()));
    let about = "sealed as one block, numbered as another: nonce and AAD differ";
    bad(name, about, &[40, 41], forge)
        .streams(&[&stream.without(1)])
        .error("not_authentic", at)
}

fn a_chunk_of_another_stream() -> Vector {
    let name = "a-chunk-of-another-stream";
    let (mut forge, stream) = checked(name);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut other = Stream::new(&forge.seg, &alice, "office", 2);
    forge.stream(&other);
    other.next_seq = 1;
    let at = forge.chunk(&mut other, rtp(1));
    other.chunks.clear();
    forge.edit(at, |block| put(block, 40, &stream.id));
    let about = "a chunk of the office passed off as one of the front door";
    bad(name, about, &[41], forge)
        .streams(&[&stream, &other])
        .error("not_authentic", at)
}

fn a_chunk_with_another_arrival() -> Vector {
    let name = "a-chunk-with-another-arrival";
    let (mut forge, mut stream) = checked(name);
    let at = forge.chunk(&mut stream, rtp(3));
    forge.edit(at, |block| block[64] ^= 1);
    let about = "first_s in the header a second off, under CRCs that fit: it is in the AAD";
    bad(name, about, &[41], forge)
        .streams(&[&stream.without(1)])
        .error("not_authentic", at)
}

fn a_chunk_forged_with_another_key() -> Vector {
    let name = "a-chunk-forged-with-another-key";
    let about = "sealed by somebody who knows the public key only";
    let (vector, at) = chunk(name, about, &[41], |_, draft| {
        draft.key = Some(secret("the forger's"))
    });
    vector.error("not_authentic", at)
}

/// Alice's KEY entry as `change` makes it, and a stream under her slot.
fn entry(name: &str, about: &'static str, change: impl FnOnce(&Forge, &Slot) -> Entry) -> Vector {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let entry = change(&forge, &alice);
    let at = forge.push(forge.draft(KEY, key_body(&[entry])));
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(1));
    stream.readers.clear();
    bad(name, about, &[37], forge)
        .streams(&[&stream])
        .error("malformed_plaintext", at)
}

fn a_hint_of_another_h() -> Vector {
    let about = "the entry opens, and its H gives another hint than the one shown";
    entry("a-hint-of-another-h", about, |forge, alice| {
        let entry = alice.entries(&forge.seg).remove(0);
        entry.wrapped(&forge.seg, &ALICE, &secret("some other H"), &alice.secret)
    })
}

/// A STREAM whose plaintext breaks its table.
fn stream_text(name: &str, about: &'static str, change: impl FnOnce(&mut Vec<u8>)) -> Vector {
    let (forge, mut stream, at) = stream(name, |draft| change(&mut draft.body));
    stream.readers.clear();
    bad(name, about, &[15], forge)
        .streams(&[&stream])
        .error("malformed_plaintext", at)
}

fn a_short_stream_text() -> Vector {
    stream_text("a-short-stream-text", "31 of 32 bytes", |text| text.truncate(31))
}

fn a_camera_id_that_is_no_text() -> Vector {
    let about = "camera_id is Latin-1, not UTF-8";
    stream_text("a-camera-id-that-is-no-text", about, |text| {
        put(text, 32, b"T\xFCr")
    })
}

fn an_sdp_longer_than_the_body() -> Vector {
    let about = "sdp_len reaches beyond the plaintext";
    stream_text("an-sdp-longer-than-the-body", about, |text| {
        put(text, 8, &0xFFFF_FFF0_u32.to_le_bytes())
    })
}

/// CHUNKs that authenticate and do not hold what they say.
fn plaintexts() -> Vec<Vector> {
    type Change = fn(&mut ChunkText, &mut Draft);
    let case = |name: &str, about: &'static str, musts: &[u32], change: Change| {
        let (vector, at) = chunk(name, about, musts, change);
        vector.error("malformed_plaintext", at)
    };
    vec![
        case(
            "a-chunk-text-of-31-bytes",
            "shorter than its head",
            &[15],
            |_, draft| draft.body.truncate(31),
        ),
        case(
            "a-record-cut",
            "the last record's packet is a byte short",
            &[23],
            |_, draft| _ = draft.body.pop(),
        ),
        case(
            "a-record-head-cut",
            "three bytes behind the last record",
            &[23],
            |_, draft| {
                draft.body.extend([0; 3]);
            },
        ),
        case(
            "one-packet-more-than-counted",
            "packet_count is 2, there are 3",
            &[23],
            |_, draft| draft.body[8] = 2,
        ),
        case(
            "one-packet-less-than-counted",
            "packet_count is 4, there are 3",
            &[23],
            |_, draft| draft.body[8] = 4,
        ),
        case(
            "a-packet-longer-than-the-chunk",
            "the first record's len is 65,535",
            &[23],
            |_, draft| {
                put(&mut draft.body, 32, &[0xFF; 2]);
            },
        ),
    ]
}

fn counted(name: &str, about: &'static str, so_far: u64) -> Vector {
    let (mut forge, mut stream) = one_camera(name);
    forge.chunk(&mut stream, vec![packet(0, 0, &rtp_bytes(0, 30))]);
    stream.so_far = so_far;
    let at = forge.chunk(&mut stream, rtp(1));
    bad(name, about, &[24], forge)
        .streams(&[&stream])
        .error("chunks_so_far", at)
}

fn chunks_so_far_jumps() -> Vector {
    counted(
        "chunks-so-far-jumps",
        "stream_seq is 0, 1 and the sealed count 0, 5: headers were numbered anew",
        5,
    )
}

fn chunks_so_far_stays() -> Vector {
    counted(
        "chunks-so-far-stays",
        "the sealed count of the second chunk is that of the first",
        0,
    )
}
