//! Ctrl-C and SIGTERM during an export: noticed between chunks, so that the half-made file is removed.
//!
//! Where the output has no name while it is made, the kernel would remove it anyway; not every file system can do that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::media::Error;

/// Whether the person at the terminal has had enough.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals from here on. If the system refuses, they end the process as ever.
    pub fn catch() -> Interrupt {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&flag);
        // The thread ends with the process: it has nothing to clean up.
        let spawned = thread::Builder::new()
            .name("signals".into())
            .spawn(move || wait(&seen));
        drop(spawned);
        Interrupt(flag)
    }

    /// An error once a signal has come.
    pub fn check(&self) -> Result<(), Error> {
        // Nothing else is ordered by the flag.
        if self.0.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}

fn wait(seen: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
        return;
    };
    runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        seen.store(true, Ordering::Relaxed);
    });
}
