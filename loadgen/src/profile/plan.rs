//! A profile made into a [`Plan`]: every camera, its customer, address, streams, phase and windows, all from the seed.

use super::document::ProfileError;
use super::{GroupProfile, Phase, Profile, StreamKind, load};
use crate::camera::mix;
use crate::clip::Clip;
use crate::filler::Filler;
use crate::frames::{FrameModel, Random};
use crate::plan::{CameraPlan, Group, Media, Plan, StreamPlan};
use crate::program::{Bursting, PACKET_BYTES, Program};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Programs of one kind of stream: cameras of a group do not all have the same frames at the same time, and eight loops
/// already make that rare.
const VARIANTS: usize = 8;
/// Odd, so that index × step meets every 32-bit value once: SSRCs never collide, and neighbours differ in their low bits,
/// by which receivers spread streams over shards (Knuth's multiplicative constant, TAOCP 3 §6.4).
const GOLDEN: u32 = 0x9e37_79b1;
/// Dynamic payload types (RFC 3551 §6), bound by the SDP; PCMU has the static 0.
const PAYLOAD_TYPE_VIDEO: u8 = 96;
const PAYLOAD_TYPE_PCMU: u8 = 0;

/// The programs of one group, as indices into the plan's.
pub(super) struct GroupPrograms {
    pub day: Range<u32>,
    /// As many as by day.
    pub night: Option<Range<u32>>,
    pub audio: Option<u32>,
}

impl Plan {
    /// Decides a whole run to these targets, over which the cameras are dealt out.
    pub fn from_profile(profile: &Profile, targets: Vec<SocketAddr>) -> Result<Plan, ProfileError> {
        check_addresses(profile, &targets)?;
        let (programs, of_groups) = programs(profile);
        let mut plan = Plan {
            name: profile.name.clone(),
            seed: profile.seed,
            run: mix(profile.seed ^ 0x6d61_726b),
            targets,
            source: profile.source,
            customers: profile.customers.clone(),
            groups: profile.groups.iter().map(group).collect(),
            cameras: Vec::with_capacity(profile.cameras() as usize),
            streams: Vec::with_capacity(profile.streams() as usize),
            programs,
            stages: profile.stages.clone(),
            warm_up_ns: profile.warm_up_ns,
            rtcp: profile.rtcp,
            report_ns: profile.report_ns,
            burst_packets: profile.burst,
            lateness_budget_ms: profile.lateness_budget_ms,
        };
        let ranks = ranks(profile.cameras() as usize);
        let mut addresses = Addresses::new(profile.addresses);
        for (at, (kind, programs)) in (0..).zip(profile.groups.iter().zip(&of_groups)) {
            let customers = deal(&kind.customers, kind.count);
            for (index, customer) in (0..kind.count).zip(customers) {
                let camera = plan.cameras.len() as u32;
                plan.cameras.push(CameraPlan {
                    id: format!("{}-{index:05}", kind.name),
                    customer,
                    group: at,
                    address: kind.by_address.then(|| addresses.next()),
                });
                let windows = load::windows(&profile.stages, ranks[camera as usize]);
                plan.add_streams(kind, programs, camera, index, &windows);
            }
        }
        Ok(plan)
    }

    fn add_streams(
        &mut self,
        kind: &GroupProfile,
        programs: &GroupPrograms,
        camera: u32,
        index: u32,
        windows: &[Range<u64>],
    ) {
        let variant = index % programs.day.len().max(1) as u32;
        let (media, night) = match &kind.stream {
            StreamKind::Video(video) => {
                let windows = video.night.as_ref().map(|night| night.windows.clone());
                let program = programs.night.as_ref().map(|night| night.start + variant);
                (video.media, program.zip(windows))
            }
            StreamKind::Audio => (Media::Pcmu, None),
        };
        self.add_stream(
            kind,
            media,
            camera,
            index,
            programs.day.start + variant,
            night,
            windows,
        );
        if let Some(program) = programs.audio {
            self.add_stream(kind, Media::Pcmu, camera, index, program, None, windows);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one stream is all of this, and there is one caller"
    )]
    fn add_stream(
        &mut self,
        kind: &GroupProfile,
        media: Media,
        camera: u32,
        index: u32,
        program: u32,
        night: Option<(u32, Vec<Range<u64>>)>,
        windows: &[Range<u64>],
    ) {
        let slot = self.slot(camera, index);
        let mut random = Random::new(self.seed ^ u64::from(slot).rotate_left(32));
        let (first_sequence, first_timestamp) = (random.next() as u16, random.next() as u32);
        let share = match kind.phase {
            Phase::Aligned => 0.0,
            Phase::Spread => f64::from(index.wrapping_mul(GOLDEN)) / 2f64.powi(32),
            Phase::Random => random.share(),
        };
        let aligned = kind.phase == Phase::Aligned;
        let (entry, on) = begin(&self.programs[program as usize], share, aligned, windows);
        let payload_type = match media {
            Media::Pcmu => PAYLOAD_TYPE_PCMU,
            Media::H264 | Media::H265 => PAYLOAD_TYPE_VIDEO,
        };
        self.streams.push(StreamPlan {
            camera,
            media,
            ssrc: (mix(self.seed) as u32).wrapping_add(slot.wrapping_mul(GOLDEN)),
            payload_type,
            clock_rate: if media == Media::Pcmu { 8_000 } else { 90_000 },
            first_sequence,
            first_timestamp,
            target: camera % self.targets.len() as u32,
            program,
            entry,
            night,
            on,
        });
    }
}

