//! `-s key=value`: settings that take the place of what the file says, and those that scale the fleet as a whole.
//!
//! A key is a path: `seconds`, `load.shape`, `stage.2.share`, `group.street.count`, `group.*.night.rate`. Keys that no file
//! has scale everything: `cameras`, `streams`, `mbps`, `total_mbps`, `pps`.

use super::document::{Node, Origin, ProfileError, Table, Value};
use super::{Profile, StreamKind};
use crate::nearest::nearest;

/// What a fleet can be scaled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Number of cameras; their rates stay.
    Cameras,
    /// Number of streams (a camera with audio has two); rates stay.
    Streams,
    /// Mean rate of a camera's video in Mb/s; numbers stay.
    MbpsPerCamera,
    /// Rate of all streams together, in Mb/s, with all cameras on; numbers stay.
    Mbps,
    /// Packets per second of all streams together, with all cameras on; numbers and packet sizes stay.
    Pps,
}

const SCALES: [(&str, Dimension); 5] = [
    ("cameras", Dimension::Cameras),
    ("streams", Dimension::Streams),
    ("mbps", Dimension::MbpsPerCamera),
    ("total_mbps", Dimension::Mbps),
    ("pps", Dimension::Pps),
];

/// A setting that scales, and its text for messages.
pub struct Scale {
    setting: String,
    dimension: Dimension,
    value: f64,
}

impl Scale {
    pub fn of(&self, profile: &Profile) -> Result<Profile, ProfileError> {
        profile
            .scale(self.dimension, self.value)
            .map_err(|error| ProfileError {
                origin: Some(Origin::Setting(self.setting.clone())),
                ..error
            })
    }
}

/// Puts settings into the tree; those that scale are returned for afterwards.
pub fn apply(file: &str, table: &mut Table, settings: &[String]) -> Result<Vec<Scale>, ProfileError> {
    let mut scales = Vec::new();
    for setting in settings {
        let error = |message: String| ProfileError {
            file: file.to_owned(),
            origin: Some(Origin::Setting(setting.clone())),
            message,
        };
        let Some((key, text)) = setting.split_once('=') else {
            return Err(error("a setting is key=value, as in seconds=5".to_owned()));
        };
        let (key, node) = (key.trim(), Node::of_setting(setting, text.trim()));
        match SCALES.iter().find(|(name, _)| *name == key) {
            Some((_, dimension)) => {
                let value = match &node.value {
                    Value::Number(number) => Some(*number),
                    Value::Text(text) => super::units::mbps(text),
                    _ => None,
                };
                let value = value.filter(|value| value.is_finite() && *value > 0.0);
                let value = value.ok_or_else(|| error(format!("{key} must be a number above 0")))?;
                scales.push(Scale {
                    setting: setting.clone(),
                    dimension: *dimension,
                    value,
                });
            }
            None => {
                let path: Vec<&str> = key.split('.').collect();
                set(table, &path, &node).map_err(error)?;
            }
        }
    }
    Ok(scales)
}

/// Puts a value where its path leads; tables on the way are made.
fn set(table: &mut Table, path: &[&str], node: &Node) -> Result<(), String> {
    match path {
        [] | [""] => Err("the key is missing: key=value".to_owned()),
        [key @ ("group" | "stage"), which, rest @ ..] if !rest.is_empty() => {
            let items = match table.get_mut(key).map(|node| &mut node.value) {
                Some(Value::List(items)) => items.as_mut_slice(),
                _ => &mut [],
            };
            let tables = items.iter_mut().filter_map(|item| match &mut item.value {
                Value::Table(table) => Some(table),
                _ => None,
            });
            let mut tables: Vec<&mut Table> = tables.collect();
            for at in chosen(key, which, &tables)? {
                set(tables[at], rest, node)?;
            }
            Ok(())
        }
        ["group" | "stage", ..] => Err(format!(
            "say which one and what of it, as in {}.{}",
            path[0],
            if path[0] == "group" {
                "street.count=200 or group.*.mbps=4"
            } else {
                "1.seconds=5"
            }
        )),
        [key] => {
            table.set(key, node.clone());
            Ok(())
        }
        [key, rest @ ..] => {
            if table.get(key).is_none() {
                let inner = Table::new(node.origin.clone());
                table.set(
                    key,
                    Node {
                        value: Value::Table(inner),
                        origin: node.origin.clone(),
                    },
                );
            }
            match table.get_mut(key).map(|node| &mut node.value) {
                Some(Value::Table(inner)) => set(inner, rest, node),
                _ => {
                    let scales: Vec<&str> = SCALES.iter().map(|(name, _)| *name).collect();
                    Err(format!(
                        "{key} has no parts to set; the whole fleet is scaled by {}",
                        scales.join(", ")
                    ))
                }
            }
        }
    }
}

