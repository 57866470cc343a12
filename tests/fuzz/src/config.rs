//! Configurations, and the registry that comes of one.

use std::net::SocketAddr;
use std::path::Path;

use harborseal::config::{Config, units};

use super::customers::identity;
use super::input::Input;

/// Nothing is read but what an input names by an absolute path, and then only as a session description.
const PLACE: &str = "/nonexistent/harborseal.toml";

/// A configuration: the first byte says whether the rest is the file, a session description in one, or a size.
pub fn config(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let text = |input: &mut Input<'_>| String::from_utf8_lossy(input.rest()).into_owned();
    match mode % 4 {
        0 => drop(load(&text(&mut input))),
        1 => session(&text(&mut input)),
        2 => with_key(&text(&mut input)),
        _ => unit(&text(&mut input)),
    }
}

fn load(text: &str) -> Option<Config> {
    let loaded = Config::from_text(Path::new(PLACE), text.to_owned(), &[0, 1]);
    match loaded {
        Err(error) => {
            let lines = text.split('\n').count();
            let line = error.line.expect("the file could be read");
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!(!error.to_string().is_empty());
            None
        }
        Ok(config) => {
            assert!(config.sections_needing_restart(&config).is_empty());
            assert!(config.settings.commit.interval <= config.settings.chunk.deadline);
            assert!(config.settings.segment.max_bytes.is_multiple_of(4096));
            admit(&config);
            Some(config)
        }
    }
}

/// Packets from everywhere near: each is one camera's or nobody's.
fn admit(config: &Config) {
    let registry = &config.registry;
    let ssrcs = registry
        .cameras
        .iter()
        .flat_map(|camera| &camera.streams)
        .map(|stream| stream.ssrc);
    let places = [
        "10.0.0.1:5004",
        "10.0.0.1:5005",
        "[2001:db8::1]:1",
        "0.0.0.0:0",
        "255.255.255.255:65535",
    ];
    for ssrc in ssrcs.chain([0, 7, u32::MAX]) {
        for place in places {
            let from: SocketAddr = place.parse().expect("an address");
            for rtcp in [false, true] {
                if let Ok(admitted) = registry.admit(ssrc, from, rtcp) {
                    assert!((admitted.camera as usize) < registry.cameras.len());
                }
            }
        }
    }
    for camera in &registry.cameras {
        assert!((camera.customer as usize) < registry.customers.len());
        assert!(!camera.streams.is_empty() || camera.source.has_port());
    }
}

const HEAD: &str = "data_dir = \"data\"\n[listen]\nrtp = \"127.0.0.1:5004\"\n";

/// A session description, inline as a camera has it.
fn session(sdp: &str) {
    let written: String = sdp.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
    let key = identity(0).public().to_text();
    let loaded = load(&format!(
        "{HEAD}[[customer]]\nname = \"a\"\npublic_key = \"{key}\"\n\
         [[camera]]\nid = \"c\"\ncustomer = \"a\"\nsource = \"10.0.0.1\"\nssrc = [7, 8]\nsdp = \"v=0{written}\"\n"
    ));
    let Some(config) = loaded else { return };
    let camera = &config.registry.cameras[0];
    let lines = sdp.matches("m=").count();
    let text = camera.sdp.clone().expect("it was given one");
    for stream in &camera.streams {
        assert!(usize::from(stream.media.media_index) < lines.max(1));
        let described = harborseal::media::Stream {
            ssrc: stream.ssrc,
            media_index: stream.media.media_index,
            sdp: text.clone(),
        };
        assert!(!harborseal::media::codec_name(&described).is_empty());
    }
}

/// A file whose `KEY` stands for a genuine public key.
fn with_key(text: &str) {
    drop(load(&text.replace("KEY", &identity(0).public().to_text())));
}

fn unit(text: &str) {
    if let Ok(bytes) = units::parse_bytes(text) {
        assert_eq!(units::parse_bytes(&units::format_bytes(bytes)), Ok(bytes));
        assert_eq!(units::parse_bytes_per_s(text), Ok(bytes));
    }
    if let Ok(duration) = units::parse_duration(text) {
        assert_eq!(
            units::parse_duration(&units::format_duration(duration)),
            Ok(duration)
        );
    }
}
