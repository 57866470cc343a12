//! Somebody deletes the folder that the engine is writing in. The file goes on without a name, and a write to it
//! succeeds like any other: an engine that did not look would go on saying "durable" of what nobody can ever read.

use harborseal_tests::harness::engine::{assert_books_close, count};
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream};

fn record_through(delete: impl Fn(&Lab)) {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    let engine = lab.start();
    let mut stream = Stream::new(1);
    let mut sender = Sender::from("127.0.0.1", lab.address());
    lab.send_until(&engine, &mut sender, &mut stream, "stored packets", |p| {
        count(p, "stored") > 1000
    });
    delete(&lab);
    let before = engine.newest("stored");
    lab.send_until(&engine, &mut sender, &mut stream, "recording again", |p| {
        count(p, "stored") > before + 1000
    });
    let said = engine.lines().join("\n");
    assert!(said.contains("was deleted while it was being written"), "{said}");
    let last = lab.settle_and_stop(engine);
    assert_books_close(&last);
    assert_eq!(
        last["received"], last["stored"],
        "nothing had to be dropped: {last}"
    );
    assert!(count(&last, "segments_retired") >= 1, "{last}");

    // What had been durable in the deleted folder is gone with it. From then on nothing is missing to the last packet.
    let back = rtp_only(lab.read_back("alice", "front-door"));
    let sent = {
        let mut from_start = Stream::new(1);
        let all: Vec<Vec<u8>> = std::iter::repeat_with(|| from_start.packet())
            .take_while(|packet| *packet != stream.clone().packet())
            .collect();
        all
    };
    assert!(back.len() > 1000, "{} packets came back", back.len());
    let first = sent
        .iter()
        .position(|packet| *packet == back[0])
        .expect("it was sent");
    assert!(first > 0, "the folder was deleted with something in it");
    assert_eq!(back, sent[first..], "the rest came back, without a hole");
}

#[test]
fn a_deleted_day_is_told_and_recording_goes_on_in_new_segments() {
    record_through(|lab| {
        let segment = lab.segments().pop().expect("a segment is being written");
        let day = segment.parent().expect("segments lie in their day's folder");
        std::fs::remove_dir_all(day).expect("the folder is ours");
    });
}

#[test]
fn a_deleted_segments_folder_is_told_and_recording_goes_on_in_new_segments() {
    record_through(|lab| {
        std::fs::remove_dir_all(lab.data().join("segments")).expect("the folder is ours");
    });
}
