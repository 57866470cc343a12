//! Sends a score: what is due goes out, and what went out is noted. The invariants are the fleet's (see [`crate::fleet`]): a
//! packet counts as sent only after the kernel took it, its lateness from its intended time, and nothing is skipped.
//!
//! Packets of a replay are all of different lengths and belong to different streams, so they leave one by one in batches
//! (`sendmmsg`), not segmented.

use super::account::{Account, End, Played};
use super::clones::Turn;
use super::codec;
use super::find::Found;
use super::post::Post;
use super::score::{Due, Score, Times, TimesError};
use crate::fleet::Control;
use crate::mark::Mark;
use crate::schedule::{CatchUp, Event, Schedule};
use crate::send::Rtcp;
use crate::sentlog::{About, Entry, Flags, Lane, LoggedStream, SentLogError, SentLogWriter, packet_hash};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LEAD_NS: u64 = 20_000_000;
const SLEEP_NS_MIN: u64 = 100_000;
const SLEEP_NS_MAX: u64 = 50_000_000;
/// Whose cameras a replay's are, in the log and in the configuration that is written for it.
pub const CUSTOMER: &str = "replay";

/// Where a replay goes, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it is called in the log.
    pub name: String,
    pub times: Times,
    /// Clones are dealt out over them.
    pub targets: Vec<SocketAddr>,
    pub source: Option<IpAddr>,
    pub rtcp: Rtcp,
    /// Put the mark into packets that have no header extension of their own.
    pub mark: bool,
    pub sent_log: Option<PathBuf>,
}

/// A camera of a replay: what one address sends in one clone.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayCamera {
    pub id: String,
    pub target: SocketAddr,
    /// Numbers of the capture's streams, and the SSRCs they are sent with.
    pub streams: Vec<(usize, u32)>,
}

impl Options {
    /// The cameras as they will be sent. The times must hold.
    pub fn cameras(&self, found: &Found) -> Vec<ReplayCamera> {
        let score = Score::new(found, self.times.clone());
        let mut cameras: Vec<ReplayCamera> = Vec::new();
        let mut of_id = HashMap::new();
        for part in 0..score.parts() {
            let (ssrc, stream) = score.part(part);
            let clone = part / found.streams.len() as u32;
            let id = found.camera(clone, stream);
            let at = *of_id.entry(id.clone()).or_insert_with(|| {
                cameras.push(ReplayCamera {
                    id,
                    target: self.targets[self.target(found, part)],
                    streams: Vec::new(),
                });
                cameras.len() - 1
            });
            cameras[at].streams.push((stream, ssrc));
        }
        cameras
    }

    /// Where a part goes: clones are dealt out over the targets.
    pub fn target(&self, found: &Found, part: u32) -> usize {
        part as usize / found.streams.len() % self.targets.len()
    }
}

/// Why a replay did not come to a result.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("{0}")]
    Times(#[from] TimesError),
    #[error("cannot open the sending sockets: {0}")]
    Socket(std::io::Error),
    #[error("cannot pin the sending thread to CPU {cpu}: {errno}")]
    Cpu { cpu: usize, errno: nix::Error },
    #[error("cannot start the sending thread: {0}")]
    Thread(std::io::Error),
    #[error("{0}")]
    SentLog(#[from] SentLogError),
}

/// Sends a replay on a thread of its own and waits for it. Ends when every clone is through, or soon after `control.stop` is
/// set, with a result of what there was.
pub fn play(
    found: &Found,
    options: &Options,
    cpu: Option<usize>,
    control: &Control,
) -> Result<Played, PlayError> {
    options.times.check(found.streams.len())?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("replay".into());
        let thread = thread.spawn_scoped(scope, || {
            if let Some(cpu) = cpu {
                pin(cpu)?; // the sent log's thread inherits it
            }
            Player::new(found, options, control)?.run()
        });
        thread
            .map_err(PlayError::Thread)?
            .join()
            .expect("the sending thread does not panic")
    })
}

struct Player<'a> {
    found: &'a Found,
    options: &'a Options,
    score: Score<'a>,
    schedule: Schedule,
    post: Post,
    log: Option<SentLogWriter>,
    account: Account<'a>,
    /// The marks' key, and the wall clock at the start.
    run: u64,
    start_ns: u64,
    start: Instant,
    buffer: Vec<u8>,
    /// Packets of each part gathered so far, RTP and RTCP.
    taken: Vec<[u64; 2]>,
}

