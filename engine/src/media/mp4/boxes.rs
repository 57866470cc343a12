//! The boxes around the samples (ISO/IEC 14496-12 §8).

use std::num::NonZeroU32;
use std::time::Duration;

use shiguredo_mp4::boxes::{
    Brand, Co64Box, CttsBox, CttsEntry, DinfBox, EdtsBox, ElstBox, ElstEntry, FtypBox, HdlrBox, MdhdBox,
    MdiaBox, MediaHeader, MinfBox, MoovBox, MvhdBox, StblBox, StcoBox, StscBox, StscEntry, StsdBox, StssBox,
    StszBox, SttsBox, SttsEntry, TkhdBox, TrakBox, VmhdBox,
};
use shiguredo_mp4::{Either, Encode, FixedPointNumber, LanguageCode, Mp4FileTime};

use super::timeline::Timeline;
use super::{Error, Track};

/// `size = 1 · "mdat" · 64-bit size`.
pub(super) const MEDIA_DATA_HEADER_BYTES: u64 = 16;

/// The `ftyp` box.
pub(super) fn file_type() -> Vec<u8> {
    let ftyp = FtypBox {
        major_brand: Brand::ISOM,
        minor_version: 512,
        compatible_brands: vec![Brand::ISOM, Brand::ISO2, Brand::MP41],
    };
    ftyp.encode_to_vec().expect("the box holds constants that fit")
}

/// The head of an `mdat` box of `size` bytes, head included.
pub(super) fn media_data_header(size: u64) -> [u8; MEDIA_DATA_HEADER_BYTES as usize] {
    let mut header = [0; MEDIA_DATA_HEADER_BYTES as usize];
    header[3] = 1;
    header[4..8].copy_from_slice(b"mdat");
    header[8..].copy_from_slice(&size.to_be_bytes());
    header
}

/// The `moov` box. `base_ns`: wall time of presentation time 0, nanoseconds since 1970.
pub(super) fn movie(tracks: &[(&Track, Timeline)], base_ns: i64) -> Result<Vec<u8>, Error> {
    let timescale = tracks
        .iter()
        .map(|(_, t)| t.timescale)
        .min()
        .expect("a movie has a track");
    // In ticks of `timescale`; the tracks' own timescales are multiples of it.
    let start_of = |t: &Timeline| t.starts / i64::from(t.timescale / timescale);
    let start = tracks
        .iter()
        .map(|(_, t)| start_of(t))
        .min()
        .expect("a movie has a track");
    let start_ns = i128::from(base_ns) + i128::from(start) * 1_000_000_000 / i128::from(timescale);
    let created = Mp4FileTime::from_unix_time(Duration::from_nanos(start_ns.max(0) as u64));
    let mut duration = 0;
    let mut trak_boxes = Vec::new();
    for (number, (track, timeline)) in (1..).zip(tracks) {
        let edits = edits(timeline, timescale, start_of(timeline) - start);
        let track_duration = edits.iter().map(|e| e.edit_duration).sum();
        duration = duration.max(track_duration);
        let first = &track
            .entries
            .first()
            .expect("a track with samples has an entry")
            .1;
        trak_boxes.push(TrakBox {
            tkhd_box: TkhdBox {
                flag_track_enabled: true,
                flag_track_in_movie: true,
                flag_track_in_preview: false,
                flag_track_size_is_aspect_ratio: false,
                creation_time: created,
                modification_time: created,
                track_id: number,
                duration: track_duration,
                layer: TkhdBox::DEFAULT_LAYER,
                alternate_group: TkhdBox::DEFAULT_ALTERNATE_GROUP,
                volume: TkhdBox::DEFAULT_VIDEO_VOLUME,
                matrix: TkhdBox::DEFAULT_MATRIX,
                width: FixedPointNumber::new(first.shown_width as i16, 0),
                height: FixedPointNumber::new(first.shown_height as i16, 0),
            },
            edts_box: Some(EdtsBox {
                elst_box: Some(ElstBox { entries: edits }),
                unknown_boxes: Vec::new(),
            }),
            mdia_box: media(track, timeline, created),
            unknown_boxes: Vec::new(),
        });
    }
    let moov = MoovBox {
        mvhd_box: MvhdBox {
            creation_time: created,
            modification_time: created,
            timescale: at_least_one(timescale),
            duration,
            rate: MvhdBox::DEFAULT_RATE,
            volume: MvhdBox::DEFAULT_VOLUME,
            matrix: MvhdBox::DEFAULT_MATRIX,
            next_track_id: tracks.len() as u32 + 1,
        },
        trak_boxes,
        mvex_box: None,
        unknown_boxes: Vec::new(),
    };
    moov.encode_to_vec()
        .map_err(|error| Error::Unsupported(format!("this does not fit into an MP4: {error}")))
}

/// The part of the media that is shown, after as long a pause as the track begins later than the movie.
fn edits(timeline: &Timeline, timescale: u32, pause: i64) -> Vec<ElstEntry> {
    const EMPTY: i64 = -1;
    let normal = FixedPointNumber::new(1, 0);
    let (start, end) = timeline.edit;
    let divisor = u64::from(timeline.timescale / timescale);
    let mut edits = Vec::new();
    if pause > 0 {
        edits.push(ElstEntry {
            edit_duration: pause as u64,
            media_time: EMPTY,
            media_rate: normal,
        });
    }
    edits.push(ElstEntry {
        edit_duration: (end - start).div_ceil(divisor),
        media_time: start as i64,
        media_rate: normal,
    });
    edits
}

