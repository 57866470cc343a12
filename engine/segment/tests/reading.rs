//! Reading: who opens what, and what happens when the index or a block is not there.

mod common;

use std::cell::RefCell;

use common::*;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State, StreamError, open_chunks, together};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::Source;

/// Camera and packets of everything that opens.
type Opened = Vec<(String, Vec<Vec<u8>>)>;

fn packets_of(file: &[u8], keyring: &mut Keyring) -> Result<Opened, StreamError> {
    let mut segment = Segment::open(file)?;
    let mut cameras = Vec::new();
    for stream in segment.open_streams(keyring)? {
        let stream = stream?;
        let mut packets = Vec::new();
        for chunk in segment.chunks(&stream)? {
            packets.extend(chunk?.packets().map(|packet| packet.bytes.to_vec()));
        }
        cameras.push((stream.info.camera_id.clone(), packets));
    }
    Ok(cameras)
}

fn alices() -> Opened {
    let small = |camera: u8, no: u8| [vec![camera, no, 0], vec![camera, no, 1]];
    let front: Vec<_> = [small(0, 0), small(0, 1), small(0, 2)].concat();
    let mut garden = small(1, 0).to_vec();
    garden.extend(vec![vec![0x55; 1000]; 12]);
    vec![("front-door".into(), front), ("garden".into(), garden)]
}

#[test]
fn an_identity_opens_its_cameras_and_no_others() {
    let file = closed_segment(0);
    let opened = packets_of(&file, &mut Keyring::new(alice())).expect("opens");
    assert_eq!(opened, alices());
    let opened = packets_of(&file, &mut Keyring::new(bob())).expect("opens");
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].0, "bobs-garage");
    let refused = packets_of(&file, &mut Keyring::new(eve()));
    assert!(matches!(refused, Err(StreamError::NothingForIdentity)));
}

#[test]
fn an_open_segment_reads_like_a_closed_one_also_with_space_behind_it() {
    let mut file = open_segment(0).bytes;
    let read = |file: &[u8]| packets_of(file, &mut Keyring::new(alice())).expect("opens");
    assert_eq!(read(&file), alices());
    file.resize(file.len() + (5 << 20), 0);
    assert_eq!(read(&file), alices());
    let segment = Segment::open(&file[..]).expect("opens");
    assert_eq!(segment.state(), State::Open);
    assert_eq!(segment.gaps().len(), 1);
}

#[test]
fn later_segments_are_found_by_hint_and_earlier_ones_by_trial() {
    let mut keyring = Keyring::new(alice());
    for n in [1, 2, 3, 3, 0, 5] {
        let opened = packets_of(&closed_segment(n), &mut keyring).expect("opens");
        assert_eq!(opened, alices(), "segment {n}");
    }
}

#[test]
fn packets_carry_their_arrival_and_kind() {
    let file = closed_segment(0);
    let mut segment = Segment::open(&file[..]).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(bob())).expect("opens");
    let stream = streams[0].as_ref().expect("opens");
    let chunks: Vec<_> = segment.chunks(stream).expect("rows").collect();
    let last = chunks[1].as_ref().expect("opens");
    let arrivals: Vec<_> = last.packets().map(|packet| packet.arrival_ns).collect();
    let base_ns = (BEGAN_S + 1) * 1_000_000_000;
    assert_eq!(arrivals, [base_ns, base_ns + 1_000_000]);
    assert!(last.packets().all(|packet| !packet.rtcp));
}

/// Notes every read of it.
struct Watched<'a>(&'a [u8], RefCell<Vec<(u64, u64)>>);

impl Watched<'_> {
    fn bytes_read(&self) -> u64 {
        self.1.borrow().iter().map(|(_, len)| len).sum()
    }
}

impl Source for Watched<'_> {
    fn len(&self) -> u64 {
        Source::len(self.0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.1.borrow_mut().push((offset, buf.len() as u64));
        self.0.read_at(offset, buf)
    }
}

#[test]
fn listing_a_closed_segment_reads_no_chunk() {
    let mut recording = Recording::begin(0);
    for _ in 0..200 {
        recording.chunk(0, &vec![vec![1; 1200]; 50]);
    }
    let (file, finished) = recording.finish(None);
    let source = Watched(&file, RefCell::default());
    let mut segment = Segment::open(&source).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    assert_eq!(streams.len(), 2);
    assert_eq!(segment.streams()[0].chunks, 200);
    // SEGMENT twice, FOOTER, two INDEX blocks, one KEY block, two STREAM blocks.
    assert_eq!(source.bytes_read(), 8 * 4096, "of {} bytes", file.len());

    let streams: Vec<_> = streams
        .iter()
        .map(|stream| stream.as_ref().expect("opens"))
        .collect();
    let chunks = segment.listed_chunks_of(&streams).expect("rows");
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [200, 0]);
    // And the chunk table, once for all streams.
    assert_eq!(source.bytes_read(), 8 * 4096 + finished.footer.chunks_len);
}

