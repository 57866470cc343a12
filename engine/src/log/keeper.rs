//! The keeper: a thread per shard that does with files what may take time, so that the shard never waits.
//!
//! Creates and prepares the next segment, allocates ahead, writes index and footer of drained segments, deletes what was prepared and
//! not needed. Owns the file of every open segment, with an advisory lock on it, so that `harborseal recover` leaves them alone.
//!
//! ```text
//!   prepare: create ─ lock ─ allocate ─ write first blocks ─ fsync file ─ fsync folder ─▶ shard appends
//!   close:   index + footer at the end ─ fdatasync ─ truncate behind the footer ─ fsync ─ unlock
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};
use harborseal_segment::cipher::Backend;
use harborseal_segment::ids::SegmentId;
use harborseal_segment::keys::Hint;
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::CryptoRng;
use harborseal_segment::writer::{FinishParams, SegmentWriter};

use super::catalog::{ClosedSegment, Note, segment_path};
use super::files::Files;
use super::granting;
use super::prepare::{Chain, CustomerKeys, Given, Grantee, Order, Prepared, Wrapping, prepare};
use super::{Handle, Request, header_of};
use crate::audit::entry::{Bytes, CUSTOMERS_MAX};
use crate::audit::{AuditLog, Entry, Fact, Nonce, Salt};
use crate::keystore::{Drawn, Keystore, NewSegment};
use crate::planted::{Planted, planted};
use crate::statement;
use crate::stream::registry::{Customer, Granting};
use crate::uring::sys::Waker;
use crate::uring::{Locked, scrub_stack};

/// A new segment's first blocks are written in pieces of about this many bytes.
const WRITE_BYTES: usize = 1 << 20;
/// Smallest useful allocation, in bytes: three chunks, the tail, and something to spare.
const MIN_ALLOC_BYTES: u64 = 1 << 20;

/// What the keeper tells its shard.
pub enum Reply<F = Arc<File>> {
    /// The next segment, and its file for direct writes.
    Prepared(Box<Prepared>, F),
    /// It could not be prepared.
    PrepareFailed(io::Error),
    /// Space was allocated up to this end, or not.
    Extended(Handle, Result<u64, i32>),
    /// A segment is closed: its id and final root.
    Closed(Handle, SegmentId, [u8; 32]),
    /// The file is released; nothing more will be heard of it.
    Released(Handle),
}

/// What stays the same for all segments of a shard.
pub struct KeeperSettings {
    /// `DATA/segments`.
    pub folder: PathBuf,
    /// This run and shard.
    pub chain: Chain,
    /// Sealing library.
    pub backend: Backend,
    /// The node's signing key.
    pub node: Arc<NodeKey>,
    /// Where each segment is entered before it is sealed; nowhere in tests of the keeper alone.
    pub audit: Option<Arc<AuditLog>>,
    /// How a customer's secret is wrapped: [`wrap`], but in the simulator, which remembers what that came to.
    pub wrap: Wrapping,
}

struct SegmentFile<F> {
    file: F,
    path: PathBuf,
    id: SegmentId,
    prev: Option<SegmentId>,
    chain_seq: u64,
    /// Audit salts of the customers, by slot.
    salts: HashMap<u32, Salt>,
}

/// The keeper of one shard.
pub struct Keeper<F: Files> {
    settings: KeeperSettings,
    world: F,
    /// Ids, secrets and hints come from it: the operating system's, but in the simulator.
    rng: Box<dyn CryptoRng + Send>,
    files: HashMap<Handle, SegmentFile<F::File>>,
    next_handle: u32,
    /// H of each customer by public key, and the chain position it is for.
    hints: HashMap<String, (u64, Locked<Hint>)>,
    /// Entries of sealed segments that a full disk kept out of the audit log.
    unentered: Vec<Entry>,
    janitor: Sender<Note>,
    /// The kind of failure that was reported last.
    said: Option<io::ErrorKind>,
    /// Where erase keys come from; none where no customer can be erasable.
    erase_keys: Option<Keystore>,
    /// A segment of this run held erasable entries: what is relocated from it may come to stand in any later one.
    erasable: bool,
    /// The segment closed last and its root: its successor's footer names it.
    last_closed: Option<(SegmentId, [u8; 32])>,
}

