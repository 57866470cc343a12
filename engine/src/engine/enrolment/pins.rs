//! What a node has pinned of its customers' enrolments, beside what its audit log says of them.
//!
//! Names stand in neither: a name is a tag under a key that only this node has, another one in the pins than in each entry.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use harborseal_segment::merkle::Hash;
use harborseal_segment::node::NodeKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EnrolmentError;
use crate::audit::disk::{Disk, OsDisk};
use crate::audit::entry::{Bytes, pin};
use crate::audit::read::{self, Reader};
use crate::audit::{AuditError, Entry, Fact};
use crate::statement::Enrolment;
use crate::uring::sys;

/// Stands for the ordinal where a name is not that of an entry, but of a pin.
const PINS: u64 = u64::MAX;

/// A pin as it is written.
#[derive(Serialize, Deserialize)]
struct PinLine {
    /// The customer's name under the node's pin key.
    name: Bytes<16>,
    statement: String,
}

/// The last enrolment of a name in the log.
pub struct Entered {
    /// How many came before it.
    pub ordinal: u64,
    pub entry: Entry,
}

impl Entered {
    /// Whether it is the entry of this statement.
    pub fn is_of(&self, statement: &Enrolment) -> bool {
        let (Fact::Enrolment {
            statement: entered, ..
        }
        | Fact::KeyRotation {
            statement: entered, ..
        }) = &self.entry.fact
        else {
            return false;
        };
        self.entry
            .nonce()
            .commitment(&statement.audit_salt, statement.hash())
            == *entered
    }
    /// Every enrolment in the log, the log held against its root as a whole.
    pub fn all<D: Disk>(
        log: &mut Reader<'_, D>,
        root: &Hash,
    ) -> Result<HashMap<Bytes<16>, Entry>, AuditError> {
        let kinds = [&br#""kind":"enrolment""#[..], br#""kind":"key_rotation""#];
        let enrols = |bytes: &[u8]| {
            let holds = |kind: &&[u8]| bytes.windows(kind.len()).any(|window| window == *kind);
            kinds.iter().any(holds)
        };
        let mut entered = HashMap::new();
        log.all_entries(root, &mut |_, bytes| {
            let Some(entry) = enrols(bytes).then(|| Entry::parse(bytes).ok()).flatten() else {
                return;
            };
            if let Fact::Enrolment { pin, .. } | Fact::KeyRotation { pin, .. } = entry.fact {
                entered.insert(pin, entry);
            }
        })?;
        Ok(entered)
    }

    /// The same of the log in a folder, to look only: nothing is locked, made or put aside. None where there is no log yet.
    pub fn of_folder(folder: &Path) -> Result<HashMap<Bytes<16>, Entry>, AuditError> {
        let checkpoint = folder.join("checkpoint");
        if !checkpoint.exists() {
            return Ok(HashMap::new());
        }
        let head = read::checkpoint(&OsDisk, &checkpoint)?.checkpoint;
        Self::all(&mut Reader::new(&OsDisk, folder, head.size), &head.root)
    }
}

/// `DATA/keys/enrolled`.
pub struct Pins {
    path: PathBuf,
    /// Under which the node, and only it, recognises names.
    key: [u8; 32],
}

impl Pins {
    /// Of the node whose data folder this is.
    pub fn new(data: &Path, node: &NodeKey) -> Pins {
        // Ed25519 signs one message one way: who does not have the key cannot foresee it, and this one is never shown.
        let key = Sha256::digest(node.sign(b"harborseal/v1/pin-key")).into();
        Pins {
            path: data.join("keys/enrolled"),
            key,
        }
    }

    /// What a customer is called in the pins.
    pub fn name(&self, customer: &str) -> Bytes<16> {
        self.tag(customer, PINS)
    }

    /// What a customer is called in the entry of its enrolment of this ordinal.
    pub fn tag(&self, customer: &str, ordinal: u64) -> Bytes<16> {
        pin(&self.key, customer, ordinal)
    }

    /// The last enrolment of a customer among those of the log.
    pub fn last(&self, entered: &HashMap<Bytes<16>, Entry>, customer: &str) -> Option<Entered> {
        let of_customer = |ordinal| {
            let entry = entered.get(&self.tag(customer, ordinal))?.clone();
            Some(Entered { ordinal, entry })
        };
        (0..PINS).map_while(of_customer).last()
    }

    /// The statement in force for each name.
    pub fn read(&self) -> Result<BTreeMap<Bytes<16>, Enrolment>, EnrolmentError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let mut pins = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let bad = || EnrolmentError::BadPin {
                path: self.path.clone(),
                line,
            };
            let pin: PinLine = serde_json::from_str(text).map_err(|_| bad())?;
            let statement = Enrolment::parse(&pin.statement).map_err(|_| bad())?;
            pins.insert(pin.name, statement);
        }
        Ok(pins)
    }

    /// Writes all pins, whole or not at all, durably.
    pub fn write(&self, pins: &BTreeMap<Bytes<16>, Enrolment>) -> Result<(), EnrolmentError> {
        let mut text = String::new();
        for (name, statement) in pins {
            let line = PinLine {
                name: *name,
                statement: statement.to_text().to_owned(),
            };
            text += &serde_json::to_string(&line).expect("a pin has string keys and no failing serialiser");
            text.push('\n');
        }
        let part = self.path.with_extension("part");
        let folder = self.path.parent().expect("the pins are in DATA/keys");
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(text.as_bytes())?;
            File::sync_all(&file)?;
            fs::rename(&part, &self.path)?;
            sys::sync_directory(folder)
        };
        write().map_err(|error| self.failed("write", error))
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> EnrolmentError {
        EnrolmentError::Pins {
            doing,
            path: self.path.clone(),
            error,
        }
    }
}
