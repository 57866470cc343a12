//! Frames from hand-made packets: H.264 slices of a few bits, with the parameter sets of real encoders.

use super::*;
use crate::media::codec::tests::{H264_PPS, H264_SPS, H265_PPS, H265_SPS, H265_VPS, hex};

const IDR: u8 = 0x65;
const P: u8 = 0x41;
const SEI: [u8; 5] = [0x06, 0x05, 0x01, 0xAA, 0x80];

/// A slice whose header says: macroblock 0 (or 10), P slice, picture set 0, frame number 0; then `mark`.
fn slice(nal_header: u8, first: bool, mark: u8) -> Vec<u8> {
    // first_mb ue(0) = 1 or ue(10) = 0001011; slice_type ue(5) = 00110; pps ue(0) = 1; 9 zero bits and a stop bit.
    let bits = if first {
        "1001101000000001"
    } else {
        "0001011001101000"
    };
    let mut nal = vec![nal_header];
    nal.extend([
        u8::from_str_radix(&bits[..8], 2).unwrap(),
        u8::from_str_radix(&bits[8..], 2).unwrap(),
        mark,
    ]);
    nal
}

struct Camera {
    assembler: Assembler,
    frames: Vec<Frame>,
    arrival_ns: u64,
}

impl Camera {
    fn h264() -> Camera {
        let mut assembler = Assembler::new(Codec::H264);
        assembler.sets.insert(&hex(H264_SPS));
        assembler.sets.insert(&hex(H264_PPS));
        Camera {
            assembler,
            frames: Vec::new(),
            arrival_ns: 0,
        }
    }

    fn send(&mut self, ticks: i64, marker: bool, payload: &[u8]) -> &mut Camera {
        self.send_after(Follows::Directly, ticks, marker, payload)
    }

    fn send_after(&mut self, follows: Follows, ticks: i64, marker: bool, payload: &[u8]) -> &mut Camera {
        self.arrival_ns += 1;
        let (arrival_ns, rtp_time) = (self.arrival_ns, ticks as u32);
        self.assembler.push(
            &Ordered {
                arrival_ns,
                rtp_time,
                marker,
                payload_type: 96,
                payload,
                follows,
            },
            ticks,
            0,
        );
        self.collect();
        self
    }

    fn collect(&mut self) {
        while let Some(frame) = self.assembler.next_frame() {
            self.frames.push(frame);
        }
    }

    /// Of each frame its time and, of each NAL unit, the first and the last byte.
    fn end(&mut self) -> Vec<(i64, Vec<(u8, u8)>)> {
        self.assembler.flush();
        self.collect();
        self.frames
            .iter()
            .map(|frame| (frame.ticks, ends(&frame.data)))
            .collect()
    }
}

fn ends(mut data: &[u8]) -> Vec<(u8, u8)> {
    let mut ends = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let (nal, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        ends.push((nal[0], nal[nal.len() - 1]));
        data = rest;
    }
    ends
}

const LOST: Follows = Follows::Lost(1);

#[test]
fn a_frame_is_all_slices_of_one_timestamp_whatever_stands_between_them() {
    let mut camera = Camera::h264();
    camera
        .send(0, false, &slice(IDR, true, 1))
        .send(0, false, &SEI)
        .send(0, false, &slice(IDR, false, 2));
    camera.send(9, true, &slice(P, true, 3));
    assert_eq!(
        camera.end(),
        [(0, vec![(IDR, 1), (0x06, 0x80), (IDR, 2)]), (9, vec![(P, 3)])]
    );
}

#[test]
fn two_pictures_under_one_timestamp_are_two_frames() {
    let mut camera = Camera::h264();
    camera
        .send(0, true, &slice(IDR, true, 1))
        .send(0, true, &slice(P, true, 2));
    camera
        .send(9, false, &slice(P, true, 3))
        .send(9, false, &SEI)
        .send(9, true, &slice(P, true, 4));
    let want = [
        (0, vec![(IDR, 1)]),
        (0, vec![(P, 2)]),
        (9, vec![(P, 3)]),
        (9, vec![(0x06, 0x80), (P, 4)]),
    ];
    assert_eq!(camera.end(), want);
}

#[test]
fn what_stands_ahead_of_a_picture_stays_with_it_whatever_its_timestamp() {
    let mut camera = Camera::h264();
    camera
        .send(0, true, &slice(IDR, true, 1))
        .send(0, false, &SEI)
        .send(5, true, &SEI);
    camera.send(9, true, &slice(P, true, 2));
    assert_eq!(
        camera.end(),
        [(0, vec![(IDR, 1)]), (9, vec![(0x06, 0x80), (0x06, 0x80), (P, 2)])]
    );
}

#[test]
fn parameter_sets_and_filler_are_no_part_of_a_frame() {
    let mut camera = Camera::h264();
    camera
        .send(0, false, &hex(H264_SPS))
        .send(0, false, &hex(H264_PPS))
        .send(0, false, &[0x09, 0xF0]);
    camera
        .send(0, false, &slice(IDR, true, 1))
        .send(0, true, &[0x0C, 0xFF, 0x80]);
    assert_eq!(camera.end(), [(0, vec![(0x09, 0xF0), (IDR, 1)])]);
}

#[test]
fn a_loss_behind_a_marker_costs_no_frame_that_arrived() {
    let mut camera = Camera::h264();
    camera
        .send(0, true, &slice(IDR, true, 1))
        .send_after(LOST, 9, true, &slice(P, true, 2));
    assert_eq!(camera.end().len(), 2);
    assert_eq!(camera.assembler.left_out.incomplete, 0);
}

