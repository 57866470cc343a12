//! One machine through all lives of the engine on it: what stays when one ends, and what is remembered of it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use harborseal::ledger::StreamLedger;
use harborseal::log::catalog::Note;
use harborseal_segment::body::{ChainHead, DeletedSegment};
use harborseal_segment::ids::RunId;
use harborseal_segment::node::NodeKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::canary::Canary;
use super::check;
use super::plan::{Plan, S, Start, Story};
use super::platter::{FileId, Platter, SimFile};
use super::tally::{Fired, Tally};
use super::traffic::Traffic;
use super::world::World;

/// A machine: its disk, its key, and the lives that ended on it.
pub struct Machine {
    /// What was decided for all of them.
    pub story: Story,
    /// Its files.
    pub platter: Rc<RefCell<Platter>>,
    /// Its key.
    pub node: Arc<NodeKey>,
    /// Where to count.
    pub tally: Tally,
    /// The lives that ended.
    pub pasts: Vec<Past>,
    /// Randomness of what happens between them.
    pub rng: StdRng,
}

/// What is remembered of a life.
pub struct Past {
    /// What was decided beforehand.
    pub plan: Plan,
    /// What was sent.
    pub traffic: Traffic,
    /// This run of the engine.
    pub run_id: RunId,
    /// What really arrived: index of the arrival and CLOCK_REALTIME at that moment.
    pub arrived: Vec<(usize, u64)>,
    /// What the network left in order is stored in order.
    pub order_is_strict: bool,
    /// Tombstones that were asked for, by ticket.
    pub tombstones: Vec<Vec<DeletedSegment>>,
    /// Chain ends that were told.
    pub heads: Vec<ChainHead>,
    /// What the keepers told the janitor.
    pub told: Vec<Note>,
    /// Every stream's own books.
    pub ledgers: Vec<StreamLedger>,
    /// Segments that were begun, and those that failed.
    pub segments: (u64, u64),
    /// It was told to stop, and ended by itself.
    pub whole: bool,
    /// It ran for longer than that takes.
    pub long: bool,
}

/// Lives a seed through and checks everything.
///
/// # Panics
/// If a promise is broken.
pub fn live(seed: u64, canary: Option<Canary>, tally: &Tally) {
    let mut machine = Machine::new(Story::new(seed, canary), tally);
    let mut start = Start::first(seed);
    for life in 0..machine.story.lives {
        let mut world = World::new(&machine, Start { life, ..start });
        tally.add(Fired::AnotherLife, u64::from(life > 0));
        let crashed = world.live();
        let (mono_ns, real_offset_ns) = world.clocks();
        let pause_ns = machine.rng.random_range(S..100 * S);
        start = Start {
            life: life + 1,
            mono_ns: mono_ns + pause_ns,
            real_offset_ns,
        };
        machine.remember(world, !crashed);
        if crashed {
            machine.crash();
        }
    }
    let now_ns = start.mono_ns as i64 + start.real_offset_ns;
    machine.platter.borrow_mut().now_s = now_ns as u64 / S;
    check::everything(&mut machine);
}

impl Machine {
    fn new(story: Story, tally: &Tally) -> Machine {
        let mut rng = StdRng::seed_from_u64(story.seed ^ 0x6d61_6368);
        let platter = Platter::new(rng.random(), tally.clone());
        Machine {
            story,
            platter: Rc::new(RefCell::new(platter)),
            node: Arc::new(NodeKey::from_bytes(&[7; 32])),
            tally: tally.clone(),
            pasts: Vec::new(),
            rng,
        }
    }

    /// The first stream of the next life.
    pub fn next_stream(&self) -> u32 {
        let last = self.pasts.last();
        last.map_or(0, |past| {
            past.traffic.first_stream + past.traffic.streams.len() as u32
        })
    }

    /// The life in which a stream was sent.
    pub fn past_of(&self, stream: u32) -> &Past {
        let mut pasts = self.pasts.iter();
        let past = pasts.find(|past| past.traffic.stream(stream).is_some());
        past.expect("every stream was sent in some life")
    }

    /// An fsync lied about a file that a shard used: less may be durable than was called so.
    pub fn liar_was_believed(&self) -> bool {
        self.platter.borrow().lied
    }

    fn remember(&mut self, world: World, whole: bool) {
        self.tally.lived(world.shards.len());
        let long = world.mono_since_start_ns() > 5 * S;
        let now = world.now();
        let World {
            plan,
            traffic,
            mut shards,
            run_id,
            arrived,
            order_is_strict,
            tombstones,
            heads,
            ..
        } = world;
        let mut segments = (0, 0);
        let (mut told, mut ledgers) = (Vec::new(), Vec::new());
        for shard in &mut shards {
            let books = shard.books(now);
            segments.0 += books.segments;
            segments.1 += books.segments_retired;
            ledgers.extend(shard.core.ledgers());
            told.append(&mut shard.keeper.told);
        }
        self.pasts.push(Past {
            plan,
            traffic,
            run_id,
            arrived,
            order_is_strict,
            tombstones,
            heads,
            told,
            ledgers,
            segments,
            whole,
            long,
        });
    }

    /// The machine loses power. What was promised is still there.
    pub fn crash(&mut self) {
        let promised = self.promised();
        self.platter.borrow_mut().crash();
        let platter = self.platter.borrow();
        let there: HashSet<FileId> = platter.files().map(|(id, _)| id).collect();
        for (id, bytes) in promised {
            let file = platter.file(id);
            let path = file.path.display();
            assert!(there.contains(&id), "{path} was in use and is gone");
            let len = bytes.len();
            let same = file.image.len() >= len && file.image[..len] == bytes[..] && file.len >= len as u64;
            assert!(same, "{path}: bytes below the watermark {len} changed");
        }
    }

    /// The bytes that were called durable.
    fn promised(&self) -> Vec<(FileId, Vec<u8>)> {
        let platter = self.platter.borrow();
        let in_use = platter.files().filter(|(_, file)| file.in_use);
        let promised = |file: &SimFile| if file.lied { 0 } else { file.watermark as usize };
        in_use
            .map(|(id, file)| (id, file.image[..promised(file)].to_vec()))
            .collect()
    }
}
