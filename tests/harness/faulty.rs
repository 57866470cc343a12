//! A file system that fails on request, under the real kernel: a FUSE server that keeps everything in memory, counts what the
//! kernel asks of it, and answers the n-th request with an error.
//!
//! Spoken is the kernel's own protocol (`include/uapi/linux/fuse.h`, version 7.31): a request is a 40-byte header and its
//! arguments, a reply a 16-byte header and its results, little-endian as this machine is. The engine meets it through io_uring, O_DIRECT
//! and the page cache like any other file system.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::wire::{Reader, Reply, op};

/// Largest write the kernel may ask for at once.
const MAX_WRITE_BYTES: u32 = 1 << 20;
const ROOT: u64 = 1;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// Which requests fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The first that does, counted from 1.
    pub first: u64,
    /// How many in a row.
    pub count: u64,
    pub errno: Errno,
}

/// What became of a fault.
#[derive(Clone, Debug, Default)]
struct Progress {
    requests: u64,
    fault: Option<Fault>,
    /// What was asked where it fired first.
    fired: Option<String>,
}

/// A mounted file system; unmounted when dropped.
pub struct Faulty {
    folder: PathBuf,
    progress: Arc<Mutex<Progress>>,
    server: Option<JoinHandle<()>>,
}

impl Faulty {
    /// Mounts an empty one at `folder`. Takes root.
    #[track_caller]
    pub fn mount(folder: &Path, fault: Option<Fault>) -> Faulty {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("the kernel has FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(
            Some("faulty"),
            folder,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("root may mount");
        let progress = Arc::new(Mutex::new(Progress {
            fault,
            ..Progress::default()
        }));
        let tree = Tree::new(Arc::clone(&progress));
        Faulty {
            folder: folder.to_owned(),
            progress,
            server: Some(std::thread::spawn(move || tree.serve(device))),
        }
    }

    /// From now on nothing fails. Returns what was asked where the fault fired, `None` if it never did.
    pub fn heal(&self) -> Option<String> {
        let mut progress = self.progress.lock().expect("the server does not panic");
        progress.fault = None;
        progress.fired.take()
    }

    /// Requests so far, of those that may fail.
    pub fn requests(&self) -> u64 {
        self.progress.lock().expect("the server does not panic").requests
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // Detached: a test that failed may have left somebody in it, and the server ends with the last of them.
        let gone = umount2(&self.folder, MntFlags::MNT_DETACH);
        if let Some(server) = self
            .server
            .take()
            .filter(|_| gone.is_ok() && !std::thread::panicking())
        {
            server.join().expect("the server does not panic");
        }
    }
}

#[derive(Debug)]
enum Content {
    Folder(BTreeMap<Vec<u8>, u64>),
    File(Vec<u8>),
}

#[derive(Debug)]
struct Node {
    content: Content,
    mode: u32,
    links: u32,
}

struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
    progress: Arc<Mutex<Progress>>,
}

type Answer = Result<Reply, Errno>;

impl Tree {
    fn new(progress: Arc<Mutex<Progress>>) -> Tree {
        let root = Node {
            content: Content::Folder(BTreeMap::new()),
            mode: FOLDER | 0o755,
            links: 2,
        };
        Tree {
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            progress,
        }
    }

