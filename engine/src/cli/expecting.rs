//! Whether segments are sealed to whom their customer expects, and to nobody else.
//!
//! A segment shows how many keys open it, not whose they are. So what is checked is the number: one for the customer, one for each recovery recipient of an
//! enrolment, and for a camera one for each standing grant of its time. A node that puts another key in the place of a recovery recipient's is found out by
//! the holder of that: nothing opens for him.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use harborseal_segment::StreamId;
use harborseal_segment::identity::Opener;
use serde::Serialize;

use super::error::{CliError, OneLine};
use super::output::people;
use super::{enrol, statements};
use crate::archive::library::{Library, Recipients};
use crate::statement::{Enrolment, StandingGrant};
use crate::text::counted;

/// Alarms told one by one; the rest are only counted.
const ALARMS_TOLD: usize = 20;

/// The options of a command that checks recipients.
#[derive(Debug, Default, clap::Args)]
pub struct Expecting {
    /// Check that each segment is sealed to as many keys as the enrolment in FILE says, and raise an alarm (exit status 1) on any
    /// other; may be given several times: segments made before it was replaced may be as the old one says
    #[arg(long, value_name = "FILE", requires = "identity")]
    enrolment: Vec<PathBuf>,

    /// With --enrolment: expect the grantee of the standing grant in FILE too; may be given several times
    #[arg(long, value_name = "FILE", requires = "enrolment")]
    standing_grant: Vec<PathBuf>,
}

/// What a customer expects.
pub struct Expected {
    keys: BTreeSet<usize>,
    standing: Vec<StandingGrant>,
}

impl Expecting {
    /// Reads the statements; `None` if none is named. `opener` is whose segments are looked at.
    pub fn read(&self, opener: &Opener) -> Result<Option<Expected>, CliError> {
        if self.enrolment.is_empty() {
            return Ok(None);
        }
        let mut keys = BTreeSet::new();
        let own = opener.kem_key_bytes();
        for path in &self.enrolment {
            let enrolment: Enrolment = enrol::read(path)?;
            if !enrolment.recipients().any(|key| key.kem_key_bytes() == own) {
                return Err(CliError::usage(format_args!(
                    "{}: it is an enrolment of another identity",
                    path.display()
                )));
            }
            keys.insert(enrolment.recipients().count());
        }
        let standing = self
            .standing_grant
            .iter()
            .map(|path| statements::read(path, StandingGrant::parse));
        Ok(Some(Expected {
            keys,
            standing: standing.collect::<Result<_, _>>()?,
        }))
    }
}

impl Expected {
    /// What is not as expected in each slot of `library`, one line each.
    pub fn alarms(&self, library: &Library) -> Vec<String> {
        let cameras = cameras_by_stream(library);
        let of_slot = |found: &Recipients| {
            let named = |why: String| format!("{}: {why}", found.path.display());
            self.of(found, &cameras)
                .into_iter()
                .map(named)
                .collect::<Vec<_>>()
        };
        library.recipients.iter().flat_map(of_slot).collect()
    }

    fn of(&self, found: &Recipients, cameras: &BTreeMap<StreamId, &str>) -> Vec<String> {
        let mut alarms = Vec::new();
        if !self.keys.contains(&found.keys) {
            let expected: Vec<String> = self.keys.iter().map(usize::to_string).collect();
            alarms.push(format!(
                "sealed to {}, where the enrolment names {}",
                counted(found.keys, "key"),
                expected.join(" or ")
            ));
        }
        for (stream, granted) in &found.granted {
            // A stream that has not begun is of a camera that nobody can tell.
            let camera = cameras.get(stream);
            let covers = |grant: &&StandingGrant| {
                let same = camera.is_none_or(|camera| *camera == grant.terms.camera);
                same && grant.covers(found.created_s)
            };
            let expected = self.standing.iter().filter(covers).count();
            if *granted > expected {
                alarms.push(format!(
                    "a stream of camera '{}' is opened by {} as well, where {expected} are expected",
                    camera.unwrap_or(&"?"),
                    counted(*granted, "standing grant")
                ));
            }
        }
        alarms
    }
}

fn cameras_by_stream(library: &Library) -> BTreeMap<StreamId, &str> {
    let parts = library.tracks.iter().flat_map(|track| {
        track
            .parts
            .iter()
            .map(|part| (part.stream.stream_id, track.camera_id.as_str()))
    });
    parts.collect()
}

