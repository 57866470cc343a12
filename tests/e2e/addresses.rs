//! Where packets may come from: IPv6, several listen addresses, networks, ports.

use harborseal_tests::harness::engine::dropped_in_all;
use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, net, root, rtp};

#[test]
fn ipv6_and_ipv4_are_received_side_by_side() {
    if !net::have_ipv6() {
        root::skip(
            "addresses::ipv6_and_ipv4_are_received_side_by_side",
            "the loopback has no IPv6 address",
        );
        return;
    }
    let mut lab = Lab::new();
    let second = net::free_port_pair();
    lab.listen(&[format!("127.0.0.1:{}", lab.port), format!("[::1]:{second}")]);
    lab.customer("alice");
    lab.camera(Camera::new("four", "alice", 4));
    lab.camera(Camera::new("six", "alice", 6).source("::1"));
    lab.camera(Camera::new("net", "alice", 66).source("::/64"));
    let engine = lab.start();
    let six_to = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, second));
    let mut four = Sender::from("127.0.0.1", lab.address());
    let mut six = Sender::from("::1", six_to);
    let (mut streams, mut sent) = ([4, 6, 66].map(Stream::new), [vec![], vec![], vec![]]);
    for _ in 0..300 {
        for (at, stream) in streams.iter_mut().enumerate() {
            let packet = stream.packet();
            if at == 0 {
                four.send(&packet)
            } else {
                six.send(&packet)
            }
            sent[at].push(packet);
        }
    }
    // RTCP beside the second port; and a stream from the wrong family.
    let mut reports_to = six_to;
    reports_to.set_port(second + 1);
    six.send_to(&rtp::sender_report(6, 1, 2, 3, 4), reports_to);
    four.send_all(&Stream::new(6).packets(7));
    net::wait_until_taken(second);
    net::wait_until_taken(second + 1);
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], 908);
    assert_eq!(last["stored"], 901, "{last}");
    assert_eq!(dropped_in_all(&last), 7);
    for (camera, sent) in ["four", "six", "net"].iter().zip(&sent) {
        assert_same(sent, &rtp_only(lab.read_back("alice", camera)));
    }
    assert_eq!(lab.read_back("alice", "six").iter().filter(|p| p.rtcp).count(), 1);
}

#[test]
fn a_source_with_a_port_is_that_port_alone() {
    let mut lab = Lab::new();
    lab.customer("alice");
    let mut right = Sender::from("127.0.0.3", lab.address());
    let mut wrong = Sender::from("127.0.0.3", lab.address());
    lab.camera(Camera::new("one", "alice", 1).source(right.address()));
    let engine = lab.start();
    let sent = Stream::new(1).packets(100);
    right.send_all(&sent);
    wrong.send_all(&Stream::new(1).packets(10));
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["stored"], 100, "{last}");
    assert_eq!(last["dropped"]["wrong_source"], 10, "{last}");
    assert_same(&sent, &rtp_only(lab.read_back("alice", "one")));
}