    /// Answers until the file system is unmounted.
    fn serve(mut self, mut device: File) {
        let mut buffer = vec![0; MAX_WRITE_BYTES as usize + 4096];
        loop {
            let len = match device.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A request that was taken back before we saw it.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => continue,
                // ENODEV: unmounted.
                Err(_) => return,
            };
            let mut request = Reader::new(&buffer[..len]);
            let head = request.head();
            if matches!(head.op, op::FORGET | op::BATCH_FORGET | op::INTERRUPT) {
                continue; // these have no reply
            }
            let answer = match self.fault(head.op) {
                Some(errno) => Err(errno),
                None => self.answer(head.op, head.node, &mut request),
            };
            let bytes = match answer {
                Ok(reply) => reply.finish(head.unique, 0),
                Err(errno) => Reply::new().finish(head.unique, -(errno as i32)),
            };
            // ENOENT: whoever asked was interrupted meanwhile.
            let _ = device.write(&bytes);
        }
    }

    /// Counts the request, and fails it if it is its turn. Giving up a file is no I/O that a file system may refuse.
    fn fault(&self, asked: u32) -> Option<Errno> {
        if matches!(
            asked,
            op::INIT | op::RELEASE | op::RELEASEDIR | op::FLUSH | op::DESTROY
        ) {
            return None;
        }
        let mut progress = self.progress.lock().expect("no holder panics");
        progress.requests += 1;
        let now = progress.requests;
        let fault = progress.fault?;
        if !(fault.first..fault.first + fault.count).contains(&now) {
            return None;
        }
        progress.fired.get_or_insert_with(|| op::name(asked));
        Some(fault.errno)
    }

    fn answer(&mut self, asked: u32, node: u64, request: &mut Reader<'_>) -> Answer {
        match asked {
            op::INIT => Ok(init()),
            op::LOOKUP => {
                let child = self.child(node, request.name())?;
                self.entry(child)
            }
            op::GETATTR => self.attributes(node),
            op::SETATTR => self.set_attributes(node, request),
            op::MKDIR => {
                let (mode, _umask) = (request.u32(), request.u32());
                let made = Node {
                    content: Content::Folder(BTreeMap::new()),
                    mode: FOLDER | mode & 0o7777,
                    links: 2,
                };
                let child = self.make(node, request.name(), made)?;
                self.entry(child)
            }
            op::CREATE => self.create(node, request),
            op::UNLINK | op::RMDIR => self.remove(node, request.name(), asked == op::RMDIR),
            op::RENAME | op::RENAME2 => {
                let folder = request.u64();
                if asked == op::RENAME2 {
                    request.skip(8);
                }
                let (from, to) = (request.name().to_vec(), request.name().to_vec());
                self.rename(node, &from, folder, &to)
            }
            op::OPEN | op::OPENDIR => Ok(opened(Reply::new())),
            op::READ => self.read(node, request),
            op::WRITE => self.write(node, request),
            op::FALLOCATE => {
                let _handle = request.u64();
                let end = request.u64() + request.u64();
                let file = self.file(node)?;
                let len = file.len().max(end as usize);
                file.resize(len, 0);
                Ok(Reply::new())
            }
            op::READDIR => self.list(node, request),
            op::STATFS => Ok(statistics()),
            op::FSYNC
            | op::FSYNCDIR
            | op::FLUSH
            | op::RELEASE
            | op::RELEASEDIR
            | op::ACCESS
            | op::DESTROY => Ok(Reply::new()),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn folder(&mut self, node: u64) -> Result<&mut BTreeMap<Vec<u8>, u64>, Errno> {
        match &mut self.nodes.get_mut(&node).ok_or(Errno::ENOENT)?.content {
            Content::Folder(names) => Ok(names),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn file(&mut self, node: u64) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.nodes.get_mut(&node).ok_or(Errno::ENOENT)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Folder(_) => Err(Errno::EISDIR),
        }
    }

    fn child(&mut self, folder: u64, name: &[u8]) -> Result<u64, Errno> {
        self.folder(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn make(&mut self, folder: u64, name: &[u8], node: Node) -> Result<u64, Errno> {
        let number = self.next;
        let names = self.folder(folder)?;
        if names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        names.insert(name.to_vec(), number);
        self.nodes.insert(number, node);
        self.next += 1;
        Ok(number)
    }

    fn create(&mut self, folder: u64, request: &mut Reader<'_>) -> Answer {
        let (_flags, mode) = (request.u32(), request.u32());
        request.skip(8);
        let made = Node {
            content: Content::File(Vec::new()),
            mode: REGULAR | mode & 0o7777,
            links: 1,
        };
        let child = self.make(folder, request.name(), made)?;
        Ok(opened(self.entry(child)?))
    }

    fn remove(&mut self, folder: u64, name: &[u8], empty_only: bool) -> Answer {
        let child = self.child(folder, name)?;
        if empty_only && !self.folder(child)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.folder(folder)?.remove(name);
        // Whoever has it open goes on with it.
        if let Some(node) = self.nodes.get_mut(&child) {
            node.links = 0;
        }
        Ok(Reply::new())
    }

    fn rename(&mut self, from_folder: u64, from: &[u8], to_folder: u64, to: &[u8]) -> Answer {
        let child = self.child(from_folder, from)?;
        self.folder(from_folder)?.remove(from);
        self.folder(to_folder)?.insert(to.to_vec(), child);
        Ok(Reply::new())
    }

    fn read(&mut self, node: u64, request: &mut Reader<'_>) -> Answer {
        let _handle = request.u64();
        let (offset, len) = (request.u64() as usize, request.u32() as usize);
        let file = self.file(node)?;
        let end = (offset + len).min(file.len());
        let mut reply = Reply::new();
        reply.bytes(file.get(offset..end).unwrap_or_default());
        Ok(reply)
    }

    fn write(&mut self, node: u64, request: &mut Reader<'_>) -> Answer {
        let _handle = request.u64();
        let (offset, len) = (request.u64() as usize, request.u32());
        request.skip(20);
        let bytes = request.rest(len as usize);
        let file = self.file(node)?;
        let end = offset + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(bytes);
        let mut reply = Reply::new();
        reply.u32(len).u32(0);
        Ok(reply)
    }

    fn list(&mut self, node: u64, request: &mut Reader<'_>) -> Answer {
        let _handle = request.u64();
        let (from, room) = (request.u64() as usize, request.u32() as usize);
        let names = self.folder(node)?.clone();
        let mut reply = Reply::new();
        for (at, (name, child)) in names.iter().enumerate().skip(from) {
            let kind = self.nodes.get(child).map_or(0, |node| node.mode >> 12);
            if reply.filled() + (24 + name.len()).next_multiple_of(8) > room {
                break;
            }
            // Where to go on behind this entry.
            reply.u64(*child).u64(at as u64 + 1);
            reply.u32(name.len() as u32).u32(kind).bytes(name).pad(8);
        }
        Ok(reply)
    }

    fn set_attributes(&mut self, node: u64, request: &mut Reader<'_>) -> Answer {
        const MODE: u32 = 1;
        const SIZE: u32 = 8;
        let which = request.u32();
        request.skip(12);
        let size = request.u64();
        request.skip(44);
        let mode = request.u32();
        if which & SIZE != 0 {
            self.file(node)?.resize(size as usize, 0);
        }
        if let Some(node) = self.nodes.get_mut(&node).filter(|_| which & MODE != 0) {
            node.mode = node.mode & !0o7777 | mode & 0o7777;
        }
        self.attributes(node)
    }

    fn attributes(&self, node: u64) -> Answer {
        let mut reply = Reply::new();
        reply.u64(FOREVER_S).u32(0).u32(0);
        self.add_attributes(node, &mut reply)?;
        Ok(reply)
    }

    fn entry(&self, node: u64) -> Answer {
        let mut reply = Reply::new();
        let generation = 0;
        reply.u64(node).u64(generation);
        reply.u64(FOREVER_S).u64(FOREVER_S).u32(0).u32(0);
        self.add_attributes(node, &mut reply)?;
        Ok(reply)
    }

    fn add_attributes(&self, number: u64, reply: &mut Reply) -> Result<(), Errno> {
        let node = self.nodes.get(&number).ok_or(Errno::ENOENT)?;
        let size = match &node.content {
            Content::File(bytes) => bytes.len() as u64,
            Content::Folder(_) => 4096,
        };
        reply.u64(number).u64(size).u64(size.div_ceil(512));
        reply.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        reply.u32(node.mode).u32(node.links).u32(0).u32(0).u32(0);
        reply.u32(4096).u32(0);
        Ok(())
    }
}

/// Nobody changes the tree but through the kernel, so it may remember for good.
const FOREVER_S: u64 = 1 << 30;

fn init() -> Reply {
    const BIG_WRITES: u32 = 1 << 5;
    const ASYNC_DIRECT: u32 = 1 << 15;
    const MAX_PAGES: u32 = 1 << 22;
    let mut reply = Reply::new();
    reply
        .u32(7)
        .u32(31)
        .u32(128 << 10)
        .u32(BIG_WRITES | ASYNC_DIRECT | MAX_PAGES);
    let (background, congested) = (32, 24);
    reply.u16(background).u16(congested);
    let (time_grain_ns, pages) = (1, (MAX_WRITE_BYTES / 4096) as u16);
    reply.u32(MAX_WRITE_BYTES).u32(time_grain_ns).u16(pages).u16(0);
    reply.bytes(&[0; 32]);
    reply
}

fn opened(mut reply: Reply) -> Reply {
    reply.u64(0).u32(0).u32(0);
    reply
}

/// A disk of 4 GiB with nearly all of it free.
fn statistics() -> Reply {
    let blocks = 1 << 20;
    let mut reply = Reply::new();
    reply
        .u64(blocks)
        .u64(blocks - 1)
        .u64(blocks - 1)
        .u64(1 << 20)
        .u64(1 << 20);
    reply.u32(4096).u32(255).u32(4096).u32(0).bytes(&[0; 24]);
    reply
}
