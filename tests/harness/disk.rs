//! A disk of its own for a test: a small ext4 on a loop device.

use std::path::{Path, PathBuf};

use super::Lab;
use super::tools::{text, tool};

const MIB: u64 = 1 << 20;

/// A mounted file system of its own; unmounted when dropped.
pub struct SmallDisk {
    image: PathBuf,
    /// Where it is mounted.
    pub folder: PathBuf,
}

impl SmallDisk {
    /// Makes and mounts one.
    #[track_caller]
    pub fn mounted_in(lab: &Lab, mib: u64) -> SmallDisk {
        let (image, folder) = (lab.path("disk.img"), lab.path("disk"));
        let file = std::fs::File::create(&image).expect("the laboratory's folder can be written");
        file.set_len(mib * MIB).expect("a sparse file");
        // No blocks reserved for root: the engine must meet the end of the disk, not root's share.
        tool("mkfs.ext4", &["-q", "-m", "0", text(&image)]);
        std::fs::create_dir(&folder).expect("a mount point");
        let disk = SmallDisk { image, folder };
        disk.mount();
        disk
    }

    /// Mounts it. What ext4 finds wrong with itself makes it read-only.
    #[track_caller]
    pub fn mount(&self) {
        let options = "loop,errors=remount-ro";
        tool("mount", &["-o", options, text(&self.image), text(&self.folder)]);
    }

    /// Unmounts it: fails while anybody has a file open there.
    #[track_caller]
    pub fn unmount(&self) {
        tool("umount", &[text(&self.folder)]);
    }

    /// Checks the file system and mends what is wrong, as an administrator would.
    #[track_caller]
    pub fn repair(&self) {
        // e2fsck's own words for "mended" are exit status 1.
        tool(
            "sh",
            &["-c", "e2fsck -fy \"$0\" || [ $? = 1 ]", text(&self.image)],
        );
    }

    /// Makes ext4 find an error of its own: it ends its journal and becomes read-only under everybody who writes.
    #[track_caller]
    pub fn fail(&self) {
        let device = tool("findmnt", &["-no", "SOURCE", text(&self.folder)]);
        let device = Path::new(device.trim()).file_name().expect("a device");
        let switch = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        std::fs::write(switch, "1").expect("ext4 has this switch");
    }

    /// Fills what is free with a file that is none of ours, while the engine takes its own share beside it.
    pub fn fill(&self) -> PathBuf {
        use nix::fcntl::{FallocateFlags, fallocate};
        let ballast = self.folder.join("ballast");
        let file = std::fs::File::create(&ballast).expect("the disk can be written");
        let (mut end, mut piece) = (0, self.free_bytes() as i64);
        while piece >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(_) => piece /= 2,
            }
        }
        ballast
    }

    /// What anybody may still write.
    pub fn free_bytes(&self) -> u64 {
        let about = nix::sys::statvfs::statvfs(&self.folder).expect("a mounted file system");
        about.blocks_available() * about.fragment_size()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still hold files open, and its folder must go all the same.
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.folder)
            .stderr(std::process::Stdio::null())
            .status()
            .ok();
    }
}
