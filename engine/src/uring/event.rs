//! What completes, as the shard sees it, and how an operation is recognised when it does.

use super::datagram::Datagram;

/// Something that completed.
#[derive(Debug)]
pub enum Event<'a> {
    Datagram(Datagram<'a>),
    /// `result`: bytes written, which may be fewer than asked for, or −errno.
    Written {
        token: u64,
        result: i32,
    },
    /// `result`: 0, or −errno. After a failure never sync that file again: the kernel may have dropped the data.
    Synced {
        token: u64,
        result: i32,
    },
    /// Some thread used the waker, once or more often.
    Woken,
    /// Receiving on this socket failed; it is tried again by `check_liveness`.
    ReceiveFailed {
        socket: u16,
        errno: i32,
    },
}

/// What the receiver of an event wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// As `Ring::pause`, from the next datagram on.
    Pause,
}

/// What an operation is, packed into its user data: kind, index, generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    Receive {
        socket: u16,
        generation: u32,
    },
    Cancel {
        socket: u16,
    },
    Flight {
        index: u16,
    },
    Wake,
    /// Drop's last resort.
    CancelAll,
}

impl Tag {
    pub(super) fn pack(self) -> u64 {
        let pack = |kind: u64, index: u16, generation: u32| {
            kind << 56 | u64::from(index) << 32 | u64::from(generation)
        };
        match self {
            Tag::Receive { socket, generation } => pack(1, socket, generation),
            Tag::Cancel { socket } => pack(2, socket, 0),
            Tag::Flight { index } => pack(3, index, 0),
            Tag::Wake => pack(4, 0, 0),
            Tag::CancelAll => pack(5, 0, 0),
        }
    }

    pub(super) fn unpack(user_data: u64) -> Tag {
        let index = (user_data >> 32) as u16;
        match user_data >> 56 {
            1 => Tag::Receive {
                socket: index,
                generation: user_data as u32,
            },
            2 => Tag::Cancel { socket: index },
            3 => Tag::Flight { index },
            4 => Tag::Wake,
            _ => Tag::CancelAll,
        }
    }
}
