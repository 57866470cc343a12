//! The customers and cameras of a configuration, made into the registry that admits their packets.
//!
//! Messages name lines, never customers or cameras: they reach the log when a reload is refused.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use harborseal_segment::identity::{KeyError, PublicKey};

use super::document::{ConfigError, Document, Root, Section, Value};
use super::grants;
use super::sdp::{SDP_BYTES_MAX, Sdp};
use crate::statement::Enrolment;
use crate::stream::registry::{
    Camera, Conflict, Customer, MAX_STREAMS_PER_CAMERA, Media, Registry, Source, Stream,
};
use crate::text::Plain;

/// Longest name of a customer and longest id of a camera, in bytes of UTF-8.
const NAME_BYTES_MAX: usize = 255;

/// Longest enrolment read: sixteen recipients of 2 KiB each, and room.
const ENROLMENT_BYTES_MAX: usize = 64 << 10;

/// Reads every `[[customer]]` and `[[camera]]`.
pub fn parse(document: &Document, root: &Root<'_>) -> Result<Registry, ConfigError> {
    let (customers, names) = customers(document, root)?;
    let mut descriptions = Descriptions {
        document,
        known: HashMap::new(),
    };
    let mut ids = HashMap::new();
    let mut cameras = Vec::new();
    let mut places = Vec::new();
    for section in root.sections("camera") {
        let (camera, place) = camera(section, &names, &mut descriptions)?;
        let id = section.require("id")?;
        if let Some(line) = ids.insert((camera.customer, id.text()?), id.line()) {
            return Err(id.error(format_args!(
                "the camera of line {line} is the same customer's and has the same id"
            )));
        }
        cameras.push(camera);
        places.push(place);
    }
    let grants = grants::parse(document, root, &customers, &cameras)?;
    let mut registry =
        Registry::new(customers, cameras).map_err(|conflict| refuse(document, &places, conflict))?;
    registry.grants = grants;
    Ok(registry)
}

/// The customers, and the index of each by name.
fn customers<'a>(
    document: &Document,
    root: &'a Root<'_>,
) -> Result<(Vec<Customer>, HashMap<&'a str, u32>), ConfigError> {
    let mut lines = HashMap::new();
    let mut names = HashMap::new();
    let mut found = Vec::new();
    for section in root.sections("customer") {
        let value = section.require("name")?;
        let name = label(&value)?;
        if let Some(line) = lines.insert(name, value.line()) {
            return Err(value.error(format_args!("the customer of line {line} has the same name")));
        }
        names.insert(
            name,
            u32::try_from(found.len()).expect("a configuration file holds fewer than 2^32 customers"),
        );
        let enrolment = section
            .get("enrolment")
            .map(|value| enrolment(document, &value))
            .transpose()?;
        let key = section.get("public_key");
        if key.is_none() {
            section.require("enrolment")?;
        }
        let text = key.map(|key| key.text()).transpose()?;
        let erasable = section.get("erasable").map_or(Ok(false), |value| value.flag())?;
        found.push((name, key, text, enrolment, erasable));
    }
    let texts = found
        .iter()
        .filter_map(|(_, _, text, _, _)| *text)
        .collect::<Vec<_>>();
    let mut keys = parse_keys(&texts).into_iter();
    let mut customers = Vec::with_capacity(found.len());
    for (name, value, _, enrolment, erasable) in found {
        let written = match value {
            Some(value) => {
                let key = keys.next().expect("one result for each key");
                Some((value, key.map_err(|error| value.error(error))?))
            }
            None => None,
        };
        let public_key = match (&enrolment, written) {
            (Some(enrolment), Some((value, key))) if enrolment.public != key => {
                return Err(value.error("is not the key that the enrolment enrols; leave one of the two out"));
            }
            (Some(enrolment), _) => enrolment.public.clone(),
            (None, Some((_, key))) => key,
            (None, None) => unreachable!("a customer without enrolment has a public key"),
        };
        customers.push(Customer {
            name: name.into(),
            public_key,
            enrolment,
            erasable,
        });
    }
    Ok((customers, names))
}

/// Reads the statement that a customer's `enrolment` names.
fn enrolment(document: &Document, value: &Value<'_>) -> Result<Arc<Enrolment>, ConfigError> {
    let path = document.file_named(value.text()?);
    let text = read_file(&path, ENROLMENT_BYTES_MAX);
    let enrolment = text.and_then(|text| Enrolment::parse(&text).map_err(|error| error.to_string()));
    match enrolment {
        Ok(enrolment) => Ok(Arc::new(enrolment)),
        Err(error) => Err(value.error(format_args!("{}: {error}", path.display()))),
    }
}

/// Parses public keys, each of which takes a signature check, on all CPUs.
fn parse_keys(texts: &[&str]) -> Vec<Result<PublicKey, KeyError>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Below this a thread costs more than it saves.
    let share = texts.len().div_ceil(threads).max(32);
    let parse = |share: &[&str]| share.iter().map(|text| text.parse()).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let workers: Vec<_> = texts
            .chunks(share)
            .map(|share| scope.spawn(move || parse(share)))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("parsing a key does not panic"))
            .collect()
    })
}