impl<F: Files> Keeper<F> {
    /// A keeper that has not made anything yet.
    pub fn new(
        settings: KeeperSettings,
        world: F,
        rng: Box<dyn CryptoRng + Send>,
        janitor: Sender<Note>,
    ) -> Self {
        #[cfg(feature = "planted-faults")]
        let rng = super::faults::as_in_another_run(rng, settings.chain.shard);
        Keeper {
            settings,
            world,
            rng,
            files: HashMap::new(),
            next_handle: 0,
            hints: HashMap::new(),
            unentered: Vec::new(),
            janitor,
            said: None,
            erase_keys: None,
            erasable: false,
            last_closed: None,
        }
    }

    /// Draws the keys of erasable customers from `store`.
    pub fn with_erase_keys(mut self, store: Keystore) -> Self {
        self.erase_keys = Some(store);
        self
    }

    /// Works until the shard hangs up; answers through `replies` and wakes the shard after each answer.
    pub fn run(mut self, requests: &Receiver<Request>, replies: &Sender<Reply<F::File>>, shard: &Waker) {
        for request in requests {
            if let Some(reply) = self.carry_out(request) {
                if let Err(unheard) = replies.send(reply) {
                    self.nobody_heard(unheard.into_inner());
                }
                shard.wake();
            }
        }
    }

    /// The shard has ended: a segment prepared for it is deleted again.
    fn nobody_heard(&mut self, reply: Reply<F::File>) {
        if let Reply::Prepared(prepared, _) = reply {
            self.carry_out(Request::Discard(prepared.handle));
        }
    }

    /// Does what is asked, and returns what the shard should hear of it.
    pub fn carry_out(&mut self, request: Request) -> Option<Reply<F::File>> {
        match request {
            Request::Prepare(order) => Some(self.prepare(&order).unwrap_or_else(|error| {
                self.note_failure(&error);
                Reply::PrepareFailed(error)
            })),
            Request::Extend { segment, from, bytes } => {
                let result = self.extend(segment, from, bytes);
                let errno = |error: io::Error| match is_no_space(&error) {
                    true => rustix::io::Errno::NOSPC.raw_os_error(), // a quota is a small disk
                    false => error
                        .raw_os_error()
                        .unwrap_or(rustix::io::Errno::IO.raw_os_error()),
                };
                Some(Reply::Extended(segment, result.map_err(errno)))
            }
            Request::Close {
                segment,
                writer,
                prev_root,
            } => Some(self.close(segment, *writer, prev_root)),
            Request::Abandon(handle) => {
                let file = self.files.remove(&handle)?;
                self.tell(Note::Abandoned(file.path));
                Some(Reply::Released(handle))
            }
            Request::Discard(handle) => {
                let file = self.files.remove(&handle)?;
                if let Err(error) = self.delete(&file.path) {
                    self.tell(Note::Trouble(format!(
                        "cannot delete the unused segment {}: {error}",
                        file.path.display()
                    )));
                }
                Some(Reply::Released(handle))
            }
            Request::TombstonesDurable(ticket) => {
                self.tell(Note::TombstonesDurable(ticket));
                None
            }
            Request::NoSpace => {
                self.tell(Note::NoSpace);
                None
            }
        }
    }