/// A million cameras have indices of 20 bits; one bit says which of a camera's two streams it is; 11 are left for the group.
const INDEX_BITS: u32 = 20;
const GROUPS_WITH_SLOTS: usize = 1 << (32 - INDEX_BITS - 1);
const _: () = assert!(super::read::CAMERAS_MAX <= 1 << INDEX_BITS);

impl Plan {
    /// What makes the next stream, of a camera of this index in its group, one of its own: no other has it, and in a fleet
    /// of another size the same camera's stream has the same. (With thousands of groups only the first holds.)
    fn slot(&self, camera: u32, index: u32) -> u32 {
        let group = self.cameras[camera as usize].group;
        let second = self.streams.last().is_some_and(|stream| stream.camera == camera);
        match self.groups.len() <= GROUPS_WITH_SLOTS {
            true => group << (INDEX_BITS + 1) | u32::from(second) << INDEX_BITS | index,
            false => self.streams.len() as u32,
        }
    }
}

/// Where in its program a stream begins that stands at `share` of its loop when the run begins, and its windows, each
/// beginning with a frame. What may begin only at key frames begins up to one interval of them later, but at most half of
/// its window.
fn begin(program: &Program, share: f64, aligned: bool, windows: &[Range<u64>]) -> (u32, Vec<Range<u64>>) {
    let key_ns = program.key_interval_ns();
    let entries = &program.entries;
    let any_frame = entries.iter().any(|entry| !entry.key) || key_ns < MILLISECONDS_100;
    let (entry, delay_ns) = if aligned {
        (0, 0)
    } else if any_frame {
        let at_ns = (share * program.loop_ns as f64) as u64;
        let next = entries.partition_point(|entry| entry.at_ns < at_ns);
        let next_ns = entries.get(next).map_or(program.loop_ns, |entry| entry.at_ns);
        (next % entries.len(), next_ns - at_ns)
    } else {
        let scaled = share * entries.len() as f64;
        (
            scaled as usize % entries.len(),
            (scaled.fract() * key_ns as f64) as u64,
        )
    };
    let begins = |window: &Range<u64>| match aligned {
        true => window.start.next_multiple_of(key_ns.max(1)),
        false => window.start + delay_ns.min((window.end - window.start) / 2),
    };
    let on = windows.iter().map(|window| begins(window)..window.end);
    (entry as u32, on.filter(|window| !window.is_empty()).collect())
}

/// Key frames closer together than this are any frames: audio, and video of I-frames only.
const MILLISECONDS_100: u64 = 100_000_000;

fn group(kind: &GroupProfile) -> Group {
    Group {
        name: kind.name.clone(),
        unknown: kind.unknown,
        by_address: kind.by_address,
        impair: kind.impair,
        junk: kind.junk,
    }
}

