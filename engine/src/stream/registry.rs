//! Admission: which camera a packet belongs to, told by its SSRC and where it came from, and by nothing else.
//!
//! Invariants:
//! - Nothing is learned from the wire: the tables are made once, from the configuration, and never change. A reload
//!   makes a new registry.
//! - At most one camera fits any (SSRC, source address, source port), RTP or RTCP. [`Registry::new`] refuses a set of
//!   cameras where two would, so the order of rules never decides whose key seals a packet.
//! - An IPv4 address and its IPv4-mapped IPv6 form (RFC 4291 §2.5.5.2) are the same address: a dual-stack socket
//!   reports the latter. All addresses are held as IPv6.
//!
//! Looking a packet up costs one hash lookup where its SSRC is registered, two where its camera is told by address
//! alone, and never allocates.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use harborseal_segment::identity::PublicKey;

use crate::ledger::Reason;

/// `media_index` of a stream whose m-line is not known.
pub const MEDIA_UNKNOWN: u16 = 0xFFFF;

/// Most streams one camera may have open: video, audio, metadata and their retransmissions are eight; the rest is for
/// cameras that change their SSRC often. Bounds what one camera without `ssrc` can take of the chunk pool.
pub const MAX_STREAMS_PER_CAMERA: usize = 16;

/// One key domain. Has no `Debug`: its name must not reach a log line by accident.
#[derive(Clone)]
pub struct Customer {
    /// The operator's local label. Never leaves the configuration.
    pub name: Box<str>,
    /// What its packets are sealed to.
    pub public_key: PublicKey,
}

/// One camera. Has no `Debug`: its id is stored only sealed.
#[derive(Clone)]
pub struct Camera {
    /// The operator's name for it, unique among its customer's cameras.
    pub id: Box<str>,
    /// Index of its customer in [`Registry::customers`].
    pub customer: u32,
    /// Where its packets come from.
    pub source: Source,
    /// The streams it may send; empty where its source alone tells it (then the source has a port).
    pub streams: Vec<Stream>,
    /// What an SSRC not listed in `streams` is taken for. Used only where `streams` is empty.
    pub unlisted: Media,
    /// Its session description (RFC 8866), sealed into every segment that holds its streams.
    pub sdp: Option<Arc<str>>,
}

/// One registered SSRC of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// What it carries.
    pub media: Media,
}

/// What a stream carries, as its session description tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// Index of its m-line in the session description, from 0; [`MEDIA_UNKNOWN`] if not known.
    pub media_index: u16,
    /// RTP clock rate in Hz; 0 if not known.
    pub clock_rate_hz: u32,
}

impl Media {
    /// Nothing is known of it.
    pub const UNKNOWN: Media = Media {
        media_index: MEDIA_UNKNOWN,
        clock_rate_hz: 0,
    };
}

/// The answer to an admitted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Index of its camera in [`Registry::cameras`].
    pub camera: u32,
    /// What its stream carries.
    pub media: Media,
}

/// A range of addresses, and a port or any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    first: u128,
    last: u128,
    /// RTP's source port; 0 stands for any. RTCP may also come from the port above (RFC 3550 §11).
    port: u16,
}

/// One SSRC from one source: the camera it is. 48 bytes.
#[derive(Clone, Copy)]
struct Rule {
    source: Source,
    admitted: Admitted,
}

/// Where the rules of one SSRC stand in [`Registry::rules`]: `first..first + count`, sorted by (address, port).
#[derive(Clone, Copy)]
struct Rules {
    first: u32,
    count: u32,
}

/// The customers and cameras of one configuration, and the tables that admit their packets.
pub struct Registry {
    /// In the order of the configuration.
    pub customers: Vec<Customer>,
    /// In the order of the configuration.
    pub cameras: Vec<Camera>,
    by_ssrc: HashMap<u32, Rules, Mixed>,
    rules: Vec<Rule>,
    by_address: HashMap<(u128, u16), Admitted, Mixed>,
}

/// Two cameras that one packet could belong to, as indices into the cameras; `first` < `second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The camera that stands first.
    pub first: usize,
    /// The camera that stands second.
    pub second: usize,
    /// The SSRC both send, or `None` where both are told by address alone.
    pub ssrc: Option<u32>,
}