/// Tells alarms to people.
pub fn tell(alarms: &[String]) {
    for alarm in alarms.iter().take(ALARMS_TOLD) {
        people(format_args!("harborseal: ALARM: {}", OneLine(alarm)));
    }
    if alarms.len() > ALARMS_TOLD {
        people(format_args!(
            "harborseal: ALARM: and {} more",
            alarms.len() - ALARMS_TOLD
        ));
    }
}

/// How many segments are sealed to how many keys.
#[derive(Serialize)]
pub struct SealedTo {
    /// Keys that open all of the customer's streams in a segment, its own included.
    pub keys: usize,
    /// How many segments.
    pub segments: usize,
}

/// In how many segments somebody else opens a camera by a standing grant.
#[derive(Serialize)]
pub struct StandingLine {
    /// The camera; absent where its stream never began.
    pub camera: Option<String>,
    /// How many of them.
    pub grantees: usize,
    /// How many segments.
    pub segments: usize,
}

/// The recipients of a library, counted.
pub fn summary(library: &Library) -> (Vec<SealedTo>, Vec<StandingLine>) {
    let cameras = cameras_by_stream(library);
    let (mut sealed, mut standing) = (BTreeMap::new(), BTreeMap::new());
    for found in &library.recipients {
        *sealed.entry(found.keys).or_default() += 1;
        let of_cameras: BTreeSet<_> = found
            .granted
            .iter()
            .map(|(stream, granted)| (cameras.get(stream).map(ToString::to_string), *granted))
            .collect();
        for of_camera in of_cameras {
            *standing.entry(of_camera).or_default() += 1;
        }
    }
    let sealed = sealed
        .into_iter()
        .map(|(keys, segments)| SealedTo { keys, segments });
    let standing = standing
        .into_iter()
        .map(|((camera, grantees), segments)| StandingLine {
            camera,
            grantees,
            segments,
        });
    (sealed.collect(), standing.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Terms;
    use harborseal_segment::SegmentId;
    use harborseal_segment::identity::Identity;
    use harborseal_segment::random::FixedBytes;

    const CREATED_S: u64 = 1_795_000_000;
    const STREAM: StreamId = StreamId([3; 16]);

    fn found(keys: usize, granted: usize) -> Recipients {
        Recipients {
            path: "a.hseal".into(),
            created_s: CREATED_S,
            origin: SegmentId([1; 16]),
            keys,
            granted: BTreeMap::from([(STREAM, granted)]),
        }
    }

    fn standing(camera: &str, from_s: u64) -> StandingGrant {
        let alice = Identity::generate_p256(&mut FixedBytes(&[1; 64]));
        let terms = Terms {
            customer: alice.public().clone(),
            grantee: Identity::generate_p256(&mut FixedBytes(&[2; 64]))
                .public()
                .clone(),
            camera: camera.to_owned(),
            purpose: "x".to_owned(),
        };
        let granted_ns = (from_s * 1_000_000_000, (from_s + 60) * 1_000_000_000);
        let text = StandingGrant::make(&terms, granted_ns, CREATED_S, &alice);
        StandingGrant::parse(&text).expect("whole")
    }

    fn alarms(standing: Vec<StandingGrant>, found: &Recipients) -> usize {
        let keys = BTreeSet::from([1, 2]);
        let cameras = BTreeMap::from([(STREAM, "front-door")]);
        Expected { keys, standing }.of(found, &cameras).len()
    }

    #[test]
    fn any_other_number_of_keys_is_an_alarm() {
        for (keys, raised) in [(0, 1), (1, 0), (2, 0), (3, 1)] {
            assert_eq!(alarms(vec![], &found(keys, 0)), raised, "{keys} keys");
        }
    }

    #[test]
    fn a_standing_grantee_is_expected_of_one_camera_and_its_time() {
        assert_eq!(alarms(vec![], &found(1, 1)), 1);
        assert_eq!(alarms(vec![standing("front-door", CREATED_S)], &found(1, 1)), 0);
        assert_eq!(alarms(vec![standing("front-door", CREATED_S)], &found(1, 2)), 1);
        assert_eq!(alarms(vec![standing("back-door", CREATED_S)], &found(1, 1)), 1);
        assert_eq!(
            alarms(vec![standing("front-door", CREATED_S - 60)], &found(1, 1)),
            1
        );
    }
}
