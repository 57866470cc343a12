//! Recovery of what a crash left, as shipped: `harborseal_segment::recover` decides, and its steps may be cut short by another crash.

use harborseal_segment::head::Head;
use harborseal_segment::recover::{Plan, plan};
use harborseal_segment::scan::{Item, ReadError, Scanner};
use harborseal_segment::verify::Severity;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::platter::{FileId, Platter, SimFile};
use super::tally::Fired;
use super::world::World;

/// Crashes while one file is recovered, at most.
const MAX_CRASHES: usize = 4;

/// Closes a file. False: it holds no segment, which only a file that no shard ever used may do.
pub fn recover(world: &World, id: FileId) -> bool {
    let mut rng = StdRng::seed_from_u64(world.plan.quiet_ns);
    let now_s = world.now().real_ns / 1_000_000_000;
    for attempt in 0.. {
        let mut platter = world.platter.borrow_mut();
        let file = platter.file(id);
        let path = file.path.display().to_string();
        let (offset, bytes, end, room) = match plan(&file.source(), Some(&world.node), now_s, |_| {}) {
            Ok(Plan::AlreadyClosed(report)) => {
                assert!(report.is_clean(), "{path} is closed and not clean");
                return true;
            }
            Ok(Plan::Unused(_)) => {
                world.tally.fire(Fired::UnusedFound);
                return true;
            }
            Ok(Plan::CloseTail(close)) => (close.offset, close.bytes.clone(), close.end(), close.room()),
            Ok(Plan::Corrupt(repair)) => {
                let damage = repair
                    .report
                    .findings
                    .iter()
                    .filter(|f| f.severity() == Severity::Damage);
                let found: Vec<String> = damage.map(|finding| finding.to_string()).collect();
                tell_blocks(world, file);
                panic!("{path}: a crash is taken for corruption: {}", found.join("; "));
            }
            Err(ReadError::Io { .. } | ReadError::Unsupported { .. }) => panic!("{path} could not be read"),
            Err(error) => {
                assert!(!file.in_use, "{path} was in use: {error}");
                return false;
            }
        };
        assert!(
            offset >= file.watermark,
            "{path}: recovery writes below the watermark"
        );
        let mut crashes = || attempt < MAX_CRASHES && rng.random_bool(0.1);
        let crashed = lengthen_and_write(&mut platter, id, offset, &bytes, room, &mut crashes) || {
            platter.set_len(id, end);
            crashes()
        };
        if crashed {
            world.tally.fire(Fired::CrashedRecovering);
            platter.crash();
            continue;
        }
        let sync = platter.begin_sync(id);
        platter.end_sync(&sync);
        world.tally.fire(Fired::TailClosed);
    }
    false
}

/// All but the final cut; true if the machine crashed in between.
fn lengthen_and_write(
    platter: &mut Platter,
    id: FileId,
    offset: u64,
    bytes: &[u8],
    room: u64,
    crashes: &mut impl FnMut() -> bool,
) -> bool {
    if bytes.is_empty() {
        return false;
    }
    platter.set_len(id, offset);
    platter.set_len(id, room);
    if crashes() {
        return true;
    }
    let sync = platter.begin_sync(id);
    platter.end_sync(&sync);
    let write = platter.begin_write(id, offset, bytes);
    platter.land(write, bytes.len());
    if crashes() {
        return true;
    }
    let sync = platter.begin_sync(id);
    platter.end_sync(&sync);
    false
}

/// What stands in a file, for the story of a failure.
fn tell_blocks(world: &World, file: &SimFile) {
    let now_ns = world.now().mono_ns;
    let tell = |what: std::fmt::Arguments<'_>| world.tally.tell(now_ns, what);
    tell(format_args!(
        "{}, {} bytes, durable up to {}",
        file.path.display(),
        file.len,
        file.watermark
    ));
    let Ok(head) = Head::read(&file.source()) else {
        return;
    };
    let mut scanner = Scanner::new(file.source(), head.id);
    while let Ok(Some(item)) = scanner.next_item() {
        match item {
            Item::Gap(gap) => tell(format_args!("{:>9} +{:<7} {}", gap.offset, gap.len, gap.reason)),
            Item::Block(block) => {
                let (kind, no) = (block.header.block_type, block.header.block_no);
                let origin = block.header.segment_id;
                let floor = u64::from(block.header.durable_4k) * 4096;
                let len = block.header.total_len;
                tell(format_args!(
                    "{:>9} +{len:<7} {kind:?} {no} of {origin}, floor {floor}",
                    block.offset
                ));
            }
        }
    }
}
