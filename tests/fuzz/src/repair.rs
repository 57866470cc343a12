//! Damage to what a writer made: whatever pages are lost, what was not in them comes back.
//!
//! Other than in [`super::recover`] the file was whole before, so recovery has no excuse: nothing is "beyond repair" here.

use harborseal_segment::block::BLOCK_ALIGN;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::State;
use harborseal_segment::recover::{CloseTail, Plan, plan};

use super::customers::{NOW_S, node};
use super::forge::{Forged, forge_whole};
use super::input::Input;
use super::reading::{assert_whole, check, closed, copied, scan_all};
use super::recipe::ending;

/// recipe: steps u8 · damages u8 · survivors u16 · ending u8 · features u8 · steps · kind, page, byte, value u8 each, once per damage
pub fn repair(data: &[u8]) {
    let mut input = Input::new(data);
    let (steps, damages, survivors) = (input.u8() % 24, input.u8() % 8, input.u16());
    let forged = forge_whole(&mut input, steps.into());
    let mut keyring = forged.reader();
    assert_sound(&forged, keyring.as_mut());
    let mut file = forged.file.clone();
    let mut lost = Vec::new();
    for _ in 0..damages {
        lost.extend(damage(&mut file, input.array()));
    }
    if [0, 1].iter().all(|page| lost.contains(page)) {
        return; // without either SEGMENT block it is nobody's segment
    }
    let done = match plan(&file, Some(node()), NOW_S + 99, |_| ()).expect("one SEGMENT block is whole") {
        Plan::AlreadyClosed(_) | Plan::Unused(_) => return,
        Plan::CloseTail(tail) => {
            crash_in_between(&file, &tail, survivors);
            closed(&file, &tail)
        }
        Plan::Corrupt(repair) => {
            assert!(
                !lost.is_empty(),
                "nothing was damaged: {:?}",
                repair.report.findings
            );
            copied(&file, &repair)
        }
    };
    assert_whole(&done);
    if let Some(keyring) = &mut keyring {
        let (before, after) = (scan_all(&file, keyring), scan_all(&done, keyring));
        assert_eq!(after, before, "what was whole is kept");
    }
}

/// What the writer made is clean, and closed without a note.
fn assert_sound(forged: &Forged, keyring: Option<&mut Keyring>) {
    let report = check(&forged.file, keyring).expect("it has its head");
    let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{found:?}");
    let pages_behind = forged.ending >> ending::PAGES_SHIFT & 7;
    if report.state == State::Sealed && pages_behind == 0 {
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Damages one page; returns which.
fn damage(file: &mut [u8], [kind, page, byte, value]: [u8; 4]) -> Option<usize> {
    let pages = file.len() / BLOCK_ALIGN;
    let page = usize::from(page) % pages;
    let bytes = &mut file[page * BLOCK_ALIGN..][..BLOCK_ALIGN];
    let before = bytes.to_vec();
    match kind % 4 {
        0 => bytes.fill(0),
        1 => bytes.fill(value),
        2 => bytes[usize::from(byte)] ^= value,
        _ => bytes[usize::from(byte) * 16] ^= value,
    }
    (bytes != before).then_some(page)
}

/// A crash while the tail was written: any pages of it reached the disk, and the file is still long. The next attempt ends the same.
fn crash_in_between(file: &[u8], tail: &CloseTail, survivors: u16) {
    let mut crashed = file[..tail.offset as usize].to_vec();
    crashed.resize(tail.room() as usize, 0);
    for (n, page) in tail.bytes.chunks(BLOCK_ALIGN).enumerate() {
        if survivors >> (n % 16) & 1 != 0 {
            crashed[tail.offset as usize + n * BLOCK_ALIGN..][..page.len()].copy_from_slice(page);
        }
    }
    let again = plan(&crashed, Some(node()), NOW_S + 99, |_| ()).expect("its head is whole");
    let done = match again {
        Plan::CloseTail(tail) => closed(&crashed, &tail),
        Plan::Unused(_) => return,
        other => panic!("{other:?}"),
    };
    assert!(
        done == closed(file, tail),
        "the second attempt ends as the first would have"
    );
}
