//! What a profile asks of sender and receiver, from the programs it will send.

use super::plan::{programs, shares};
use super::{Profile, StreamKind};
use crate::plan::{CameraPlan, StreamPlan};
use crate::program::Program;

/// A fleet's load with all cameras on, each at the greater of its rates by day and by night.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offered {
    pub cameras: u64,
    pub streams: u64,
    /// Customers that own a camera.
    pub customers: u64,
    /// RTP packets with their headers, without UDP and IP.
    pub mbps: f64,
    pub pps: f64,
    /// Of these, audio's, which cannot be scaled by rate.
    pub audio_mbps: f64,
    pub audio_pps: f64,
    /// The largest share of the cameras that is on at a time.
    pub peak_share: f64,
    /// Packets that leave back to back from one stream, at most.
    pub burst_packets_max: usize,
    /// Packets of the largest frame.
    pub frame_packets_max: usize,
    /// What cameras, streams and programs take in the sender before it begins.
    pub memory_bytes: usize,
}

impl Profile {
    /// Works out the load.
    pub fn offered(&self) -> Offered {
        let (programs, of_groups) = programs(self);
        let mut offered = Offered {
            cameras: self.cameras(),
            streams: self.streams(),
            peak_share: self
                .stages
                .iter()
                .fold(0.0, |peak: f64, stage| peak.max(stage.share.0).max(stage.share.1)),
            ..Offered::default()
        };
        let mut owners = vec![false; self.customers.len()];
        for (group, of_group) in self
            .groups
            .iter()
            .zip(&of_groups)
            .filter(|(group, _)| group.count > 0)
        {
            for ((customer, _), cameras) in group.customers.iter().zip(shares(&group.customers, group.count))
            {
                owners[*customer as usize] |= cameras > 0;
            }
            let slice = |range: &std::ops::Range<u32>| &programs[range.start as usize..range.end as usize];
            let day = mean(slice(&of_group.day));
            let night = of_group
                .night
                .as_ref()
                .map_or((0.0, 0.0), |night| mean(slice(night)));
            let cameras = f64::from(group.count);
            offered.mbps += cameras * day.0.max(night.0);
            offered.pps += cameras * day.1.max(night.1);
            let audio = match (&group.stream, of_group.audio) {
                (StreamKind::Audio, _) => Some(day),
                (_, Some(program)) => Some(mean(&programs[program as usize..=program as usize])),
                _ => None,
            };
            if let Some((mbps, pps)) = audio {
                offered.audio_mbps += cameras * mbps;
                offered.audio_pps += cameras * pps;
                if of_group.audio.is_some() {
                    offered.mbps += cameras * mbps;
                    offered.pps += cameras * pps;
                }
            }
        }
        offered.customers = owners.into_iter().filter(|owns| *owns).count() as u64;
        for program in &programs {
            offered.memory_bytes += program.memory_bytes();
            let mut frame = 0;
            for burst in &program.bursts {
                frame = if burst.starts_frame { 0 } else { frame } + burst.packets.len();
                offered.frame_packets_max = offered.frame_packets_max.max(frame);
                offered.burst_packets_max = offered.burst_packets_max.max(burst.packets.len());
            }
        }
        offered.memory_bytes += offered.cameras as usize * (size_of::<CameraPlan>() + 16)
            + offered.streams as usize * (size_of::<StreamPlan>() + 16);
        offered
    }
}

/// Mean (Mb/s, packets per second) of a stream that sends one of these.
fn mean(programs: &[Program]) -> (f64, f64) {
    let count = programs.len().max(1) as f64;
    programs.iter().fold((0.0, 0.0), |(mbps, pps), program| {
        let per_second = program.packets() as f64 * 1e9 / program.loop_ns as f64;
        (
            mbps + program.bits_per_s() / 1e6 / count,
            pps + per_second / count,
        )
    })
}
