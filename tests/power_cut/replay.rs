//! A disk's life played again from its log, to be cut anywhere.
//!
//! A cut lies after a flush. At the least what was written before it is there. Of what came between it and the next flush a disk with a
//! cache may have kept any part, in any order, also halves of writes: a torn cut draws some of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::writes::{Request, Writes};
use super::{MARKS_AT, events_of};
use crate::harness::rtp::Random;
use crate::harness::tools::{text, tool};

const SECTOR_BYTES: usize = 512;

/// The disk at one moment of its life.
#[derive(Debug)]
pub struct Replay<'a> {
    writes: &'a Writes,
    /// The next request to be applied.
    at: usize,
    state: File,
    path: PathBuf,
    /// Everything the engine had said by now.
    pub said: Vec<Value>,
}

impl<'a> Replay<'a> {
    /// Begins with the disk as it was made; `path` becomes a copy of it.
    pub fn new(writes: &'a Writes, made: &Path, path: &Path) -> io::Result<Replay<'a>> {
        copy(made, path);
        Ok(Replay {
            writes,
            at: 0,
            state: File::options().write(true).open(path)?,
            path: path.to_owned(),
            said: Vec::new(),
        })
    }

    /// Goes on to just behind the next flush; false at the end of the log.
    pub fn to_next_flush(&mut self) -> io::Result<bool> {
        while let Some(request) = self.writes.requests.get(self.at) {
            self.at += 1;
            match *request {
                Request::Flush => return Ok(true),
                Request::Write { to, from, len, .. } => {
                    let bytes = self.writes.data(from, len)?;
                    if to >= MARKS_AT {
                        self.said.extend(events_of(&bytes));
                    }
                    self.state.write_all_at(&bytes, to)?;
                }
            }
        }
        Ok(false)
    }

    /// How many requests are behind us.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The disk if it lost everything since the flush: a copy at `image`.
    pub fn cut(&self, image: &Path) {
        copy(&self.path, image);
    }

    /// The disk just before the next flush completed, with a part of what that was to make durable; and what the engine had said by then,
    /// which rests on earlier flushes alone.
    pub fn torn_cut(&self, image: &Path, random: &mut Random) -> io::Result<Vec<Value>> {
        copy(&self.path, image);
        let file = File::options().write(true).open(image)?;
        let mut said = self.said.clone();
        for request in &self.writes.requests[self.at..] {
            let Request::Write { to, from, len, fua } = *request else {
                break;
            };
            let bytes = self.writes.data(from, len)?;
            if to >= MARKS_AT {
                said.extend(events_of(&bytes));
            }
            let kept = match random.below(4) {
                _ if fua => Kept::Whole,
                0 => Kept::Nothing,
                1 | 2 => Kept::Whole,
                _ => Kept::Some,
            };
            keep(&file, to, &bytes, kept, random)?;
        }
        Ok(said)
    }
}

/// How much of a write survives.
#[derive(Clone, Copy)]
enum Kept {
    Nothing,
    Whole,
    /// Some of its sectors.
    Some,
}

fn keep(file: &File, to: u64, bytes: &[u8], kept: Kept, random: &mut Random) -> io::Result<()> {
    match kept {
        Kept::Nothing => Ok(()),
        Kept::Whole => file.write_all_at(bytes, to),
        Kept::Some => {
            for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if random.below(2) == 0 {
                    file.write_all_at(sector, to + (number * SECTOR_BYTES) as u64)?;
                }
            }
            Ok(())
        }
    }
}

/// Copies an image; what is zero takes no room.
fn copy(from: &Path, to: &Path) {
    tool("cp", &["--sparse=always", "--", text(from), text(to)]);
}
