//! The order of things: the log first, then the keys; and what a failure or a crash in between leaves.

use std::fs;

use harborseal_segment::identity::Identity;
use harborseal_segment::ids::RunId;
use harborseal_segment::random::os_random;

use super::*;
use crate::keystore::NewSegment;

/// 2026-11-24T03:32:07Z.
const NOW_S: u64 = 1_795_491_127;
const ALL: Range = Range {
    from_s: 0,
    to_s: u64::MAX,
};

struct Lab {
    dir: tempfile::TempDir,
    node: Node,
    alice: Identity,
}

fn lab() -> Lab {
    let dir = tempfile::tempdir().expect("a folder");
    for folder in ["keys", "segments"] {
        fs::create_dir(dir.path().join(folder)).expect("made");
    }
    let node = Node::open(dir.path(), NodeKey::from_bytes(&[5; 32])).expect("opened");
    let alice = Identity::generate(&mut os_random());
    Lab { dir, node, alice }
}

impl Lab {
    fn whose(&self) -> Whose<'_> {
        Whose {
            name: "alice",
            public_key: self.alice.public(),
            salt: Some([7; 32]),
            others: Vec::new(),
        }
    }

    /// Draws the keys for a segment and notes its slots, as the engine does.
    fn segment(&self, n: u8, created_s: u64) -> SegmentId {
        let names = [Some("bob"), Some("alice")];
        let drawn = self
            .node
            .store
            .draw(created_s, &names, &mut os_random())
            .expect("drawn");
        let segment = NewSegment {
            segment_id: SegmentId([n; 16]),
            run_id: RunId([0; 16]),
            shard: 0,
            chain_seq: u64::from(n),
            created_s,
        };
        assert!(
            self.node
                .store
                .note(&drawn, &segment, [3, 4].into_iter())
                .expect("noted")
        );
        segment.segment_id
    }

    fn keys(&self) -> usize {
        let store = self.node.store.lock().expect("locked");
        store.keys_of(store.owner("alice")).expect("listed").len()
    }

    fn erase(&self, before: Option<Day>) -> Result<Erased, ErasureError> {
        self.node
            .erase(&self.whose(), (before, "root"), NOW_S, |_| Ok(()))
    }

    fn release(&self, range: Range) -> Result<Vec<Release>, ErasureError> {
        let said = Said {
            to: "Alice",
            to_key: self.alice.public(),
            by: "root",
            purpose: "break-in",
        };
        self.node
            .release(&self.whose(), range, 120, &said, NOW_S)
            .map(|(releases, _)| releases)
    }

    /// From here on nothing can be appended to the log.
    fn break_log(&self) {
        let lock = self.dir.path().join("audit/lock");
        fs::remove_file(&lock).expect("it is there");
        fs::create_dir(&lock).expect("made");
    }
}

#[test]
fn without_the_log_nothing_is_released_and_nothing_erased() {
    let lab = lab();
    lab.segment(1, NOW_S);
    lab.break_log();
    assert!(matches!(lab.release(ALL), Err(ErasureError::Log(_))));
    assert!(matches!(lab.erase(None), Err(ErasureError::Log(_))));
    assert_eq!(lab.keys(), 1);
    assert!(
        !lab.node.is_pending(&lab.whose()).expect("read"),
        "it does not wait to happen"
    );
}