impl Registry {
    /// Builds the tables, or names two cameras that cannot be told apart.
    ///
    /// # Panics
    /// If a camera without streams has a source without a port: the configuration refuses it before.
    pub fn new(customers: Vec<Customer>, cameras: Vec<Camera>) -> Result<Registry, Conflict> {
        let mut by_ssrc = HashMap::with_capacity_and_hasher(cameras.len(), Mixed::default());
        let mut keyed = Vec::with_capacity(cameras.len());
        let mut open = Vec::new();
        for (index, camera) in cameras.iter().enumerate() {
            let index = u32::try_from(index).expect("a configuration file holds fewer than 2^32 cameras");
            if camera.streams.is_empty() {
                assert!(
                    camera.source.port != 0,
                    "a camera without ssrc has a source with a port"
                );
                let admitted = Admitted {
                    camera: index,
                    media: camera.unlisted,
                };
                open.push(Rule {
                    source: camera.source,
                    admitted,
                });
            }
            for stream in &camera.streams {
                let admitted = Admitted {
                    camera: index,
                    media: stream.media,
                };
                keyed.push((
                    stream.ssrc,
                    Rule {
                        source: camera.source,
                        admitted,
                    },
                ));
            }
        }
        keyed.sort_unstable_by_key(|(ssrc, rule)| (*ssrc, rule.source.sort_key()));
        for group in keyed.chunk_by(|a, b| a.0 == b.0) {
            find_conflict(group.iter().map(|(_, rule)| rule), Some(group[0].0))?;
        }
        open.sort_unstable_by_key(|rule| rule.source.sort_key());
        find_conflict(open.iter(), None)?;

        for (at, (ssrc, _)) in (0u32..).zip(&keyed) {
            by_ssrc
                .entry(*ssrc)
                .or_insert(Rules { first: at, count: 0 })
                .count += 1;
        }
        let rules = keyed.into_iter().map(|(_, rule)| rule).collect();
        let by_address = open
            .into_iter()
            .map(|r| ((r.source.first, r.source.port), r.admitted))
            .collect::<HashMap<_, _, _>>();
        Ok(Registry {
            customers,
            cameras,
            by_ssrc,
            rules,
            by_address,
        })
    }

    /// Whose packet this is.
    ///
    /// A registered SSRC from a source of its camera is that camera's. Any other packet is a camera's only if that camera
    /// is told by address alone and the packet comes from there. The rest is [`Reason::WrongSource`] where the SSRC is
    /// registered, else [`Reason::UnknownSsrc`].
    #[inline]
    pub fn admit(&self, ssrc: u32, from: SocketAddr, rtcp: bool) -> Result<Admitted, Reason> {
        let address = as_ipv6(from.ip());
        let Some(rules) = self.by_ssrc.get(&ssrc) else {
            return self
                .admit_by_address(address, from.port(), rtcp)
                .ok_or(Reason::UnknownSsrc);
        };
        let rules = &self.rules[rules.first as usize..(rules.first + rules.count) as usize];
        let rule = match rules {
            [only] => Some(only),
            // The sources of one SSRC are disjoint and sorted: only the last that starts at or before can fit.
            _ => rules
                .partition_point(|r| r.source.sort_key() <= (address, from.port()))
                .checked_sub(1)
                .map(|i| &rules[i]),
        };
        match rule {
            Some(rule) if rule.source.fits(address, from.port(), rtcp) => Ok(rule.admitted),
            _ => self
                .admit_by_address(address, from.port(), rtcp)
                .ok_or(Reason::WrongSource),
        }
    }

    fn admit_by_address(&self, address: u128, port: u16, rtcp: bool) -> Option<Admitted> {
        if self.by_address.is_empty() {
            return None;
        }
        let exact = self.by_address.get(&(address, port));
        let below = || self.by_address.get(&(address, port.checked_sub(1)?));
        exact.or_else(|| if rtcp { below() } else { None }).copied()
    }
}

/// Rules sorted by (first address, port): does any packet fit two of them?
fn find_conflict<'a>(rules: impl Iterator<Item = &'a Rule>, ssrc: Option<u32>) -> Result<(), Conflict> {
    let between = |a: &Rule, b: &Rule| {
        let (a, b) = (a.admitted.camera as usize, b.admitted.camera as usize);
        Err(Conflict {
            first: a.min(b),
            second: a.max(b),
            ssrc,
        })
    };
    // Of the rules so far that take any port, the one that reaches furthest. A rule with a port that lies in a later
    // rule's range cannot be: that range would start at or before it, and any port sorts before every port.
    let mut furthest: Option<&Rule> = None;
    let mut previous: Option<&Rule> = None;
    for rule in rules {
        if let Some(wide) = furthest.filter(|wide| wide.source.last >= rule.source.first) {
            return between(wide, rule);
        }
        // The port above a camera's own is where its RTCP may come from.
        let near = |p: &&Rule| p.source.first == rule.source.first && rule.source.port - p.source.port <= 1;
        if let Some(previous) = previous.filter(near) {
            return between(previous, rule);
        }
        if rule.source.port == 0 && furthest.is_none_or(|wide| wide.source.last < rule.source.last) {
            furthest = Some(rule);
        }
        previous = Some(rule);
    }
    Ok(())
}

