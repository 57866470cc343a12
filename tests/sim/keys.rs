//! The customers' keys, and a memory of what wrapping and unwrapping came to.
//!
//! X-Wing takes a third of a millisecond each way. A simulated segment draws what it draws from one of few generators ([`generator`]), so that
//! seeds wrap the same secrets for the same segments again and again: the result is looked up by everything it depends on. What is
//! not found is computed as shipped, and nothing is taken for equal that is not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use harborseal_segment::body::KeyEntry;
use harborseal_segment::identity::{Identity, PublicKey};
use harborseal_segment::ids::{NodeId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, Secret, SegmentSecret, StreamKeys, Wrap, unwrap, wrap};
use harborseal_segment::open::{Origin, Unlocked};
use harborseal_segment::random::CryptoRng;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Most customers of a plan.
pub const MAX_CUSTOMERS: usize = 3;
/// Different histories of randomness that segments are made from.
const GENERATORS: u64 = 4;

static IDENTITIES: LazyLock<[Identity; MAX_CUSTOMERS]> = LazyLock::new(|| std::array::from_fn(identity));

/// A customer's identity: the same in every seed.
pub fn identity(customer: usize) -> Identity {
    Identity::generate(&mut StdRng::seed_from_u64(customer as u64))
}

/// A customer's public key.
pub fn public(customer: usize) -> PublicKey {
    IDENTITIES[customer].public().clone()
}

/// What the segment that a keeper makes at its `attempt`th try is drawn from. Different for every segment of a seed.
pub fn generator(seed: u64, life: usize, shard: u32, attempt: u64) -> StdRng {
    let place = (life as u64) << 48 | u64::from(shard) << 32 | attempt;
    StdRng::seed_from_u64((seed % GENERATORS) << 56 | place)
}

/// Everything that an entry depends on; the secrets by what only they derive to.
#[derive(PartialEq, Eq, Hash)]
struct Wrapped {
    public: PublicKey,
    node_id: NodeId,
    segment_id: SegmentId,
    slot: u32,
    recipient: (u8, u8),
    hint: [u8; 16],
    secret: [u8; 32],
    random: [u8; 32],
}

/// What an entry was found to hold: by whom, with which ciphertext, and what else of it was looked at.
type Opened = HashMap<(usize, Vec<u8>), (KeyEntry, (NodeId, SegmentId), Option<Secret>)>;

thread_local! {
    static WRAPPED: RefCell<HashMap<Wrapped, KeyEntry>> = RefCell::default();
    static OPENED: RefCell<Opened> = RefCell::default();
}

/// [`wrap`], remembered.
pub fn remembered_wrap(
    public: &PublicKey,
    place: &Wrap<'_>,
    hint: &Hint,
    secret: &SegmentSecret,
    rng: &mut dyn CryptoRng,
) -> KeyEntry {
    assert!(place.erase.is_none(), "the engine makes no slot erasable");
    let mut random = [0; 32];
    rng.fill_bytes(&mut random);
    let derived = StreamKeys::derive(&place.segment_id, secret, &StreamId::ZERO);
    let key = Wrapped {
        public: public.clone(),
        node_id: place.node_id,
        segment_id: place.segment_id,
        slot: place.slot,
        recipient: (place.i, place.n),
        hint: hint.for_segment(&place.segment_id),
        secret: *derived.commitment(),
        random,
    };
    let make = || wrap(public, place, hint, secret, &mut StdRng::from_seed(random));
    WRAPPED.with_borrow_mut(|known| known.entry(key).or_insert_with(make).clone())
}

/// What of `entries` a customer can open, remembered.
pub fn remembered_unlock(customer: usize, origin: &Origin, entries: &[KeyEntry]) -> Vec<Unlocked> {
    let open = |entry: &KeyEntry| {
        let opened = unwrap(&IDENTITIES[customer], entry, &origin.node_id, &origin.segment_id);
        opened.ok().map(|opened| opened.secret)
    };
    let look_up = |known: &mut Opened, entry: &KeyEntry| {
        let place = (origin.node_id, origin.segment_id);
        let key = (customer, entry.ct.clone());
        if let Some((of, there, secret)) = known.get(&key)
            && (of, *there) == (entry, place)
        {
            return secret.as_ref().map(copy);
        }
        let secret = open(entry);
        let again = secret.as_ref().map(copy);
        known.insert(key, (entry.clone(), place, secret));
        again
    };
    let unlocked = |entry: &KeyEntry| {
        let secret = OPENED.with_borrow_mut(|known| look_up(known, entry))?;
        Some(Unlocked {
            slot: entry.slot,
            secret,
            erasable: false,
            release: None,
        })
    };
    entries.iter().filter_map(unlocked).collect()
}

fn copy(secret: &Secret) -> Secret {
    match secret {
        Secret::Customer(secret) => Secret::Customer(secret.clone()),
        Secret::Stream(stream, secret) => Secret::Stream(*stream, secret.clone()),
    }
}

/// A generator that its owner can begin anew while another draws from it.
pub struct Shared(pub std::sync::Arc<std::sync::Mutex<StdRng>>);

impl rand::TryRng for Shared {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.lock().expect("one thread uses it").random())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.lock().expect("one thread uses it").random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.lock().expect("one thread uses it").fill(bytes);
        Ok(())
    }
}

impl rand::TryCryptoRng for Shared {}
