//! Who else may read and change what this process relies on: looked at once, at the start, and by `check`.
//!
//! Sealed segments may be read by anybody without harm to what was filmed. What must not be is that others *write* where keys and segments
//! are kept, or where it says whose key is sealed to.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `data_dir`.
    Data,
    /// `data_dir/keys`.
    Keys,
    /// The configuration.
    Config,
}

/// How a place may be used by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It tells others something, or lets a group change something. What, and the command that mends it.
    Loose(String, String),
    /// Others could change what is recorded, or for whom: it must not start. Why, and the command that mends it.
    Open(String, String),
}

/// Looks at `path`. What is not there yet is made as it should be.
pub fn look(place: Place, path: &Path) -> io::Result<Verdict> {
    match path.metadata() {
        Ok(meta) => {
            let us = rustix::process::geteuid().as_raw();
            Ok(judge(place, path, meta.mode() & 0o7777, meta.uid(), us))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Verdict::Fine),
        Err(error) => Err(error),
    }
}

/// Judges a place by its mode and owner, for a process of the user `us`.
fn judge(place: Place, path: &Path, mode: u32, owner: u32, us: u32) -> Verdict {
    let shown = path.display();
    let others = |bits: u32| mode & bits != 0;
    // A sticky folder lets nobody replace what is another's.
    let replaced = others(0o002) && mode & 0o1000 == 0;
    match place {
        Place::Keys if others(0o077) => Verdict::Open(
            format!("others may use {shown}, where keys are kept (mode {mode:o})"),
            format!("chmod 700 {shown}"),
        ),
        Place::Data | Place::Config if replaced => Verdict::Open(
            format!("anybody may change {shown} (mode {mode:o})"),
            format!("chmod o-w {shown}"),
        ),
        _ if owner != us && owner != 0 && us != 0 => Verdict::Open(
            format!("{shown} belongs to another user ({owner}), who may change it at any time"),
            format!("chown {us} {shown}"),
        ),
        Place::Data | Place::Config if others(0o020) => Verdict::Loose(
            format!("the group may change {shown} (mode {mode:o})"),
            format!("chmod g-w {shown}"),
        ),
        Place::Data if others(0o005) => Verdict::Loose(
            format!("everybody may see which segments are in {shown} (mode {mode:o})"),
            format!("chmod 750 {shown}"),
        ),
        Place::Config if others(0o004) => Verdict::Loose(
            format!("everybody may read in {shown} which cameras are whose (mode {mode:o})"),
            format!("chmod 640 {shown}"),
        ),
        _ => Verdict::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(place: Place, mode: u32, owner: u32, us: u32) -> Verdict {
        judge(place, Path::new("P"), mode, owner, us)
    }

    #[test]
    fn what_others_could_change_is_refused_and_what_they_could_read_is_told() {
        use Place::{Config, Data, Keys};
        for (place, mode) in [
            (Data, 0o750),
            (Data, 0o700),
            (Keys, 0o700),
            (Config, 0o640),
            (Config, 0o600),
        ] {
            assert_eq!(of(place, mode, 7, 7), Verdict::Fine, "{place:?} {mode:o}");
        }
        for (place, mode) in [(Data, 0o755), (Data, 0o770), (Config, 0o644), (Config, 0o660)] {
            assert!(
                matches!(of(place, mode, 7, 7), Verdict::Loose(..)),
                "{place:?} {mode:o}"
            );
        }
        for (place, mode) in [(Data, 0o777), (Keys, 0o750), (Keys, 0o701), (Config, 0o646)] {
            assert!(
                matches!(of(place, mode, 7, 7), Verdict::Open(..)),
                "{place:?} {mode:o}"
            );
        }
    }

    #[test]
    fn another_users_folder_is_refused_unless_that_is_root_or_we_are() {
        assert!(matches!(of(Place::Data, 0o700, 8, 7), Verdict::Open(..)));
        assert_eq!(of(Place::Data, 0o700, 0, 7), Verdict::Fine);
        assert_eq!(of(Place::Data, 0o700, 8, 0), Verdict::Fine);
    }
}
