//! KEY: the secrets of this segment, each sealed to a public key that the block does not name.
//!
//! ```text
//! body    0 count u32 · 4 reserved u32 · 8 entry, entry, …
//! entry   a 56-byte head · enc[enc_len] · ct[ct_len] · zeros to the next multiple of 8
//! ```

use super::{BodyError, need_len};
use crate::ids::StreamId;
use crate::layout::{array_in, layout, put, u16_in, u32_in};

layout! {
    at: 8 =>
    0 4 COUNT,
    4 4 RESERVED,
}

layout! {
    entry_at: 56 =>
    0  2  ENTRY_LEN,
    2  2  KEM,
    4  2  KDF,
    6  2  AEAD,
    8  4  SLOT,
    12 1  SCOPE,
    13 1  I,
    14 1  N,
    15 1  FLAGS,
    16 16 STREAM_ID,
    32 16 HINT,
    48 2  ENC_LEN,
    50 2  CT_LEN,
    52 4  RESERVED,
}

/// The entry holds the customer's secret of this segment: it opens every stream of the slot.
pub const SCOPE_CUSTOMER: u8 = 0;
/// The entry holds K_st of one stream, for a standing grant.
pub const SCOPE_STREAM: u8 = 1;

/// Flag of an entry: the slot's stream keys also need E (docs/FORMAT.md §5.6).
const FLAG_ERASABLE: u8 = 1;

/// HPKE's id of X-Wing (ML-KEM-768 + X25519).
pub const KEM_X_WING: u16 = 0x647a;
/// HPKE's id of DHKEM(P-256, HKDF-SHA256), for cards, HSMs and key services.
pub const KEM_P256: u16 = 0x0010;

const BLOCK: &str = "KEY";

/// One wrapped secret. Several entries of one slot are several recipients of the same secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// HPKE algorithm ids (RFC 9180 §7). An entry of a suite that the reader does not know is kept, not refused.
    pub kem: u16,
    /// See `kem`.
    pub kdf: u16,
    /// See `kem`.
    pub aead: u16,
    /// The customer, by a number that means something in this segment only.
    pub slot: u32,
    /// [`SCOPE_CUSTOMER`] or [`SCOPE_STREAM`]; others are of a later version.
    pub scope: u8,
    /// This is recipient `i`, from 0, of the slot's `n`.
    pub i: u8,
    /// See `i`.
    pub n: u8,
    /// The slot is erasable: its stream keys also need E.
    pub erasable: bool,
    /// Zero in [`SCOPE_CUSTOMER`].
    pub stream_id: StreamId,
    /// By which its recipient finds it: [`Hint::for_segment`](crate::keys::Hint::for_segment).
    pub hint: [u8; 16],
    /// HPKE encapsulated key.
    pub enc: Vec<u8>,
    /// HPKE ciphertext, tag included.
    pub ct: Vec<u8>,
}

impl KeyEntry {
    /// Bytes of this entry in a KEY body.
    pub fn encoded_len(&self) -> usize {
        (entry_at::SIZE + self.enc.len() + self.ct.len()).next_multiple_of(8)
    }

    fn encode_to(&self, body: &mut Vec<u8>) {
        let start = body.len();
        let len = self.encoded_len();
        let short = |n: usize| {
            u16::try_from(n)
                .expect("a KEM's output is far below 64 KiB")
                .to_le_bytes()
        };
        body.resize(start + entry_at::SIZE, 0);
        let head = &mut body[start..];
        put(head, entry_at::ENTRY_LEN, &short(len));
        put(head, entry_at::KEM, &self.kem.to_le_bytes());
        put(head, entry_at::KDF, &self.kdf.to_le_bytes());
        put(head, entry_at::AEAD, &self.aead.to_le_bytes());
        put(head, entry_at::SLOT, &self.slot.to_le_bytes());
        put(head, entry_at::SCOPE, &[self.scope]);
        put(head, entry_at::I, &[self.i]);
        put(head, entry_at::N, &[self.n]);
        put(
            head,
            entry_at::FLAGS,
            &[if self.erasable { FLAG_ERASABLE } else { 0 }],
        );
        put(head, entry_at::STREAM_ID, &self.stream_id.0);
        put(head, entry_at::HINT, &self.hint);
        put(head, entry_at::ENC_LEN, &short(self.enc.len()));
        put(head, entry_at::CT_LEN, &short(self.ct.len()));
        body.extend_from_slice(&self.enc);
        body.extend_from_slice(&self.ct);
        body.resize(start + len, 0);
    }

