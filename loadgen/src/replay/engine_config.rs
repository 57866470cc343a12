//! The engine's configuration for a replay: its cameras, each known by its SSRCs. Pure text.

use super::codec;
use super::find::Found;
use super::play::{CUSTOMER, Options};
use crate::profile::ENGINE_CONFIG_MARK;
use crate::send::Rtcp;
use std::net::IpAddr;

/// What a stream takes of the engine's memory (config/engine.toml, memory.limit), and the engine itself.
const STREAM_KIB: u64 = 96;
const ENGINE_MIB: u64 = 192;

/// The text of engine.toml; `sources` are the addresses that packets to each target come from.
pub fn to_toml(found: &Found, options: &Options, cpu: usize, public_key: &str, sources: &[IpAddr]) -> String {
    let cameras = options.cameras(found);
    let streams = cameras
        .iter()
        .map(|camera| camera.streams.len() as u64)
        .sum::<u64>();
    let listen: Vec<String> = options.targets.iter().map(ToString::to_string).collect();
    let rtcp = if options.rtcp == Rtcp::Next {
        "both"
    } else {
        "same"
    };
    let mut text = format!(
        "{ENGINE_CONFIG_MARK} for the {}, seed {}. config/engine.toml explains every key.\n\
         data_dir = \"data\"\n\
         require_enrolment = false   # test footage: nobody signed for its keys\n\n\
         [listen]\nrtp = {listen:?}\nrtcp = \"{rtcp}\"\n\n\
         [shards]\ncpus = [{cpu}]\n\n\
         [memory]\nlimit = \"{}MiB\"\nallow_unlocked = true   # test footage: nobody is harmed if it is swapped\n\n\
         [[customer]]\nname = {CUSTOMER:?}\npublic_key = {public_key:?}\n",
        options.name,
        options.times.seed,
        ENGINE_MIB + streams * STREAM_KIB / 1024,
    );
    for camera in &cameras {
        let ssrcs: Vec<u32> = camera.streams.iter().map(|&(_, ssrc)| ssrc).collect();
        let target = options.targets.iter().position(|target| *target == camera.target);
        let source = sources[target.expect("a camera's target is one of them")];
        let id = &camera.id;
        let mut add = |line: &str| text.push_str(line);
        add(&format!(
            "\n[[camera]]\nid = {id:?}\ncustomer = {CUSTOMER:?}\nsource = \"{source}\"\nssrc = {ssrcs:?}\n"
        ));
        if let Some(sdp) = codec::sdp(found, id, &camera.streams, camera.target) {
            add(&format!("sdp = \"{}\"\n", sdp.replace("\r\n", "\\r\\n")));
        }
    }
    text
}
