//! Results as runs leave them, made by code: what the writers, reports and comparisons are tested on.

use super::hlog::{self, Interval};
use crate::camera::mix;
use crate::result::*;
use std::collections::BTreeMap;

/// The packets per second of [`lossy`] with all cameras on.
const RATE: u64 = 833_333;

/// A number in 0..1 that depends on its arguments alone.
pub fn noise(what: u64, index: u64) -> f64 {
    mix(what << 32 ^ index) as f64 / u64::MAX as f64
}

/// Nothing at all.
pub fn empty() -> RunResult {
    RunResult {
        schema: SCHEMA.to_owned(),
        ..Default::default()
    }
}

/// A minute of 4,000 cameras into an engine that lost some, on a network that was made to lose some.
pub fn lossy() -> RunResult {
    let seconds = (0..60).map(lossy_second).collect::<Vec<_>>();
    let sent: u64 = seconds.iter().map(|second| second.sent).sum();
    let lost: u64 = seconds.iter().map(|second| second.impaired_lost).sum();
    let heat = heat(64, 60);
    let heat_lost: u64 = heat.lost.iter().flatten().sum();
    let stored_loss = heat_lost;
    RunResult {
        version: "0.1.0".to_owned(),
        profile: "city".to_owned(),
        settings: vec![
            "streams=4000".to_owned(),
            "duration=60".to_owned(),
            "impair.loss=0.0002".to_owned(),
        ],
        seed: 7,
        started: "2026-11-23T21:00:04Z".to_owned(),
        targets: vec!["127.0.0.1:5004".to_owned(), "127.0.0.1:5006".to_owned()],
        environment: environment(),
        valid: true,
        load: Load {
            cameras: 4000,
            streams: 4000,
            customers: 12,
            mbps_offered: 8000.0,
            seconds: 60.0,
            warm_up_s: 5.0,
            intended: sent + lost,
            sent,
            not_sent: 0,
            sent_bytes: sent * 1200,
            rtcp_sent: 48_000,
            rtcp_not_sent: 0,
            gbps: 7.998,
            packets_per_second: RATE as f64,
            duration_s: 60.02,
            stretch_percent: 0.03,
        },
        sending: sending(),
        impaired: Impaired {
            lost,
            ..Default::default()
        },
        seconds,
        engine: Some(EngineFigures {
            received: sent + 48_000 - stored_loss / 2,
            stored: sent + 48_000 - stored_loss,
            dropped: BTreeMap::from([("pool_empty".to_owned(), stored_loss / 2)]),
            in_flight: 0,
            kernel_drop_batches: 113,
            cpu_ns_per_packet: Some(612.0),
            durable_ms_p50: Some(212.0),
            durable_ms_p99: Some(455.0),
            memory_bytes: Some(611 << 20),
            never_received: (stored_loss - stored_loss / 2) as i64,
        }),
        stored: Some(StoredFigures {
            streams: 4000,
            streams_found: 231,
            expected: sent,
            stored: sent - stored_loss,
            stored_loss,
            rtcp_expected: 48_000,
            rtcp_stored: 48_000,
            lost_by: LostBy {
                generator: 0,
                impairment: lost,
                engine: BTreeMap::from([("pool_empty".to_owned(), stored_loss / 2)]),
                remainder: (stored_loss - stored_loss / 2) as i64,
            },
            longest_gap: 41,
            gaps: 1203,
            arrival_ms: Some(Percentiles {
                p50: 0.21,
                p90: 0.6,
                p99: 2.4,
                p999: 9.8,
                max: 17.3,
            }),
            heat: Some(heat),
            ..Default::default()
        }),
        assertions: vec![
            Assertion {
                text: "stored_loss==0".to_owned(),
                value: Some(stored_loss as f64),
                holds: false,
            },
            Assertion {
                text: "lateness_ms_p99<20".to_owned(),
                value: Some(1.62),
                holds: true,
            },
        ],
        ..empty()
    }
}

fn lossy_second(second: u64) -> Second {
    let ramp = (second as f64 / 5.0).min(1.0);
    let due = (RATE as f64 * ramp) as u64;
    let stall = second == 31 || second == 32;
    let p50 = 0.3 + 0.1 * noise(1, second) + if stall { 6.0 } else { 0.0 };
    let impaired_lost = (due as f64 * 0.0002) as u64;
    let sent = due - impaired_lost;
    let dropped = if (40..44).contains(&second) { 41_000 } else { 0 };
    Second {
        at_s: second as f64,
        warm_up: second < 5,
        due: Some(due),
        sent,
        sent_bytes: sent * 1200,
        not_sent: 0,
        impaired_lost,
        lateness_ms: Percentiles {
            p50,
            p90: p50 * 1.8,
            p99: p50 * 4.0,
            p999: p50 * 7.0,
            max: p50 * 9.0,
        },
        cpu_percent: 8.0 + 71.0 * ramp + 3.0 * noise(2, second),
        received: Some(sent),
        stored: Some(sent - dropped),
        dropped: Some(dropped),
        durable_ms_p50: Some(200.0 + 20.0 * noise(3, second)),
        durable_ms_p99: Some(380.0 + 60.0 * noise(4, second) + if dropped > 0 { 900.0 } else { 0.0 }),
    }
}