#[test]
fn a_stream_is_read_by_its_own_chunks_and_neighbours_together() {
    let mut recording = Recording::begin(0);
    // Alice's chunks alone, in pairs, and so many on end that they are more than one read takes.
    let mut own = 0;
    let mut add = |recording: &mut Recording, camera| {
        let placed = recording.chunk(camera, &vec![vec![1; 1200]; 50]);
        own += u64::from(placed.total_len) * u64::from(camera == 0);
    };
    for neighbours in [1, 2, 1, 40] {
        add(&mut recording, 2);
        (0..neighbours).for_each(|_| add(&mut recording, 0));
    }
    let (file, _) = recording.finish(None);
    let source = Watched(&file, RefCell::default());
    let mut segment = Segment::open(&source).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    let stream = streams[0].as_ref().expect("opens");
    let rows = segment.chunk_rows(stream).expect("rows");
    source.1.borrow_mut().clear();

    let (mut at, mut packets) = (0, 0);
    while at < rows.len() {
        let next = together(&rows[at..]);
        for chunk in open_chunks(&source, stream, &rows[at..at + next]) {
            packets += chunk.expect("opens").packets().count();
        }
        at += next;
    }
    assert_eq!(packets, 44 * 50);
    assert_eq!(source.bytes_read(), own);
    let reads = source.1.into_inner();
    // 40 chunks of 60 KiB: 17 fit 1 MiB.
    assert_eq!(reads.len(), 3 + 40usize.div_ceil(17), "{reads:?}");
    assert!(reads.is_sorted(), "in the order of the file");
}

#[test]
fn a_bad_sector_costs_its_own_chunk_and_not_those_read_with_it() {
    let mut recording = Recording::begin(0);
    let placed: Vec<_> = (0..4).map(|_| recording.small_chunk(0)).collect();
    let (file, _) = recording.finish(None);
    let source = Failing(&file, placed[2].offset);
    let mut segment = Segment::open(&source).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    let stream = streams[0].as_ref().expect("opens");
    let rows = segment.chunk_rows(stream).expect("rows");
    assert_eq!(together(&rows), 4);
    let opened: Vec<_> = open_chunks(&source, stream, &rows)
        .iter()
        .map(Result::is_ok)
        .collect();
    assert_eq!(opened, [true, true, false, true]);
}

#[test]
fn a_damaged_index_is_done_without() {
    let (file, finished) = open_segment(0).finish(None);
    let footer = finished.footer;
    for offset in [footer.chunks_offset, footer.streams_offset, footer.keys_offset] {
        let mut file = file.clone();
        file[offset as usize + 140] ^= 1;
        let opened = packets_of(&file, &mut Keyring::new(alice())).expect("opens");
        assert_eq!(opened, alices());
    }
}

#[test]
fn a_damaged_chunk_is_missed_by_its_number_and_the_rest_still_opens() {
    let mut recording = Recording::begin(0);
    let placed: Vec<_> = (0..4).map(|_| recording.small_chunk(0)).collect();
    let (mut file, _) = recording.finish(None);
    file[placed[1].offset as usize + 150] ^= 1;
    let mut segment = Segment::open(&file[..]).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    let stream = streams[0].as_ref().expect("opens");
    let chunks: Vec<_> = segment.chunks(stream).expect("rows").collect();
    assert_eq!(chunks.len(), 4);
    let Err(StreamError::Read(ReadError::Damaged { offset, .. })) = &chunks[1] else {
        panic!("the damage is named");
    };
    assert_eq!(*offset, placed[1].offset);
    assert!(chunks[0].is_ok() && chunks[2].is_ok() && chunks[3].is_ok());

    // The same without an index: the chunk is a jump of stream_seq.
    let cut = &file[..file.len() - 4096];
    let mut segment = Segment::open(cut).expect("opens");
    let missing = segment.chunks(stream).expect("rows").nth(1).expect("an item");
    assert!(matches!(
        missing,
        Err(StreamError::ChunksMissing { first: 1, count: 1 })
    ));
}

#[test]
fn one_whole_segment_block_is_enough() {
    let file = closed_segment(0);
    for at in [100, 4096 + 100] {
        let mut file = file.clone();
        file[at] ^= 1;
        let opened = packets_of(&file, &mut Keyring::new(alice())).expect("opens");
        assert_eq!(opened, alices());
    }
    let mut both = file.clone();
    both[100] ^= 1;
    both[4096 + 100] ^= 1;
    let refused = Segment::open(&both[..]).err().expect("refused");
    assert!(
        matches!(refused, ReadError::HeadLost { offset: 24576, .. }),
        "{refused:?}"
    );
}

#[test]
fn what_is_no_segment_is_told_apart() {
    let error = |bytes: &[u8]| Segment::open(bytes).err().expect("refused");
    assert!(matches!(error(b""), ReadError::NeverBegun));
    assert!(matches!(error(&[0; 100_000]), ReadError::NeverBegun));
    assert!(matches!(error(b"v=0\r\n"), ReadError::NotASegment(_)));
    assert!(matches!(error(&[7; 50_000]), ReadError::NotASegment(_)));
    let file = closed_segment(0);
    assert!(matches!(
        error(&file[..100]),
        ReadError::Damaged { offset: 0, .. }
    ));
    let mut later = file.clone();
    later[3] = b'2';
    assert!(
        Segment::open(&later[..]).is_ok(),
        "the other SEGMENT block is of this version"
    );
    later[4096 + 3] = b'2';
    assert!(matches!(error(&later), ReadError::Unsupported { offset: 0, .. }));
}

/// Fails at one page.
struct Failing<'a>(&'a [u8], u64);

impl Source for Failing<'_> {
    fn len(&self) -> u64 {
        Source::len(self.0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        if (offset..offset + buf.len() as u64).contains(&self.1) {
            return Err(std::io::Error::other("medium error"));
        }
        self.0.read_at(offset, buf)
    }
}

#[test]
fn a_read_error_names_its_page_and_is_not_an_end() {
    let file = open_segment(0).bytes;
    let error = Segment::open(Failing(&file, 5 * 4096)).err().expect("fails");
    assert!(matches!(error, ReadError::Io { offset: 20480, .. }), "{error:?}");
}
