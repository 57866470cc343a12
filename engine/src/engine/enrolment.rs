//! Whose key may be sealed to: enrolments held against what this node pinned, and against the audit log.
//!
//! ```text
//!   DATA/keys/enrolled      0600   a line of JSON per customer: the statement in force
//! ```
//!
//! - The first enrolment under a name is pinned. Another takes its place only if the key in force signed it, in turn.
//! - The entry comes first, then the pin, then the key is used. A crash between them is completed at the next start.
//! - The log is what counts: a pin without its entry, and an entry whose pin is gone, both refuse the customer. So nobody can have a name
//!   enrolled again by deleting a file, unless he rewrites the log, which everybody who kept a checkpoint can prove.
//!
//! Customers are named by their place in the configuration: their names must not reach messages.

mod pins;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::identity::PublicKey;
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;
use sha2::{Digest, Sha256};

use super::StartError;
use crate::audit::entry::Bytes;
use crate::audit::{AuditError, AuditLog, Entry, Fact, Nonce};
use crate::config::Config;
use crate::statement::{Enrolment, ReplaceError};
use crate::stream::registry::{Customer, Registry};
use crate::text::{Plain, counted};
use crate::uring::sys;
use pins::{Entered, Pins};

/// Why a customer's packets are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody signed for its key, and the configuration asks for that.
    #[error(
        "it has no enrolment, and require_enrolment is true: have the customer make one (`harborseal enrol`)"
    )]
    NotEnrolled,
    /// A key without enrolment under a name that has one.
    #[error("an enrolment is in force for it, and its entry names a bare public_key: name the enrolment")]
    Bare,
    /// Its enrolment does not take the place of the one in force.
    #[error("another enrolment is in force for it: {0}")]
    Replace(ReplaceError),
    /// The log has an enrolment of this name, the pins do not.
    #[error("the audit log has another enrolment of it, whose pin is gone: restore DATA/keys/enrolled")]
    PinGone,
    /// The log does not end with the enrolment that is pinned.
    #[error(
        "the last enrolment of it in the audit log is not the one in DATA/keys/enrolled: restore that file from its newest copy"
    )]
    NoEntry,
}

impl Refusal {
    /// Whether somebody may be putting his key in the place of a customer's, rather than that a customer has not enrolled yet.
    pub fn is_a_swap(&self) -> bool {
        *self != Refusal::NotEnrolled
    }
}

/// The customers of a configuration, each as far as its enrolment holds.
pub struct Standing {
    /// The registry, which refuses the packets of those it does not hold for.
    pub registry: Arc<Registry>,
    /// Whose packets are refused, by the customer's index, and why.
    pub refused: Vec<(usize, Refusal)>,
    /// Customers whose key nobody signed for, and who are recorded all the same.
    pub unenrolled: usize,
}

impl Standing {
    /// Why it was not taken.
    pub fn refusals(&self) -> String {
        let refusals = self.refused.iter();
        let told: Vec<String> = refusals
            .map(|(customer, why)| format!("customer {}: {why}", customer + 1))
            .collect();
        told.join("; ")
    }

    /// What people should know of it, one line each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .refused
            .iter()
            .map(|(customer, why)| {
                format!(
                    "customer {} of the configuration is not recorded: {why}",
                    customer + 1
                )
            })
            .collect();
        if self.unenrolled > 0 {
            notes.push(format!(
                "require_enrolment is false: {} recorded under a key that nobody signed for; whoever edits the configuration can put \
                 his own there",
                match self.unenrolled {
                    1 => "1 customer is".to_owned(),
                    n => format!("{} are", counted(n, "customer")),
                }
            ));
        }
        notes
    }
}

