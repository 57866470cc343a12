//! The store as engine and command line share it, and what becomes of keys that were destroyed.

use super::holds::Hold;
use super::pending::Pending;
use super::*;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::random::os_random;
use std::os::unix::fs::PermissionsExt;

/// 2026-11-24T03:32:07Z.
const NOW_S: u64 = 1_795_491_127;

fn store() -> (tempfile::TempDir, Keystore) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Keystore::new(dir.path());
    (dir, store)
}

fn draw(store: &Keystore, names: &[Option<&str>]) -> Drawn {
    store.draw(NOW_S, names, &mut os_random()).expect("drawn")
}

fn bytes(drawn: &Drawn, at: usize) -> [u8; 32] {
    *drawn.keys[at].as_ref().expect("erasable").as_bytes()
}

fn segment(n: u8) -> NewSegment {
    NewSegment {
        segment_id: SegmentId([n; 16]),
        run_id: RunId([0; 16]),
        shard: 0,
        chain_seq: 0,
        created_s: NOW_S,
    }
}

/// Destroys all of alice's keys, as `erase` does, and returns where they were.
fn destroy(store: &Keystore) -> Vec<PathBuf> {
    let mut locked = store.lock().expect("locked");
    let keys = locked.keys_of(locked.owner("alice")).expect("listed");
    locked.destroy(&keys).expect("destroyed");
    keys.into_iter().map(|key| key.path).collect()
}

#[test]
fn a_customer_has_one_key_a_day_and_nobody_elses() {
    let (_dir, store) = store();
    let first = draw(&store, &[Some("alice"), None, Some("bob")]);
    let again = draw(&store, &[Some("bob"), Some("alice")]);
    assert_eq!(bytes(&first, 0), bytes(&again, 1));
    assert_ne!(bytes(&first, 0), bytes(&first, 2));
    assert!(first.keys[1].is_none());
    let tomorrow = store
        .draw(NOW_S + 86_400, &[Some("alice")], &mut os_random())
        .expect("drawn");
    assert_ne!(bytes(&first, 0), bytes(&tomorrow, 0));
}

#[test]
fn everything_in_it_is_for_its_owner_alone_and_a_folder_that_others_enter_is_refused() {
    let (dir, store) = store();
    let drawn = draw(&store, &[Some("alice")]);
    assert!(store.note(&drawn, &segment(1), [4].into_iter()).expect("noted"));
    let mut folders = vec![dir.path().join("erase")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(
            fs::metadata(&folder).expect("there").permissions().mode() & 0o777,
            0o700
        );
        for entry in fs::read_dir(folder).expect("listed") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("there");
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
                files += 1;
            }
        }
    }
    assert_eq!(files, 4, "lock, state, key and slots");
    let open = fs::Permissions::from_mode(0o750);
    fs::set_permissions(dir.path().join("erase"), open).expect("changed");
    let error = store.lock().err().expect("refused").to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn a_destroyed_key_leaves_nothing_and_the_next_segment_has_a_new_one() {
    let (dir, store) = store();
    let before = draw(&store, &[Some("alice"), Some("bob")]);
    let [path] = &destroy(&store)[..] else {
        panic!("one key")
    };
    assert!(!path.exists());
    let after = draw(&store, &[Some("alice"), Some("bob")]);
    assert_ne!(bytes(&before, 0), bytes(&after, 0));
    assert_eq!(bytes(&before, 1), bytes(&after, 1), "bob loses nothing");
    assert!(after.troubles.is_empty());
    // Nothing in the folder holds the old key any more.
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).expect("read");
                assert!(
                    content.windows(32).all(|window| window != bytes(&before, 0)),
                    "{path:?}"
                );
            }
        }
    }
}

#[test]
fn overwriting_reaches_the_file_itself_before_its_name_goes() {
    let (dir, _) = store();
    let path = dir.path().join("key");
    fs::write(&path, [7; 64]).expect("written");
    let other_name = dir.path().join("link");
    fs::hard_link(&path, &other_name).expect("linked");
    files::destroy(&path).expect("destroyed");
    assert_eq!(fs::read(&other_name).expect("read"), [0; 64]);
    files::destroy(&path).expect("what is gone is destroyed");
}

#[test]
fn an_erased_key_that_comes_back_from_a_stale_copy_is_refused() {
    let (dir, store) = store();
    let before = draw(&store, &[Some("alice")]);
    // Somebody copies the whole store, before the erasure, and puts it back after it.
    let copy = dir.path().join("copy");
    copy_folder(&dir.path().join("erase"), &copy);
    let [path] = &destroy(&store)[..] else {
        panic!("one key")
    };
    fs::remove_dir_all(dir.path().join("erase")).expect("removed");
    copy_folder(&copy, &dir.path().join("erase"));
    assert!(path.exists(), "it is back");
    let after = draw(&store, &[Some("alice")]);
    assert_ne!(bytes(&before, 0), bytes(&after, 0), "and not used");
    assert!(after.troubles[0].contains("stale copy"), "{:?}", after.troubles);
    let locked = store.lock().expect("locked");
    let keys = locked.keys_of(locked.owner("alice")).expect("listed");
    let refused: Vec<bool> = keys
        .iter()
        .map(|key| key.id.is_some_and(|id| locked.was_erased(&id)))
        .collect();
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 1);
}