/// Which of the groups (by name) or stages (by number, from 1) are meant; `*` is all.
fn chosen(key: &str, which: &str, tables: &[&mut Table]) -> Result<Vec<usize>, String> {
    if which == "*" {
        return Ok((0..tables.len()).collect());
    }
    if key == "stage" {
        let at = which
            .parse::<usize>()
            .ok()
            .filter(|at| (1..=tables.len()).contains(at));
        return at.map(|at| vec![at - 1]).ok_or_else(|| match tables.len() {
            0 => "this profile has no [[stage]]: it has load, or one constant stage".to_owned(),
            count => format!("the stages of this profile have the numbers 1 to {count}"),
        });
    }
    let names: Vec<&str> = tables
        .iter()
        .filter_map(|table| match table.get("name").map(|node| &node.value) {
            Some(Value::Text(name)) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let meant = || match nearest(which, names.iter().copied()) {
        Some(near) => format!("the nearest is {near:?}"),
        None => format!("there are {}", names.join(", ")),
    };
    match names.iter().position(|name| *name == which) {
        Some(at) => Ok(vec![at]),
        None => Err(format!("no group is called {which:?}; {}", meant())),
    }
}

impl Profile {
    /// The same fleet, larger or smaller along one dimension until it has `value` of it. Groups keep their proportions; a
    /// number of streams that does not come out even is met as nearly as whole cameras can.
    pub fn scale(&self, dimension: Dimension, value: f64) -> Result<Profile, ProfileError> {
        match dimension {
            Dimension::Cameras => self.with_cameras(value),
            Dimension::Streams => self.with_cameras(value * self.cameras() as f64 / self.streams() as f64),
            Dimension::MbpsPerCamera => {
                let cameras = self
                    .groups
                    .iter()
                    .filter_map(|group| Some((group.count, group.video()?)));
                let (count, sum) = cameras.fold((0.0, 0.0), |(count, sum), (cameras, video)| {
                    (
                        count + f64::from(cameras),
                        sum + f64::from(cameras) * video.frames.mbps,
                    )
                });
                if sum == 0.0 {
                    return Err(self.no_video());
                }
                self.with_rates_times(value * count / sum)
            }
            Dimension::Mbps => self.with_offered(value, |offered| (offered.mbps, offered.audio_mbps)),
            Dimension::Pps => self.with_offered(value, |offered| (offered.pps, offered.audio_pps)),
        }
    }

    fn no_video(&self) -> ProfileError {
        self.error(
            "every camera of this profile sends audio at its fixed rate: scale cameras or streams instead",
        )
    }

    /// So many cameras, each group its share of them, by largest remainder.
    fn with_cameras(&self, cameras: f64) -> Result<Profile, ProfileError> {
        let most = super::read::CAMERAS_MAX;
        let total = cameras.round();
        if !(1.0..=most as f64).contains(&total) {
            return Err(self.error(format!("{cameras} cameras cannot be: 1 to {most} can")));
        }
        let was = self.cameras() as f64;
        let exact = |count: u32| f64::from(count) * total / was;
        let mut scaled = self.clone();
        let mut rest = total as u64;
        for group in &mut scaled.groups {
            group.count = exact(group.count) as u32;
            rest -= u64::from(group.count);
        }
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        let fraction = |at: usize| exact(self.groups[at].count).fract();
        order.sort_by(|a, b| fraction(*b).total_cmp(&fraction(*a)));
        for at in order.into_iter().take(rest as usize) {
            scaled.groups[at].count += 1;
        }
        Ok(scaled)
    }

    fn with_rates_times(&self, factor: f64) -> Result<Profile, ProfileError> {
        let mut scaled = self.clone();
        for group in &mut scaled.groups {
            let StreamKind::Video(video) = &mut group.stream else {
                continue;
            };
            video.frames.mbps *= factor;
            if let Some(problem) = super::read::rate_problem(video) {
                return Err(self.error(format!("group.{}: {problem}", group.name)));
            }
        }
        Ok(scaled)
    }

    /// Rates such that the fleet offers `wanted`, of which audio's part is fixed. Packets do not follow bytes exactly, so
    /// the factor is corrected until it is within 1 in 10,000.
    fn with_offered(
        &self,
        wanted: f64,
        figure: impl Fn(&super::Offered) -> (f64, f64),
    ) -> Result<Profile, ProfileError> {
        let mut scaled = self.clone();
        for _ in 0..8 {
            let (now, fixed) = figure(&scaled.offered());
            if now <= fixed {
                return Err(self.no_video());
            }
            if wanted <= fixed {
                return Err(self.error(format!(
                    "audio alone is {fixed:.3}, so {wanted} cannot be reached"
                )));
            }
            if (now / wanted - 1.0).abs() < 1e-4 {
                break;
            }
            scaled = scaled.with_rates_times((wanted - fixed) / (now - fixed))?;
        }
        Ok(scaled)
    }
}
