//! `harborseal keygen`: makes a customer's identity, or shows the public key of one.
//!
//! An identity file is all that opens a customer's footage. It is written once, for its owner's eyes only, and never
//! over another; what could not be written whole is removed again.

use std::path::{Path, PathBuf};

use harborseal_segment::identity::Identity;
use harborseal_segment::random::os_random;
use serde::Serialize;

use super::identities::{self, Unlock};
use super::output::{self, Output, people};
use super::{CliError, ExitStatus, fresh};

/// The arguments of `harborseal keygen`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The identity is the only key to the footage sealed for it: who has the file can watch, who loses it
cannot. Keep it away from the machine that records, and keep a copy. The recording machine gets the
public key, as `public_key` of a [[customer]] in its configuration.

Examples:
  harborseal keygen -o alice.identity
  harborseal keygen --passphrase -o alice.identity
  harborseal keygen --public alice.identity")]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Args {
    /// Make a new identity in FILE (mode 0600; an existing file is never overwritten)
    #[arg(short, long, value_name = "FILE", group = "what")]
    output: Option<PathBuf>,

    /// Make its key for P-256, which cards, HSMs and key services hold; it does not withstand a quantum computer
    #[arg(long, requires = "output")]
    p256: bool,

    /// Put it under a passphrase, which is asked for on the terminal, or read as the options below say
    #[arg(long, requires = "output")]
    passphrase: bool,

    /// Print the public key of the identity in FILE
    #[arg(long, value_name = "FILE", group = "what")]
    public: Option<PathBuf>,

    #[command(flatten)]
    unlock: Unlock,

    #[command(flatten)]
    print: Output,
}

#[derive(Serialize)]
struct Keys<'a> {
    identity: &'a str,
    public_key: &'a str,
}

/// Runs the command. The public key stands alone on the last line of stdout, or in the object that `--json` prints.
pub fn run(args: Args) -> Result<ExitStatus, CliError> {
    let (path, identity) = match (&args.output, &args.public) {
        (Some(path), _) => (path, make(path, &args)?),
        (_, Some(path)) => (path, identities::whole(path, &args.unlock)?),
        _ => return Err(CliError::usage("keygen needs -o FILE or --public FILE")),
    };
    let public_key = identity.public().to_text();
    if args.output.is_some() {
        people(format_args!(
            "{}: a new identity. Keep it secret, and keep a copy; its public key:",
            path.display()
        ));
    }
    if args.print.json {
        output::json(&Keys {
            identity: &path.to_string_lossy(),
            public_key: &public_key,
        })?;
    } else {
        output::data(public_key)?;
    }
    Ok(ExitStatus::Ok)
}

/// Reads an identity file; asks the terminal where it has a passphrase.
pub fn read(path: &Path) -> Result<Identity, CliError> {
    identities::whole(path, &Unlock::default())
}

fn make(path: &Path, args: &Args) -> Result<Identity, CliError> {
    let passphrase = match args.passphrase {
        true => Some(identities::new_passphrase(&args.unlock)?),
        false => None,
    };
    let identity = match args.p256 {
        true => Identity::generate_p256(&mut os_random()),
        false => Identity::generate(&mut os_random()),
    };
    let mut text = identity.to_file_text();
    if let Some(passphrase) = passphrase {
        text = identities::protect(&text, &passphrase, &mut os_random());
    }
    fresh::write(path, text.as_bytes())?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborseal_segment::identity::{KEM_P256, KEM_X_WING};
    use std::os::unix::fs::PermissionsExt;

    fn keygen(path: &Path) -> Result<ExitStatus, CliError> {
        keygen_with(path, false)
    }

    fn keygen_with(path: &Path, p256: bool) -> Result<ExitStatus, CliError> {
        run(Args {
            output: Some(path.to_owned()),
            p256,
            passphrase: false,
            public: None,
            unlock: Unlock::default(),
            print: Output::default(),
        })
    }

    #[test]
    fn an_identity_is_private_and_reads_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alice.identity");
        assert_eq!(keygen(&path), Ok(ExitStatus::Ok));
        assert_eq!(
            path.metadata().expect("made").permissions().mode() & 0o7777,
            0o600
        );
        let text = std::fs::read_to_string(&path).expect("text");
        let read = read(&path).expect("an identity");
        assert!(text.contains(&read.public().to_text()));
    }

    #[test]
    fn an_identity_is_for_the_kem_that_was_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        for (p256, kem) in [(false, KEM_X_WING), (true, KEM_P256)] {
            let path = folder.path().join(kem.to_string());
            assert_eq!(keygen_with(&path, p256), Ok(ExitStatus::Ok));
            assert_eq!(read(&path).expect("an identity").public().kem_id(), kem);
        }
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alice.identity");
        std::fs::write(&path, "precious").expect("written");
        let error = keygen(&path).expect_err("it is there");
        assert_eq!(error.status(), ExitStatus::Io);
        assert!(error.to_string().contains("never overwrites"), "{error}");
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).expect("linked");
        assert!(keygen(&link).is_err());
        assert!(
            !folder.path().join("nowhere").exists(),
            "a dangling link is not followed"
        );
    }

    #[test]
    fn what_is_no_identity_is_refused_without_repeating_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        for content in [&b"hello, world"[..], b"", &[0xFF; 100], &[b'a'; 100_000]] {
            std::fs::write(&path, content).expect("written");
            let error = read(&path).err().expect("refused");
            assert_eq!(error.status(), ExitStatus::Usage);
            assert!(!error.to_string().contains("hello"), "{error}");
        }
        assert_eq!(
            read(folder.path()).err().map(|e| e.status()),
            Some(ExitStatus::Io)
        );
        assert_eq!(
            read(&folder.path().join("none")).err().map(|e| e.status()),
            Some(ExitStatus::Io)
        );
    }
}
