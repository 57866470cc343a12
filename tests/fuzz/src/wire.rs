//! What strangers send: RTP and RTCP, against a second, slow reading of RFC 3550; and the account of a sequence.

use harborseal::ledger::Reason;
use harborseal::rtp::Packet;
use harborseal::stream::account::SequenceAccount;

use super::input::Input;

/// A datagram that is taken for RTP.
pub fn rtp(data: &[u8]) {
    let mut datagram = data.to_vec();
    if let Some(second @ 192..=223) = datagram.get_mut(1) {
        *second = 96;
    }
    let parsed = Packet::parse(&datagram);
    assert_eq!(parsed.ok(), rtp_by_the_rfc(&datagram));
    if datagram.len() >= 12 && datagram[0] >> 6 != 2 {
        assert_eq!(parsed, Err(Reason::BadVersion));
    }
}

/// RFC 3550 §5.1 and §5.3.1, field by field.
fn rtp_by_the_rfc(datagram: &[u8]) -> Option<Packet> {
    let fixed = datagram.get(..12)?;
    let (version, padded, extended) = (fixed[0] >> 6, fixed[0] & 0x20 != 0, fixed[0] & 0x10 != 0);
    let csrc_count = usize::from(fixed[0] & 0x0F);
    let mut payload = 12 + 4 * csrc_count;
    if extended {
        let words = datagram.get(payload + 2..payload + 4)?;
        payload += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    let rest = datagram.get(payload..)?;
    if padded {
        let count = usize::from(*rest.last()?);
        if count == 0 || count > rest.len() {
            return None;
        }
    }
    (version == 2).then(|| Packet::Rtp {
        ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
        timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
    })
}

/// A datagram that is taken for RTCP.
pub fn rtcp(data: &[u8]) {
    let mut datagram = data.to_vec();
    if let Some(second) = datagram.get_mut(1) {
        *second = 192 + *second % 32;
    }
    let parsed = Packet::parse(&datagram);
    assert_eq!(parsed.ok(), rtcp_by_the_rfc(&datagram));
}

/// RFC 3550 A.2, but for the first packet's type (RFC 5506 §4.2).
fn rtcp_by_the_rfc(datagram: &[u8]) -> Option<Packet> {
    let ssrc: [u8; 4] = datagram.get(4..8)?.try_into().ok()?;
    let mut at = 0;
    while at < datagram.len() {
        let head = datagram.get(at..at + 4)?;
        let len = 4 * (1 + usize::from(u16::from_be_bytes([head[2], head[3]])));
        let part = datagram.get(at..at + len)?;
        let padded = head[0] & 0x20 != 0;
        at += len;
        let pad = usize::from(*part.last()?);
        if head[0] >> 6 != 2
            || (padded && (at != datagram.len() || !(1..=(len - 4) / 4).any(|n| 4 * n == pad)))
        {
            return None;
        }
    }
    Some(Packet::Rtcp {
        ssrc: u32::from_be_bytes(ssrc),
    })
}

/// The account of a stream under any sequence of packets.
pub fn account(data: &[u8]) {
    let mut input = Input::new(data);
    let mut account = SequenceAccount::new(input.u32());
    let (mut sequence, mut timestamp, mut arrival_ns) = (input.u16(), input.u32(), input.u64());
    let mut received = 0;
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => sequence = input.u16(),
            1 => sequence = sequence.wrapping_sub(u16::from(input.u8())),
            2 => sequence = sequence.wrapping_add(u16::from(input.u8()) * 16),
            3 => (timestamp, arrival_ns) = (input.u32(), input.u64()),
            4 => {}
            _ => sequence = sequence.wrapping_add(1),
        }
        timestamp = timestamp.wrapping_add(3000);
        arrival_ns = arrival_ns.wrapping_add(33_000_000);
        let before = account.counts();
        account.receive(sequence, timestamp, arrival_ns);
        received += 1;
        let now = account.counts();
        assert!(account.started());
        assert!(now.duplicates >= before.duplicates && now.restarts >= before.restarts);
        assert!(
            now.duplicates + now.reordered + now.restarts <= received,
            "each packet is one thing"
        );
        // A packet stands for at most one cycle of numbers.
        assert!(
            now.lost <= received << 16,
            "{} lost after {received} packets",
            now.lost
        );
        assert_eq!(now.lost, account.lost());
    }
}
