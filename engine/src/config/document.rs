//! A TOML file as sections of known keys, with the line of everything in it.
//!
//! Invariants: every error names file and line; a key that [`KEYS`] does not have is refused before any value is looked
//! at; no message quotes the name of a customer or the id of a camera (messages reach the log, those must not): lines
//! are named instead.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::units;

/// Every section and its keys. `""` is the top of the file; `customer` and `camera` may be repeated.
pub const KEYS: [(&str, &[&str]); 14] = [
    ("", &["data_dir", "require_enrolment"]),
    ("listen", &["rtp", "rtcp"]),
    ("shards", &["cpus"]),
    ("memory", &["limit", "allow_unlocked"]),
    ("chunk", &["deadline"]),
    ("commit", &["interval"]),
    ("segment", &["max_age", "max_bytes"]),
    ("retention", &["max_age", "max_bytes", "min_free"]),
    ("control", &["listen"]),
    ("recovery", &["rate_limit"]),
    ("seal", &["backend"]),
    ("process", &["user", "require_sandbox", "read"]),
    (
        "customer",
        &["name", "public_key", "enrolment", "erasable", "grants"],
    ),
    ("camera", &["id", "customer", "source", "ssrc", "sdp"]),
];

const REPEATED: [&str; 2] = ["customer", "camera"];

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line at fault, from 1. `None`: the file itself could not be read.
    pub line: Option<usize>,
    /// What is wrong and, where it can be told, what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "cannot read {}: {}", self.file.display(), self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The text of a configuration file, and where its lines start.
pub struct Document {
    path: PathBuf,
    text: String,
    line_starts: Vec<usize>,
    /// Folders of the files that values name.
    folders: RefCell<BTreeSet<PathBuf>>,
}

impl Document {
    /// Wraps `text`, read from `path`.
    pub fn new(path: &Path, text: String) -> Document {
        let after_breaks = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        Document {
            path: path.to_owned(),
            text,
            line_starts,
            folders: RefCell::default(),
        }
    }

    /// Parses the text; the tables borrow it.
    pub fn parse(&self) -> Result<Root<'_>, ConfigError> {
        let table = DeTable::parse(&self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.error(at, error.message().to_owned())
        })?;
        Ok(Root {
            document: self,
            table: table.into_inner(),
        })
    }

    /// The path that names the file in messages, and whose folder relative paths start from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that a value names, seen from the folder of this one. Its folder is noted: a reload reads there again.
    pub fn file_named(&self, name: &str) -> PathBuf {
        let file = self.path.parent().unwrap_or(Path::new("")).join(name);
        if let Some(folder) = file.parent() {
            self.folders.borrow_mut().insert(folder.to_owned());
        }
        file
    }

    /// The folders of all files named so far.
    pub fn folders_named(&self) -> Vec<PathBuf> {
        self.folders.borrow().iter().cloned().collect()
    }

    /// The line, from 1, of the byte at `at`.
    pub fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// An error at byte `at`.
    pub fn error(&self, at: usize, message: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.path.clone(),
            line: Some(self.line(at)),
            message: message.into(),
        }
    }
}

/// The parsed file.
pub struct Root<'a> {
    document: &'a Document,
    table: DeTable<'a>,
}

impl<'a> Root<'a> {
    /// Refuses every key and section that [`KEYS`] does not have, and every section of the wrong kind.
    pub fn refuse_unknown(&self) -> Result<(), ConfigError> {
        for (key, value) in &self.table {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let keys = KEYS
                .iter()
                .find(|(section, _)| !section.is_empty() && *section == name)
                .map(|(_, keys)| *keys);
            match (keys, value.get_ref()) {
                (None, _) if KEYS[0].1.contains(&name) => {}
                (None, _) => return Err(self.document.error(at, unknown("", name))),
                (Some(keys), DeValue::Table(table)) if !REPEATED.contains(&name) => {
                    self.refuse_unknown_in(name, keys, table)?;
                }
                (Some(keys), DeValue::Array(items)) if REPEATED.contains(&name) => {
                    for item in items.iter() {
                        let DeValue::Table(table) = item.get_ref() else {
                            return Err(self
                                .document
                                .error(item.span().start, format!("write {name}s as [[{name}]]")));
                        };
                        self.refuse_unknown_in(name, keys, table)?;
                    }
                }
                (Some(_), _) if REPEATED.contains(&name) => {
                    return Err(self
                        .document
                        .error(at, format!("{name} may be repeated: write [[{name}]]")));
                }
                (Some(_), _) => {
                    return Err(self
                        .document
                        .error(at, format!("{name} is a section: write [{name}]")));
                }
            }
        }
        Ok(())
    }

    fn refuse_unknown_in(
        &self,
        section: &str,
        keys: &[&str],
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        match table.keys().find(|key| !keys.contains(&key.get_ref().as_ref())) {
            Some(key) => Err(self
                .document
                .error(key.span().start, unknown(section, key.get_ref()))),
            None => Ok(()),
        }
    }