    /// Parses the entry at `body[start..]`; returns it with its length.
    fn parse_at(body: &[u8], start: usize) -> Result<(Self, usize), BodyError> {
        let refuse = |field: usize, rule| {
            Err(BodyError::Field {
                block: BLOCK,
                at: start + field,
                rule,
            })
        };
        let Some(head) = body[start..].get(..entry_at::SIZE) else {
            return refuse(0, "an entry is cut");
        };
        let enc_len = usize::from(u16_in(head, entry_at::ENC_LEN));
        let ct_len = usize::from(u16_in(head, entry_at::CT_LEN));
        let len = usize::from(u16_in(head, entry_at::ENTRY_LEN));
        let used = entry_at::SIZE + enc_len + ct_len;
        let [kem, kdf, aead] =
            [entry_at::KEM, entry_at::KDF, entry_at::AEAD].map(|field| u16_in(head, field));
        let [scope, i, n, flags] = array_in(head, entry_at::SCOPE.start..entry_at::FLAGS.end);
        let needed = lens_of((kem, kdf, aead), scope);
        if needed.is_some_and(|needed| needed != (enc_len, ct_len)) {
            return refuse(
                entry_at::ENC_LEN.start,
                "enc_len and ct_len are not those of the suite",
            );
        }
        if len < used || !len.is_multiple_of(8) {
            return refuse(
                0,
                "entry_len must hold its head, enc and ct, and be a multiple of 8",
            );
        }
        let Some(entry) = body[start..].get(..len) else {
            return refuse(0, "an entry is cut");
        };
        let entry = KeyEntry {
            kem,
            kdf,
            aead,
            slot: u32_in(head, entry_at::SLOT),
            scope,
            i,
            n,
            erasable: flags & FLAG_ERASABLE != 0,
            stream_id: StreamId(array_in(head, entry_at::STREAM_ID)),
            hint: array_in(head, entry_at::HINT),
            enc: entry[entry_at::SIZE..entry_at::SIZE + enc_len].to_vec(),
            ct: entry[entry_at::SIZE + enc_len..used].to_vec(),
        };
        Ok((entry, len))
    }
}

/// enc_len and ct_len of an entry whose suite and scope this version knows: H and a secret of 32 bytes each, and a tag of 16.
fn lens_of(suite: (u16, u16, u16), scope: u8) -> Option<(usize, usize)> {
    let enc_len = match suite {
        (KEM_X_WING, 1, 2) => 1120,
        (KEM_P256, 1, 2) => 65,
        _ => return None,
    };
    (scope <= SCOPE_STREAM).then_some((enc_len, 64 + 16))
}

/// The entries of one KEY block, in their shuffled order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBody {
    /// In the order in which they stand.
    pub entries: Vec<KeyEntry>,
}

impl KeyBody {
    /// Bytes before the first entry.
    pub const HEAD_LEN: usize = at::SIZE;

    /// The body as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        encode_entries(&self.entries)
    }

    /// Parses a body as stored; bytes behind the fields of this version are ignored (docs/FORMAT.md §4).
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, at::SIZE)?;
        // The count is from outside: it bounds the loop, never an allocation.
        let mut entries = Vec::new();
        let mut start = at::SIZE;
        for _ in 0..u32_in(body, at::COUNT) {
            let (entry, len) = KeyEntry::parse_at(body, start)?;
            entries.push(entry);
            start += len;
        }
        Ok(KeyBody { entries })
    }
}

