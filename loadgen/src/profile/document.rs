//! A profile's TOML as a tree in which every value knows where it comes from: a line of the file, or a setting (`-s`) that
//! took its place. Errors name it.

use std::fmt;
use toml::de::{DeTable, DeValue};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, from 1.
    Line(usize),
    /// The text of a setting, `key=value`.
    Setting(String),
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(f64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// A date or a time, which no key takes.
    Date,
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
}

/// Keys and their values.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub entries: Vec<(String, Node)>,
    pub origin: Origin,
}

/// Why a profile was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError {
    /// The file, or the built-in profile's file.
    pub file: String,
    /// `None`: it concerns no single value.
    pub origin: Option<Origin>,
    /// What is wrong, and what would do.
    pub message: String,
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(Origin::Line(line)) => write!(f, "{}:{line}: {}", self.file, self.message),
            Some(Origin::Setting(text)) => write!(f, "-s {text}: {}", self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ProfileError {}

impl Table {
    /// An empty table.
    pub fn new(origin: Origin) -> Table {
        Table {
            entries: Vec::new(),
            origin,
        }
    }

    /// Parses the text of a file.
    pub fn parse(file: &str, text: &str) -> Result<Table, ProfileError> {
        let line = |at: usize| {
            1 + text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
        };
        let parsed = DeTable::parse(text).map_err(|error| ProfileError {
            file: file.to_owned(),
            origin: Some(Origin::Line(line(error.span().map_or(0, |span| span.start)))),
            message: error.message().to_owned(),
        })?;
        Ok(table(parsed.get_ref(), Origin::Line(1), &|at| {
            Origin::Line(line(at))
        }))
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries
            .iter_mut()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }

    /// Sets a key, in the place of what it was.
    pub fn set(&mut self, key: &str, node: Node) {
        match self.get_mut(key) {
            Some(old) => *old = node,
            None => self.entries.push((key.to_owned(), node)),
        }
    }
}

impl Node {
    /// The value of a setting: TOML if it is that, else the text as it stands, so that quotes are not needed.
    pub fn of_setting(setting: &str, text: &str) -> Node {
        let origin = Origin::Setting(setting.to_owned());
        let source = format!("x = {text}");
        let parsed = DeTable::parse(&source).ok();
        let parsed = parsed.as_ref().map(|parsed| parsed.get_ref());
        match parsed
            .filter(|parsed| parsed.len() == 1)
            .and_then(|parsed| parsed.values().next())
        {
            Some(found) => node(found.get_ref(), origin.clone(), &|_| origin.clone()),
            None => Node {
                value: Value::Text(text.to_owned()),
                origin,
            },
        }
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Number(number) => format!("{number}"),
            Value::Flag(flag) => flag.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Date => "a date".to_owned(),
        }
    }
}

fn table(from: &DeTable<'_>, origin: Origin, origin_at: &dyn Fn(usize) -> Origin) -> Table {
    let entries = from.iter().map(|(key, value)| {
        let node = node(value.get_ref(), origin_at(key.span().start), origin_at);
        (key.get_ref().clone().into_owned(), node)
    });
    Table {
        entries: entries.collect(),
        origin,
    }
}

fn node(from: &DeValue<'_>, origin: Origin, origin_at: &dyn Fn(usize) -> Origin) -> Node {
    let value = match from {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Date, |number| Value::Number(number as f64)),
        DeValue::Float(number) => number.as_str().parse().map_or(Value::Date, Value::Number),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => {
            let items = items.iter().map(|item| {
                let at = origin_at(item.span().start);
                node(item.get_ref(), at, origin_at)
            });
            Value::List(items.collect())
        }
        DeValue::Table(inner) => Value::Table(table(inner, origin.clone(), origin_at)),
    };
    Node { value, origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let table = Table::parse(
            "x.toml",
            "a = 1\n\n[[group]]\nname = \"x\"\nnight = { rate = 0.5 }\n",
        )
        .expect("TOML");
        let Some(Value::List(groups)) = table.get("group").map(|node| &node.value) else {
            panic!("a list of groups")
        };
        let Value::Table(group) = &groups[0].value else {
            panic!("a table")
        };
        assert_eq!(group.get("name").map(|node| &node.origin), Some(&Origin::Line(4)));
        assert_eq!(
            group.get("night").map(|node| &node.origin),
            Some(&Origin::Line(5))
        );
        let error = Table::parse("x.toml", "a = 1\nb = = 2\n").expect_err("no TOML");
        assert!(error.to_string().starts_with("x.toml:2: "), "{error}");
    }

    #[test]
    fn a_setting_is_toml_or_plain_text() {
        let value = |text| Node::of_setting("k=v", text).value;
        assert_eq!(value("5"), Value::Number(5.0));
        assert_eq!(value("2.5"), Value::Number(2.5));
        assert_eq!(value("0.1%"), Value::Text("0.1%".into()));
        assert_eq!(value("20ms"), Value::Text("20ms".into()));
        assert_eq!(value("line-rate"), Value::Text("line-rate".into()));
        assert_eq!(value("true"), Value::Flag(true));
        assert_eq!(value(""), Value::Text(String::new()));
        assert!(matches!(value("[1, 2]"), Value::List(items) if items.len() == 2));
        assert_eq!(value("1\ny = 2"), Value::Text("1\ny = 2".into()));
    }
}
