//! A group's faults: `impair` and `junk`, each key with its range.

use super::document::{Node, ProfileError, Value};
use super::section::{Section, whole};
use crate::plan::{GilbertElliott, Impairments, Junk};
use std::ops::RangeInclusive;

const JUNK_KEYS: [&str; 2] = ["per_second", "bytes"];
const IMPAIR_KEYS: [&str; 14] = [
    "loss",
    "bursts",
    "reorder",
    "reorder_depth",
    "duplicate",
    "jitter",
    "corrupt",
    "truncate",
    "clock_ppm",
    "restart_every",
    "sequence_jump_every",
    "timestamp_jump_every",
    "payload_type_every",
    "rebind_every",
];
const BURSTS_KEYS: [&str; 4] = ["to_bad", "to_good", "loss_good", "loss_bad"];
/// Less often than a hundred times a second and stream; everything else would be no event but a state.
const EVERY: RangeInclusive<f64> = 0.01..=86_400.0;

/// What is done to a group's packets.
pub fn impair(section: &Section<'_>) -> Result<Impairments, ProfileError> {
    let path = format!("{}.impair", section.path);
    let Some(impair) = section.table("impair", &path)? else {
        return Ok(Impairments::default());
    };
    impair.refuse_unknown(&IMPAIR_KEYS)?;
    let share = |key| Ok::<f64, ProfileError>(impair.share(key)?.unwrap_or(0.0));
    let every = |key| Ok::<u64, ProfileError>(impair.duration_ns(key, EVERY)?.unwrap_or(0));
    let reorder = share("reorder")?;
    let depth = impair.whole("reorder_depth", 1..=1000)?;
    if depth.is_some() && reorder == 0.0 {
        return Err(impair.error_at(
            "reorder_depth",
            "says how far packets go, but reorder, how many, is missing",
        ));
    }
    Ok(Impairments {
        loss: share("loss")?,
        bursts: gilbert_elliott(&impair)?,
        reorder,
        reorder_depth: depth.map_or(if reorder > 0.0 { 3 } else { 0 }, |depth| depth as u32),
        duplicate: share("duplicate")?,
        jitter_ns: impair.duration_ns("jitter", 0.0..=10.0)?.unwrap_or(0),
        corrupt: share("corrupt")?,
        truncate: share("truncate")?,
        clock_ppm: impair.number("clock_ppm", -100_000.0..=100_000.0)?.unwrap_or(0.0),
        restart_every_ns: every("restart_every")?,
        sequence_jump_every_ns: every("sequence_jump_every")?,
        timestamp_jump_every_ns: every("timestamp_jump_every")?,
        payload_type_every_ns: every("payload_type_every")?,
        rebind_every_ns: every("rebind_every")?,
    })
}

fn gilbert_elliott(impair: &Section<'_>) -> Result<Option<GilbertElliott>, ProfileError> {
    let path = format!("{}.bursts", impair.path);
    let Some(bursts) = impair.table("bursts", &path)? else {
        return Ok(None);
    };
    bursts.refuse_unknown(&BURSTS_KEYS)?;
    let (to_bad, to_good) = (bursts.share("to_bad")?, bursts.share("to_good")?);
    let Some((to_bad, to_good)) = to_bad.zip(to_good) else {
        return Err(bursts.error_here(format!(
            "{path} needs to_bad and to_good: the chances to change state"
        )));
    };
    Ok(Some(GilbertElliott {
        to_bad,
        to_good,
        loss_good: bursts.share("loss_good")?.unwrap_or(0.0),
        loss_bad: bursts.share("loss_bad")?.unwrap_or(1.0),
    }))
}

/// What a group sends that is no RTP.
pub fn junk(section: &Section<'_>) -> Result<Option<Junk>, ProfileError> {
    let path = format!("{}.junk", section.path);
    let Some(junk) = section.table("junk", &path)? else {
        return Ok(None);
    };
    junk.refuse_unknown(&JUNK_KEYS)?;
    let Some(per_second) = junk.number("per_second", 0.001..=1e6)? else {
        return Err(junk.error_here(format!("{path}.per_second is missing: how many datagrams")));
    };
    let wanted = "a size from 1 to 1472, or the least and the most: [1, 1200]";
    let size = |node: &Node| whole(node, &(1..=1472)).map(|size| size as u16);
    let bytes = junk.read("bytes", wanted, |node| match &node.value {
        Value::List(ends) if ends.len() == 2 => {
            let both = size(&ends[0]).zip(size(&ends[1]));
            both.filter(|(least, most)| least <= most)
        }
        _ => size(node).map(|size| (size, size)),
    })?;
    Ok(Some(Junk {
        per_second,
        bytes: bytes.unwrap_or((1, 1200)),
    }))
}