    /// The keys at the top of the file.
    pub fn top(&self) -> Section<'_> {
        Section {
            document: self.document,
            name: "",
            at: 0,
            table: Some(&self.table),
        }
    }

    /// The section `[name]`; empty if the file has none.
    pub fn section(&self, name: &'static str) -> Section<'_> {
        let found = self.table.iter().find(|(key, _)| key.get_ref() == name);
        let (at, table) = match found {
            Some((_, value)) => (value.span().start, value.get_ref().as_table()),
            None => (0, None),
        };
        Section {
            document: self.document,
            name,
            at,
            table,
        }
    }

    /// The sections `[[name]]`, in the order of the file.
    pub fn sections(&self, name: &'static str) -> impl Iterator<Item = Section<'_>> {
        let found = self.table.iter().find(|(key, _)| key.get_ref() == name);
        let items = found
            .and_then(|(_, value)| value.get_ref().as_array())
            .map(|items| items.iter());
        items.into_iter().flatten().map(move |item| {
            let table = item.get_ref().as_table();
            Section {
                document: self.document,
                name,
                at: item.span().start,
                table,
            }
        })
    }
}

/// `unknown key …`, with the key that was probably meant: of this section, else of another.
fn unknown(section: &str, key: &str) -> String {
    let place = if section.is_empty() {
        "at the top of the file".to_owned()
    } else {
        format!("in [{section}]")
    };
    let here = KEYS
        .iter()
        .filter(|(name, _)| *name == section)
        .flat_map(|(_, keys)| keys.iter().copied());
    let sections = KEYS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| section.is_empty() && !name.is_empty());
    let meant = nearest(key, here.chain(sections))
        .map(|near| format!("the nearest is {near:?}"))
        .or_else(|| {
            let elsewhere = KEYS.iter().find(|(_, keys)| keys.contains(&key));
            elsewhere.map(|(name, _)| {
                if name.is_empty() {
                    "it belongs to the top of the file".to_owned()
                } else {
                    format!("it belongs to [{name}]")
                }
            })
        });
    match meant {
        Some(meant) => format!("unknown key {key:?} {place}; {meant}"),
        None => format!("unknown key {key:?} {place}; config/engine.toml lists every key"),
    }
}

/// One section, as far as the file has it.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    document: &'a Document,
    name: &'static str,
    at: usize,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// The value of `key`, if set.
    pub fn get(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(
            KEYS.iter()
                .any(|(name, keys)| *name == self.name && keys.contains(&key)),
            "{key} is in KEYS"
        );
        let (_, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value {
            document: self.document,
            section: self.name,
            key,
            value,
        })
    }

    /// The value of `key`, or an error that asks for it.
    pub fn require(&self, key: &'static str) -> Result<Value<'a>, ConfigError> {
        self.get(key)
            .ok_or_else(|| self.error(format!("{} is missing", qualified(self.name, key))))
    }

    /// Where the section begins: its header.
    pub fn at(&self) -> usize {
        self.at
    }

    /// An error at the section's header.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.document.error(self.at, message)
    }
}

fn qualified(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// One value and where it stands.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document,
    section: &'static str,
    key: &'static str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    /// Where the value begins.
    pub fn at(&self) -> usize {
        self.value.span().start
    }

    /// The line the value begins at, from 1.
    pub fn line(&self) -> usize {
        self.document.line(self.at())
    }

    /// `section.key: message`, at the value's line.
    pub fn error(&self, message: impl fmt::Display) -> ConfigError {
        self.document.error(
            self.at(),
            format!("{}: {message}", qualified(self.section, self.key)),
        )
    }

    /// A string.
    pub fn text(&self) -> Result<&'a str, ConfigError> {
        self.value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.error("must be a string, in quotes"))
    }

    /// A string, parsed.
    pub fn parsed<T: FromStr<Err = String>>(&self) -> Result<T, ConfigError> {
        self.text()?.parse().map_err(|error: String| self.error(error))
    }

    /// True or false.
    pub fn flag(&self) -> Result<bool, ConfigError> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.error("must be true or false, without quotes"))
    }

    /// A whole number from 0 to `max`.
    pub fn number(&self, max: u64) -> Result<u64, ConfigError> {
        let integer = match self.value.get_ref() {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        integer
            .filter(|n| *n <= max)
            .ok_or_else(|| self.error(format!("must be a whole number from 0 to {max}")))
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub fn items(&self) -> Vec<Value<'a>> {
        match self.value.get_ref() {
            DeValue::Array(items) => items.iter().map(|value| Value { value, ..*self }).collect(),
            _ => vec![*self],
        }
    }

    /// A duration within `bounds`.
    pub fn duration(&self, bounds: (Duration, Duration)) -> Result<Duration, ConfigError> {
        let duration = units::parse_duration(self.text()?).map_err(|error| self.error(error))?;
        let (least, most) = bounds;
        if duration < least || duration > most {
            let (least, most) = (units::format_duration(least), units::format_duration(most));
            return Err(self.error(format!("must be from {least} to {most}")));
        }
        Ok(duration)
    }

    /// A size in bytes, at least `least`.
    pub fn bytes(&self, least: u64) -> Result<u64, ConfigError> {
        let bytes = units::parse_bytes(self.text()?).map_err(|error| self.error(error))?;
        self.at_least(bytes, least, "")
    }

    /// A rate in bytes per second, at least `least`.
    pub fn bytes_per_s(&self, least: u64) -> Result<u64, ConfigError> {
        let rate = units::parse_bytes_per_s(self.text()?).map_err(|error| self.error(error))?;
        self.at_least(rate, least, "/s")
    }

    fn at_least(&self, value: u64, least: u64, suffix: &str) -> Result<u64, ConfigError> {
        if value >= least {
            Ok(value)
        } else {
            Err(self.error(format!("must be at least {}{suffix}", units::format_bytes(least))))
        }
    }
}