#[test]
fn a_release_is_of_the_segments_of_its_time_and_of_no_others() {
    let lab = lab();
    let first = lab.segment(1, NOW_S);
    let second = lab.segment(2, NOW_S + 3600);
    let ids = |releases: Vec<Release>| {
        releases
            .into_iter()
            .map(|release| release.segment_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(lab.release(ALL).expect("released")), [first, second]);
    let from = |from_s, to_s| lab.release(Range { from_s, to_s });
    assert_eq!(ids(from(NOW_S + 119, NOW_S + 3600).expect("released")), [first]);
    assert_eq!(ids(from(NOW_S + 3700, NOW_S + 3701).expect("released")), [second]);
    assert!(matches!(
        from(NOW_S + 200, NOW_S + 3600),
        Err(ErasureError::NoKey(_))
    ));
    // What is handed out is E of this slot, and nothing of the key.
    let releases = lab.release(ALL).expect("released");
    assert!(releases.iter().all(|release| release.slot == 4));
}

#[test]
fn the_receipt_lists_what_was_released_of_these_segments_before() {
    let lab = lab();
    lab.segment(1, NOW_S);
    lab.segment(2, NOW_S + 86_400);
    let released = lab.release(Range {
        from_s: NOW_S,
        to_s: NOW_S + 10,
    });
    assert_eq!(released.expect("released").len(), 1);
    let today = Day::of(NOW_S);
    let erased = lab.erase(Some(today.next())).expect("erased");
    let (receipt, by, hash) = Receipt::parse(&erased.receipt).expect("signed");
    assert_eq!(by, lab.node.key.public());
    assert_eq!(receipt.days, (today.to_string(), today.next().to_string()));
    assert_eq!((receipt.keys.len(), receipt.segments.len()), (1, 1));
    assert_eq!(receipt.disclosed.len(), 1, "{receipt:?}");
    assert!(
        receipt.disclosed[0].1.contains("to Alice, for break-in"),
        "{receipt:?}"
    );
    assert_eq!(lab.keys(), 1, "tomorrow's is there");
    // The log has a commitment to the receipt, and the key's id; the segment it does not name.
    let mut found = None;
    let seen = record::erased_since(&lab.node.log, &lab.node.audit, 0).expect("read");
    assert_eq!(seen.0, receipt.keys);
    record::each_entry(&lab.node.log, &lab.node.audit, 0, |_, entry| {
        if let Fact::Erasure { receipt, .. } = &entry.fact {
            found = Some((entry.nonce().commitment(&[7; 32], &hash), *receipt));
        }
    })
    .expect("read");
    let (expected, stated) = found.expect("an entry");
    assert_eq!(expected, stated);
    // The other day's was not released, so its receipt has nothing to list.
    let second = lab.erase(None).expect("erased");
    assert!(
        Receipt::parse(&second.receipt)
            .expect("signed")
            .0
            .disclosed
            .is_empty()
    );
}

#[test]
fn a_crash_between_log_and_keys_is_finished_with_the_receipt_that_was_logged() {
    let lab = lab();
    lab.segment(1, NOW_S);
    // As far as it got: pending, logged, and not destroyed.
    let mut store = lab.node.lock().expect("locked");
    let owner = store.owner("alice");
    let plan = plan_erasure(&store, owner, None).expect("a plan");
    let mut pending = lab
        .node
        .pending_of(&store, &lab.whose(), &plan, None, NOW_S)
        .expect("prepared");
    pending.entry = Some(
        lab.node
            .enter_erasure(&pending, "root", &[7; 32], NOW_S)
            .expect("logged"),
    );
    store.set_pending(owner, &pending).expect("kept");
    store.count_logged(0).expect("counted");
    drop(store);
    assert_eq!(lab.keys(), 1);
    assert!(
        matches!(lab.release(ALL), Err(ErasureError::Stale(_))),
        "the log says it is gone"
    );
    let finished = lab.erase(None).expect("finished");
    assert!(finished.finished_only && finished.receipt == pending.receipt);
    assert_eq!(lab.keys(), 0);
    assert!(matches!(lab.erase(None), Err(ErasureError::NoKey(_))));
}

#[test]
fn what_fails_after_the_keys_are_gone_keeps_the_receipt_for_the_next_try() {
    let lab = lab();
    lab.segment(1, NOW_S);
    let failed: Result<Erased, ErasureError> = lab.node.erase(&lab.whose(), (None, "root"), NOW_S, |_| {
        Err(ErasureError::NoKey(
            "(the receipt could not be written)".to_owned(),
        ))
    });
    assert!(failed.is_err());
    assert_eq!(lab.keys(), 0);
    assert!(lab.node.is_pending(&lab.whose()).expect("read"));
    assert!(lab.erase(None).expect("finished").finished_only);
    assert!(!lab.node.is_pending(&lab.whose()).expect("read"));
}

#[test]
fn a_hold_blocks_an_erasure_also_one_that_was_begun_and_is_on_the_record() {
    let lab = lab();
    lab.segment(1, NOW_S);
    lab.node
        .hold(&lab.whose(), true, ("judge", "order 17"), NOW_S)
        .expect("set");
    assert!(matches!(lab.erase(None), Err(ErasureError::Held(hold)) if hold.reason == "order 17"));
    assert_eq!(lab.keys(), 1);
    lab.node
        .hold(&lab.whose(), false, ("judge", "withdrawn"), NOW_S)
        .expect("lifted");
    let again = lab.node.hold(&lab.whose(), false, ("judge", "withdrawn"), NOW_S);
    assert!(matches!(again, Err(ErasureError::NoKey(_))));
    let mut kinds = Vec::new();
    record::each_entry(&lab.node.log, &lab.node.audit, 0, |_, entry| {
        kinds.push(entry.fact.kind())
    })
    .expect("read");
    assert_eq!(kinds, ["legal_hold", "legal_hold"]);
    lab.erase(None).expect("erased");
}