/// The programs of all groups, and which are whose. Groups without cameras have none.
pub(super) fn programs(profile: &Profile) -> (Vec<Program>, Vec<GroupPrograms>) {
    let mut fillers: Vec<(Media, usize, Filler)> = Vec::new();
    let mut programs = Vec::new();
    let mut audio = None;
    let mut of_groups = Vec::with_capacity(profile.groups.len());
    for (at, kind) in (0u64..).zip(&profile.groups) {
        let variants = VARIANTS.min(kind.count as usize);
        let first = programs.len() as u32;
        let mut one_kind = GroupPrograms {
            day: first..first,
            night: None,
            audio: None,
        };
        if kind.count > 0 && (kind.audio || kind.stream == StreamKind::Audio) {
            one_kind.audio = Some(*audio.get_or_insert_with(|| {
                programs.push(Program::pcmu(&Filler::new(Media::Pcmu, PACKET_BYTES)));
                programs.len() as u32 - 1
            }));
        }
        match &kind.stream {
            StreamKind::Audio => {
                one_kind.day = one_kind.audio.take().map_or(0..0, |program| program..program + 1);
            }
            StreamKind::Video(video) => {
                let bursting = Bursting {
                    pacing: kind.pacing,
                    packets: profile.burst,
                };
                let key = (video.media, video.packet_bytes);
                if !video.clip && !fillers.iter().any(|(media, bytes, _)| (*media, *bytes) == key) {
                    fillers.push((key.0, key.1, Filler::new(key.0, key.1)));
                }
                let filler = fillers.iter().find(|(media, bytes, _)| (*media, *bytes) == key);
                let mut add = |model: &FrameModel, salt: u64| {
                    let first = programs.len() as u32;
                    if video.clip {
                        let count = usize::from(kind.count > 0);
                        let clip = Clip::builtin();
                        programs.extend(
                            (0..count).map(|_| Program::new(&clip, model.mbps, kind.pacing, profile.burst)),
                        );
                    } else if let Some((_, packet_bytes, filler)) = filler {
                        programs.extend((0..variants as u64).map(|variant| {
                            let seed = mix(profile.seed ^ at << 48 ^ salt << 32 ^ variant);
                            Program::filler(model, filler, *packet_bytes, seed, bursting)
                        }));
                    }
                    first..programs.len() as u32
                };
                one_kind.day = add(&video.by_day(), 0);
                one_kind.night = video.by_night().map(|model| add(&model, 1));
            }
        }
        of_groups.push(one_kind);
    }
    (programs, of_groups)
}

/// Each camera's place among all, 0 to 1: any share of them is the same share of every group, and to a camera.
fn ranks(count: usize) -> Vec<f64> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.sort_unstable_by_key(|camera| camera.wrapping_mul(GOLDEN));
    let mut ranks = vec![0.0; count];
    for (place, camera) in order.into_iter().enumerate() {
        ranks[camera as usize] = (place as f64 + 0.5) / count as f64;
    }
    ranks
}

/// How many of `count` cameras each customer gets.
pub(super) fn shares(weights: &[(u32, u32)], count: u32) -> Vec<u32> {
    let mut counts = vec![0; weights.len()];
    turns(weights)
        .take(count as usize)
        .for_each(|turn| counts[turn] += 1);
    counts
}

/// Deals `count` cameras out to customers by weight.
fn deal(weights: &[(u32, u32)], count: u32) -> Vec<u32> {
    let customers = turns(weights).map(|turn| weights[turn].0);
    customers.take(count as usize).collect()
}

/// Whose turn it is, for ever: each customer's cameras stand at even distances on one line, and are taken in its order
/// (Sainte-Laguë's divisors). So a camera is the same customer's in a fleet of any size: one configuration of the engine
/// fits all loads of a search.
fn turns(weights: &[(u32, u32)]) -> impl Iterator<Item = usize> {
    let place = |taken: u64, weight: u32| ((2 * taken + 1) << 32) / u64::from(weight.max(1));
    let weights: Vec<u32> = weights.iter().map(|(_, weight)| *weight).collect();
    let first = weights
        .iter()
        .enumerate()
        .map(|(turn, weight)| Reverse((place(0, *weight), turn, 0u64)));
    let mut line: BinaryHeap<_> = first.collect();
    std::iter::from_fn(move || {
        let Reverse((_, turn, taken)) = line.pop()?;
        line.push(Reverse((place(taken + 1, weights[turn]), turn, taken + 1)));
        Some(turn)
    })
}

/// Addresses of cameras that have one of their own: ports two apart (RTCP has the one above), then the next address.
struct Addresses {
    first_port: u16,
    next: SocketAddr,
}

impl Addresses {
    fn new(first: SocketAddr) -> Addresses {
        Addresses {
            first_port: first.port(),
            next: first,
        }
    }