impl<'a> Player<'a> {
    fn new(found: &'a Found, options: &'a Options, control: &'a Control) -> Result<Player<'a>, PlayError> {
        let post = Post::open(&options.targets, options.source, options.rtcp);
        let score = Score::new(found, options.times.clone());
        let start = Instant::now() + Duration::from_nanos(LEAD_NS);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_ns = since_1970.as_nanos() as u64 + LEAD_NS;
        let run = crate::camera::mix(options.times.seed);
        let about = about(found, options, &score, run, start_ns);
        let log = options
            .sent_log
            .as_deref()
            .map(|path| SentLogWriter::create(path, &about));
        let mut schedule = Schedule::default();
        for part in 0..score.parts() {
            if let Some(due) = score.due(part) {
                schedule.add(due.at_ns, Event::Burst(part));
            }
        }
        Ok(Player {
            found,
            options,
            schedule,
            post: post.map_err(PlayError::Socket)?,
            log: log.transpose()?,
            account: Account::new(&score, control),
            run,
            start_ns,
            start,
            buffer: Vec::new(),
            taken: vec![[0; 2]; score.parts() as usize],
            score,
        })
    }

    fn run(mut self) -> Result<Played, PlayError> {
        let cpu_before = thread_cpu_ns();
        let mut bound = CatchUp::new(self.score.bytes_per_second());
        let mut stopped = false;
        while let Some(due_ns) = self.schedule.next_due_ns() {
            stopped = self.account.control.stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            let now_ns = self.now_ns();
            let wait_ns = match now_ns {
                None => SLEEP_NS_MIN,
                Some(now_ns) if due_ns > now_ns => due_ns - now_ns,
                Some(now_ns) => bound.may_send(now_ns).err().unwrap_or(0),
            };
            if wait_ns > 0 {
                std::thread::sleep(Duration::from_nanos(wait_ns.clamp(SLEEP_NS_MIN, SLEEP_NS_MAX)));
                continue;
            }
            self.gather(now_ns.expect("without a clock the wait is not 0"));
            self.post.send();
            self.count(&mut bound);
        }
        if let Some(log) = self.log.take() {
            log.finish()?;
        }
        let cpu_ns = thread_cpu_ns() - cpu_before;
        let end = End {
            cpu_ns,
            start_ns: self.start_ns,
            stopped,
        };
        Ok(self
            .account
            .finish(self.options, &self.score, &self.post.errors, end))
    }

    fn now_ns(&self) -> Option<u64> {
        let since = Instant::now().checked_duration_since(self.start)?;
        Some(since.as_nanos() as u64)
    }

    /// Takes due packets into the batch until it is full or nothing more is due.
    fn gather(&mut self, now_ns: u64) {
        self.post.clear();
        while self.post.has_room() {
            let Some((_, Event::Burst(part))) = self.schedule.take_due(now_ns) else {
                break;
            };
            self.gather_packet(part);
            self.score.advance(part);
            if let Some(due) = self.score.due(part) {
                self.schedule.add(due.at_ns, Event::Burst(part));
            }
        }
    }

    fn gather_packet(&mut self, part: u32) {
        let due = self
            .score
            .due(part)
            .expect("only parts with a packet left are in the schedule");
        let rtcp = due.packet.rtcp;
        let taken = &mut self.taken[part as usize][usize::from(rtcp)];
        let number = *taken;
        *taken += 1;
        if rtcp && self.options.rtcp == Rtcp::Off {
            return;
        }
        let turn = self.turn(part, number, &due);
        due.clone.write(self.found, due.packet, &turn, &mut self.buffer);
        let target = self.options.target(self.found, part);
        self.post.add(part, number, rtcp, due.at_ns, target, &self.buffer);
    }

    fn turn(&self, part: u32, number: u64, due: &Due<'_>) -> Turn {
        let intended_ns = self.start_ns + due.at_ns;
        let captured_ns = self.found.start_ns + due.packet.at_ns;
        let mark = Mark {
            stream: part,
            sequence: number,
            intended_ns,
        };
        Turn {
            repetition: due.repetition,
            later_ns: i128::from(intended_ns) - i128::from(captured_ns),
            mark: self.options.mark.then_some((self.run, mark)),
        }
    }

    /// Notes of each message what became of it.
    fn count(&mut self, bound: &mut CatchUp) {
        let now_ns = self.now_ns().unwrap_or(0);
        for (message, bytes, left) in self.post.answers() {
            bound.sent(bytes.len(), message.due_ns, now_ns);
            self.account.count(message, bytes.len() as u64, left, now_ns);
            let (lane, flags, hash) = match (message.rtcp, left) {
                (false, true) => (Lane::Rtp, Flags::SENT, packet_hash(bytes)),
                (false, false) => (Lane::Rtp, Flags::FAILED, 0),
                (true, true) => (Lane::Rtcp, Flags::SENT, packet_hash(bytes)),
                (true, false) => continue,
            };
            if let Some(log) = &mut self.log {
                let entry = Entry {
                    hash,
                    sequence: message.number,
                    flags,
                    intended_ns: message.due_ns,
                    len: bytes.len() as u16,
                };
                log.note(message.part, lane, entry);
            }
        }
        self.account.batch_done(now_ns);
    }
}

/// As the fleet does, whose sending is another matter.
fn pin(cpu: usize) -> Result<(), PlayError> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .map_err(|errno| PlayError::Cpu { cpu, errno })
}

fn thread_cpu_ns() -> u64 {
    // The clock of one's own thread can always be read.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

fn about(found: &Found, options: &Options, score: &Score<'_>, run: u64, start_ns: u64) -> About {
    let logged = |part: u32| {
        let (ssrc, stream) = score.part(part);
        let clone = part / found.streams.len() as u32;
        LoggedStream {
            camera: found.camera(clone, stream),
            customer: CUSTOMER.to_owned(),
            group: found.streams[stream].source.to_string(),
            media: codec::guess(found, stream).media(),
            ssrc,
            target: options.target(found, part) as u32,
            known: true,
        }
    };
    About {
        plan: options.name.clone(),
        seed: options.times.seed,
        run,
        start_ns,
        targets: options.targets.iter().map(SocketAddr::to_string).collect(),
        streams: (0..score.parts()).map(logged).collect(),
    }
}
