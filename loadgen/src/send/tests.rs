//! Sending over loopback, by each method.

use super::sockets::{Ends, next_port};
use super::*;
use crate::sentlog::Flags;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const METHODS: [Method; 3] = [Method::Gso, Method::Sendmmsg, Method::IoUring];
const SEGMENT: usize = 1200;
/// More than UDP can carry (65,507).
const TOO_LONG: usize = 65_530;

fn receiver() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout above zero");
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("bound")
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2048];
    let len = socket.recv(&mut bytes).expect("a datagram within five seconds");
    bytes[..len].to_vec()
}

fn ends(to: SocketAddr) -> Ends {
    Ends {
        from: "0.0.0.0:0".parse().expect("an address"),
        to,
    }
}

fn open(sender: &mut Sender, to: SocketAddr) -> u32 {
    let socket = sender.sockets.open(ends(to), Some(SEGMENT as u16));
    socket.expect("loopback")
}

/// Adds a packet of its own stream, so that it is a message of its own.
fn add(batch: &mut Batch, sender: &Sender, stream: u32, socket: u32, bytes: &[u8]) {
    let way = Way {
        stream,
        kind: Kind::Rtp,
        socket,
        due_ns: 0,
        packets: if sender.gso() { 54 } else { 1 },
        segment: SEGMENT,
    };
    let note = Note {
        sequence: 0,
        intended_ns: 0,
        flags: Flags::default(),
        len: bytes.len() as u16,
    };
    batch.add(&way, note).copy_from_slice(bytes);
}

#[test]
fn a_burst_arrives_as_its_packets_by_every_method() {
    for method in METHODS {
        let socket = receiver();
        let mut sender = Sender::new(method);
        let number = open(&mut sender, address(&socket));
        let mut batch = Batch::default();
        let body: Vec<u8> = (0..2 * SEGMENT + 100).map(|at| (at / 7) as u8).collect();
        for packet in body.chunks(SEGMENT) {
            add(&mut batch, &sender, 0, number, packet);
        }
        assert_eq!(batch.messages().len(), if sender.gso() { 1 } else { 3 });
        let mut left = Vec::new();
        sender.send(&batch, &mut left);
        assert!(left.iter().all(|&left| left), "{method:?} {:?}", sender.errors);
        for packet in body.chunks(SEGMENT) {
            assert!(receive(&socket) == packet, "{method:?}");
        }
        assert_eq!(
            (sender.calls.calls, sender.calls.messages),
            (1, left.len() as u64)
        );
    }
}

#[test]
fn a_burst_arrives_also_where_segmentation_turns_out_to_be_refused() {
    let socket = receiver();
    let mut sender = Sender::new(Method::Gso);
    let number = open(&mut sender, address(&socket));
    let mut batch = Batch::default();
    let body: Vec<u8> = (0..2 * SEGMENT + 100).map(|at| (at / 7) as u8).collect();
    for packet in body.chunks(SEGMENT) {
        add(&mut batch, &sender, 0, number, packet);
    }
    assert!(sender.try_again(Errno::EIO, &batch.messages()[0]));
    assert_eq!((sender.method(), sender.notes.len()), (Method::Sendmmsg, 1));
    let mut left = Vec::new();
    sender.send(&batch, &mut left);
    assert_eq!(left, [true]);
    for packet in body.chunks(SEGMENT) {
        assert!(receive(&socket) == packet);
    }
}

#[test]
fn rtcp_on_the_next_port_arrives_there() {
    let (rtp, rtcp) = loop {
        let rtp = receiver();
        let next = next_port(address(&rtp)).expect("not the last port");
        if let Ok(rtcp) = UdpSocket::bind(next) {
            rtcp.set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a timeout above zero");
            break (rtp, rtcp);
        }
    };
    let mut sender = Sender::new(Method::Gso);
    let pair = sender
        .sockets
        .open_pair(ends(address(&rtp)), Some(SEGMENT as u16));
    let (to_rtp, to_rtcp) = pair.expect("loopback");
    let mut batch = Batch::default();
    add(&mut batch, &sender, 0, to_rtp, b"media");
    add(&mut batch, &sender, 0, to_rtcp, b"clock");
    sender.send(&batch, &mut Vec::new());
    assert_eq!(receive(&rtp), b"media");
    assert_eq!(receive(&rtcp), b"clock");
}

#[test]
fn targets_take_turns_in_a_batch_and_each_message_gets_its_own_answer() {
    for method in METHODS {
        let sockets = [receiver(), receiver()];
        let mut sender = Sender::new(method);
        let numbers = sockets
            .each_ref()
            .map(|socket| open(&mut sender, address(socket)));
        let mut batch = Batch::default();
        for number in 0..6u8 {
            let len = if number == 3 { TOO_LONG } else { 4 };
            let socket = numbers[usize::from(number) % 2];
            add(&mut batch, &sender, number.into(), socket, &vec![number; len]);
        }
        let mut left = Vec::new();
        sender.send(&batch, &mut left);
        assert_eq!(left, [true, true, true, false, true, true], "{method:?}");
        let first: Vec<u8> = (0..3).map(|_| receive(&sockets[0])[0]).collect();
        let second: Vec<u8> = (0..2).map(|_| receive(&sockets[1])[0]).collect();
        assert_eq!((first, second), (vec![0, 2, 4], vec![1, 5]));
        assert_eq!(
            sender.errors.failed.values().sum::<u64>(),
            1,
            "{:?}",
            sender.errors
        );
    }
}

#[test]
fn a_refusal_is_counted_and_costs_no_message() {
    for method in METHODS {
        let closed = address(&receiver()); // the socket is gone when the statement ends
        let mut sender = Sender::new(method);
        let number = open(&mut sender, closed);
        let mut batch = Batch::default();
        for stream in 0..4 {
            add(&mut batch, &sender, stream, number, &[1; 8]);
        }
        let mut left = Vec::new();
        for _ in 0..3 {
            sender.send(&batch, &mut left);
            assert_eq!(left, [true; 4], "{method:?}");
        }
        assert!(sender.errors.refused > 0);
        assert!(sender.errors.failed.is_empty());
    }
}

#[test]
fn a_second_socket_sends_to_the_same_place_from_another_port_and_closed_numbers_are_used_again() {
    let socket = receiver();
    let mut sender = Sender::new(Method::Sendmmsg);
    let first = open(&mut sender, address(&socket));
    let beside = sender.sockets.open_beside(first).expect("loopback");
    let mut ports = Vec::new();
    for number in [first, beside] {
        sender.sockets.send(number, b"hello").expect("loopback");
        let mut bytes = [0; 16];
        ports.push(socket.recv_from(&mut bytes).expect("just sent").1.port());
    }
    assert_ne!(ports[0], ports[1]);
    let highest = (0..200).map(|_| {
        let number = sender.sockets.open_beside(first).expect("loopback");
        sender.sockets.close(number);
        number
    });
    assert!(highest.max() < Some(70));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = receiver();
    let mut sender = Sender::new(Method::Gso);
    let ends = Ends {
        from: address(&taken),
        to: address(&taken),
    };
    let error = sender.sockets.open(ends, None).expect_err("in use").to_string();
    assert!(error.contains(&address(&taken).to_string()), "{error}");
}
