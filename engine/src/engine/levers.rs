//! What may be asked of a running engine: another configuration, segments under other keys, and to stop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::enrolment::{Enroller, Standing};
use super::retention_of;
use crate::audit::Fact;
use crate::audit::entry::Bytes;
use crate::config::Config;
use crate::log::catalog::Retention;
use crate::shard::Command;
use crate::stream::registry::Registry;
use crate::uring::sys::Waker;

/// What may be asked of a running engine, from any thread.
#[derive(Clone)]
pub struct Levers {
    pub(super) shards: Vec<(Sender<Command>, Waker)>,
    pub(super) retention: Arc<Mutex<Retention>>,
    pub(super) enroller: Arc<Enroller>,
    /// What the shards were told last.
    pub(super) registry: Arc<Mutex<Arc<Registry>>>,
}

/// What became of a reload.
pub struct Reloaded {
    /// Whether every shard got there in time.
    pub in_force: bool,
    /// What an operator should know of it. One line each.
    pub notes: Vec<String>,
}

impl Levers {
    /// Puts another configuration's customers, cameras and retention in force: the former with each shard's next segment, which
    /// begins as soon as it is ready. Waits for that; not [in force](Reloaded::in_force) if some shard has not got there within `patience`, because its disk
    /// does not take a new segment. An error, and nothing changed, if it would seal for an enrolled customer to a key that this one did not
    /// sign for, or if the audit log cannot be written.
    pub fn reload(&self, config: &Config, patience: Duration) -> Result<Reloaded, String> {
        let event = Fact::ConfigurationChange {
            configuration: Bytes(config.digest),
            require_enrolment: config.require_enrolment,
        };
        let no_swap = |standing: &Standing| !standing.refused.iter().any(|(_, why)| why.is_a_swap());
        let settled = self.enroller.settle(config, event, no_swap);
        let standing = settled
            .map_err(|error| error.to_string())?
            .map_err(|standing| standing.refusals())?;
        *self
            .retention
            .lock()
            .expect("nobody panics while holding a copy's lock") = retention_of(config);
        let waiting = self.put_in_force(|_| Arc::clone(&standing.registry));
        // Nothing is ever sent: the channel ends when the last shard has dropped its end.
        Ok(Reloaded {
            in_force: waiting.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected),
            notes: standing.notes(),
        })
    }

    /// Begins a new segment on each shard as soon as it is ready, under keys drawn from now on, and throws away what was prepared under older
    /// ones: some of those were destroyed.
    pub fn renew_keys(&self) {
        // To a shard, another registry is another configuration, even if it says the same.
        self.put_in_force(|registry| Arc::new(Registry::clone(registry)));
    }

    /// Tells every shard of another registry. What comes back ends when the last of them has begun a segment with it.
    fn put_in_force(&self, next: impl FnOnce(&Registry) -> Arc<Registry>) -> Receiver<()> {
        let (in_force, waiting) = bounded::<()>(0);
        let mut registry = self
            .registry
            .lock()
            .expect("nobody panics while holding a copy's lock");
        // Told under the lock, so that all shards hear of two in the same order.
        *registry = next(&registry);
        self.tell_all(|| Command::Reload(Arc::clone(&registry), in_force.clone()));
        waiting
    }

    /// Asks every shard to stop receiving, make everything durable and end.
    pub fn stop(&self) {
        self.tell_all(|| Command::Stop);
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for (commands, waker) in &self.shards {
            // A shard that has ended needs no telling.
            let _ = commands.send(command());
            waker.wake();
        }
    }
}
