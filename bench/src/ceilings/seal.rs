//! AES-256-GCM in place, by library and size, through the format's own cipher.

use harborseal_segment::block::BlockType;
use harborseal_segment::cipher::{Backend, SealKey, nonce};

use super::Case;
use crate::sample::Sample;

/// One packet, one page, and the body of a full chunk (64 KiB less the block header).
const SIZES_BYTES: [usize; 3] = [1200, 4096, 65_408];

struct Seal {
    backend: Backend,
    key: SealKey,
    body: Vec<u8>,
    block_no: u64,
}

pub fn cases() -> Vec<Box<dyn Case>> {
    let each = |backend: Backend| SIZES_BYTES.map(move |bytes| (backend, bytes));
    let cases = Backend::ALL
        .iter()
        .copied()
        .flat_map(each)
        .map(|(backend, bytes)| Seal {
            backend,
            key: SealKey::new(backend, &[0x42; 32]),
            body: vec![0xA5; bytes],
            block_no: 0,
        });
    cases.map(|case| Box::new(case) as Box<dyn Case>).collect()
}

impl Case for Seal {
    fn name(&self) -> String {
        format!("{}, {} B", self.backend.name(), self.body.len())
    }

    fn run(&mut self, seconds: f64) -> anyhow::Result<Sample> {
        let aad = [0x5A; 96];
        let bytes = self.body.len() as u64;
        super::copy::repeat(seconds, 1 << 20, bytes, || {
            self.block_no += 1;
            self.key
                .seal_in_place(&nonce(BlockType::Chunk, self.block_no), &aad, &mut self.body);
        })
    }
}
