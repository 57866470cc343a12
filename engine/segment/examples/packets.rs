//! Opens a segment file with an identity and tells its streams and packets: `packets FILE.hseal FILE.identity`.
use std::{env, error::Error, fs, fs::File, io, os::unix::fs::FileExt};

use harborseal_segment::{identity::Identity, open::Keyring, reader::Segment, source::Source};

/// The crate does no I/O: this is all that it asks of a file.
struct Disk(File, u64);

impl Source for Disk {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let [_, path, identity] = &env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: packets FILE.hseal FILE.identity".into());
    };
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut segment = Segment::open(Disk(file, len))?;
    let mut keyring = Keyring::new(Identity::from_file_text(&fs::read_to_string(identity)?)?);
    for stream in segment.open_streams(&mut keyring)? {
        let stream = stream?;
        let mut packets = 0;
        for chunk in segment.chunks(&stream)? {
            packets += chunk?.packets().count(); // an error stands where a chunk is missing or damaged
        }
        println!(
            "{} {}: {packets} packets",
            stream.info.camera_id, stream.info.ssrc
        );
    }
    Ok(())
}
