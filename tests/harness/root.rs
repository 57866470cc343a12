//! Tests that need more than a plain user has: they run as root, and say so where they cannot.

use std::io::Write;

/// True where the test may go on. Otherwise the test is listed as skipped with its reason (`tests/run` prints the
/// list, and lets no skip pass as root) and must return at once.
pub fn have_root(test: &str, reason: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    skip(test, reason);
    false
}

/// Lists a test as skipped.
pub fn skip(test: &str, reason: &str) {
    list("skipped", test, reason);
}

/// Lists a test as not run: what it needs is nothing that `tests/run` could have put there. The one kind of skip that is no failure.
pub fn not_run(test: &str, reason: &str) {
    list("not run", test, reason);
}

fn list(what: &str, test: &str, reason: &str) {
    let line = format!("{what}: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("HARBORSEAL_SKIPS") {
        let mut list = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .expect("tests/run made the list's folder");
        list.write_all(line.as_bytes())
            .expect("the list of skipped tests can be written");
    }
}