impl Source {
    /// True if the source names one port of one address.
    pub fn has_port(&self) -> bool {
        self.port != 0
    }

    /// One address, any port.
    pub fn host(address: IpAddr) -> Source {
        let address = as_ipv6(address);
        Source {
            first: address,
            last: address,
            port: 0,
        }
    }

    #[inline]
    fn fits(&self, address: u128, port: u16, rtcp: bool) -> bool {
        let above = rtcp && self.port.checked_add(1) == Some(port);
        (self.first..=self.last).contains(&address) && (self.port == 0 || port == self.port || above)
    }

    fn sort_key(&self) -> (u128, u16) {
        (self.first, self.port)
    }
}

impl FromStr for Source {
    type Err = String;

    /// `address`, `address:port`, `[address]:port` (IPv6) or `address/prefix`. Bits beyond the prefix are ignored.
    fn from_str(text: &str) -> Result<Source, String> {
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = address
                .parse()
                .map_err(|_| format!("{address:?} before the slash is not an IP address"))?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.parse::<u32>().ok().filter(|bits| *bits <= width);
            let prefix =
                prefix.ok_or_else(|| format!("the prefix length must be a number from 0 to {width}"))?;
            let below = u128::MAX.checked_shr(prefix + 128 - width).unwrap_or(0);
            let address = as_ipv6(address);
            return Ok(Source {
                first: address & !below,
                last: address | below,
                port: 0,
            });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Source::host(address));
        }
        let with_port = text.parse::<SocketAddr>().map_err(|_| {
            format!("{text:?} is neither an address, address:port, [IPv6 address]:port, nor address/prefix")
        })?;
        if with_port.port() == 0 {
            return Err("port 0 sends nothing; leave the port out to allow any".to_owned());
        }
        Ok(Source {
            port: with_port.port(),
            ..Source::host(with_port.ip())
        })
    }
}

#[inline]
fn as_ipv6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

type Mixed = BuildHasherDefault<Mix>;

/// A hash of one multiplication per word, folded (the idea of wyhash and ahash's fallback). It need not withstand chosen
/// keys: what is stored comes from the configuration only, and a lookup of a chosen key costs one probe like any other.
#[derive(Default)]
struct Mix(u64);

