//! Writes and syncs in flight: each slot owns what the kernel reads until the completion is in.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::memory::{Mapping, Region};
use super::ring::Event;

/// Spans gathered in one write. 64 chunks of 64 KiB make 4 MiB, the largest request a virtio disk takes here.
pub const SPANS_MAX: usize = 64;

/// A part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: usize,
    pub len: usize,
}

/// No room for another operation at the moment: wait, drain, and try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no room for another write or sync in flight")
    }
}

impl std::error::Error for Busy {}

struct Flight {
    token: u64,
    sync: bool,
    /// `Some` exactly while in flight: keeps the descriptor open, so that its number is not reused.
    file: Option<Arc<File>>,
    memory: Option<Arc<Mapping>>,
    /// At a fixed address, for the kernel to read while the write is in flight.
    iovecs: Box<[libc::iovec; SPANS_MAX]>,
}

pub(super) struct Flights {
    flights: Box<[Flight]>,
    free: Vec<u16>,
}

/// A write ready to be pushed.
pub(super) struct Departure {
    pub index: u16,
    pub iovecs: *const libc::iovec,
    pub iovec_count: u32,
}

impl Flights {
    pub(super) fn new(most: u16) -> Flights {
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let flight = || Flight {
            token: 0,
            sync: false,
            file: None,
            memory: None,
            iovecs: Box::new([empty; SPANS_MAX]),
        };
        Flights {
            flights: (0..most).map(|_| flight()).collect(),
            free: (0..most).rev().collect(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    pub(super) fn write(
        &mut self,
        file: &Arc<File>,
        region: &Region,
        spans: impl IntoIterator<Item = Span>,
        token: u64,
    ) -> Result<Departure, Busy> {
        let index = *self.free.last().ok_or(Busy)?;
        let flight = &mut self.flights[usize::from(index)];
        let mapping = region.mapping();
        let mut count = 0;
        for Span { offset, len } in spans {
            assert!(count < SPANS_MAX, "a write gathers at most {SPANS_MAX} spans");
            let fits = offset.checked_add(len).is_some_and(|end| end <= mapping.len());
            assert!(
                fits,
                "span {offset}+{len} lies outside a region of {} bytes",
                mapping.len()
            );
            // SAFETY: offset ≤ the mapping's length, as just checked.
            let base = unsafe { mapping.base().add(offset) };
            flight.iovecs[count] = libc::iovec {
                iov_base: base.cast(),
                iov_len: len,
            };
            count += 1;
        }
        assert!(count > 0, "a write has at least one span");
        flight.token = token;
        flight.sync = false;
        flight.file = Some(Arc::clone(file));
        flight.memory = Some(Arc::clone(mapping));
        self.free.pop();
        Ok(Departure {
            index,
            iovecs: flight.iovecs.as_ptr(),
            iovec_count: count as u32,
        })
    }

    pub(super) fn sync(&mut self, file: &Arc<File>, token: u64) -> Result<u16, Busy> {
        let index = self.free.pop().ok_or(Busy)?;
        let flight = &mut self.flights[usize::from(index)];
        flight.token = token;
        flight.sync = true;
        flight.file = Some(Arc::clone(file));
        Ok(index)
    }

    /// After an attempt to push: takes the flight back if the submission queue had no room.
    pub(super) fn settle(&mut self, index: u16, pushed: io::Result<bool>) -> Result<(), Busy> {
        match pushed {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => {
                self.land(index);
                Err(Busy)
            }
        }
    }

    /// The event of a completion; `None` for an index that is not in flight.
    pub(super) fn complete(&mut self, index: u16, result: i32) -> Option<Event<'static>> {
        let flight = self
            .flights
            .get(usize::from(index))
            .filter(|flight| flight.file.is_some())?;
        let (token, sync) = (flight.token, flight.sync);
        self.land(index);
        Some(if sync {
            Event::Synced { token, result }
        } else {
            Event::Written { token, result }
        })
    }

    fn land(&mut self, index: u16) {
        let flight = &mut self.flights[usize::from(index)];
        flight.file = None;
        flight.memory = None;
        self.free.push(index);
    }
}
