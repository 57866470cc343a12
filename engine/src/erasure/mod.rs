//! Erasing and releasing: what the key store, the audit log and the segments have to do together, in the one order that is safe.
//!
//! ```text
//!   erase     plan ─▶ receipt ─▶ pending, durable ─▶ log entry, durable ─▶ keys destroyed ─▶ space given back ─▶ slots forgotten
//!   release   plan ─▶ log entry, durable ─▶ E handed out
//! ```
//!
//! What fails before the log entry leaves nothing behind; what fails after it is finished by doing it again. Nothing here prints or asks.

pub mod giveback;
pub mod held;
mod record;
mod space;
#[cfg(test)]
mod tests;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harborseal_segment::erase::Release;
use harborseal_segment::head::Head;
use harborseal_segment::identity::PublicKey;
use harborseal_segment::ids::{EraseKeyId, SegmentId};
use harborseal_segment::node::NodeKey;
use harborseal_segment::reader::read_footer;
use sha2::{Digest, Sha256};

use crate::archive::FileSource;
use crate::audit::{AuditError, AuditLog, Fact, Salt};
use crate::keystore::holds::Hold;
use crate::keystore::pending::Pending;
use crate::keystore::{Day, KeyFile, Keystore, Owner, Place, Store, StoreError};
use crate::statement::Receipt;
pub use giveback::{Freed, give_back};
use record::Recorded;

/// How long an erasure waits for a running engine to begin new segments.
const ENGINE_PATIENCE: Duration = Duration::from_secs(20);

/// Why something was not erased or released.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The key store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log could not be written, so nothing was done.
    #[error("{0}; nothing was released or erased")]
    Log(#[from] AuditError),
    /// A legal hold stands.
    #[error("a legal hold stands since {}: {}", crate::keystore::Day::of(.0.since_s), .0.reason)]
    Held(Hold),
    /// There is no key for it.
    #[error("there is no erasure key of this customer {0}")]
    NoKey(String),
    /// A key that was destroyed is there again.
    #[error("{}: this erasure key was destroyed, and somebody put a stale copy back; it is refused", .0.display())]
    Stale(PathBuf),
    /// The segments could not be looked through.
    #[error("cannot look through {}: {why}", folder.display())]
    Segments {
        /// Where.
        folder: PathBuf,
        /// Why.
        why: std::io::Error,
    },
}

impl ErasureError {
    /// The same without paths: the name of a key's file tells one customer's entries from another's.
    fn for_the_log(&self) -> String {
        match self {
            ErasureError::Stale(_) => "an erasure key that was destroyed is there again".to_owned(),
            ErasureError::Store(_) => "the key store cannot be used".to_owned(),
            ErasureError::Segments { .. } => "the segments cannot be looked through".to_owned(),
            ErasureError::Log(_) | ErasureError::Held(_) | ErasureError::NoKey(_) => self.to_string(),
        }
    }
}

/// Takes note of the keys that a log says were destroyed, before a store is drawn from that may be a stale copy.
pub fn learn_erased(store: &Keystore, log: &AuditLog, audit: &Path) -> Result<(), ErasureError> {
    lock_informed(store, log, audit).map(drop)
}

/// Takes the store, and learns from the log which keys must not come back.
fn lock_informed(store: &Keystore, log: &AuditLog, audit: &Path) -> Result<Store, ErasureError> {
    let mut store = store.lock()?;
    let seen = store.state().logged;
    let (known, size) = record::erased_since(log, audit, seen)?;
    store.learn_erased(&known)?;
    if size != seen {
        store.count_logged(size)?;
    }
    Ok(store)
}

/// A node whose keys are handled: by its command line, with or without an engine running beside.
pub struct Node {
    /// Its key store.
    pub store: Keystore,
    /// Its signing key.
    pub key: Arc<NodeKey>,
    /// `DATA/segments`.
    pub segments: PathBuf,
    /// `DATA/audit`.
    pub audit: PathBuf,
    /// Its audit log.
    pub log: AuditLog,
}

/// A customer as the configuration has it.
pub struct Whose<'a> {
    /// By its name, which the store turns into an owner.
    pub name: &'a str,
    /// Its public key.
    pub public_key: &'a PublicKey,
    /// Under which the log names it; where it has not enrolled, one that the node makes up.
    pub salt: Option<Salt>,
    /// Under which the log names it besides: those of its standing grants.
    pub others: Vec<Salt>,
}

impl Node {
    /// The node whose data folder this is.
    pub fn open(data: &Path, key: NodeKey) -> Result<Node, ErasureError> {
        let key = Arc::new(key);
        Ok(Node {
            store: Keystore::new(&data.join("keys")),
            log: AuditLog::open(data, Arc::clone(&key))?,
            segments: data.join("segments"),
            audit: data.join("audit"),
            key,
        })
    }

