//! Groups of steered sockets: the kernel's choice is the Rust function's choice.

use std::net::Ipv6Addr;

use super::*;

fn receive_now(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok(len) = socket.recv(&mut buffer) {
        all.push(buffer[..len].to_vec());
    }
    all
}

fn rtp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xAB; 20]);
    packet
}

fn rtcp(kind: u8, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, kind, 0, 6];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xCD; 20]);
    packet
}

#[test]
fn the_kernel_steers_as_the_function_says() {
    let addresses: [SocketAddr; 2] = [([127, 0, 0, 1], 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    for address in addresses {
        for shards in [2, 3] {
            let group = bind_group(
                address,
                shards,
                &SocketOptions {
                    gro: false,
                    ..Default::default()
                },
            )
            .unwrap();
            let sender = sender_to(group.local);
            let mut packets: Vec<Vec<u8>> = (0..200u32).map(|i| rtp(i.wrapping_mul(0x9E37_79B1))).collect();
            packets.extend((192..=223).map(|kind| rtcp(kind, u32::from(kind) * 7919 + 1)));
            packets.extend([191, 224, 127, 255].map(|kind| rtcp(kind, 5)));
            packets.extend((0..12).map(|len| vec![0xC8; len]));
            let mut expected = vec![Vec::new(); shards];
            for packet in packets {
                sender.send(&packet).unwrap();
                expected[steer::steer_payload(&packet, shards)].push(packet);
            }
            for (socket, expected) in group.sockets.iter().zip(expected) {
                assert!(!expected.is_empty());
                assert_eq!(receive_now(socket), expected, "{address} with {shards} shards");
            }
        }
    }
}

#[test]
fn a_batch_goes_whole_to_the_shard_of_its_first_packet() {
    let group = bind_group(([127, 0, 0, 1], 0).into(), 2, &SocketOptions::default()).unwrap();
    let sender = sender_to(group.local);
    socket::set_segment_bytes(&sender, 32).unwrap();
    let batch: Vec<u8> = [1, 2, 3, 4].into_iter().flat_map(rtp).collect();
    sender.send(&batch).unwrap();
    assert_eq!(receive_now(&group.sockets[1]), [batch]);
    assert_eq!(receive_now(&group.sockets[0]), [] as [Vec<u8>; 0]);
}

#[test]
fn an_address_in_use_is_refused_even_if_it_could_be_shared() {
    let options = SocketOptions::default();
    let first = bind_group(([127, 0, 0, 1], 0).into(), 2, &options).unwrap();
    let error = bind_group(first.local, 2, &options).unwrap_err();
    assert_eq!(error.cause.raw_os_error(), Some(libc::EADDRINUSE));
    let text = error.to_string();
    assert!(
        text.contains(&first.local.to_string()) && text.contains("ss -ulpn"),
        "{text}"
    );
}

#[test]
fn an_address_of_another_machine_is_refused_with_a_remedy() {
    let error = bind_group(([192, 0, 2, 1], 5004).into(), 1, &SocketOptions::default()).unwrap_err();
    assert!(error.to_string().contains("ip -brief address"), "{error}");
}

#[test]
fn the_group_reports_the_buffer_it_got() {
    let asked = 256 << 10;
    let options = SocketOptions {
        receive_buffer_bytes: asked,
        gro: true,
    };
    let group = bind_group((Ipv6Addr::LOCALHOST, 0).into(), 2, &options).unwrap();
    assert_eq!(
        group.report,
        socket::SocketReport {
            receive_buffer_asked_bytes: asked,
            receive_buffer_bytes: asked,
            gro: true
        }
    );
    let memory = socket::socket_memory(std::os::fd::AsFd::as_fd(&group.sockets[1])).unwrap();
    assert_eq!(
        (memory.queued_bytes, memory.limit_bytes, memory.drops),
        (0, asked as u32, 0)
    );
}

#[test]
fn drops_by_the_kernel_are_told() {
    let options = SocketOptions {
        receive_buffer_bytes: 16 << 10,
        gro: true,
    };
    let group = bind_group(([127, 0, 0, 1], 0).into(), 1, &options).unwrap();
    let sender = sender_to(group.local);
    for _ in 0..200 {
        sender.send(&[0; 1000]).unwrap();
    }
    let drops = socket::socket_memory(std::os::fd::AsFd::as_fd(&group.sockets[0]))
        .unwrap()
        .drops;
    assert!(drops > 100, "{drops}");

    let (mut ring, _waker) = ring(BufferMode::Auto);
    for socket in group.sockets {
        ring.add_socket(socket);
    }
    ring.resume();
    let (got, last) = (std::cell::Cell::new(0u32), std::cell::Cell::new(0u32));
    let note = |event: Event<'_>| {
        if let Event::Datagram(datagram) = event {
            got.set(got.get() + 1);
            last.set(datagram.rxq_ovfl);
        }
        Flow::Continue
    };
    turn(&mut ring, note, || got.get() == 200 - drops);
    // The counter rides on datagrams that were queued after a drop.
    sender.send(&[0; 1000]).unwrap();
    turn(&mut ring, note, || got.get() == 201 - drops);
    assert_eq!(last.get(), drops);
}
