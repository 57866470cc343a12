//! Who this process is: root for as long as it binds sockets, and then somebody who may do less.

use std::io;

use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setresgid, setresuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Protection, undumpable};

/// Why it could not become somebody else, and what mends it.
#[derive(Debug)]
pub struct NotBecome {
    /// What went wrong.
    pub message: String,
    /// What mends it.
    pub remedy: String,
}

/// Becomes the user of this name for good. Nothing happens to who is that user already, as under a supervisor that saw to it.
pub fn become_user(name: &str) -> Result<(), NotBecome> {
    let failed = |what: &str, why: String| NotBecome {
        message: format!("cannot become process.user {name:?}: {what}: {why}"),
        remedy: "start it as root, or leave process.user out".to_owned(),
    };
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        Ok(None) => {
            return Err(NotBecome {
                message: format!("there is no user {name:?}, whom process.user names"),
                remedy: format!("`useradd --system --shell /usr/sbin/nologin {name}`"),
            });
        }
        Err(error) => return Err(failed("looking it up", error.to_string())),
    };
    if geteuid() == user.uid {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(failed("setuid", "only root may".to_owned()));
    }
    keep_locking();
    change(&user).map_err(|error| failed("setuid", error.to_string()))?;
    // The kernel sets it back with each change of user.
    undumpable();
    Ok(())
}

/// Root locks as much memory as it likes; whom it becomes is to keep that. The root of a container may not give it: then locking fails, and
/// says so itself.
fn keep_locking() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        let _ = setrlimit(
            Resource::Memlock,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
}

fn change(user: &User) -> io::Result<()> {
    let name = std::ffi::CString::new(user.name.as_bytes())?;
    initgroups(&name, user.gid)?;
    // Real, effective and saved: there is no way back. It is done in all threads, and there is one.
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, user.uid)?;
    let back = setresuid(user.uid, Uid::from_raw(0), Uid::from_raw(0));
    if !user.uid.is_root() && back.is_ok() {
        return Err(io::Error::other("it could become root again"));
    }
    debug_assert!(Gid::effective() == user.gid, "the group was changed first");
    Ok(())
}

/// Who runs it.
pub fn report() -> Protection {
    let (name, uid) = ("user", geteuid());
    if !uid.is_root() {
        return Protection::holds(name, format!("uid {uid}, not root"));
    }
    Protection::lacks(
        name,
        "root, once it runs too",
        "process.user = \"harborseal\" (and `useradd --system harborseal`), or User= in the unit",
    )
}
