//! What happened, counted: a fault that never fires proves nothing.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

macro_rules! fired {
    ($($name:ident $text:literal,)*) => {
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
        }
    };
}

fired! {
    PacketLost "network: packet lost",
    PacketDuplicated "network: packet duplicated",
    PacketReordered "network: packet reordered",
    Batch "network: GRO batch",
    MixedBatch "network: GRO batch of several SSRCs",
    Rtcp "network: RTCP packet",
    SequenceJump "network: sender restarted its sequence",
    NewSsrc "network: sender took another SSRC",
    Hostile "network: hostile bytes",
    UnknownSsrc "network: unknown SSRC",
    WrongSource "network: wrong source",
    Oversize "network: packet larger than a chunk",
    KernelDrop "network: socket buffer overflowed",
    Stall "machine: shard not scheduled",
    ClockForward "machine: clock stepped forwards",
    ClockBack "machine: clock stepped backwards",
    SlowDisk "disk: slow",
    ReorderedCompletion "disk: completions out of order",
    RingFull "disk: no room in the ring",
    ShortWrite "disk: short write",
    Interrupted "disk: EINTR or EAGAIN",
    EioOnce "disk: EIO once",
    EioSticky "disk: EIO for good",
    WriteNoSpace "disk: ENOSPC on a write",
    SyncFailed "disk: fdatasync failed",
    PrepareNoSpace "keeper: ENOSPC preparing",
    PrepareFailed "keeper: EIO preparing",
    ExtendNoSpace "keeper: ENOSPC extending",
    ExtendFailed "keeper: EIO extending",
    CloseFailed "keeper: EIO closing",
    SlowKeeper "keeper: slow",
    Reload "control: reload",
    Tombstones "control: tombstones",
    Heads "control: chain ends of earlier runs",
    Stopped "control: stop",
    EarlyStop "control: stop before the first segment",
    Rehomed "shard: packet handed over",
    Held "shard: packet held for its order",
    OrderGivenUp "shard: order given up for a stalled shard",
    Paused "shard: receiving paused",
    PoolExhausted "shard: dropped, pool exhausted",
    DiskFull "shard: dropped, disk full",
    TooManyStreams "shard: dropped, too many streams",
    StreamReplaced "shard: slot given to another stream",
    Rotated "log: segment rotated",
    LateStream "log: STREAM in the middle of a segment",
    Retired "log: segment retired",
    Relocated "log: chunk relocated",
    RelocatedTwice "log: chunk relocated again",
    Crashed "crash",
    CrashedPreparing "crash: while a segment was prepared",
    CrashedClosing "crash: while a segment was closed",
    CrashedExtending "crash: while a segment was extended",
    SectorLost "crash: sector lost",
    SectorKept "crash: unsynced sector kept",
    SectorTorn "crash: sector torn",
    LengthLost "crash: length of a file lost",
    NameLost "crash: name of a file lost",
    TailClosed "recovery: tail closed",
    UnusedFound "recovery: unused segment",
    CrashedRecovering "recovery: crashed and begun again",
}

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
    pub fn tell(&self, now_ns: u64, what: fmt::Arguments<'_>) {
        if self.tells {
            eprintln!("{:>12.6} s  {what}", now_ns as f64 / 1e9);
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

    /// A run is over.
    pub fn end_of_run(&self) {
        let counts = &mut *self.counts.borrow_mut();
        counts.runs += 1;
        for (runs, fired) in counts.runs_with.iter_mut().zip(&mut counts.this_run) {
            *runs += u64::from(std::mem::take(fired));
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
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
        self.runs += other.runs;
        self.received += other.received;
        self.stored += other.stored;
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = Fired::ALL.iter().filter(|what| self.total[**what as usize] == 0);
        never.map(|what| what.name()).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |runs: u64| 100.0 * runs as f64 / self.runs.max(1) as f64;
        for what in Fired::ALL {
            let at = *what as usize;
            let (total, runs) = (self.total[at], self.runs_with[at]);
            writeln!(
                f,
                "{:<48} {total:>10} times, in {:>5.1} % of runs",
                what.name(),
                share(runs)
            )?;
        }
        let Counts {
            runs,
            received,
            stored,
            ..
        } = self;
        write!(f, "{runs} runs, {received} packets received, {stored} stored")
    }
}
