//! What can go wrong with an export, in words that name the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why an export could not be made. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output's extension names no format.
    #[error("{}: the extension decides the format: use .mp4, .pcapng or .rtpdump", path.display())]
    UnknownExtension {
        /// The output asked for.
        path: PathBuf,
    },
    /// Reading or writing a file failed.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The output exists and is not a file that may be replaced.
    #[error("{}: is {what}, not a file; name a file to write", path.display())]
    NotAFile {
        /// The output asked for.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The range holds no packet, or no frame that can be decoded.
    #[error("{0}")]
    NothingInRange(String),
    /// The camera sends nothing that an MP4 can hold.
    #[error("{0}; export it to .pcapng instead")]
    NoVideo(String),
    /// The material is outside what the format can hold.
    #[error("{0}")]
    Unsupported(String),
    /// The person asked for it to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl Error {
    /// Wraps an I/O error of `path`.
    pub(super) fn io<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io {
            path: path.to_owned(),
            what,
            source,
        }
    }
}