#[test]
fn with_the_list_of_the_erased_rolled_back_too_the_log_still_tells() {
    let (dir, store) = store();
    let id = draw(&store, &[Some("alice")]).keys[0]
        .as_ref()
        .expect("erasable")
        .id();
    let mut locked = store.lock().expect("locked");
    assert!(!locked.was_erased(&id));
    assert_eq!(locked.learn_erased(&[id]).expect("learned"), 1);
    assert_eq!(locked.learn_erased(&[id]).expect("learned"), 0);
    drop(locked);
    assert!(draw(&store, &[Some("alice")]).troubles[0].contains("destroyed"));
    // A last line that a crash cut names nothing, and the next one does not run into it.
    let list = dir.path().join("erased");
    let mut text = fs::read(&list).expect("read");
    text.extend_from_slice(b"0123");
    fs::write(&list, text).expect("written");
    let mut locked = store.lock().expect("locked");
    let other = EraseKeyId([7; 16]);
    locked.learn_erased(&[other]).expect("learned");
    drop(locked);
    let locked = store.lock().expect("the list is whole");
    assert!(locked.was_erased(&id) && locked.was_erased(&other));
}

#[test]
fn a_key_of_another_place_and_a_torn_one_are_not_used() {
    let (_dir, store) = store();
    draw(&store, &[Some("alice"), Some("bob")]);
    let locked = store.lock().expect("locked");
    let of = |name| locked.keys_of(locked.owner(name)).expect("listed").remove(0).path;
    let (alice, bob) = (of("alice"), of("bob"));
    drop(locked);
    for wrong in [fs::read(&bob).expect("read"), vec![1; 10], Vec::new()] {
        fs::write(&alice, wrong).expect("written");
        let drawn = draw(&store, &[Some("alice")]);
        assert!(
            drawn.troubles[0].contains("no whole erasure key"),
            "{:?}",
            drawn.troubles
        );
        let made = store.lock().expect("locked");
        for key in made.keys_of(made.owner("alice")).expect("listed") {
            if key.path != alice {
                fs::remove_file(key.path).expect("removed");
            }
        }
    }
}

#[test]
fn what_was_drawn_before_an_erasure_is_not_noted_after_it() {
    let (_dir, store) = store();
    let drawn = draw(&store, &[Some("alice"), None]);
    destroy(&store);
    assert!(
        !store
            .note(&drawn, &segment(1), [0, 1].into_iter())
            .expect("no error")
    );
    let drawn = draw(&store, &[Some("alice"), None]);
    assert!(
        store
            .note(&drawn, &segment(1), [3, 1].into_iter())
            .expect("noted")
    );
    let locked = store.lock().expect("locked");
    let places = locked
        .places_of(locked.owner("alice"), Day::of(NOW_S))
        .expect("read");
    assert_eq!(
        (places.len(), places[0].slot, places[0].segment),
        (1, 3, segment(1))
    );
}

#[test]
fn a_day_of_which_nothing_is_left_goes_whole() {
    let (dir, store) = store();
    let drawn = draw(&store, &[Some("alice")]);
    store.note(&drawn, &segment(1), [3].into_iter()).expect("noted");
    let tags: Vec<u32> = {
        let locked = store.lock().expect("locked");
        let keys = locked.keys_of(locked.owner("alice")).expect("listed");
        keys.iter().map(|key| key.tag).collect()
    };
    destroy(&store);
    let mut locked = store.lock().expect("locked");
    let (owner, day) = (locked.owner("alice"), Day::of(NOW_S));
    assert_eq!(
        locked.places_of(owner, day).expect("read").len(),
        1,
        "until its space is back"
    );
    locked.forget(owner, day, &tags).expect("forgotten");
    assert!(!dir.path().join("erase/20261124").exists());
    assert!(locked.days().expect("listed").is_empty());
}

#[test]
fn holds_and_erasures_under_way_outlive_the_process() {
    let (_dir, store) = store();
    assert!(store.holds().expect("none").is_empty());
    let mut locked = store.lock().expect("locked");
    let owner = locked.owner("alice");
    let hold = Hold {
        owner,
        since_s: 5,
        reason: "court order 17\nsecond line".to_owned(),
    };
    locked.set_hold(&hold).expect("set");
    let pending = Pending {
        receipt: "text\n".to_owned(),
        entry: Some(7),
        keys: vec![(20_781, 1)],
    };
    locked.set_pending(owner, &pending).expect("noted");
    let seen = locked.state().changes;
    drop(locked);
    assert_eq!(store.look().expect("read").expect("there").changes, seen);
    let mut locked = store.lock().expect("locked");
    assert_eq!(locked.hold_of(owner).expect("read"), Some(hold));
    assert_eq!(locked.pending(owner).expect("read"), Some(pending));
    locked.lift_hold(owner).expect("lifted");
    locked.clear_pending(owner).expect("cleared");
    assert_eq!(locked.hold_of(owner).expect("read"), None);
    assert_eq!(locked.pending(owner).expect("read"), None);
}

fn copy_folder(from: &Path, to: &Path) {
    files::make_private_folder(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(fs::copy(&path, &target).expect("copied")),
        }
    }
}
