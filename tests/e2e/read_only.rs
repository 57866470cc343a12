//! A file system that becomes read-only under the engine, for real: ext4 on a loop device finds an error of its own, ends
//! its journal and takes no more writes. No remount brings such a file system back (Linux answers it with its `emergency_ro`): it has
//! to be unmounted and checked, and for that the engine must end when told to.
//!
//! What must be there afterwards is what was durable when the error struck. ext4 ends its journal first and refuses fdatasync only some milliseconds
//! later, after it has written its superblock; in between an fdatasync returns 0 for a transaction that was thrown away (seen on
//! Linux 6.18: `jbd2_complete_transaction` finds it neither running nor being committed). No caller of fdatasync can tell.

use harborseal_tests::harness::disk::SmallDisk;
use harborseal_tests::harness::engine::{assert_books_close, count, dropped, dropped_in_all};
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal, root};

#[test]
fn a_file_system_forced_read_only_costs_counted_packets_and_nothing_durable() {
    let name = "read_only::a_file_system_forced_read_only_costs_counted_packets_and_nothing_durable";
    if !root::have_root(name, "mounting a file system takes root") {
        return;
    }
    let mut lab = Lab::new();
    let disk = SmallDisk::mounted_in(&lab, 96);
    lab.data_dir(&disk.folder.join("data"));
    lab.section("segment", "max_age = \"2s\"\nmax_bytes = \"16MiB\"");
    lab.section("memory", "limit = \"80MiB\"\nallow_unlocked = true");
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    let engine = lab.start();
    let mut stream = Stream::new(1);
    let mut sender = Sender::from("127.0.0.1", lab.address()).regardless();
    lab.send_until(&engine, &mut sender, &mut stream, "stored packets", |p| {
        count(p, "stored") > 1000
    });
    let settled = engine.wait_for_progress("everything sent is durable", |p| {
        count(p, "stored") > 1000 && count(p, "in_flight") == 0
    });
    let durable = count(&settled, "stored");
    for _ in 0..10 {
        sender.send_all(&stream.packets(40)); // so that it strikes in the middle of writing
    }

    disk.fail();
    lab.send_until(
        &engine,
        &mut sender,
        &mut stream,
        "packets dropped for the failed disk",
        |p| dropped(p, "disk_failed") > 100,
    );
    let said = engine.lines().join("\n");
    assert!(said.contains("Read-only file system"), "it says why:\n{said}");
    let last = lab.settle_and_stop(engine);
    assert_books_close(&last);
    assert_eq!(dropped(&last, "disk_failed"), dropped_in_all(&last), "{last}");

    // What an administrator does, and then the engine records again.
    disk.unmount();
    disk.repair();
    disk.mount();
    let engine = lab.start();
    lab.send_until(&engine, &mut sender, &mut stream, "stored packets", |p| {
        count(p, "stored") > 500
    });
    let last = lab.settle_and_stop(engine);
    harborseal(["recover", text(&lab.data())]).ok();
    lab.verify("alice");
    let back = rtp_only(lab.read_back("alice", "front-door"));
    let (before, after) = back.split_at(durable.min(back.len() as u64) as usize);
    let mut sent = Stream::new(1);
    assert!(
        before.len() as u64 == durable && before.iter().all(|packet| sent.packet() == *packet),
        "{durable} packets were durable before the failure, and not all of them came back"
    );
    assert!(
        after.len() as u64 >= count(&last, "stored"),
        "{} packets were stored after the failure, and {} came back",
        count(&last, "stored"),
        after.len()
    );
    // Counted is what may be missing; nothing that came back is another, or in another place.
    for packet in after {
        let found = (0..1_000_000).any(|_| sent.packet() == *packet);
        assert!(found, "a packet that was not sent, or not in this place");
    }
}