    fn prepare(&mut self, order: &Order) -> io::Result<Reply<F::File>> {
        let created_s = self.world.now_s();
        let in_force = self.grants_in_force(order, created_s);
        self.ratchet_hints(order, &in_force);
        let grantees = self.grantees(&in_force);
        let of_customer = |c: &Customer| self.hints.get(&c.public_key.to_text()).map(|(_, hint)| &**hint);
        let hints: Vec<&Hint> = order.registry.customers.iter().filter_map(of_customer).collect();
        let (mut prepared, head) = loop {
            let drawn = draw_erase_keys(&self.erase_keys, order, created_s, &mut *self.rng)?;
            let erase_keys = drawn.as_ref().map_or(&[][..], |drawn| &drawn.keys);
            self.erasable |= drawn.is_some();
            let given = Given {
                hints: &hints,
                grantees: &grantees,
                erase_keys,
                erasable: self.erasable,
                created_s,
            };
            let made = prepare(order, &self.settings, given, &mut *self.rng);
            match note_slots(&self.erase_keys, drawn, &made.0, created_s)? {
                Noted::Yes(troubles) => {
                    troubles
                        .into_iter()
                        .for_each(|text| self.tell(Note::Trouble(text)));
                    break made;
                }
                Noted::ErasedMeanwhile => {}
            }
        };
        prepared.grantees = grantees;
        let id = prepared.origin.segment_id;
        let path = segment_path(&self.settings.folder, &id, created_s);
        let file = self.create(&path)?;
        match self.fill(&file, &path, head, &prepared, order.alloc_bytes) {
            Ok(end) => prepared.alloc_end = end,
            Err(error) => {
                self.delete(&path)?;
                return Err(error);
            }
        }
        self.said = None;
        prepared.handle = Handle(self.next_handle);
        self.next_handle += 1;
        let salt_of =
            |(customer, keys): (&Customer, &CustomerKeys)| Some((keys.slot, *customer.audit_salt()?));
        let salts = order
            .registry
            .customers
            .iter()
            .zip(&prepared.customers)
            .filter_map(salt_of);
        let kept = SegmentFile {
            salts: salts.collect(),
            file: file.clone(),
            path,
            id,
            prev: order.prev,
            chain_seq: order.chain_seq,
        };
        self.files.insert(prepared.handle, kept);
        Ok(Reply::Prepared(Box::new(prepared), file))
    }

    /// Creates the file in its day's folder, with the folder's own name made durable each time. That the folder is there already proves
    /// nothing of its name: another keeper may be about to sync it, or have failed to.
    fn create(&mut self, path: &Path) -> io::Result<F::File> {
        let folder = &self.settings.folder;
        let day = path.parent().unwrap_or(folder);
        self.world.create_folder(day)?;
        self.world.sync_folder(folder)?;
        self.world.create(path)
    }

