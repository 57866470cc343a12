//! One table of a profile, read key by key: types, ranges and unknown keys, each refusal with what would do.

use super::document::{Node, Origin, ProfileError, Table, Value};
use super::units;
use crate::nearest::nearest;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// A table, the file it is of, and what it is called in messages: `group.street`.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    pub file: &'a str,
    pub path: &'a str,
    pub table: &'a Table,
}

type Read<T> = Result<Option<T>, ProfileError>;

impl<'a> Section<'a> {
    /// Refuses every key that is not one of `keys`.
    pub fn refuse_unknown(&self, keys: &[&str]) -> Result<(), ProfileError> {
        let unknown = self
            .table
            .entries
            .iter()
            .find(|(key, _)| !keys.contains(&key.as_str()));
        let Some((key, node)) = unknown else { return Ok(()) };
        let place = match self.path {
            "" => "at the top of the profile".to_owned(),
            path => format!("in {path}"),
        };
        let meant = match nearest(key, keys.iter().copied()) {
            Some(near) => format!("the nearest is {near:?}"),
            None => format!("known are {}", keys.join(", ")),
        };
        Err(self.error(&node.origin, format!("unknown key {key:?} {place}; {meant}")))
    }

    pub fn error(&self, origin: &Origin, message: impl Into<String>) -> ProfileError {
        ProfileError {
            file: self.file.to_owned(),
            origin: Some(origin.clone()),
            message: message.into(),
        }
    }

    /// An error about the table itself.
    pub fn error_here(&self, message: impl Into<String>) -> ProfileError {
        self.error(&self.table.origin, message)
    }

    /// An error about a key's value, or where it is missing about the table.
    pub fn error_at(&self, key: &str, message: impl Display) -> ProfileError {
        let origin = self
            .table
            .get(key)
            .map_or(&self.table.origin, |node| &node.origin);
        self.error(origin, format!("{}: {message}", self.qualified(key)))
    }

    fn wrong(&self, key: &str, node: &Node, wanted: impl Display) -> ProfileError {
        let what = format!(
            "{} must be {wanted}, not {}",
            self.qualified(key),
            node.describe()
        );
        self.error(&node.origin, what)
    }

    fn qualified(&self, key: &str) -> String {
        match self.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    pub fn text(&self, key: &str) -> Read<&'a str> {
        self.read(key, "a text", |node| match &node.value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A text that parses.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str, wanted: &str) -> Read<T> {
        self.read(key, wanted, |node| match &node.value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub fn flag(&self, key: &str) -> Result<bool, ProfileError> {
        let read = self.read(key, "true or false", |node| match &node.value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        });
        Ok(read?.unwrap_or(false))
    }

    /// One of some words, each with its meaning.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Read<T> {
        let names: Vec<String> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
        self.read(key, names.join(" or "), |node| match &node.value {
            Value::Text(text) => words
                .iter()
                .find(|(name, _)| name == text)
                .map(|(_, value)| *value),
            _ => None,
        })
    }

    /// A number within `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Read<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.read(key, wanted, |node| match node.value {
            Value::Number(number) => range.contains(&number).then_some(number),
            _ => None,
        })
    }

    /// A whole number within `range`.
    pub fn whole(&self, key: &str, range: RangeInclusive<u64>) -> Read<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, wanted, |node| whole(node, &range))
    }

    /// A probability.
    pub fn share(&self, key: &str) -> Read<f64> {
        self.read(key, "a share from 0 to 1, or \"0%\" to \"100%\"", |node| {
            let share = match &node.value {
                Value::Number(number) => Some(*number),
                Value::Text(text) => units::share(text),
                _ => None,
            };
            share.filter(|share| (0.0..=1.0).contains(share))
        })
    }

    /// A time in nanoseconds: `20ms`, or a number of seconds.
    pub fn duration_ns(&self, key: &str, seconds: RangeInclusive<f64>) -> Read<u64> {
        let ends = [seconds.start(), seconds.end()].map(|end| units::format_ns((end * 1e9) as u64));
        let wanted = format!(
            "a time from {} to {}, as in \"20ms\"; a number is seconds",
            ends[0], ends[1]
        );
        self.read(key, wanted, |node| duration_ns(node, &seconds))
    }

    /// A rate in Mb/s: a number, or with its unit.
    pub fn mbps(&self, key: &str, range: RangeInclusive<f64>) -> Read<f64> {
        let wanted = format!(
            "Mb/s from {} to {}, as in 2.5 or \"500 kb/s\"",
            range.start(),
            range.end()
        );
        self.read(key, wanted, |node| {
            let mbps = match &node.value {
                Value::Number(number) => Some(*number),
                Value::Text(text) => units::mbps(text),
                _ => None,
            };
            mbps.filter(|mbps| range.contains(mbps))
        })
    }

    pub fn list(&self, key: &str) -> Read<&'a [Node]> {
        self.read(key, "a list", |node| match &node.value {
            Value::List(items) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// The table under a key, called `path` in messages.
    pub fn table<'b>(&self, key: &str, path: &'b str) -> Read<Section<'b>>
    where
        'a: 'b,
    {
        let table = self.read(key, "a table: { … }", |node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        })?;
        Ok(table.map(|table| Section {
            file: self.file,
            path,
            table,
        }))
    }

    /// Reads a key's value by `take`; if it does not take it, says what was `wanted`.
    pub fn read<T>(
        &self,
        key: &str,
        wanted: impl Display,
        take: impl FnOnce(&'a Node) -> Option<T>,
    ) -> Read<T> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        match take(node) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(key, node, wanted)),
        }
    }
}

pub fn whole(node: &Node, range: &RangeInclusive<u64>) -> Option<u64> {
    match node.value {
        Value::Number(number) if number.fract() == 0.0 && number >= 0.0 => {
            Some(number as u64).filter(|number| range.contains(number))
        }
        _ => None,
    }
}

pub fn duration_ns(node: &Node, seconds: &RangeInclusive<f64>) -> Option<u64> {
    let ns = match &node.value {
        Value::Number(seconds) => Some(seconds * 1e9),
        Value::Text(text) => units::duration_ns(text),
        _ => None,
    };
    ns.filter(|ns| seconds.contains(&(ns / 1e9)))
        .map(|ns| ns.round() as u64)
}