fn sending() -> Sending {
    Sending {
        unpaced: false,
        notes: Vec::new(),
        method: "gso".to_owned(),
        lateness_ms: Percentiles {
            p50: 0.35,
            p90: 0.63,
            p99: 1.62,
            p999: 25.1,
            max: 56.9,
        },
        pacing_error_ms: Percentiles {
            p50: 0.11,
            p90: 0.4,
            p99: 1.2,
            p999: 8.0,
            max: 31.0,
        },
        packets_per_message: 6.9,
        packets_per_message_max: 8,
        messages_per_call: 31.5,
        bursts: BTreeMap::from([
            (1, 80_000),
            (2, 120_000),
            (3, 200_000),
            (4, 310_000),
            (5, 402_000),
            (6, 500_000),
            (7, 810_000),
            (8, 4_100_000),
        ]),
        cpu_ns_per_packet: 790.0,
        cpu_percent: 78.9,
        refused: 0,
        errors: BTreeMap::new(),
    }
}

/// Losses in a band of streams around the 40th second, and single ones here and there.
pub fn heat(rows: u32, columns: u32) -> HeatMap {
    let cell = |row: u32, column: u32| {
        let place = u64::from(row * columns + column);
        let band = (40..44).contains(&column) && (10..20).contains(&row);
        match noise(5, place) {
            some if band => 100 + (some * 4000.0) as u64,
            some if some > 0.995 => 1 + (some * 3.0) as u64,
            _ => 0,
        }
    };
    let row = |row: u32| (0..columns).map(|column| cell(row, column)).collect();
    HeatMap {
        rows: (0..rows).map(|row| row * 63).collect(),
        streams_per_row: 63,
        seconds_per_column: 1.0,
        lost: (0..rows).map(row).collect(),
        expected: vec![vec![13_125; columns as usize]; rows as usize],
    }
}

pub fn environment() -> BTreeMap<String, String> {
    [
        ("cpu_model", "AMD EPYC 9B14"),
        ("cpu_flags", "aes avx2 vaes vpclmulqdq"),
        ("cpus", "2"),
        ("governor", "not told"),
        ("kernel", "6.18.5"),
        ("virtual_machine", "yes (hypervisor flag)"),
        ("memory_mib", "24064"),
        ("sysctl_net.core.rmem_max", "212992"),
        ("file_system", "ext4 rw,relatime"),
        ("git_revision", "790dbb5"),
        ("command", "harborseal-loadgen run city -s streams=4000 -s duration=60 -s impair.loss=0.0002 --target 127.0.0.1:5004 -o run1"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// A run of one second, not even a whole one, without engine and segments; late and refused.
pub fn one_second() -> RunResult {
    let mut result = RunResult {
        profile: "clip".to_owned(),
        invalid_because: vec!["packets left late: p99 31.0 ms, the budget is 20 ms".to_owned()],
        stopped: true,
        ..empty()
    };
    result.load.cameras = 1;
    result.load.streams = 1;
    result.load.customers = 1;
    result.load.intended = 61;
    result.load.sent = 60;
    result.load.not_sent = 1;
    result.load.sent_bytes = 72_000;
    result.load.duration_s = 0.4;
    result.sending.lateness_ms.p99 = 31.0;
    result.sending.errors = BTreeMap::from([("ENOBUFS".to_owned(), 1)]);
    result.seconds = vec![Second {
        sent: 60,
        sent_bytes: 72_000,
        not_sent: 1,
        ..Default::default()
    }];
    result
}

/// An hour of 10,000 streams, each with a row of its own in the heat map.
pub fn many_streams() -> RunResult {
    let mut result = lossy();
    result.seconds = (0..3600)
        .map(|second| Second {
            at_s: second as f64,
            ..lossy_second(second % 60)
        })
        .collect();
    result.load.streams = 10_000;
    let rows = 10_000;
    if let Some(stored) = &mut result.stored {
        stored.heat = Some(HeatMap {
            rows: (0..rows).collect(),
            streams_per_row: 1,
            seconds_per_column: 10.0,
            lost: (0..rows)
                .map(|row| {
                    (0..360)
                        .map(|column| u64::from(row * column % 7919 == 1))
                        .collect()
                })
                .collect(),
            expected: vec![vec![2000; 360]; rows as usize],
        });
    }
    result
}

/// An interval log's intervals: one a second, with a stall.
pub fn intervals(seconds: u64, typical_us: u64) -> Vec<Interval> {
    let values = |second: u64| {
        let mut values = hlog::histogram();
        for index in 0..2000 {
            let share = noise(6, second * 2000 + index);
            let slow = if second == 31 { 12.0 } else { 1.0 };
            // A long tail: the reciprocal of what is left to 1.
            let value = typical_us as f64 * slow * (0.5 + 0.3 / (1.0005 - share).sqrt());
            values.saturating_record(value as u64);
        }
        values
    };
    let interval = |second| Interval {
        at_s: second as f64,
        length_s: 1.0,
        values: values(second),
    };
    (0..seconds).map(interval).collect()
}
