//! How fast a chunk is sealed where the engine seals it, beside the sealing library alone on a buffer in the core's cache.
//!
//! Every 16th full chunk gives one sample, of three kinds in turn, so that a slow moment of the machine falls on all of them: the whole
//! block as the engine seals it (header, encryption, checksum, index row), in a buffer of the pool that its packets left behind seconds ago;
//! the encryption alone, in such a buffer; and the encryption alone of a buffer that was encrypted twice just before.

use harborseal::uring::sys;
use harborseal_segment::block::{AAD_HEADER_LEN, BlockType, HEADER_LEN, MAX_CHUNK_BODY_LEN};
use harborseal_segment::cipher::{Backend, SealKey, nonce};
use serde::{Deserialize, Serialize};

/// Of full chunks; so often that there are hundreds a second, so seldom that the path is what it is without.
const EVERY: u64 = 16;
/// A chunk that its last packet did not fit into is full.
const FULL_BYTES: usize = MAX_CHUNK_BODY_LEN - 2048;
/// Far more than a run of a minute gives.
const SAMPLES_MOST: usize = 1 << 16;

/// Samples, in bytes per nanosecond, which are GB/s.
pub(super) struct SealTimes {
    turn: u64,
    hot: Vec<u8>,
    key: SealKey,
    block: Vec<f64>,
    encryption: Vec<f64>,
    library: Vec<f64>,
}

/// Medians, in GB/s.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SealRates {
    /// Samples of each kind, of the kind with the fewest.
    pub samples: u64,
    /// A whole block, where the engine seals it.
    pub block: f64,
    /// Its encryption alone.
    pub encryption: f64,
    /// The library alone, on a hot buffer.
    pub library_hot: f64,
}

impl SealTimes {
    pub(super) fn new(backend: Backend) -> SealTimes {
        SealTimes {
            turn: 0,
            hot: vec![0xA5; MAX_CHUNK_BODY_LEN],
            key: SealKey::new(backend, &[0x42; 32]),
            block: Vec::with_capacity(SAMPLES_MOST),
            encryption: Vec::with_capacity(SAMPLES_MOST),
            library: Vec::with_capacity(SAMPLES_MOST),
        }
    }

    /// Seals the chunk in `bytes`, and takes a sample if it is one's turn.
    pub(super) fn watch(
        &mut self,
        key: &SealKey,
        body_len: usize,
        bytes: &mut [u8],
        seal: impl FnOnce(&mut [u8]) -> u32,
    ) -> u32 {
        if body_len < FULL_BYTES || self.library.len() == SAMPLES_MOST {
            return seal(bytes);
        }
        self.turn += 1;
        let turn = self.turn;
        match turn % (3 * EVERY) {
            EVERY => {
                let mut sealed = 0;
                let rate = rate_of(body_len, || sealed = seal(bytes));
                self.block.push(rate);
                sealed
            }
            turn_of_encryption if turn_of_encryption == 2 * EVERY => {
                let body = &mut bytes[HEADER_LEN..HEADER_LEN + body_len];
                self.encryption
                    .push(rate_of(body_len, || encrypt(key, turn, body)));
                seal(bytes)
            }
            0 => {
                let sealed = seal(bytes);
                let SealTimes { key, hot, .. } = self;
                encrypt(key, turn, hot);
                encrypt(key, turn + 1, hot);
                let rate = rate_of(hot.len(), || encrypt(key, turn + 2, hot));
                self.library.push(rate);
                sealed
            }
            _ => seal(bytes),
        }
    }

    pub(super) fn rates(&mut self) -> SealRates {
        let [block, encryption, library] = [&mut self.block, &mut self.encryption, &mut self.library];
        SealRates {
            samples: block.len().min(encryption.len()).min(library.len()) as u64,
            block: median(block),
            encryption: median(encryption),
            library_hot: median(library),
        }
    }
}

fn encrypt(key: &SealKey, number: u64, body: &mut [u8]) {
    key.seal_in_place(&nonce(BlockType::Chunk, number), &[0x5A; AAD_HEADER_LEN], body);
}

fn rate_of(bytes: usize, work: impl FnOnce()) -> f64 {
    let began_ns = sys::monotonic_ns();
    work();
    let took_ns = sys::monotonic_ns() - began_ns;
    bytes as f64 / took_ns.max(1) as f64
}

/// Of an even number the upper one of the two in the middle; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gets_its_turn_and_every_chunk_is_sealed() {
        let mut times = SealTimes::new(Backend::Ring);
        let key = SealKey::new(Backend::Ring, &[1; 32]);
        let mut bytes = vec![0; HEADER_LEN + MAX_CHUNK_BODY_LEN];
        let mut sealed = 0;
        let chunks = 3 * 3 * EVERY;
        for _ in 0..chunks {
            sealed += times.watch(&key, MAX_CHUNK_BODY_LEN, &mut bytes, |_| 1);
        }
        // One that is not full says nothing of a full one.
        times.watch(&key, 100, &mut bytes, |_| 1);
        assert_eq!(u64::from(sealed), chunks);
        let rates = times.rates();
        assert_eq!((rates.samples, times.turn), (3, chunks));
        assert!(rates.encryption > 0.0 && rates.library_hot > 0.0, "{rates:?}");
    }
}
