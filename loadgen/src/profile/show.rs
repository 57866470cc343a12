//! A profile written as TOML with everything resolved: what holds after defaults, settings and scaling.

use super::read::{CODEC, PACING, PHASE, RTCP};
use super::units::format_ns;
use super::{GroupProfile, Profile, StreamKind, Video};
use crate::plan::{Impairments, Media, Stage};
use std::fmt::Write;

impl Profile {
    /// TOML that reads back as this profile.
    pub fn to_toml(&self) -> String {
        let mut out = Lines::default();
        out.text("name", &self.name);
        if !self.about.is_empty() {
            out.text("about", &self.about);
        }
        out.value("seed", self.seed);
        out.time("warm_up", self.warm_up_ns);
        out.value("burst", self.burst);
        out.time("lateness_budget", (self.lateness_budget_ms * 1e6).round() as u64);
        match self.has_numbered_customers() {
            true => out.value("customers", self.customers.len()),
            false => out.value("customers", format_args!("{:?}", self.customers)),
        }
        out.text("rtcp", word(&RTCP, self.rtcp));
        out.time("report_every", self.report_ns);
        if let Some(source) = self.source {
            out.text("source", &source.to_string());
        }
        out.text("addresses", &self.addresses.to_string());
        self.stages.iter().for_each(|stage| out.stage(stage));
        self.groups
            .iter()
            .for_each(|group| out.group(group, &self.customers));
        out.text
    }

    fn has_numbered_customers(&self) -> bool {
        let mut numbered = (1..).zip(&self.customers);
        numbered.all(|(number, name)| *name == format!("customer-{number}"))
    }
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, known)| *known == value);
    found.expect("every value of a key has its word").0
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn value(&mut self, key: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{key} = {value}").expect("a String takes any text");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.value(key, quoted(value));
    }

    fn time(&mut self, key: &str, ns: u64) {
        self.text(key, &format_ns(ns));
    }

    fn header(&mut self, name: &str) {
        writeln!(self.text, "\n[[{name}]]").expect("a String takes any text");
    }

    fn stage(&mut self, stage: &Stage) {
        self.header("stage");
        self.time("seconds", stage.to_ns - stage.from_ns);
        if stage.share.0 == stage.share.1 {
            self.value("share", stage.share.0);
        } else {
            self.value("from", stage.share.0);
            self.value("to", stage.share.1);
        }
    }

    fn group(&mut self, group: &GroupProfile, customers: &[String]) {
        self.header("group");
        self.text("name", &group.name);
        self.value("count", group.count);
        let dealt = group.customers.iter();
        let weights: Vec<String> = dealt
            .map(|(at, weight)| format!("{} = {weight}", customers[*at as usize]))
            .collect();
        let all = (0..customers.len() as u32).map(|at| (at, 1));
        match all.eq(group.customers.iter().copied()) {
            true => self.text("customers", "even"),
            false => self.value("customers", format_args!("{{ {} }}", weights.join(", "))),
        }
        match &group.stream {
            StreamKind::Audio => self.text("codec", word(&CODEC, Media::Pcmu)),
            StreamKind::Video(video) => {
                self.video(video);
                self.value("audio", group.audio);
            }
        }
        self.text("pacing", word(&PACING, group.pacing));
        self.text("phase", word(&PHASE, group.phase));
        for (key, set) in [("unknown", group.unknown), ("by_address", group.by_address)] {
            if set {
                self.value(key, true);
            }
        }
        if !group.impair.none() {
            let impair = impairments(&group.impair);
            self.value("impair", format_args!("{{ {impair} }}"));
        }
        if let Some(junk) = group.junk {
            let (least, most) = junk.bytes;
            let per_second = junk.per_second;
            self.value(
                "junk",
                format_args!("{{ per_second = {per_second}, bytes = [{least}, {most}] }}"),
            );
        }
    }

    fn video(&mut self, video: &Video) {
        self.text("codec", word(&CODEC, video.media));
        self.value("mbps", video.frames.mbps);
        if video.clip {
            self.text("payload", "clip");
        } else {
            self.text("payload", "filler");
            self.value("width", video.width);
            self.value("height", video.height);
            self.value("fps", video.frames.fps);
            self.value("gop", video.frames.gop);
            self.value("i_to_p", video.frames.i_to_p);
            self.value("sigma", video.frames.sigma);
            self.value("packet_bytes", video.packet_bytes);
        }
        if video.overdrive != 1.0 {
            self.value("overdrive", video.overdrive);
        }
        if let Some(night) = &video.night {
            let windows = night.windows.iter();
            let windows: Vec<String> = windows
                .map(|window| format!("[\"{}\", \"{}\"]", format_ns(window.start), format_ns(window.end)))
                .collect();
            let (windows, rate, noise) = (windows.join(", "), night.rate, night.noise);
            self.value(
                "night",
                format_args!("{{ windows = [{windows}], rate = {rate}, noise = {noise} }}"),
            );
        }
    }
}

/// The impairments that are on, as the inside of an inline table.
fn impairments(impair: &Impairments) -> String {
    let mut parts = Vec::new();
    let mut share = |key: &str, value: f64| {
        if value != 0.0 {
            parts.push(format!("{key} = {value}"));
        }
    };
    share("loss", impair.loss);
    share("reorder", impair.reorder);
    share("reorder_depth", f64::from(impair.reorder_depth));
    share("duplicate", impair.duplicate);
    share("corrupt", impair.corrupt);
    share("truncate", impair.truncate);
    share("clock_ppm", impair.clock_ppm);
    if let Some(bursts) = impair.bursts {
        parts.push(format!(
            "bursts = {{ to_bad = {}, to_good = {}, loss_good = {}, loss_bad = {} }}",
            bursts.to_bad, bursts.to_good, bursts.loss_good, bursts.loss_bad
        ));
    }
    let times = [
        ("jitter", impair.jitter_ns),
        ("restart_every", impair.restart_every_ns),
        ("sequence_jump_every", impair.sequence_jump_every_ns),
        ("timestamp_jump_every", impair.timestamp_jump_every_ns),
        ("payload_type_every", impair.payload_type_every_ns),
        ("rebind_every", impair.rebind_every_ns),
    ];
    let on = times.iter().filter(|(_, ns)| *ns > 0);
    parts.extend(on.map(|(key, ns)| format!("{key} = \"{}\"", format_ns(*ns))));
    parts.join(", ")
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => write!(out, "\\u{:04X}", c as u32).expect("a String takes any text"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