/// Why a configuration cannot be put in force as it stands.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The log was not read or written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The pins were not read or written.
    #[error("cannot {doing} {}: {}", path.display(), Plain(error))]
    Pins {
        /// A verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The pins cannot be understood.
    #[error("{}:{line}: not a pinned enrolment; restore the file from its newest copy", path.display())]
    BadPin {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// What is to become of one customer.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// No enrolment, and none is asked for.
    Unenrolled,
    /// The statement is the one in force.
    InForce,
    /// The first under this name.
    First,
    /// It takes the place of the one in force.
    Replaces,
    /// First or replacing; its entry is in the log already, because a crash came before its pin.
    Entered,
    Refused(Refusal),
}

impl Verdict {
    /// Whether the statement is to be pinned.
    fn is_new(&self) -> bool {
        matches!(self, Verdict::First | Verdict::Replaces | Verdict::Entered)
    }
}

/// What a statement is worth, given what is pinned under its customer's name and the last that the log says of it.
fn judge(
    statement: Option<&Enrolment>,
    pinned: Option<&Enrolment>,
    entered: Option<&Entered>,
    required: bool,
) -> Verdict {
    use Verdict::Refused;
    let is_entered = |statement: &Enrolment| entered.is_some_and(|entered| entered.is_of(statement));
    match (statement, pinned) {
        (None, None) if entered.is_some() => Refused(Refusal::PinGone),
        (None, None) if required => Refused(Refusal::NotEnrolled),
        (None, None) => Verdict::Unenrolled,
        // Also where no enrolment is asked for: whoever can switch that off must not get at the enrolled by it.
        (None, Some(_)) => Refused(Refusal::Bare),
        (Some(new), None) if is_entered(new) => Verdict::Entered,
        (Some(_), None) if entered.is_some() => Refused(Refusal::PinGone),
        (Some(_), None) => Verdict::First,
        (Some(new), Some(old)) => {
            let replaces = new.replaces(old);
            match (new.hash() == old.hash(), replaces) {
                (_, Ok(())) if is_entered(new) => Verdict::Entered,
                _ if !is_entered(old) => Refused(Refusal::NoEntry),
                (true, _) => Verdict::InForce,
                (false, Ok(())) => Verdict::Replaces,
                (false, Err(why)) => Refused(Refusal::Replace(why)),
            }
        }
    }
}

/// Pins enrolments, and enters them in the log.
pub struct Enroller {
    audit: Arc<AuditLog>,
    pins: Pins,
}

impl Enroller {
    /// Of the node whose data folder this is.
    pub fn new(data: &Path, node: &NodeKey, audit: Arc<AuditLog>) -> Enroller {
        Enroller {
            audit,
            pins: Pins::new(data, node),
        }
    }

    /// Enters `event` in the log, and with it what is new among the enrolments, which are pinned then. What `acceptable` refuses
    /// changes nothing, and is given back as the error; that it was asked for is entered.
    pub fn settle(
        &self,
        config: &Config,
        event: Fact,
        acceptable: impl FnOnce(&Standing) -> bool,
    ) -> Result<Result<Standing, Standing>, EnrolmentError> {
        let mut pins = self.pins.read()?;
        let entered = self.audit.read(Entered::all)?;
        let customers = &config.registry.customers;
        let mut verdicts = Vec::with_capacity(customers.len());
        let now_s = sys::realtime_ns() / 1_000_000_000;
        let mut made = vec![Entry::new(now_s, Nonce::generate(&mut os_random()), event)];
        let mut pinned_anew = false;
        for customer in customers {
            let name = self.pins.name(&customer.name);
            let last = self.pins.last(&entered, &customer.name);
            let (new, old) = (customer.enrolment.as_deref(), pins.get(&name));
            let verdict = judge(new, old, last.as_ref(), config.require_enrolment);
            if let (Verdict::Refused(why), Some(old)) = (&verdict, old) {
                made.push(refused_entry(old, why, now_s));
            }
            if let Some(new) = new.filter(|_| verdict.is_new()) {
                if verdict != Verdict::Entered {
                    let ordinal = last.map_or(0, |last| last.ordinal + 1);
                    made.extend(self.entries_of((&customer.name, ordinal), new, old, now_s));
                }
                pins.insert(name, new.clone());
                pinned_anew = true;
            }
            verdicts.push(verdict);
        }
        let standing = standing(config, verdicts);
        if !acceptable(&standing) {
            made.retain(|entry| matches!(entry.fact, Fact::AccessRefused { .. }));
            self.audit.append(&made)?;
            return Ok(Err(standing));
        }
        self.audit.append(&made)?;
        if pinned_anew {
            self.pins.write(&pins)?;
        }
        Ok(Ok(standing))
    }

    /// The entries that a new statement takes: the enrolment itself, and one for each recovery recipient.
    fn entries_of(
        &self,
        (name, ordinal): (&str, u64),
        new: &Enrolment,
        old: Option<&Enrolment>,
        now_s: u64,
    ) -> Vec<Entry> {
        let nonce = Nonce::generate(&mut os_random());
        let pin = self.pins.tag(name, ordinal);
        let statement = nonce.commitment(&new.audit_salt, new.hash());
        let (seq, recovery) = (new.seq, new.recovery.len() as u32);
        let fact = match old {
            None => Fact::Enrolment {
                pin,
                statement,
                seq,
                recovery,
            },
            Some(old) => Fact::KeyRotation {
                pin,
                statement,
                replaces: nonce.commitment(&old.audit_salt, old.hash()),
                seq,
                recovery,
            },
        };
        // Under both names: who has only the old identity, or only the new one, finds it.
        let mut salts = vec![&new.audit_salt];
        salts.extend(
            old.map(|old| &old.audit_salt)
                .filter(|salt| **salt != new.audit_salt),
        );
        let mut entries = vec![Entry::concerning(now_s, nonce, fact, salts)];
        for (i, key) in (1..).zip(&new.recovery) {
            let nonce = Nonce::generate(&mut os_random());
            let hash: [u8; 32] = Sha256::digest(key.to_text()).into();
            let fact = Fact::Recipient {
                key: nonce.commitment(&new.audit_salt, &hash),
                i,
                n: recovery + 1,
            };
            entries.push(Entry::concerning(now_s, nonce, fact, [&new.audit_salt]));
        }
        entries
    }
}

/// What would become of each customer's enrolment if this configuration were put in force now. Changes nothing. `node` is the key of
/// the node whose data folder it is; none where no node was started there yet.
pub fn preview(config: &Config, node: Option<&NodeKey>) -> Result<Standing, EnrolmentError> {
    let customers = &config.registry.customers;
    let Some(node) = node else {
        let judged = |customer: &Customer| {
            judge(
                customer.enrolment.as_deref(),
                None,
                None,
                config.require_enrolment,
            )
        };
        return Ok(standing(config, customers.iter().map(judged).collect()));
    };
    let known = Pins::new(&config.data_dir, node);
    let pins = known.read()?;
    let entered = Entered::of_folder(&config.data_dir.join("audit"))?;
    let judged = |customer: &Customer| {
        let (new, old) = (
            customer.enrolment.as_deref(),
            pins.get(&known.name(&customer.name)),
        );
        let last = known.last(&entered, &customer.name);
        judge(new, old, last.as_ref(), config.require_enrolment)
    };
    Ok(standing(config, customers.iter().map(judged).collect()))
}

/// The enrolment in force on the node whose data folder this is of the customer who signs with this key; `None` if there is none.
pub fn enrolment_of(
    data: &Path,
    node: &NodeKey,
    signer: &PublicKey,
) -> Result<Option<Enrolment>, EnrolmentError> {
    let fingerprint = signer.fingerprint();
    let pins = Pins::new(data, node).read()?;
    Ok(pins
        .into_values()
        .find(|enrolment| enrolment.public.fingerprint() == fingerprint))
}

/// Enters the start, and the enrolments that are new with it.
pub fn at_start(enroller: &Enroller, config: &Config, program: [u8; 32]) -> Result<Standing, StartError> {
    let event = Fact::NodeStart {
        build: env!("CARGO_PKG_VERSION").to_owned(),
        program: Bytes(program),
        configuration: Bytes(config.digest),
        require_enrolment: config.require_enrolment,
    };
    let settled = enroller.settle(config, event, |_| true);
    match settled {
        Ok(Ok(standing) | Err(standing)) => Ok(standing),
        Err(EnrolmentError::Audit(error)) => Err(no_audit(error)),
        Err(error) => Err(StartError {
            message: error.to_string(),
            remedy: String::new(),
            configuration: false,
        }),
    }
}

/// Nothing is recorded that the log could not tell of.
pub fn no_audit(error: AuditError) -> StartError {
    let remedy = match error.is_io() {
        true => "without its audit log a node does not record",
        false => {
            "without its audit log a node does not record: find out who changed it; `harborseal audit verify` shows what holds"
        }
    };
    StartError {
        message: error.to_string(),
        remedy: remedy.to_owned(),
        configuration: false,
    }
}

/// What the customer whose enrolment stays in force is to know.
fn refused_entry(in_force: &Enrolment, why: &Refusal, now_s: u64) -> Entry {
    let fact = Fact::AccessRefused {
        what: "to seal to another key than the enrolled one".to_owned(),
        why: why.to_string(),
    };
    let nonce = Nonce::generate(&mut os_random());
    Entry::concerning(now_s, nonce, fact, [&in_force.audit_salt])
}

fn standing(config: &Config, verdicts: Vec<Verdict>) -> Standing {
    let mut refused = Vec::new();
    let mut unenrolled = 0;
    for (customer, verdict) in verdicts.into_iter().enumerate() {
        match verdict {
            Verdict::Refused(why) => refused.push((customer, why)),
            Verdict::Unenrolled => unenrolled += 1,
            Verdict::InForce | Verdict::First | Verdict::Replaces | Verdict::Entered => {}
        }
    }
    let mut flags = vec![false; config.registry.customers.len()];
    refused.iter().for_each(|(customer, _)| flags[*customer] = true);
    let registry = match refused.is_empty() {
        true => Arc::clone(&config.registry),
        false => Arc::new(Registry::clone(&config.registry).refusing(&flags)),
    };
    Standing {
        registry,
        refused,
        unenrolled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborseal_segment::identity::Identity;
    use harborseal_segment::random::FixedBytes;

    fn identity(seed: u8) -> Identity {
        Identity::generate_p256(&mut FixedBytes(&[seed; 64]))
    }

    fn first(seed: u8) -> Enrolment {
        let signer = identity(seed);
        let text = Enrolment::first(signer.public(), &[], &signer, 1_795_000_000);
        Enrolment::parse(&text).expect("an enrolment")
    }

    fn next(seed: u8, old: &Enrolment, old_seed: u8) -> Enrolment {
        let signer = identity(seed);
        let old = (old, &identity(old_seed));
        let text = Enrolment::next(signer.public(), &[], &signer, 1_795_000_000, old);
        Enrolment::parse(&text).expect("an enrolment")
    }

    fn entered(statement: &Enrolment) -> Entered {
        let nonce = Nonce([5; 16]);
        let fact = Fact::Enrolment {
            pin: Bytes([0; 16]),
            statement: nonce.commitment(&statement.audit_salt, statement.hash()),
            seq: statement.seq,
            recovery: 0,
        };
        Entered {
            ordinal: 0,
            entry: Entry::new(1, nonce, fact),
        }
    }

    #[test]
    fn who_has_no_enrolment_is_recorded_only_where_none_is_asked_for() {
        assert_eq!(judge(None, None, None, false), Verdict::Unenrolled);
        assert_eq!(
            judge(None, None, None, true),
            Verdict::Refused(Refusal::NotEnrolled)
        );
    }

    #[test]
    fn what_is_pinned_is_replaced_by_its_own_key_alone() {
        let (old, mallory) = (first(1), first(9));
        let entry = entered(&old);
        let verdict = |new: Option<&Enrolment>| judge(new, Some(&old), Some(&entry), false);
        assert_eq!(verdict(Some(&old)), Verdict::InForce);
        assert_eq!(verdict(Some(&next(2, &old, 1))), Verdict::Replaces);
        assert_eq!(verdict(None), Verdict::Refused(Refusal::Bare));
        let first = Refusal::Replace(ReplaceError::First { in_force: 1 });
        assert_eq!(verdict(Some(&mallory)), Verdict::Refused(first));
        let forged = Refusal::Replace(ReplaceError::NotSignedByPrevious);
        assert_eq!(verdict(Some(&next(9, &old, 9))), Verdict::Refused(forged));
    }

    #[test]
    fn a_pin_that_is_gone_or_of_before_is_held_against_the_log() {
        let old = first(1);
        let new = next(2, &old, 1);
        let (of_old, of_new) = (entered(&old), entered(&new));
        let gone = Verdict::Refused(Refusal::PinGone);
        assert_eq!(judge(Some(&first(9)), None, Some(&of_old), true), gone);
        assert_eq!(judge(None, None, Some(&of_old), false), gone);
        assert_eq!(
            judge(Some(&old), Some(&old), Some(&of_new), true),
            Verdict::Refused(Refusal::NoEntry)
        );
        assert_eq!(
            judge(Some(&old), Some(&old), None, true),
            Verdict::Refused(Refusal::NoEntry)
        );
    }

    #[test]
    fn a_crash_between_entry_and_pin_is_completed() {
        let old = first(1);
        let new = next(2, &old, 1);
        assert_eq!(
            judge(Some(&old), None, Some(&entered(&old)), true),
            Verdict::Entered
        );
        assert_eq!(
            judge(Some(&new), Some(&old), Some(&entered(&new)), true),
            Verdict::Entered
        );
        assert_eq!(judge(Some(&old), None, None, true), Verdict::First);
    }
}
