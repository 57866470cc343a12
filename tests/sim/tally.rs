//! What happened, counted: a fault that never fires proves nothing.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Whether it was done to the engine, or the engine did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Done to it: has to happen in one of a hundred seeds.
    Fault,
    /// What came of that: has to happen.
    State,
    /// What comes of it in few seeds, of which many are needed.
    Seldom,
}

macro_rules! fired {
    ($($name:ident $kind:ident $text:literal,)*) => {
        /// Faults that were injected, and states that the engine got into because of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Fired { $(#[doc = $text] $name,)* }

        impl Fired {
            /// All of them, in order of declaration.
            pub const ALL: &[Fired] = &[$(Fired::$name,)*];

            /// In words.
            pub fn name(self) -> &'static str {
                match self { $(Fired::$name => $text,)* }
            }

            /// Who did it.
            pub fn kind(self) -> Kind {
                match self { $(Fired::$name => Kind::$kind,)* }
            }
        }
    };
}

fired! {
    // Faults, each of which has to fire in one of a hundred seeds.
    PacketLost Fault "network: packet lost",
    PacketDuplicated Fault "network: packet duplicated",
    PacketReordered Fault "network: packet reordered",
    Batch Fault "network: GRO batch",
    MixedBatch Fault "network: GRO batch of several SSRCs",
    Rtcp Fault "network: RTCP packet",
    SequenceJump Fault "network: sender restarted its sequence",
    NewSsrc Fault "network: sender took another SSRC",
    Hostile Fault "network: hostile bytes",
    UnknownSsrc Fault "network: unknown SSRC",
    WrongSource Fault "network: wrong source",
    Oversize Fault "network: packet larger than a chunk",
    KernelDrop Fault "network: socket buffer overflowed",
    NoBuffers Fault "ring: ENOBUFS, receiving ended",
    RingFull Fault "ring: no room for a write or fdatasync",
    Stall Fault "machine: shard not scheduled",
    ClockForward Fault "machine: clock stepped forwards",
    ClockBack Fault "machine: clock stepped backwards",
    SlowDisk Fault "disk: slow completions",
    ReorderedCompletion Fault "disk: completions out of order",
    ShortWrite Fault "disk: short write",
    Interrupted Fault "disk: EINTR or EAGAIN",
    EioOnce Fault "disk: EIO once",
    EioSticky Fault "disk: EIO for good",
    WriteNoSpace Fault "disk: ENOSPC on a write",
    SyncFailed Fault "disk: fdatasync failed",
    SyncLied Fault "disk: fsync lied",
    PrepareNoSpace Fault "keeper: ENOSPC preparing",
    PrepareFailed Fault "keeper: EIO preparing",
    ExtendNoSpace Fault "keeper: ENOSPC extending",
    ExtendFailed Fault "keeper: EIO extending",
    CloseFailed Fault "keeper: EIO closing",
    SlowKeeper Fault "keeper: slow",
    Crashed Fault "crash",
    CrashedPreparing Fault "crash: while a segment was prepared",
    CrashedClosing Fault "crash: while a segment was closed",
    CrashedExtending Fault "crash: while a segment was extended",
    CrashedRecovering Fault "crash: during recovery",
    SectorLost Fault "crash: sector lost",
    SectorKept Fault "crash: unsynced sector kept",
    SectorTorn Fault "crash: sector torn",
    ExtentLost Fault "crash: extent lost",
    ExtentKept Fault "crash: extent kept beyond the length",
    LengthLost Fault "crash: length of a file lost",
    NameLost Fault "crash: name of a file lost",
    DeletionUndone Fault "crash: deletion of a file undone",
    RecoveryFailed Fault "recovery: EIO or ENOSPC",
    Reload Fault "control: reload",
    Tombstones Fault "control: tombstones",
    Heads Fault "control: chain ends of earlier runs",
    PoolExhausted Fault "shard: dropped, pool exhausted",
    Rotated Fault "log: segment rotated",
    // What came of them.
    Stopped State "control: stop",
    EarlyStop State "control: stop before the first segment",
    AnotherLife State "control: started again",
    LookedBack State "recovery: looked back beside recording",
    TailClosed State "recovery: tail closed",
    UnusedFound State "recovery: unused segment deleted",
    LiarSurvived State "recovery: a disk that lied was believed",
    Repaired Seldom "recovery: repaired copy of what a lying disk lost",
    Rehomed State "shard: packet handed over",
    Held State "shard: packet held for its order",
    OrderGivenUp State "shard: order given up for a stalled shard",
    Paused Seldom "shard: receiving paused",
    DiskFull State "shard: dropped, disk full",
    TooManyStreams Seldom "shard: dropped, too many streams",
    StreamReplaced Seldom "shard: slot given to another stream",
    LateStream State "log: STREAM in the middle of a segment",
    Retired State "log: segment retired",
    Relocated State "log: chunk relocated",
    RelocatedTwice Seldom "log: chunk relocated again",
}

/// Of fewer seeds than these nothing is promised.
const FEW_RUNS: u64 = 1000;
/// Among so many, everything happens.
const MANY_RUNS: u64 = 100_000;
/// What a seed has on average, at least.
const MEAN_PACKETS: u64 = 200;
const MEAN_SHARDS: u64 = 2;

/// Counts of many runs. Clones count together.
#[derive(Clone, Default)]
pub struct Tally {
    counts: Rc<RefCell<Counts>>,
    tells: bool,
}

