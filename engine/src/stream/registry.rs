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
use std::sync::{Arc, Mutex};

use harborseal_segment::identity::PublicKey;

use crate::ledger::Reason;
use crate::planted::{Planted, planted};
use crate::statement::{Enrolment, StandingGrant};

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
    /// Whether opening its footage takes a key of the node's key store too, which can be destroyed.
    pub erasable: bool,
    /// The statement by which the customer says so; none where nobody signed for the key.
    pub enrolment: Option<Arc<Enrolment>>,
}

impl Customer {
    /// Whom its segments are sealed to: the customer, and whom its enrolment names beside it.
    pub fn recipients(&self) -> impl Iterator<Item = &PublicKey> {
        let recovery = self
            .enrolment
            .as_ref()
            .map_or(&[][..], |enrolment| &enrolment.recovery);
        std::iter::once(&self.public_key).chain(recovery)
    }

    /// What the audit log names it by.
    pub fn audit_salt(&self) -> Option<&[u8; 32]> {
        self.enrolment.as_ref().map(|enrolment| &enrolment.audit_salt)
    }

    /// Whether `later` is the same customer: it has the same key, or one that this one's key signed for.
    pub fn goes_on_as(&self, later: &Customer) -> bool {
        let signed_for = || {
            let (old, new) = self.enrolment.as_ref().zip(later.enrolment.as_ref())?;
            new.replaces(old).ok()
        };
        self.public_key == later.public_key || signed_for().is_some()
    }
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

/// A standing grant of a customer for one of its cameras. Has no `Debug`: it names the camera.
#[derive(Clone)]
pub struct Granting {
    /// Index of the camera in [`Registry::cameras`].
    pub camera: u32,
    /// What the customer signed.
    pub grant: Arc<StandingGrant>,
    /// It stands in the audit log.
    pub entered: Arc<Mutex<bool>>,
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
#[derive(Clone)]
pub struct Registry {
    /// In the order of the configuration.
    pub customers: Vec<Customer>,
    /// In the order of the configuration.
    pub cameras: Vec<Camera>,
    /// Standing grants: segments of their time get a key for each grantee.
    pub grants: Vec<Granting>,
    by_ssrc: HashMap<u32, Rules, Mixed>,
    rules: Vec<Rule>,
    by_address: HashMap<(u128, u16), Admitted, Mixed>,
    /// Per customer, whether its packets are refused; empty where nobody's are.
    refused: Box<[bool]>,
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
            grants: Vec::new(),
            by_ssrc,
            rules,
            by_address,
            refused: Box::default(),
        })
    }

    /// Whether a standing grant begins or ends after `seen_ns`, and not after `now_ns`.
    pub fn grants_turn(&self, seen_ns: u64, now_ns: u64) -> bool {
        let turns = |granting: &Granting| {
            granting
                .grant
                .turns_ns()
                .map(|at_ns| seen_ns < at_ns && at_ns <= now_ns)
        };
        self.grants.iter().any(|granting| turns(granting).contains(&true))
    }

    /// The same, with the packets of some customers refused: one flag for each.
    pub fn refusing(mut self, refused: &[bool]) -> Registry {
        assert_eq!(refused.len(), self.customers.len(), "one flag for each customer");
        self.refused = match refused.contains(&true) {
            true => refused.into(),
            false => Box::default(),
        };
        self
    }

    /// Whether packets of this customer are refused.
    pub fn refuses(&self, customer: usize) -> bool {
        self.refused.get(customer).copied().unwrap_or(false)
    }

    /// Whose packet this is.
    ///
    /// A registered SSRC from a source of its camera is that camera's. Any other packet is a camera's only if that camera
    /// is told by address alone and the packet comes from there. The rest is [`Reason::WrongSource`] where the SSRC is
    /// registered, else [`Reason::UnknownSsrc`]. A camera whose customer is refused is [`Reason::NotEnrolled`].
    #[inline]
    pub fn admit(&self, ssrc: u32, from: SocketAddr, rtcp: bool) -> Result<Admitted, Reason> {
        let admitted = self.camera_of(ssrc, from, rtcp)?;
        let customer = self.cameras[admitted.camera as usize].customer;
        match self.refuses(customer as usize) {
            false => Ok(admitted),
            true => Err(Reason::NotEnrolled),
        }
    }

    #[inline]
    fn camera_of(&self, ssrc: u32, from: SocketAddr, rtcp: bool) -> Result<Admitted, Reason> {
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
            Some(rule) if planted(Planted::StrangerAdmitted) => Ok(rule.admitted),
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
mod tests;