fn media(track: &Track, timeline: &Timeline, created: Mp4FileTime) -> MdiaBox {
    MdiaBox {
        mdhd_box: MdhdBox {
            creation_time: created,
            modification_time: created,
            timescale: at_least_one(timeline.timescale),
            duration: timeline.deltas.iter().map(|&delta| u64::from(delta)).sum(),
            language: LanguageCode::UNDEFINED,
        },
        hdlr_box: HdlrBox {
            handler_type: HdlrBox::HANDLER_TYPE_VIDE,
            name: b"VideoHandler\0".to_vec(),
        },
        minf_box: MinfBox {
            media_header: Some(MediaHeader::Vmhd(VmhdBox {
                graphicsmode: VmhdBox::DEFAULT_GRAPHICSMODE,
                opcolor: VmhdBox::DEFAULT_OPCOLOR,
            })),
            dinf_box: DinfBox::LOCAL_FILE,
            stbl_box: sample_table(track, timeline),
            unknown_boxes: Vec::new(),
        },
        unknown_boxes: Vec::new(),
    }
}

fn sample_table(track: &Track, timeline: &Timeline) -> StblBox {
    let deltas = runs(timeline.deltas.iter().copied());
    let offsets = runs(timeline.offsets.iter().copied());
    let reordered = timeline.offsets.iter().any(|&offset| offset != 0);
    StblBox {
        stsd_box: StsdBox {
            entries: track
                .entries
                .iter()
                .map(|(_, video)| video.entry.clone())
                .collect(),
        },
        stts_box: SttsBox {
            entries: deltas
                .map(|(sample_count, sample_delta)| SttsEntry {
                    sample_count,
                    sample_delta,
                })
                .collect(),
        },
        ctts_box: reordered.then(|| CttsBox {
            version: 0,
            entries: offsets
                .map(|(sample_count, offset)| CttsEntry {
                    sample_count,
                    sample_offset: i64::from(offset),
                })
                .collect(),
        }),
        cslg_box: None,
        stsc_box: StscBox {
            entries: sample_to_chunk(track),
        },
        stsz_box: StszBox::Variable {
            entry_sizes: track.rows.iter().map(|row| row.size).collect(),
        },
        stco_or_co64_box: chunk_offsets(track),
        stss_box: sync_samples(track),
        sdtp_box: None,
        unknown_boxes: Vec::new(),
    }
}

fn sample_to_chunk(track: &Track) -> Vec<StscEntry> {
    let mut entries: Vec<StscEntry> = Vec::new();
    for (number, chunk) in (1u32..).zip(&track.chunks) {
        let description = at_least_one(chunk.entry + 1);
        let like_the_last = entries.last().is_some_and(|e| {
            e.sample_per_chunk == chunk.samples && e.sample_description_index == description
        });
        if !like_the_last {
            entries.push(StscEntry {
                first_chunk: at_least_one(number),
                sample_per_chunk: chunk.samples,
                sample_description_index: description,
            });
        }
    }
    entries
}

fn chunk_offsets(track: &Track) -> Either<StcoBox, Co64Box> {
    let short: Option<Vec<u32>> = track
        .chunks
        .iter()
        .map(|c| u32::try_from(c.offset).ok())
        .collect();
    match short {
        Some(chunk_offsets) => Either::A(StcoBox { chunk_offsets }),
        None => Either::B(Co64Box {
            chunk_offsets: track.chunks.iter().map(|c| c.offset).collect(),
        }),
    }
}

/// Where decoding can begin. Left out when that is everywhere; if there is no key frame, the next best places.
fn sync_samples(track: &Track) -> Option<StssBox> {
    let keys = track.rows.iter().any(|row| row.sample.key);
    let is_sync = |row: &super::Row| if keys { row.sample.key } else { row.sample.point };
    if track.rows.iter().all(is_sync) {
        return None;
    }
    let numbered = (1u32..).zip(&track.rows);
    Some(StssBox {
        sample_numbers: numbered
            .filter(|(_, r)| is_sync(r))
            .map(|(n, _)| at_least_one(n))
            .collect(),
    })
}

/// Equal neighbours, as (count, value).
fn runs(values: impl Iterator<Item = u32>) -> impl Iterator<Item = (u32, u32)> {
    let mut values = values.peekable();
    std::iter::from_fn(move || {
        let value = values.next()?;
        let mut count = 1;
        while values.next_if_eq(&value).is_some() {
            count += 1;
        }
        Some((count, value))
    })
}

/// Numbers that start at one, and timescales.
fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("sample, chunk and entry numbers start at 1; a timescale is at least 10")
}

#[cfg(test)]
mod tests {
    use super::super::Chunk;
    use super::*;

    #[test]
    fn files_beyond_4_gib_have_64_bit_offsets() {
        let chunk = |offset| Chunk {
            offset,
            bytes: 1,
            samples: 1,
            entry: 0,
        };
        let mut track = Track {
            chunks: vec![chunk(48), chunk(u64::from(u32::MAX))],
            ..Track::default()
        };
        assert!(matches!(chunk_offsets(&track), Either::A(_)));
        track.chunks.push(chunk(1 << 32));
        let Either::B(co64) = chunk_offsets(&track) else {
            panic!("32 bits do not hold it")
        };
        assert_eq!(co64.chunk_offsets[2], 1 << 32);
        assert_eq!(media_data_header(1 << 33)[8..], (1u64 << 33).to_be_bytes());
    }
}
