//! systemd's notify protocol (sd_notify(3)): ready, reloading, stopping, status, watchdog.
//!
//! Without systemd (`NOTIFY_SOCKET` not set) nothing happens. A message that cannot be sent is dropped: systemd then acts on
//! its time-outs, and there is nobody else to tell.

use std::time::Duration;

use sd_notify::NotifyState;

fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Recording, or recording again after a reload.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again. With the time, as `Type=notify-reload` wants it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// Sealing and closing what is open.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// Still well.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that; `None` if it does not.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
