//! `/metrics`, `/healthz`, `/readyz`.
//!
//! Healthy: every shard has reported within the last [`SILENCE_MAX`]. Ready: sockets are bound, and nobody has asked to
//! stop.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::ledger::Snapshot;
use crate::metrics::{Process, exposition};
use crate::uring::sys;

/// Shards report several times a second; one that has not for this long is stuck.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet recording.
    Starting,
    /// Recording.
    Ready,
    /// Sealing and closing what is open.
    Stopping,
}

/// What the control thread last heard, for whoever asks over HTTP.
pub struct Board {
    /// Where the process is in its life.
    pub phase: Phase,
    /// The latest snapshot of every shard.
    pub shards: Vec<Snapshot>,
    /// When each was heard of, on the monotonic clock, in nanoseconds.
    pub heard_ns: Vec<u64>,
    /// Lines of the log that were dropped.
    pub lines_lost: u64,
    /// Legal holds in force.
    pub legal_holds: u64,
}

impl Board {
    /// The first shard that has been silent for too long, while recording.
    pub fn silent_shard(&self, now_ns: u64) -> Option<usize> {
        let silent = |heard: &u64| now_ns.saturating_sub(*heard) > SILENCE_MAX.as_nanos() as u64;
        if self.phase == Phase::Ready {
            self.heard_ns.iter().position(silent)
        } else {
            None
        }
    }
}

/// The board, shared between the control thread's tasks. Held for the time of a copy, never across an await.
pub type Shared = Arc<Mutex<Board>>;

/// Locks the board.
pub fn lock(board: &Shared) -> MutexGuard<'_, Board> {
    board.lock().expect("nobody panics while holding the board")
}

/// The routes.
pub fn routes(board: Shared) -> Router {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    routes.with_state(board)
}

async fn metrics(State(board): State<Shared>) -> impl IntoResponse {
    let cost = Process::so_far();
    let text = {
        let board = lock(&board);
        let ready = board.phase == Phase::Ready;
        exposition::render(&board.shards, cost, ready, board.lines_lost)
            + &exposition::legal_holds(board.legal_holds)
    };
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
}

async fn healthz(State(board): State<Shared>) -> (StatusCode, String) {
    match lock(&board).silent_shard(sys::monotonic_ns()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(shard) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("shard {shard} is silent\n"),
        ),
    }
}

async fn readyz(State(board): State<Shared>) -> (StatusCode, &'static str) {
    match lock(&board).phase {
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_shard_is_noticed_while_recording_only() {
        let second = 1_000_000_000;
        let mut board = Board {
            phase: Phase::Ready,
            shards: vec![Snapshot::new(0), Snapshot::new(1)],
            heard_ns: vec![20 * second, 9 * second],
            lines_lost: 0,
            legal_holds: 0,
        };
        assert_eq!(board.silent_shard(19 * second), None);
        assert_eq!(board.silent_shard(20 * second), Some(1));
        for phase in [Phase::Starting, Phase::Stopping] {
            board.phase = phase;
            assert_eq!(board.silent_shard(99 * second), None);
        }
    }
}