/// Where a camera's source and SSRCs stand in the file, as byte offsets.
struct Place {
    source_at: usize,
    ssrcs: Vec<(u32, usize)>,
}

fn camera<'a>(
    section: Section<'a>,
    customers: &HashMap<&str, u32>,
    descriptions: &mut Descriptions<'a>,
) -> Result<(Camera, Place), ConfigError> {
    let id = label(&section.require("id")?)?;
    let owner = section.require("customer")?;
    let customer = *customers
        .get(owner.text()?)
        .ok_or_else(|| owner.error("no [[customer]] of this file has this name"))?;
    let source_value = section.require("source")?;
    let source: Source = source_value.parsed()?;
    let ssrcs = section
        .get("ssrc")
        .map_or(Ok(Vec::new()), |value| ssrcs(&value))?;
    if ssrcs.is_empty() && !source.has_port() {
        let needs = "may be left out only where source has a port, as in \"192.0.2.7:5004\"";
        return Err(section.error(format!("camera.ssrc is missing; it {needs}")));
    }
    let numbers: Vec<u32> = ssrcs.iter().map(|(ssrc, _)| *ssrc).collect();
    let sdp = section
        .get("sdp")
        .map(|value| descriptions.read(&value))
        .transpose()?;
    let streams = match (&sdp, section.get("ssrc")) {
        (Some(sdp), Some(value)) => sdp.map(&numbers).map_err(|error| value.error(error))?,
        _ => numbers
            .into_iter()
            .map(|ssrc| Stream {
                ssrc,
                media: Media::UNKNOWN,
            })
            .collect(),
    };
    let unlisted = sdp.as_ref().map_or(Media::UNKNOWN, Sdp::unlisted);
    let camera = Camera {
        id: id.into(),
        customer,
        source,
        streams,
        unlisted,
        sdp: sdp.map(|sdp| sdp.text),
    };
    Ok((
        camera,
        Place {
            source_at: source_value.at(),
            ssrcs,
        },
    ))
}

/// A name or id: not empty, not long, nothing that could not be typed again.
fn label<'a>(value: &Value<'a>) -> Result<&'a str, ConfigError> {
    let text = value.text()?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(value.error(format_args!("must have 1 to {NAME_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(value.error("must not hold control characters, nor begin or end with a space"));
    }
    Ok(text)
}

fn ssrcs(value: &Value<'_>) -> Result<Vec<(u32, usize)>, ConfigError> {
    let mut ssrcs: Vec<(u32, usize)> = Vec::new();
    for item in value.items() {
        let ssrc = u32::try_from(item.number(u64::from(u32::MAX))?).expect("number() kept it within u32");
        if ssrcs.iter().any(|(other, _)| *other == ssrc) {
            return Err(item.error(format_args!("{ssrc} is listed twice")));
        }
        ssrcs.push((ssrc, item.at()));
    }
    match ssrcs.len() {
        0 => Err(value.error("must list at least one SSRC; leave the key out where source has a port")),
        n if n > MAX_STREAMS_PER_CAMERA => {
            Err(value.error(format_args!("at most {MAX_STREAMS_PER_CAMERA} are taken")))
        }
        _ => Ok(ssrcs),
    }
}

fn refuse(document: &Document, places: &[Place], conflict: Conflict) -> ConfigError {
    let (first, second) = (&places[conflict.first], &places[conflict.second]);
    let Some(ssrc) = conflict.ssrc else {
        let line = document.line(first.source_at);
        let why =
            "RTCP may come from the port above a camera's own; without ssrc nothing else tells them apart";
        return document.error(
            second.source_at,
            format!("camera.source: overlaps that of line {line}: {why}"),
        );
    };
    let at = |place: &Place| {
        place
            .ssrcs
            .iter()
            .find(|(s, _)| *s == ssrc)
            .map_or(place.source_at, |(_, at)| *at)
    };
    let line = document.line(at(first));
    let (source, other) = (document.line(second.source_at), document.line(first.source_at));
    let why = format!("and their sources overlap (lines {other} and {source}), so nothing tells them apart");
    document.error(
        at(second),
        format!("camera.ssrc: {ssrc} is also the SSRC of line {line}, {why}"),
    )
}

/// Session descriptions by path or inline text: each is read and parsed once, however many cameras share it.
struct Descriptions<'a> {
    document: &'a Document,
    known: HashMap<&'a str, Sdp>,
}

impl<'a> Descriptions<'a> {
    fn read(&mut self, value: &Value<'a>) -> Result<Sdp, ConfigError> {
        let text = value.text()?;
        if let Some(known) = self.known.get(text) {
            return Ok(known.clone());
        }
        let parsed = if text.starts_with("v=0") {
            Sdp::parse(text).map_err(|error| value.error(error))
        } else {
            let path = self.document.file_named(text);
            let parsed = read_file(&path, SDP_BYTES_MAX).and_then(|text| Sdp::parse(&text));
            parsed.map_err(|error| value.error(format_args!("{}: {error}", path.display())))
        }?;
        self.known.insert(text, parsed.clone());
        Ok(parsed)
    }
}

fn read_file(path: &Path, bytes_max: usize) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| Plain(&error).to_string())?;
    if !metadata.is_file() {
        return Err("not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
    file.map_err(|error| Plain(&error).to_string())?;
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}
