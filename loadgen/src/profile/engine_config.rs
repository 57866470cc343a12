//! The engine's configuration for a fleet: what it needs to know to record all that is known of a plan, and nothing of the rest.
//!
//! Pure text; whoever writes it into files makes the customers' keys.

use super::{Profile, StreamKind};
use crate::clip::Clip;
use crate::plan::{CameraPlan, Plan, StreamPlan};
use crate::sdp::{Picture, Track, describe};
use crate::send::Rtcp;
use std::fmt::Write;
use std::net::IpAddr;

/// First line of what we write: a file that begins so may be written again.
pub const ENGINE_CONFIG_MARK: &str = "# Written by `harborseal-loadgen profile engine-config`";

/// What a stream takes of the engine's memory: its chunk of 64 KiB and half as much on its way to the disk
/// (config/engine.toml, memory.limit).
const STREAM_KIB: u64 = 96;
/// The engine itself, one shard, and receive buffers.
const ENGINE_MIB: u64 = 128;
/// Input that waits for a disk that is slow for a moment.
const DISK_PAUSE_S: f64 = 0.1;
/// So that limits are round.
const LIMIT_STEP_MIB: u64 = 64;

/// What the configuration says beside the fleet.
pub struct EngineConfig<'a> {
    pub profile: &'a Profile,
    pub plan: &'a Plan,
    pub data_dir: &'a str,
    pub cpus: &'a [usize],
    /// The customers' public keys, in the plan's order.
    pub public_keys: &'a [String],
    /// Where cameras without an address of their own send from, for each target.
    pub sources: &'a [IpAddr],
}

impl EngineConfig<'_> {
    /// The text of engine.toml.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "{ENGINE_CONFIG_MARK} from profile {}, seed {}. config/engine.toml explains every key.\n\
             data_dir = {:?}\n\
             require_enrolment = false   # test footage: nobody signed for its keys\n\n\
             [listen]\nrtp = {:?}\nrtcp = \"{}\"\n\n\
             [shards]\ncpus = {:?}\n\n\
             [memory]\nlimit = \"{}MiB\"\nallow_unlocked = true   # test footage: nobody is harmed if it is swapped\n",
            self.plan.name,
            self.plan.seed,
            self.data_dir,
            self.plan
                .targets
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            if self.plan.rtcp == Rtcp::Next {
                "both"
            } else {
                "same"
            },
            self.cpus,
            self.memory_mib(),
        );
        for (name, key) in self.plan.customers.iter().zip(self.public_keys) {
            write!(text, "\n[[customer]]\nname = {name:?}\npublic_key = {key:?}\n")
                .expect("a String takes any text");
        }
        let clip = Clip::builtin();
        let mut streams = self.plan.streams.as_slice();
        for (index, camera) in (0..).zip(&self.plan.cameras) {
            let count = streams.iter().take_while(|stream| stream.camera == index).count();
            let (own, rest) = streams.split_at(count);
            streams = rest;
            if !self.plan.groups[camera.group as usize].unknown {
                self.camera(camera, own, &clip, &mut text);
            }
        }
        text
    }

    fn memory_mib(&self) -> u64 {
        let offered = self.profile.offered();
        let waiting_mib = (offered.mbps / 8.0 * DISK_PAUSE_S) as u64;
        let streams_mib = offered.streams * STREAM_KIB / 1024;
        (ENGINE_MIB + streams_mib + waiting_mib).next_multiple_of(LIMIT_STEP_MIB)
    }

    fn camera(&self, camera: &CameraPlan, streams: &[StreamPlan], clip: &Clip, text: &mut String) {
        let target = streams.first().map_or(0, |stream| stream.target) as usize;
        let tracks: Vec<Track<'_>> = streams
            .iter()
            .map(|stream| self.track(camera, stream, clip))
            .collect();
        // Inline: to make thousands of small files can take seconds.
        let sdp = describe(&camera.id, &tracks, self.plan.targets[target]).replace("\r\n", "\\r\\n");
        let known_by = match camera.address {
            Some(address) => format!("source = \"{address}\""),
            None => {
                let ssrcs: Vec<u32> = streams.iter().map(|stream| stream.ssrc).collect();
                format!("source = \"{}\"\nssrc = {ssrcs:?}", self.sources[target])
            }
        };
        let customer = &self.plan.customers[camera.customer as usize];
        write!(
            text,
            "\n[[camera]]\nid = {:?}\ncustomer = {customer:?}\n{known_by}\nsdp = \"{sdp}\"\n",
            camera.id
        )
        .expect("a String takes any text");
    }

    fn track<'c>(&self, camera: &CameraPlan, stream: &StreamPlan, clip: &'c Clip) -> Track<'c> {
        let group = &self.profile.groups[camera.group as usize];
        let video = match &group.stream {
            StreamKind::Video(video) if video.media == stream.media => Some(video),
            _ => None,
        };
        Track {
            media: stream.media,
            payload_type: stream.payload_type,
            clock_rate: stream.clock_rate,
            // A camera known by its address may change its SSRC.
            ssrc: camera.address.is_none().then_some(stream.ssrc),
            picture: video.map(|video| Picture {
                fps: video.frames.fps,
                width: video.width,
                height: video.height,
            }),
            parameter_sets: video.filter(|video| video.clip).map(|_| clip.parameter_sets()),
        }
    }
}