    fn lock(&self) -> Result<Store, ErasureError> {
        lock_informed(&self.store, &self.log, &self.audit)
    }

    /// Under which the log names a customer from now on. Remembered, so that a later receipt lists what is entered under it.
    fn salt(&self, whose: &Whose<'_>, store: &Store) -> Result<Salt, StoreError> {
        let salt = whose.salt.unwrap_or_else(|| store.state().audit_salt(whose.name));
        let owner = store.owner(whose.name);
        for salt in whose.others.iter().chain([&salt]) {
            store.note_salt(owner, salt)?;
        }
        Ok(salt)
    }

    /// Enters facts about one customer, durably.
    pub fn enter(&self, facts: Vec<Fact>, salt: &Salt, now_s: u64) -> Result<u64, AuditError> {
        record::enter(&self.log, facts, salt, now_s)
    }

    /// Enters that something was refused. That the log cannot take it changes nothing: it was refused.
    pub fn enter_refusal(&self, what: &str, error: &ErasureError, whose: &Whose<'_>, now_s: u64) {
        let Ok(store) = self.store.lock() else { return };
        let Ok(salt) = self.salt(whose, &store) else {
            return;
        };
        let fact = Fact::AccessRefused {
            what: what.to_owned(),
            why: error.for_the_log(),
        };
        let _ = self.enter(vec![fact], &salt, now_s);
    }
}

/// What an erasure would do.
pub struct ErasePlan {
    /// Whose footage.
    pub owner: Owner,
    /// The keys that would be destroyed.
    pub keys: Vec<KeyFile>,
    /// The slots that they open.
    pub places: Vec<Place>,
}

impl ErasePlan {
    /// The first day, and the first that is not erased.
    pub fn days(&self, before: Option<Day>, now_s: u64) -> (Day, Day) {
        let first = self.keys.iter().map(|key| key.day).min();
        let end = before.unwrap_or_else(|| Day::of(now_s).next());
        (first.unwrap_or(end), end)
    }
}

/// What an erasure came to.
pub struct Erased {
    /// The signed receipt.
    pub receipt: String,
    /// Its entry in the log.
    pub entry: u64,
    /// It had been begun before, and was finished now.
    pub finished_only: bool,
    /// What was given back.
    pub freed: Freed,
}

impl Node {
    /// What would be erased of a customer's footage: all of it, or that of the days before one.
    pub fn plan_erasure(&self, whose: &Whose<'_>, before: Option<Day>) -> Result<ErasePlan, ErasureError> {
        let store = self.lock()?;
        plan_erasure(&store, store.owner(whose.name), before)
    }

    /// Whether an erasure was begun and not finished.
    pub fn is_pending(&self, whose: &Whose<'_>) -> Result<bool, ErasureError> {
        let store = self.store.lock()?;
        Ok(store.pending(store.owner(whose.name))?.is_some())
    }