    /// Writes the first blocks and allocates; the segment exists, durably, when this returns.
    fn fill(
        &mut self,
        file: &F::File,
        path: &Path,
        head: Vec<u8>,
        prepared: &Prepared,
        alloc_bytes: u64,
    ) -> io::Result<u64> {
        let least = prepared.writer.next_offset() + MIN_ALLOC_BYTES;
        let end = self.allocate(file, 0, alloc_bytes.max(least))?;
        if end < least {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::NOSPC.raw_os_error(),
            ));
        }
        let (mut bytes, mut offset) = (head, 0);
        for block in &prepared.kept {
            if bytes.len() >= WRITE_BYTES {
                self.world.write(path, &bytes, offset)?;
                offset += bytes.len() as u64;
                bytes.clear();
            }
            let end = bytes.len() + header_of(block).total_len as usize;
            bytes.extend_from_slice(block);
            bytes.resize(end, 0);
        }
        self.world.write(path, &bytes, offset)?;
        self.world.sync_all(path)?;
        if let Some(day) = path.parent().filter(|_| !planted(Planted::FolderNotSynced)) {
            self.world.sync_folder(day)?;
        }
        Ok(end)
    }

    /// Allocates `bytes` beyond `from`, or as much of it as the disk has, halving down to [`MIN_ALLOC_BYTES`].
    fn allocate(&mut self, file: &F::File, from: u64, bytes: u64) -> io::Result<u64> {
        let mut want = bytes.next_multiple_of(MIN_ALLOC_BYTES);
        loop {
            match self.world.allocate(file, from + want) {
                Ok(()) => return Ok(from + want),
                Err(error) if want > MIN_ALLOC_BYTES && is_no_space(&error) => {
                    want = (want / 2).next_multiple_of(MIN_ALLOC_BYTES).max(MIN_ALLOC_BYTES);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes a segment that was not used, for good: were it there again after a crash, it would stand beside the one made in its place.
    fn delete(&mut self, path: &Path) -> io::Result<()> {
        self.world.remove(path)?;
        match path.parent() {
            Some(day) => self.world.sync_folder(day),
            None => Ok(()),
        }
    }

    /// Moves H of every customer, and of every standing grant in force, on to this place in the chain. Each step wipes the one before it.
    fn ratchet_hints(&mut self, order: &Order, in_force: &[&Granting]) {
        let customers = order.registry.customers.iter();
        let names = customers.map(|customer| customer.public_key.to_text());
        for name in names.chain(in_force.iter().map(|granting| hint_name(granting))) {
            let (at, hint) = self
                .hints
                .entry(name)
                .or_insert_with(|| (order.chain_seq, Locked::made_by(|| Hint::generate(&mut self.rng))));
            while *at < order.chain_seq {
                hint.ratchet();
                *at += 1;
            }
        }
        scrub_stack();
    }

    /// The standing grants for a segment created now. One that the audit log does not take is left out, and people are told.
    fn grants_in_force<'a>(&mut self, order: &'a Order, created_s: u64) -> Vec<&'a Granting> {
        let mut entered = Vec::new();
        for grant in granting::in_force(&order.registry, created_s) {
            let data = self.settings.folder.parent().unwrap_or(Path::new("."));
            let node = (data, &self.settings.node);
            match granting::enter(grant, node, created_s, &mut *self.rng) {
                Ok(()) => entered.push(grant),
                Err(error) => self.tell(Note::Trouble(format!(
                    "a standing grant is not carried out, for it could not be entered in the audit log: {error}"
                ))),
            }
        }
        entered
    }

    /// Whom standing grants let see a camera of the next segment. Call after [`Self::ratchet_hints`].
    fn grantees(&self, in_force: &[&Granting]) -> Vec<Grantee> {
        let grantee = |granting: &&Granting| {
            let (_, hint) = self.hints.get(&hint_name(granting))?;
            Some(Grantee {
                camera: granting.camera,
                key: granting.grant.terms.grantee.clone(),
                hint: Locked::made_by(|| Hint::clone(hint)),
            })
        };
        in_force.iter().filter_map(grantee).collect()
    }

    fn extend(&mut self, segment: Handle, from: u64, bytes: u64) -> io::Result<u64> {
        let Some(file) = self.files.get(&segment).map(|kept| kept.file.clone()) else {
            return Ok(from);
        };
        self.allocate(&file, from, bytes)
    }

    fn close(
        &mut self,
        handle: Handle,
        writer: SegmentWriter,
        prev_root: Option<[u8; 32]>,
    ) -> Reply<F::File> {
        let Some(file) = self.files.remove(&handle) else {
            return Reply::Released(handle);
        };
        let of_last = self
            .last_closed
            .filter(|(id, _)| Some(*id) == file.prev)
            .map(|(_, root)| root);
        match self.write_tail(&file, writer, prev_root.or(of_last)) {
            Ok(closed) => {
                let root = closed.root;
                self.last_closed = Some((file.id, root));
                self.tell(Note::Closed(closed));
                Reply::Closed(handle, file.id, root)
            }
            Err(error) => {
                // Every chunk in it is durable; only its footer is missing. Recovery closes it at the next start.
                self.tell(Note::Trouble(format!(
                    "cannot close segment {}: {error}",
                    file.path.display()
                )));
                self.tell(Note::Abandoned(file.path));
                Reply::Released(handle)
            }
        }
    }

    fn write_tail(
        &mut self,
        file: &SegmentFile<F::File>,
        writer: SegmentWriter,
        prev_root: Option<[u8; 32]>,
    ) -> io::Result<ClosedSegment> {
        let closed_s = self.world.now_s();
        let durable_upto = writer.next_offset();
        let slots: Vec<u32> = writer.slots().collect();
        let finished = writer.finish(
            Some(&self.settings.node),
            FinishParams::sealed(prev_root, durable_upto, closed_s),
        );
        let end = finished.offset + finished.bytes.len() as u64;
        if let Some(audit) = &self.settings.audit {
            // The footer makes it sealed; so the entry comes first. Without it the footer is not written either: all that was recorded
            // stays durable, and recovery closes the segment once the log can be written.
            let salts: Vec<Salt> = slots
                .iter()
                .filter_map(|slot| file.salts.get(slot).copied())
                .collect();
            let entries = sealed_entries(file.id, finished.root, closed_s, &salts, &mut *self.rng);
            self.unentered.extend(entries);
            match audit.append(&self.unentered) {
                Ok(_) => self.unentered.clear(),
                // Retention frees space by deleting sealed segments only: were this one left unsealed, a full disk would stay full.
                Err(error) if error.is_no_space() => {
                    self.tell(Note::Trouble(format!(
                        "{error}; segments are sealed meanwhile, and entered once there is room"
                    )));
                }
                Err(error) => {
                    self.unentered.clear();
                    return Err(io::Error::other(error));
                }
            }
        }
        self.world.write(&file.path, &finished.bytes, finished.offset)?;
        self.world.sync_data(&file.path)?;
        self.world.truncate(&file.path, end)?;
        self.world.sync_all(&file.path)?;
        Ok(ClosedSegment {
            id: file.id,
            path: file.path.clone(),
            bytes: end,
            run_id: self.settings.chain.run_id,
            shard: self.settings.chain.shard,
            chain_seq: file.chain_seq,
            closed_s,
            root: finished.root,
        })
    }

    /// Says once why segments cannot be prepared; asked twice a second, it fails for the same reason each time.
    fn note_failure(&mut self, error: &io::Error) {
        if is_no_space(error) {
            self.tell(Note::NoSpace);
        }
        if self.said != Some(error.kind()) {
            self.said = Some(error.kind());
            let folder = self.settings.folder.display();
            self.tell(Note::Trouble(format!(
                "cannot prepare a segment in {folder}: {error}; it is tried again"
            )));
        }
    }

    fn tell(&self, note: Note) {
        // The janitor outlives every keeper; should it have died, the shard must record on regardless.
        let _ = self.janitor.send(note);
    }
}

/// Under which name H of a standing grant is kept: no public key has it.
fn hint_name(granting: &Granting) -> String {
    statement::hex(granting.grant.hash())
}

/// EK of the erasable customers of an order; `None` if there is none.
fn draw_erase_keys(
    store: &Option<Keystore>,
    order: &Order,
    created_s: u64,
    rng: &mut dyn CryptoRng,
) -> io::Result<Option<Drawn>> {
    let customers = &order.registry.customers;
    let Some(store) = store.as_ref().filter(|_| customers.iter().any(|c| c.erasable)) else {
        return Ok(None);
    };
    let names: Vec<Option<&str>> = customers.iter().map(|c| c.erasable.then_some(&*c.name)).collect();
    Ok(Some(store.draw(created_s, &names, rng)?))
}

/// Whether the slots of a segment were noted.
enum Noted {
    /// They are durable, or there are none. With what a person should read.
    Yes(Vec<String>),
    /// The keys may be gone: the segment must be made anew.
    ErasedMeanwhile,
}

fn note_slots(
    store: &Option<Keystore>,
    drawn: Option<Drawn>,
    made: &Prepared,
    created_s: u64,
) -> io::Result<Noted> {
    let Some((store, drawn)) = store.as_ref().zip(drawn) else {
        return Ok(Noted::Yes(Vec::new()));
    };
    let origin = &made.origin;
    let segment = NewSegment {
        segment_id: origin.segment_id,
        run_id: origin.run_id,
        shard: origin.shard,
        chain_seq: origin.chain_seq,
        created_s,
    };
    let slots = made.customers.iter().map(|customer| customer.slot);
    Ok(match store.note(&drawn, &segment, slots)? {
        true => Noted::Yes(drawn.troubles),
        false => Noted::ErasedMeanwhile,
    })
}

/// The entries that announce a sealed segment: one, or as many as its customers take.
fn sealed_entries(
    segment: SegmentId,
    root: [u8; 32],
    now_s: u64,
    salts: &[Salt],
    rng: &mut dyn CryptoRng,
) -> Vec<Entry> {
    let parts = salts.len().div_ceil(CUSTOMERS_MAX).max(1) as u32;
    (1..=parts)
        .map(|part| {
            let from = (part as usize - 1) * CUSTOMERS_MAX;
            let of_part = &salts[from..salts.len().min(from + CUSTOMERS_MAX)];
            let fact = Fact::SegmentSealed {
                segment,
                root: Bytes(root),
                part,
                parts,
                recovered: false,
            };
            Entry::concerning(now_s, Nonce::generate(rng), fact, of_part)
        })
        .collect()
}

/// Whether it failed for lack of space, or of quota.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests;
