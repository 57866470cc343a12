//! Which shard a packet belongs to: once in Rust, once as a classic BPF program for the kernel.
//!
//! The two must agree for every payload, also for short and hostile ones; a test compares them through real
//! sockets. RTP and RTCP share ports, told apart by the second byte (RFC 5761 §4).

/// Second byte of an RTCP packet: its packet type, 192–223 (RFC 5761 §4).
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;
const RTCP_SSRC_AT: usize = 4;
const RTP_SSRC_AT: usize = 8;

/// The shard that owns `ssrc`, out of `shards` (≥ 1).
#[inline]
pub fn steer(ssrc: u32, shards: usize) -> usize {
    (ssrc as usize) % shards.max(1)
}

/// The shard the kernel's filter picks for a UDP payload: that of its SSRC; shard 0 if it is too short to have one.
pub fn steer_payload(payload: &[u8], shards: usize) -> usize {
    steer(ssrc_of(payload).unwrap_or(0), shards)
}

/// The SSRC by which a payload is steered; `None` if the payload is too short.
pub fn ssrc_of(payload: &[u8]) -> Option<u32> {
    let at = if RTCP_TYPES.contains(payload.get(1)?) {
        RTCP_SSRC_AT
    } else {
        RTP_SSRC_AT
    };
    Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().ok()?))
}

/// The same as a program for `SO_ATTACH_REUSEPORT_CBPF`. It sees the payload, after the UDP header; a load
/// past its end returns 0 from the whole program, which is shard 0.
pub(super) fn program(shards: u32) -> [libc::sock_filter; 8] {
    const LD_B: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LD_W: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const JA: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    const MOD: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
    const RET_A: u16 = (libc::BPF_RET | libc::BPF_A) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let [first, last] = [*RTCP_TYPES.start(), *RTCP_TYPES.end()].map(u32::from);
    [
        op(LD_B, 0, 0, 1),
        op(JGE, 0, 3, first),    // below the RTCP types: to the RTP load
        op(JGE, 2, 0, last + 1), // above them: likewise
        op(LD_W, 0, 0, RTCP_SSRC_AT as u32),
        op(JA, 0, 0, 1), // over the RTP load
        op(LD_W, 0, 0, RTP_SSRC_AT as u32),
        op(MOD, 0, 0, shards),
        op(RET_A, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would, for payloads too odd to send by the thousand.
    fn interpret(program: &[libc::sock_filter], payload: &[u8]) -> usize {
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let op = program[at];
            at += 1;
            let load = |bytes: usize| payload.get(op.k as usize..op.k as usize + bytes);
            match u32::from(op.code) {
                code if code == libc::BPF_LD | libc::BPF_B | libc::BPF_ABS => match load(1) {
                    Some(bytes) => a = u32::from(bytes[0]),
                    None => return 0,
                },
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => match load(4) {
                    Some(bytes) => a = u32::from_be_bytes(bytes.try_into().unwrap()),
                    None => return 0,
                },
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += usize::from(if a >= op.k { op.jt } else { op.jf });
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => at += op.k as usize,
                code if code == libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K => a %= op.k,
                code if code == libc::BPF_RET | libc::BPF_A => return a as usize,
                code => panic!("unexpected instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn filter_and_rust_agree_for_every_second_byte_and_length() {
        for shards in [1u32, 2, 3, 7] {
            let program = program(shards);
            for second in 0..=255u8 {
                for len in 0..=16usize {
                    let mut payload: Vec<u8> = (0..len as u8).map(|i| i.wrapping_mul(37) ^ second).collect();
                    if len > 1 {
                        payload[1] = second;
                    }
                    assert_eq!(
                        interpret(&program, &payload),
                        steer_payload(&payload, shards as usize),
                        "shards {shards} payload {payload:02x?}"
                    );
                }
            }
        }
    }

    #[test]
    fn rtcp_types_are_steered_by_the_word_at_four() {
        let packet = [0x80, 200, 0, 6, 0, 0, 0, 5, 0, 0, 0, 6];
        assert_eq!(ssrc_of(&packet), Some(5));
        let packet = [0x80, 96, 0, 6, 0, 0, 0, 5, 0, 0, 0, 6];
        assert_eq!(ssrc_of(&packet), Some(6));
        assert_eq!(ssrc_of(&packet[..11]), None);
    }
}