#[test]
fn a_loss_at_the_end_in_the_middle_or_at_the_beginning_costs_that_frame_only() {
    let mut camera = Camera::h264();
    // The end: no marker was seen.
    camera
        .send(0, false, &slice(IDR, true, 1))
        .send_after(LOST, 9, true, &slice(P, true, 2));
    // The middle.
    camera
        .send(18, false, &slice(P, true, 3))
        .send_after(LOST, 18, true, &slice(P, false, 4));
    // The beginning: the slice that comes is not a picture's first.
    camera
        .send(27, true, &slice(P, true, 5))
        .send_after(LOST, 36, true, &slice(P, false, 6));
    camera.send(45, true, &slice(P, true, 7));
    assert_eq!(
        camera.end(),
        [(9, vec![(P, 2)]), (27, vec![(P, 5)]), (45, vec![(P, 7)])]
    );
    assert_eq!(camera.assembler.left_out.incomplete, 3);
}

#[test]
fn a_marker_on_every_slice_does_not_hide_a_lost_one() {
    let mut camera = Camera::h264();
    camera
        .send(0, true, &slice(IDR, true, 1))
        .send_after(LOST, 0, true, &slice(IDR, false, 2));
    camera.send(9, true, &slice(P, true, 3));
    assert_eq!(camera.end(), [(9, vec![(P, 3)])]);
}

#[test]
fn pieces_make_a_unit_only_from_first_to_last() {
    let whole = slice(IDR, true, 1);
    let piece = |flags: u8, bytes: &[u8]| [&[0x7C, flags | 5], bytes].concat();
    let mut camera = Camera::h264();
    camera
        .send(0, false, &piece(0x80, &whole[1..2]))
        .send(0, false, &piece(0, &whole[2..3]));
    camera.send(0, true, &piece(0x40, &whole[3..]));
    // Without its first, then without its last piece.
    camera.send_after(LOST, 9, true, &piece(0x40, &whole[3..]));
    camera
        .send(18, true, &piece(0x80, &whole[1..]))
        .send(27, true, &slice(P, true, 2));
    assert_eq!(camera.end(), [(0, vec![(IDR, 1)]), (27, vec![(P, 2)])]);
}

#[test]
fn the_last_frame_is_whole_by_its_marker_or_where_markers_are_never_sent() {
    let mut camera = Camera::h264();
    camera
        .send(0, true, &slice(IDR, true, 1))
        .send(9, false, &slice(P, true, 2));
    assert_eq!(camera.end().len(), 1);
    let mut camera = Camera::h264();
    camera
        .send(0, false, &slice(IDR, true, 1))
        .send(9, false, &slice(P, true, 2));
    assert_eq!(camera.end().len(), 2);
}

#[test]
fn a_frame_has_arrived_when_its_last_packet_has() {
    let mut camera = Camera::h264();
    camera
        .send(0, false, &slice(IDR, true, 1))
        .send(0, false, &slice(IDR, false, 2));
    camera.send(0, true, &slice(IDR, false, 3));
    camera.end();
    assert_eq!(
        (camera.frames[0].first_arrival_ns, camera.frames[0].arrival_ns),
        (1, 3)
    );
}

#[test]
fn both_fields_of_a_frame_are_one_frame() {
    // 1920×1080 interlaced: 4 bits of frame number, then field_pic_flag and bottom_field_flag.
    let field = |header: u8, bottom: bool| {
        // first_mb 1 · slice_type 00110 · pps 1 · frame_num 0000 · field 1 · bottom · 1, padded
        let bits: u16 = if bottom {
            0b1001_1010_0001_1110
        } else {
            0b1001_1010_0001_0110
        };
        [vec![header], bits.to_be_bytes().to_vec(), vec![u8::from(bottom)]].concat()
    };
    let mut assembler = Assembler::new(Codec::H264);
    assembler.sets.insert(&hex(
        "67640028acd94078044fdffe0006000820000003002000000643e2c5b2c0",
    ));
    assembler.sets.insert(&hex("68fba3cb22c0"));
    let mut camera = Camera {
        assembler,
        frames: Vec::new(),
        arrival_ns: 0,
    };
    camera
        .send(0, true, &field(IDR, false))
        .send(0, true, &field(P, true));
    camera
        .send(9, true, &field(P, false))
        .send(9, true, &field(P, true));
    assert_eq!(
        camera.end(),
        [(0, vec![(IDR, 0), (P, 1)]), (9, vec![(P, 0), (P, 1)])]
    );
}

#[test]
fn h265_pictures_are_told_by_their_first_slice_and_interleaving_is_refused() {
    let mut assembler = Assembler::new(Codec::H265 { don: true });
    for set in [H265_VPS, H265_SPS, H265_PPS] {
        assembler.sets.insert(&hex(set));
    }
    let mut camera = Camera {
        assembler,
        frames: Vec::new(),
        arrival_ns: 0,
    };
    let slice = |don: u8, first: bool, mark: u8| vec![0x02, 0x01, 0, don, if first { 0x80 } else { 0 }, mark];
    camera
        .send(0, false, &slice(1, true, 1))
        .send(0, false, &slice(2, false, 2));
    camera
        .send(0, true, &slice(3, true, 3))
        .send(9, true, &slice(4, true, 4));
    // A number that falls: the sender interleaves.
    camera.send(18, true, &slice(2, true, 5));
    assert_eq!(
        camera.end(),
        [(0, vec![(2, 1), (2, 2)]), (0, vec![(2, 3)]), (9, vec![(2, 4)])]
    );
    assert_eq!(camera.assembler.left_out.interleaved, 1);
}
