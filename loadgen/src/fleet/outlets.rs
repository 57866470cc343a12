//! Which socket each stream sends from: one per target and packet length for all cameras together, an own one for each camera
//! with an address of its own.

use super::FleetError;
use crate::plan::{Plan, StreamPlan};
use crate::program::Program;
use crate::send::{Ends, OpenError, Rtcp, Sender, any_address};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::HashMap;
use std::net::SocketAddr;

/// Sender reports must not be cut: 28 bytes, and a CNAME of at most 255 with its frame.
const SEGMENT_MIN: usize = 320;
/// Files a run has open beside its sockets: logs, results, a terminal.
const FILES_BESIDE: u64 = 64;

/// Where a stream's packets leave.
#[derive(Debug, Clone, Copy)]
pub struct Outlet {
    pub rtp: u32,
    pub rtcp: u32,
    /// Whether the RTP socket is this stream's alone, since a rebind.
    pub own: bool,
}

/// Opens the sockets of all streams.
pub fn open(plan: &Plan, sender: &mut Sender) -> Result<Vec<Outlet>, FleetError> {
    allow_sockets(plan)?;
    let mut open: HashMap<(Ends, usize), Outlet> = HashMap::new();
    let mut outlets = Vec::with_capacity(plan.streams.len());
    for stream in &plan.streams {
        let key = (ends(plan, stream), segment(plan, stream));
        let outlet = match open.get(&key) {
            Some(outlet) => *outlet,
            None => {
                let outlet = open_one(plan.rtcp, sender, key)?;
                open.insert(key, outlet);
                outlet
            }
        };
        outlets.push(outlet);
    }
    Ok(outlets)
}

fn open_one(rtcp: Rtcp, sender: &mut Sender, (ends, segment): (Ends, usize)) -> Result<Outlet, OpenError> {
    let segment = Some(segment.min(usize::from(u16::MAX)) as u16);
    let (rtp, rtcp) = match rtcp {
        Rtcp::Next => sender.sockets.open_pair(ends, segment)?,
        Rtcp::Same | Rtcp::Off => {
            let socket = sender.sockets.open(ends, segment)?;
            (socket, socket)
        }
    };
    Ok(Outlet {
        rtp,
        rtcp,
        own: false,
    })
}

/// Where a stream sends from and to.
pub fn ends(plan: &Plan, stream: &StreamPlan) -> Ends {
    let to = plan.targets[stream.target as usize];
    let any = || SocketAddr::new(plan.source.unwrap_or_else(|| any_address(to)), 0);
    let from = plan.cameras[stream.camera as usize].address;
    Ends {
        from: from.unwrap_or_else(any),
        to,
    }
}

/// How long packets of a message are, all but the last: a camera's longest, so that none is cut. An own socket serves all streams of
/// its camera; those with shorter packets send them one by one.
fn segment(plan: &Plan, stream: &StreamPlan) -> usize {
    let bytes = |program: u32| {
        plan.programs
            .get(program as usize)
            .map_or(0, |program: &Program| program.segment_bytes)
    };
    let of = |stream: &StreamPlan| {
        let night = stream.night.as_ref().map_or(0, |night| bytes(night.0));
        bytes(stream.program).max(night)
    };
    let longest = match plan.cameras[stream.camera as usize].address {
        None => of(stream),
        Some(_) => {
            // Streams of one camera stand together.
            let at = plan.streams.partition_point(|other| other.camera < stream.camera);
            let own = plan.streams[at..]
                .iter()
                .take_while(|other| other.camera == stream.camera);
            own.map(of).max().unwrap_or(0).max(of(stream))
        }
    };
    longest.max(SEGMENT_MIN)
}

/// Cameras with addresses of their own need a file each (two with RTCP on the next port): the soft limit is raised as far as it goes.
fn allow_sockets(plan: &Plan) -> Result<(), FleetError> {
    let own = plan
        .cameras
        .iter()
        .filter(|camera| camera.address.is_some())
        .count() as u64;
    let sockets = (own + 4 * plan.targets.len() as u64) * if plan.rtcp == Rtcp::Next { 2 } else { 1 };
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(()); // then opening tells
    };
    let wanted = sockets + FILES_BESIDE;
    if wanted <= soft {
        return Ok(());
    }
    let raised = wanted <= hard && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
    raised
        .then_some(())
        .ok_or(FleetError::OpenFiles { sockets, limit: hard })
}