    /// Erases, or finishes what was begun before. `by`: who does, for the record. `published` is given the receipt as soon as the keys are gone.
    pub fn erase<E: From<ErasureError>>(
        &self,
        whose: &Whose<'_>,
        (before, by): (Option<Day>, &str),
        now_s: u64,
        published: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<Erased, E> {
        let (pending, finished_only) = self.destroy(whose, before, by, now_s)?;
        published(&pending.receipt)?;
        let places = self.places(whose, &pending).map_err(ErasureError::from)?;
        self.await_engine(&places);
        let freed = give_back(&self.segments, &places, &self.key, now_s).map_err(|why| {
            let folder = self.segments.clone();
            ErasureError::Segments { folder, why }
        })?;
        if freed.left.is_empty() {
            self.settle(whose, &pending).map_err(ErasureError::from)?;
        } else if freed.deleted + freed.punched > 0 {
            let counted = self.store.lock().and_then(|mut store| store.count_change());
            counted.map_err(ErasureError::from)?;
        }
        Ok(Erased {
            receipt: pending.receipt,
            entry: pending.entry.unwrap_or_default(),
            finished_only,
            freed,
        })
    }

    /// Everything up to the point from which nothing opens any more.
    fn destroy(
        &self,
        whose: &Whose<'_>,
        before: Option<Day>,
        by: &str,
        now_s: u64,
    ) -> Result<(Pending, bool), ErasureError> {
        let mut store = self.lock()?;
        let owner = store.owner(whose.name);
        if let Some(hold) = store.hold_of(owner)? {
            return Err(ErasureError::Held(hold));
        }
        let salt = self.salt(whose, &store)?;
        let begun = store.pending(owner)?;
        let finished_only = begun.is_some();
        let mut pending = match begun {
            Some(pending) => pending,
            None => {
                let plan = plan_erasure(&store, owner, before)?;
                let pending = self.pending_of(&store, whose, &plan, before, now_s)?;
                store.set_pending(owner, &pending)?;
                pending
            }
        };
        if pending.entry.is_none() {
            match self.enter_erasure(&pending, by, &salt, now_s) {
                Ok(entry) => pending.entry = Some(entry),
                Err(error) => {
                    // Nothing was destroyed, and nothing will be on the strength of this.
                    store.clear_pending(owner)?;
                    return Err(error.into());
                }
            }
            store.set_pending(owner, &pending)?;
        }
        let doomed = |key: &KeyFile| pending.keys.contains(&(key.day.number(), key.tag));
        let keys: Vec<KeyFile> = store.keys_of(owner)?.into_iter().filter(doomed).collect();
        if !keys.is_empty() {
            store.destroy(&keys)?;
        }
        Ok((pending, finished_only))
    }

    fn pending_of(
        &self,
        store: &Store,
        whose: &Whose<'_>,
        plan: &ErasePlan,
        before: Option<Day>,
        now_s: u64,
    ) -> Result<Pending, ErasureError> {
        let (first, end) = plan.days(before, now_s);
        let salts = store.salts_of(plan.owner)?;
        let disclosed = record::disclosed(&self.log, &self.audit, &salts, &plan.places)?;
        let receipt = Receipt {
            made_s: now_s,
            customer: Sha256::digest(whose.public_key.to_text()).into(),
            days: (first.to_string(), end.to_string()),
            generation: store.state().generation + 1,
            keys: plan.keys.iter().filter_map(|key| key.id).collect(),
            segments: plan
                .places
                .iter()
                .map(|place| (place.segment.segment_id, place.slot))
                .collect(),
            disclosed,
        };
        Ok(Pending {
            receipt: receipt.sign(&self.key),
            entry: None,
            keys: plan.keys.iter().map(|key| (key.day.number(), key.tag)).collect(),
        })
    }

    fn enter_erasure(&self, pending: &Pending, by: &str, salt: &Salt, now_s: u64) -> Result<u64, AuditError> {
        let (receipt, _, hash) = Receipt::parse(&pending.receipt).expect("it was signed here and kept whole");
        let recorded = Recorded {
            from_day: day_number(&receipt.days.0),
            to_day: day_number(&receipt.days.1),
            receipt: hash,
            keys: receipt.keys,
            by: by.to_owned(),
        };
        record::enter_erasure(&self.log, &recorded, salt, now_s)
    }

    /// The slots of an erasure under way.
    fn places(&self, whose: &Whose<'_>, pending: &Pending) -> Result<Vec<Place>, StoreError> {
        let store = self.store.lock()?;
        let owner = store.owner(whose.name);
        let mut places = Vec::new();
        for (day, tags) in by_day(pending) {
            let of_day = store.places_of(owner, day)?.into_iter();
            places.extend(of_day.filter(|place| tags.contains(&place.tag)));
        }
        Ok(places)
    }

    /// Forgets what was finished.
    fn settle(&self, whose: &Whose<'_>, pending: &Pending) -> Result<(), StoreError> {
        let mut store = self.store.lock()?;
        let owner = store.owner(whose.name);
        for (day, tags) in by_day(pending) {
            store.forget(owner, day, &tags)?;
        }
        store.clear_pending(owner)?;
        store.count_change()
    }

    /// Waits until a running engine has closed the segments that it still holds open under keys that are gone. It sees the new generation
    /// within a second, and begins new ones as soon as they are ready.
    fn await_engine(&self, places: &[Place]) {
        let until = Instant::now() + ENGINE_PATIENCE;
        let written = |place: &Place| {
            let path = giveback::file_of(&self.segments, place)?;
            FileSource::open(&path).ok()?.is_being_written().ok()
        };
        while places.iter().any(|place| written(place) == Some(true)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn by_day(pending: &Pending) -> Vec<(Day, Vec<u32>)> {
    let mut days: Vec<(Day, Vec<u32>)> = Vec::new();
    for (day, tag) in &pending.keys {
        let day = Day::of(u64::from(*day) * 86_400);
        match days.iter_mut().find(|(known, _)| *known == day) {
            Some((_, tags)) => tags.push(*tag),
            None => days.push((day, vec![*tag])),
        }
    }
    days
}

fn day_number(text: &str) -> u64 {
    Day::parse(text).map_or(0, |day| u64::from(day.number()))
}

fn plan_erasure(store: &Store, owner: Owner, before: Option<Day>) -> Result<ErasePlan, ErasureError> {
    let mut keys = store.keys_of(owner)?;
    keys.retain(|key| before.is_none_or(|before| key.day < before));
    if keys.is_empty() {
        let which = before.map_or("here".to_owned(), |day| format!("for a day before {day}"));
        return Err(ErasureError::NoKey(which));
    }
    let mut places = Vec::new();
    let mut days: Vec<Day> = keys.iter().map(|key| key.day).collect();
    days.dedup();
    for day in days {
        let tags: Vec<u32> = keys
            .iter()
            .filter(|key| key.day == day)
            .map(|key| key.tag)
            .collect();
        let of_day = store.places_of(owner, day)?.into_iter();
        places.extend(of_day.filter(|place| tags.contains(&place.tag)));
    }
    Ok(ErasePlan { owner, keys, places })
}

/// What an operator says of a release, for the record.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// To whom.
    pub to: &'a str,
    /// Whose identity opens it.
    pub to_key: &'a PublicKey,
    /// By whom.
    pub by: &'a str,
    /// Why.
    pub purpose: &'a str,
}

/// A time range to release, in seconds since 1970, the end outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// From here on.
    pub from_s: u64,
    /// Up to here.
    pub to_s: u64,
}

impl Node {
    /// Hands out E of a customer's slots in the segments that touch `range`, rounded outward, once that is on the record. `slack_s`: how long after its making a
    /// segment may go on, for such as are not here to be asked. Returns the entry in the log too.
    pub fn release(
        &self,
        whose: &Whose<'_>,
        range: Range,
        slack_s: u64,
        said: &Said<'_>,
        now_s: u64,
    ) -> Result<(Vec<Release>, u64), ErasureError> {
        let store = self.lock()?;
        let owner = store.owner(whose.name);
        let mut releases = Vec::new();
        for key in store.keys_of(owner)? {
            let ends_s = key.day.next().begins_s().saturating_add(slack_s);
            if ends_s <= range.from_s || key.day.begins_s() >= range.to_s {
                continue;
            }
            if key.id.is_some_and(|id| store.was_erased(&id)) {
                return Err(ErasureError::Stale(key.path));
            }
            let secret = key.read()?;
            for place in store.places_of(owner, key.day)? {
                if place.tag == key.tag && self.touches(&place, range, slack_s) {
                    let segment_id = place.segment.segment_id;
                    releases.push(Release {
                        segment_id,
                        slot: place.slot,
                        secret: secret.secret(&segment_id, place.slot),
                    });
                }
            }
        }
        if releases.is_empty() {
            return Err(ErasureError::NoKey("for that time".to_owned()));
        }
        let segments: Vec<SegmentId> = releases.iter().map(|release| release.segment_id).collect();
        let salt = self.salt(whose, &store)?;
        let entry = record::enter_release(&self.log, &segments, said, &salt, now_s)?;
        Ok((releases, entry))
    }

    /// Whether a segment may hold packets of the range: by its footer, or where it is not here or not closed by when it was made.
    fn touches(&self, place: &Place, range: Range, slack_s: u64) -> bool {
        let closed = giveback::file_of(&self.segments, place).and_then(|path| {
            let source = FileSource::open(&path).ok()?;
            let head = Head::read(&source).ok()?;
            let footer = read_footer(&source, &head).ok()??;
            Some((footer.first_s, footer.last_s))
        });
        let made_s = place.segment.created_s;
        let (first_s, last_s) = match closed {
            Some((0, 0)) => return false, // closed, and nothing was recorded in it
            Some(span) => span,
            None => (made_s, made_s.saturating_add(slack_s)),
        };
        first_s < range.to_s && last_s >= range.from_s
    }

    /// Sets or lifts a legal hold, once that is on the record.
    pub fn hold(
        &self,
        whose: &Whose<'_>,
        held: bool,
        (by, reason): (&str, &str),
        now_s: u64,
    ) -> Result<u64, ErasureError> {
        let mut store = self.lock()?;
        let owner = store.owner(whose.name);
        if !held && store.hold_of(owner)?.is_none() {
            return Err(ErasureError::NoKey("under a legal hold".to_owned()));
        }
        let fact = Fact::LegalHold {
            held,
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        let salt = self.salt(whose, &store)?;
        let entry = self.enter(vec![fact], &salt, now_s)?;
        match held {
            true => store.set_hold(&Hold {
                owner,
                since_s: now_s,
                reason: reason.to_owned(),
            })?,
            false => store.lift_hold(owner)?,
        }
        Ok(entry)
    }
}

/// The ids that an erasure names, for those who only have the receipt.
pub fn ids_of(receipt: &Receipt) -> &[EraseKeyId] {
    &receipt.keys
}
