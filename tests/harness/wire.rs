//! The bytes of FUSE requests and replies (`include/uapi/linux/fuse.h`).

/// Opcodes.
pub mod op {
    macro_rules! opcodes {
        ($($name:ident = $number:literal),* $(,)?) => {
            $(pub const $name: u32 = $number;)*

            /// An opcode by its name.
            pub fn name(op: u32) -> String {
                match op {
                    $($name => stringify!($name).to_owned(),)*
                    other => format!("request {other}"),
                }
            }
        };
    }

    opcodes! {
        LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, MKDIR = 9, UNLINK = 10, RMDIR = 11, RENAME = 12, OPEN = 14,
        READ = 15, WRITE = 16, STATFS = 17, RELEASE = 18, FSYNC = 20, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28,
        RELEASEDIR = 29, FSYNCDIR = 30, ACCESS = 34, CREATE = 35, INTERRUPT = 36, DESTROY = 38, BATCH_FORGET = 42,
        FALLOCATE = 43, RENAME2 = 45,
    }
}

/// What every request begins with.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub op: u32,
    pub unique: u64,
    pub node: u64,
}

/// A request, read from its start.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    /// `{len u32, opcode u32, unique u64, nodeid u64, uid u32, gid u32, pid u32, more u32}`.
    pub fn head(&mut self) -> Head {
        self.skip(4);
        let (op, unique, node) = (self.u32(), self.u64(), self.u64());
        self.skip(16);
        Head { op, unique, node }
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.rest(4).try_into().expect("four bytes"))
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.rest(8).try_into().expect("eight bytes"))
    }

    pub fn skip(&mut self, len: usize) {
        self.rest(len);
    }

    /// The next `len` bytes. The kernel never sends fewer than its own structures have.
    pub fn rest(&mut self, len: usize) -> &'a [u8] {
        let (now, later) = self.bytes.split_at(len);
        self.bytes = later;
        now
    }

    /// The next string, without the zero that ends it.
    pub fn name(&mut self) -> &'a [u8] {
        let len = self.bytes.iter().position(|byte| *byte == 0);
        let name = self.rest(len.expect("a name ends with a zero"));
        self.skip(1);
        name
    }
}

/// A reply under construction.
#[derive(Debug)]
pub struct Reply {
    /// Its header's room, then its results.
    bytes: Vec<u8>,
}

const REPLY_HEAD_BYTES: usize = 16;

impl Reply {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Reply {
        Reply {
            bytes: vec![0; REPLY_HEAD_BYTES],
        }
    }

    pub fn u16(&mut self, value: u16) -> &mut Reply {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Reply {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Reply {
        self.bytes(&value.to_le_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Reply {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Fills up with zeros to a multiple of `align`.
    pub fn pad(&mut self, align: usize) -> &mut Reply {
        let len = self.bytes.len().next_multiple_of(align);
        self.bytes.resize(len, 0);
        self
    }

    /// Bytes of the results so far.
    pub fn filled(&self) -> usize {
        self.bytes.len() - REPLY_HEAD_BYTES
    }

    /// The reply to request `unique`: `{len u32, error i32, unique u64}` and the results.
    pub fn finish(mut self, unique: u64, error: i32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&error.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&unique.to_le_bytes());
        self.bytes
    }
}