/// What a tally holds; can be sent between threads and merged.
#[derive(Clone, Debug)]
pub struct Counts {
    total: Vec<u64>,
    /// Runs in which it fired.
    runs_with: Vec<u64>,
    this_run: Vec<bool>,
    /// Runs.
    pub runs: u64,
    /// Packets the engines received.
    pub received: u64,
    /// Packets that became durable.
    pub stored: u64,
    /// Lives of engines, and shards of all of them.
    pub lives: u64,
    /// Shards of all lives.
    pub shards: u64,
    /// Runs with a crash and a recovery that closed what it left.
    pub recovered: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let len = Fired::ALL.len();
        Counts {
            total: vec![0; len],
            runs_with: vec![0; len],
            this_run: vec![false; len],
            runs: 0,
            received: 0,
            stored: 0,
            lives: 0,
            shards: 0,
            recovered: 0,
        }
    }
}

impl Tally {
    /// A tally that also tells on stderr what happens: for one seed.
    pub fn telling() -> Tally {
        Tally {
            tells: true,
            ..Tally::default()
        }
    }

    /// Something that a story needs, at a monotonic time.
    pub fn tell(&self, now_ns: u64, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("{:>12.6} s  {}", now_ns as f64 / 1e9, what());
        }
    }

    /// It happened.
    pub fn fire(&self, what: Fired) {
        self.add(what, 1);
    }

    /// It happened `times` times.
    pub fn add(&self, what: Fired, times: u64) {
        let counts = &mut *self.counts.borrow_mut();
        counts.total[what as usize] += times;
        counts.this_run[what as usize] |= times > 0;
    }

    /// Packets received and stored in a run.
    pub fn packets(&self, received: u64, stored: u64) {
        let counts = &mut *self.counts.borrow_mut();
        counts.received += received;
        counts.stored += stored;
    }

    /// An engine of so many shards has ended.
    pub fn lived(&self, shards: usize) {
        let counts = &mut *self.counts.borrow_mut();
        counts.lives += 1;
        counts.shards += shards as u64;
    }

    /// A run is over.
    pub fn end_of_run(&self) {
        let counts = &mut *self.counts.borrow_mut();
        counts.runs += 1;
        let fired = |what: Fired| counts.this_run[what as usize];
        counts.recovered += u64::from(fired(Fired::Crashed) && fired(Fired::TailClosed));
        for (runs, fired) in counts.runs_with.iter_mut().zip(&mut counts.this_run) {
            *runs += u64::from(std::mem::take(fired));
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// The counts so far; from here on they are counted anew.
    pub fn take(&self) -> Counts {
        self.counts.take()
    }
}

impl Counts {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Counts) {
        let sums = [
            (&mut self.total, &other.total),
            (&mut self.runs_with, &other.runs_with),
        ];
        for (mine, theirs) in sums {
            mine.iter_mut()
                .zip(theirs)
                .for_each(|(mine, theirs)| *mine += theirs);
        }
        for (mine, theirs) in [
            (&mut self.runs, other.runs),
            (&mut self.received, other.received),
            (&mut self.stored, other.stored),
            (&mut self.lives, other.lives),
            (&mut self.shards, other.shards),
            (&mut self.recovered, other.recovered),
        ] {
            *mine += theirs;
        }
    }

    /// What was promised of so many seeds and does not hold. Of a few seeds nothing is promised.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut short = Vec::new();
        if self.runs < FEW_RUNS {
            return short;
        }
        for what in Fired::ALL {
            let runs = self.runs_with[*what as usize];
            let least = match what.kind() {
                Kind::Fault => self.runs.div_ceil(100),
                Kind::State => 1,
                Kind::Seldom => u64::from(self.runs >= MANY_RUNS),
            };
            if runs < least {
                short.push(format!("{:?} in {runs} of {} seeds", what.name(), self.runs));
            }
        }
        if self.received < MEAN_PACKETS * self.runs {
            short.push(format!("{:.0} packets in a seed", self.mean(self.received)));
        }
        if self.shards < MEAN_SHARDS * self.lives {
            short.push(format!("{:.2} shards", self.shards as f64 / self.lives as f64));
        }
        if self.recovered * 10 < self.runs * 9 {
            let share = 100.0 * self.mean(self.recovered);
            short.push(format!("a crash and a recovery in {share:.1} % of seeds"));
        }
        short
    }

    fn mean(&self, total: u64) -> f64 {
        total as f64 / self.runs.max(1) as f64
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in Fired::ALL {
            let at = *what as usize;
            let (total, runs) = (self.total[at], self.runs_with[at]);
            let share = 100.0 * self.mean(runs);
            writeln!(
                f,
                "{:<52} {total:>12} times, in {share:>6.2} % of seeds",
                what.name()
            )?;
        }
        let Counts { runs, lives, .. } = self;
        writeln!(
            f,
            "{runs} seeds, {lives} lives of engines with {:.2} shards on average",
            self.shards as f64 / (*lives).max(1) as f64
        )?;
        writeln!(
            f,
            "packets received {} ({:.0} in a seed), stored {}",
            self.received,
            self.mean(self.received),
            self.stored
        )?;
        write!(
            f,
            "a crash and a recovery in {:.2} % of seeds",
            100.0 * self.mean(self.recovered)
        )
    }
}