pub(crate) fn encode_entries(entries: &[KeyEntry]) -> Vec<u8> {
    let mut body = vec![0; at::SIZE];
    put(&mut body, at::COUNT, &(entries.len() as u32).to_le_bytes());
    for entry in entries {
        entry.encode_to(&mut body);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BLOCK_ALIGN, HEADER_LEN};

    fn entry(enc_len: usize, ct_len: usize) -> KeyEntry {
        KeyEntry {
            kem: if enc_len == 65 { KEM_P256 } else { KEM_X_WING },
            kdf: 1,
            aead: 2,
            slot: 4,
            scope: SCOPE_CUSTOMER,
            i: 0,
            n: 1,
            erasable: false,
            stream_id: StreamId::ZERO,
            hint: [3; 16],
            enc: vec![1; enc_len],
            ct: vec![2; ct_len],
        }
    }

    #[test]
    fn three_x_wing_entries_fit_one_4096_byte_block() {
        let body = KeyBody {
            entries: vec![entry(1120, 80); 3],
        };
        assert_eq!(body.entries[0].encoded_len(), 1256);
        assert!(HEADER_LEN + body.encode().len() <= BLOCK_ALIGN);
        assert_eq!(KeyBody::parse(&body.encode()), Ok(body));
    }

    #[test]
    fn nineteen_p256_entries_fit_one_4096_byte_block() {
        let body = KeyBody {
            entries: vec![entry(65, 80); 19],
        };
        assert_eq!(body.entries[0].encoded_len(), 208);
        assert!(HEADER_LEN + body.encode().len() <= BLOCK_ALIGN);
        assert!(HEADER_LEN + body.encode().len() + 208 > BLOCK_ALIGN);
    }

    #[test]
    fn entries_of_unequal_size_stand_side_by_side() {
        // A P-256 entry: enc 65 bytes (RFC 9180 §7.1), not a multiple of 8.
        let body = KeyBody {
            entries: vec![
                KeyEntry {
                    erasable: true,
                    ..entry(65, 80)
                },
                entry(1120, 80),
            ],
        };
        assert_eq!(KeyBody::parse(&body.encode()), Ok(body));
    }

    #[test]
    fn an_entry_of_a_known_suite_has_its_lengths_and_another_may_have_any() {
        let parse = |entry: KeyEntry| KeyBody::parse(&KeyBody { entries: vec![entry] }.encode());
        for (enc_len, ct_len) in [(1120, 112), (64, 80), (1121, 80)] {
            let entry = entry(enc_len, ct_len);
            assert!(parse(entry.clone()).is_err(), "{enc_len}, {ct_len}");
            assert!(
                parse(KeyEntry {
                    kem: 0x42,
                    ..entry.clone()
                })
                .is_ok()
            );
            assert!(parse(KeyEntry { scope: 2, ..entry }).is_ok());
        }
    }

    #[test]
    fn a_cut_or_miscounted_body_is_refused() {
        let whole = KeyBody {
            entries: vec![entry(65, 80); 2],
        }
        .encode();
        for len in 0..whole.len() {
            assert!(KeyBody::parse(&whole[..len]).is_err(), "{len} bytes");
        }
        let mut miscounted = whole;
        miscounted[0] = 3;
        assert!(KeyBody::parse(&miscounted).is_err());
    }

    #[test]
    fn a_longer_entry_of_a_later_version_is_read_as_far_as_it_is_known() {
        let body = KeyBody {
            entries: vec![entry(65, 80); 2],
        };
        let whole = body.encode();
        let len = body.entries[0].encoded_len();
        let mut longer = whole[..at::SIZE].to_vec();
        for entry in whole[at::SIZE..].chunks(len) {
            longer.extend_from_slice(entry);
            longer.extend_from_slice(&[0xFF; 8]);
            let start = longer.len() - len - 8;
            put(
                &mut longer[start..],
                entry_at::ENTRY_LEN,
                &(len as u16 + 8).to_le_bytes(),
            );
        }
        assert_eq!(KeyBody::parse(&longer), Ok(body));
    }
}