impl Mix {
    fn mix(&mut self, word: u64) {
        let product =
            u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15) * u128::from(0xD6E8_FEB8_6659_FD93_u64);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.mix(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u128(&mut self, word: u128) {
        self.mix(word as u64);
        self.mix((word >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: Media = Media {
        media_index: 0,
        clock_rate_hz: 90_000,
    };
    const AUDIO: Media = Media {
        media_index: 1,
        clock_rate_hz: 8_000,
    };

    fn camera(source: &str, ssrcs: &[u32]) -> Camera {
        let medias = [VIDEO, AUDIO];
        let streams = ssrcs
            .iter()
            .zip(medias)
            .map(|(&ssrc, media)| Stream { ssrc, media })
            .collect();
        let source = source.parse().expect("a source");
        Camera {
            id: "c".into(),
            customer: 0,
            source,
            streams,
            unlisted: VIDEO,
            sdp: None,
        }
    }

    fn registry(cameras: &[(&str, &[u32])]) -> Result<Registry, Conflict> {
        Registry::new(
            Vec::new(),
            cameras
                .iter()
                .map(|(source, ssrcs)| camera(source, ssrcs))
                .collect(),
        )
    }

    fn admit(registry: &Registry, ssrc: u32, from: &str, rtcp: bool) -> Result<u32, Reason> {
        registry
            .admit(ssrc, from.parse().expect("an address"), rtcp)
            .map(|a| a.camera)
    }

    fn conflict(a: (&str, &[u32]), b: (&str, &[u32])) -> Option<Conflict> {
        let one = registry(&[a, b]).err();
        let other = registry(&[b, a]).err();
        assert_eq!(one.is_some(), other.is_some(), "order must not matter");
        one
    }

    #[test]
    fn a_registered_ssrc_from_its_source_is_admitted_and_only_from_there() {
        let r = registry(&[("10.0.0.1", &[7, 8]), ("10.0.0.2", &[9])]).expect("no conflict");
        let video = r
            .admit(7, "10.0.0.1:999".parse().expect("address"), false)
            .expect("admitted");
        assert_eq!(
            video,
            Admitted {
                camera: 0,
                media: VIDEO
            }
        );
        let audio = r
            .admit(8, "10.0.0.1:999".parse().expect("address"), true)
            .expect("admitted");
        assert_eq!(audio.media, AUDIO);
        assert_eq!(admit(&r, 9, "10.0.0.1:999", false), Err(Reason::WrongSource));
        assert_eq!(admit(&r, 10, "10.0.0.1:999", false), Err(Reason::UnknownSsrc));
    }

    #[test]
    fn ipv4_mapped_addresses_are_the_ipv4_address() {
        let r = registry(&[
            ("10.0.0.1", &[7]),
            ("::ffff:10.0.0.2", &[8]),
            ("10.1.0.0/16", &[9]),
        ])
        .expect("no conflict");
        assert_eq!(admit(&r, 7, "[::ffff:10.0.0.1]:5", false), Ok(0));
        assert_eq!(admit(&r, 8, "10.0.0.2:5", false), Ok(1));
        assert_eq!(admit(&r, 9, "[::ffff:10.1.2.3]:5", false), Ok(2));
        assert_eq!(admit(&r, 7, "[::10.0.0.1]:5", false), Err(Reason::WrongSource));
    }

    #[test]
    fn a_port_in_the_source_is_required_and_rtcp_may_come_from_the_next() {
        let r = registry(&[("10.0.0.1:5000", &[7]), ("[2001:db8::1]:65535", &[8])]).expect("no conflict");
        assert_eq!(admit(&r, 7, "10.0.0.1:5000", false), Ok(0));
        assert_eq!(admit(&r, 7, "10.0.0.1:5000", true), Ok(0));
        assert_eq!(admit(&r, 7, "10.0.0.1:5001", true), Ok(0));
        assert_eq!(admit(&r, 7, "10.0.0.1:5001", false), Err(Reason::WrongSource));
        assert_eq!(admit(&r, 7, "10.0.0.1:4999", true), Err(Reason::WrongSource));
        assert_eq!(admit(&r, 8, "[2001:db8::1]:65535", false), Ok(1));
        assert_eq!(admit(&r, 8, "[2001:db8::1]:0", true), Err(Reason::WrongSource));
    }

    #[test]
    fn prefixes_end_at_their_edges() {
        let r = registry(&[
            ("10.0.1.77/24", &[7]),
            ("2001:db8::/33", &[8]),
            ("0.0.0.0/0", &[9]),
            ("::/0", &[10]),
        ]);
        let r = r.expect("no conflict");
        for (ssrc, from, want) in [
            (7, "10.0.1.0:1", Ok(0)),
            (7, "10.0.1.255:1", Ok(0)),
            (7, "10.0.0.255:1", Err(Reason::WrongSource)),
            (7, "10.0.2.0:1", Err(Reason::WrongSource)),
            (8, "[2001:db8:7fff:ffff::1]:1", Ok(1)),
            (8, "[2001:db8:8000::]:1", Err(Reason::WrongSource)),
            (9, "255.255.255.255:1", Ok(2)),
            (9, "[2001:db8::1]:1", Err(Reason::WrongSource)),
            (10, "1.2.3.4:1", Ok(3)),
        ] {
            assert_eq!(admit(&r, ssrc, from, false), want, "{ssrc} from {from}");
        }
    }

    #[test]
    fn equal_ssrcs_of_disjoint_sources_are_told_apart() {
        let r = registry(&[
            ("10.0.0.4", &[7]),
            ("10.0.0.0/30", &[7]),
            ("10.0.0.5:6000", &[7]),
            ("10.0.0.5:6002", &[7]),
            ("2001:db8::1", &[7]),
            ("1.1.1.1", &[7]),
        ])
        .expect("no conflict");
        for (from, want) in [
            ("10.0.0.4:9", Ok(0)),
            ("10.0.0.0:9", Ok(1)),
            ("10.0.0.3:9", Ok(1)),
            ("10.0.0.5:6000", Ok(2)),
            ("10.0.0.5:6002", Ok(3)),
            ("10.0.0.5:6003", Err(Reason::WrongSource)),
            ("10.0.0.5:5999", Err(Reason::WrongSource)),
            ("[2001:db8::1]:9", Ok(4)),
            ("1.1.1.1:9", Ok(5)),
            ("1.1.1.0:9", Err(Reason::WrongSource)),
        ] {
            assert_eq!(admit(&r, 7, from, false), want, "from {from}");
        }
        assert_eq!(admit(&r, 7, "10.0.0.5:6001", true), Ok(2));
        assert_eq!(admit(&r, 7, "10.0.0.5:6003", true), Ok(3));
    }

    #[test]
    fn one_packet_never_fits_two_cameras() {
        let same: &[u32] = &[7];
        assert_eq!(
            conflict(("10.0.0.1", same), ("10.0.0.1", same)),
            Some(Conflict {
                first: 0,
                second: 1,
                ssrc: Some(7)
            })
        );
        assert!(conflict(("10.0.0.1", same), ("10.0.0.0/8", same)).is_some());
        assert!(conflict(("10.0.0.1:5000", same), ("10.0.0.1", same)).is_some());
        assert!(conflict(("10.0.0.1:5000", same), ("0.0.0.0/0", same)).is_some());
        assert!(conflict(("10.0.0.1:5000", same), ("10.0.0.1:5000", same)).is_some());
        assert!(
            conflict(("10.0.0.1:5000", same), ("10.0.0.1:5001", same)).is_some(),
            "RTCP of the first"
        );
        assert!(conflict(("10.0.0.1", &[7, 8]), ("10.0.0.1", &[9, 8])).is_some());
        assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.1:5000", &[])).is_some_and(|c| c.ssrc.is_none()));
        assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.1:5001", &[])).is_some());

        assert!(conflict(("10.0.0.1:5000", same), ("10.0.0.1:5002", same)).is_none());
        assert!(conflict(("10.0.0.1", same), ("10.0.0.1", &[8])).is_none());
        assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.1", same)).is_none());
        assert!(conflict(("10.0.0.1:5000", &[]), ("10.0.0.2:5000", &[])).is_none());
    }

    #[test]
    fn a_wide_source_is_found_behind_narrow_ones_between() {
        let wide_then_two = registry(&[("10.0.0.0/8", &[7]), ("9.0.0.0/16", &[7]), ("10.200.0.1", &[7])]);
        assert_eq!(
            wide_then_two.err(),
            Some(Conflict {
                first: 0,
                second: 2,
                ssrc: Some(7)
            })
        );
    }

    #[test]
    fn a_camera_without_ssrc_is_told_by_its_address_and_may_change_its_ssrc() {
        let r = registry(&[("10.0.0.1:5000", &[]), ("10.0.0.9", &[7])]).expect("no conflict");
        assert_eq!(admit(&r, 1, "10.0.0.1:5000", false), Ok(0));
        assert_eq!(admit(&r, 2, "[::ffff:10.0.0.1]:5000", false), Ok(0));
        assert_eq!(admit(&r, 2, "10.0.0.1:5001", true), Ok(0));
        assert_eq!(admit(&r, 2, "10.0.0.1:5001", false), Err(Reason::UnknownSsrc));
        assert_eq!(admit(&r, 2, "10.0.0.1:5002", true), Err(Reason::UnknownSsrc));
        // Its freedom to choose holds for an SSRC that another camera has, too.
        assert_eq!(admit(&r, 7, "10.0.0.1:5000", false), Ok(0));
        assert_eq!(admit(&r, 7, "10.0.0.1:5004", false), Err(Reason::WrongSource));
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in [
            "",
            "camera.local",
            "10.0.0.1:0",
            "10.0.0.1/33",
            "::/129",
            "10.0.0/8",
            "2001:db8::1:5000/",
            "/8",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_hash_spreads_ssrcs_that_count_up() {
        let hash = |ssrc: u32| {
            let mut mix = Mix::default();
            mix.write_u32(ssrc);
            mix.finish()
        };
        // 4,096 balls in 4,096 boxes fill 63 % of them if thrown at random; low bits choose the box in std's table.
        for stride in [1u32, 2, 256, 65_536] {
            let boxes: std::collections::HashSet<u64> =
                (0..4096u32).map(|i| hash(i * stride) & 4095).collect();
            assert!(boxes.len() > 2200, "stride {stride}: {}", boxes.len());
        }
    }
}