    fn next(&mut self) -> SocketAddr {
        let this = self.next;
        match this.port().checked_add(2) {
            Some(port) => self.next.set_port(port),
            None => {
                self.next.set_port(self.first_port);
                self.next.set_ip(match this.ip() {
                    IpAddr::V4(ip) => IpAddr::V4((ip.to_bits().wrapping_add(1)).into()),
                    IpAddr::V6(ip) => IpAddr::V6((ip.to_bits().wrapping_add(1)).into()),
                });
            }
        }
        this
    }
}

fn check_addresses(profile: &Profile, targets: &[SocketAddr]) -> Result<(), ProfileError> {
    if targets.is_empty() {
        return Err(profile.error("no target to send to: --target IP:PORT"));
    }
    let by_address = profile
        .groups
        .iter()
        .find(|group| group.by_address && group.count > 0);
    for target in targets {
        if target.port() == 0 {
            return Err(profile.error(format!("{target} is no target: port 0")));
        }
        let differs = |ip: IpAddr| ip.is_ipv4() != target.is_ipv4();
        if let Some(source) = profile.source.filter(|source| differs(*source)) {
            let what = "are of different address families";
            return Err(profile.error(format!("source {source} and target {target} {what}")));
        }
        if let Some(group) = by_address.filter(|_| differs(profile.addresses.ip())) {
            return Err(profile.error(format!(
                "the cameras of group {} send from {} on, and target {target} is of another address family: \
                 set addresses",
                group.name, profile.addresses
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn cameras_are_dealt_by_weight_to_a_camera_and_evenly_along_the_way() {
        let dealt = deal(&[(0, 3), (4, 1)], 100);
        assert_eq!(dealt.iter().filter(|customer| **customer == 4).count(), 25);
        for window in dealt.windows(8) {
            let few = window.iter().filter(|customer| **customer == 4).count();
            assert!((1..=3).contains(&few), "{window:?}");
        }
        assert_eq!(deal(&[(0, 1), (1, 1), (2, 1)], 2).len(), 2);
    }

    #[test]
    fn a_camera_is_the_same_customers_in_a_fleet_of_any_size() {
        for weights in [vec![(0, 1), (1, 1), (2, 1)], vec![(3, 7), (1, 2), (9, 1)]] {
            let all = deal(&weights, 1000);
            for count in 0..1000 {
                assert_eq!(deal(&weights, count), all[..count as usize]);
                assert_eq!(shares(&weights, count).iter().sum::<u32>(), count);
            }
        }
    }

    #[test]
    fn a_camera_has_the_same_ssrcs_in_a_fleet_of_any_size_and_no_other_has_them() {
        let profile = Profile::load("mixed", &[]).expect("built in");
        let target = vec!["127.0.0.1:5004".parse().expect("an address")];
        let streams = |cameras: f64| {
            let scaled = profile
                .scale(crate::profile::Dimension::Cameras, cameras)
                .expect("possible");
            let plan = Plan::from_profile(&scaled, target.clone()).expect("a plan");
            let id = |stream: &StreamPlan| (plan.cameras[stream.camera as usize].id.clone(), stream.media);
            let all: Vec<_> = plan
                .streams
                .iter()
                .map(|stream| (id(stream), stream.ssrc))
                .collect();
            all
        };
        let large: HashMap<_, _> = streams(2_000.0).into_iter().collect();
        let ssrcs: HashSet<u32> = large.values().copied().collect();
        assert_eq!(ssrcs.len(), large.len());
        for (stream, ssrc) in streams(100.0) {
            assert_eq!(large.get(&stream), Some(&ssrc), "{stream:?}");
        }
    }

    #[test]
    fn addresses_count_ports_by_two_and_then_the_address() {
        let mut addresses = Addresses::new("127.64.0.255:65532".parse().expect("an address"));
        let found: Vec<String> = (0..4).map(|_| addresses.next().to_string()).collect();
        assert_eq!(found[0], "127.64.0.255:65532");
        assert_eq!(found[1], "127.64.0.255:65534");
        assert_eq!(found[2..], ["127.64.1.0:65532", "127.64.1.0:65534"]);
    }

    #[test]
    fn any_share_of_the_cameras_is_that_many() {
        let mut ranks = ranks(1000);
        let first = ranks[..100].iter().filter(|rank| **rank < 0.5).count();
        assert!((45..=55).contains(&first), "{first} of the first 100");
        ranks.sort_by(f64::total_cmp);
        assert_eq!(ranks.iter().filter(|rank| **rank < 0.25).count(), 250);
    }
}
