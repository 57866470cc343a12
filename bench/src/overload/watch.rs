//! What happens while it happens: the kernel's drops on the engine's socket and the engine's own counters, twenty times a second.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use harborseal::uring::sys;
use serde::Serialize;

/// The engine may have little of its core, and answers all the same.
const ANSWER_BOUND: Duration = Duration::from_secs(5);

/// One look. Counts are since the engine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Look {
    /// On the monotonic clock.
    pub at_ns: u64,
    /// Single packets, or batches that arrived as one.
    pub kernel_drops: u64,
    pub received: u64,
    pub stored: u64,
    /// By the engine, for any reason.
    pub dropped: u64,
}

/// Takes looks. The engine's counters are as old as 200 ms: so often it publishes them.
pub struct Watch {
    pub listen: SocketAddr,
    pub control: SocketAddr,
}

impl Watch {
    pub fn look(&self) -> anyhow::Result<Look> {
        let table = std::fs::read_to_string("/proc/net/udp").context("reading /proc/net/udp")?;
        let metrics = self.metrics().context("the engine's metrics")?;
        let sum = |name| sum_of(&metrics, name);
        Ok(Look {
            at_ns: sys::monotonic_ns(),
            kernel_drops: drops_of(&table, self.listen.port()),
            received: sum("harborseal_received_packets_total"),
            stored: sum("harborseal_stored_packets_total"),
            dropped: sum("harborseal_dropped_packets_total"),
        })
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let mut connection = TcpStream::connect_timeout(&self.control, ANSWER_BOUND)?;
        connection.set_read_timeout(Some(ANSWER_BOUND))?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.control
        );
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(body.to_owned())
    }
}

/// `sl local_address rem_address st tx:rx … drops`: the last column of the sockets at a port (Linux Documentation/networking/proc_net_udp).
fn drops_of(table: &str, port: u16) -> u64 {
    let drops = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        (u16::from_str_radix(local_port, 16) == Ok(port)).then_some(())?;
        fields.last()?.parse::<u64>().ok()
    };
    table.lines().skip(1).filter_map(drops).sum()
}

/// `name{labels} value` and `name value`, over all labels.
fn sum_of(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then_some(())?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    metrics.lines().filter_map(value).sum::<f64>() as u64
}

/// The looks from one moment to another, both on the monotonic clock: packets per second of a count.
pub fn rate(looks: &[Look], from_ns: u64, to_ns: u64, count: fn(&Look) -> u64) -> Option<f64> {
    let inside = || {
        looks
            .iter()
            .filter(|look| (from_ns..=to_ns).contains(&look.at_ns))
    };
    let (first, last) = (inside().next()?, inside().next_back()?);
    let seconds = (last.at_ns - first.at_ns) as f64 / 1e9;
    (seconds > 0.0).then(|| (count(last) - count(first)) as f64 / seconds)
}

/// How long after `from_ns` something was still lost, in milliseconds: to the first look that shows all that ever was. 0 if nothing was lost
/// after it. At most 200 ms too long, never too short.
pub fn last_loss_ms(looks: &[Look], from_ns: u64) -> f64 {
    let lost = |look: &Look| look.kernel_drops + look.dropped;
    let all = looks.last().map_or(0, lost);
    let complete = looks.iter().find(|look| lost(look) == all);
    complete.map_or(0.0, |look| look.at_ns.saturating_sub(from_ns) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_and_the_engines_metrics_are_added_up() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1: 0100007F:138C 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 17\n\
            2: 0100007F:138C 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 5\n\
            3: 0100007F:138D 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 9\n";
        assert_eq!(drops_of(table, 5004), 22);
        let metrics = "# HELP a_total x\na_total{shard=\"0\"} 5\na_total{shard=\"1\",reason=\"b c\"} 7\na_total_more 100\n";
        assert_eq!(sum_of(metrics, "a_total"), 12);
    }

    #[test]
    fn what_is_lost_after_a_moment_is_told_from_what_was_before() {
        let look = |ms: u64, kernel_drops, dropped| Look {
            at_ns: ms * 1_000_000,
            kernel_drops,
            dropped,
            stored: ms,
            received: ms,
        };
        let looks = [look(0, 0, 0), look(100, 5, 0), look(200, 5, 3), look(300, 5, 3)];
        assert_eq!(last_loss_ms(&looks, 250_000_000), 0.0);
        assert_eq!(last_loss_ms(&looks, 150_000_000), 50.0);
        assert_eq!(last_loss_ms(&[], 5), 0.0);
        assert_eq!(
            rate(&looks, 100_000_000, 300_000_000, |look| look.stored),
            Some(1000.0)
        );
        assert_eq!(rate(&looks, 290_000_000, 300_000_000, |look| look.stored), None);
    }
}
