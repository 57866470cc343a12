//! `harborseal audit show`: the entries, all or one customer's.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::opened::{Opened, Placed};
use super::{Common, Whose};
use crate::cli::output::{self, people};
use crate::cli::{CliError, ExitStatus, instant};
use crate::keystore::Day;
use crate::text::{Grouped, OneLine};

/// List entries of a node's audit log.
///
/// Entries name customers by pseudonyms that only they recognise: with an identity, an enrolment or its audit salt, what is listed is what
/// concerns that customer, and nothing else. What is listed was checked against the log's checkpoint before.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal audit show data
  harborseal audit show --identity alice.identity --json data")]
pub struct Args {
    #[command(flatten)]
    whose: Whose,

    #[command(flatten)]
    common: Common,

    /// The node's data folder, its audit folder, or a copy of that
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Serialize)]
struct Shown<'a> {
    origin: &'a str,
    size: u64,
    entries: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    index: u64,
    entry: Value,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let salt = args.whose.salt()?;
    let log = Opened::open(&args.path, args.common.key.as_deref())?;
    let found = log.entries(|entry| match (&salt, entry) {
        (None, _) => true,
        (Some(salt), entry) => entry.is_some_and(|entry| entry.concerns(salt)),
    })?;
    if args.common.print.json {
        let line = |placed: &Placed| Line {
            index: placed.index,
            entry: serde_json::from_slice(&placed.bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&placed.bytes).into_owned())),
        };
        output::json(&Shown {
            origin: &log.key.name,
            size: log.size(),
            entries: found.iter().map(line).collect(),
        })?;
    } else {
        for placed in &found {
            output::data(text(placed))?;
        }
        let (listed, all) = (found.len(), log.size() as usize);
        let of_customer = match salt {
            Some(_) => " that concern this customer",
            None => "",
        };
        people(format_args!(
            "{}{of_customer}, of {all} in the log",
            match listed {
                1 => "1 entry".to_owned(),
                n => format!("{} entries", Grouped(n as u64)),
            }
        ));
    }
    match found.is_empty() && salt.is_some() {
        true => Ok(ExitStatus::NothingHere),
        false => Ok(ExitStatus::Ok),
    }
}

/// `index  time  kind  facts`; the facts are those of the entry's JSON, without what names nobody and nothing.
fn text(placed: &Placed) -> String {
    let Some(entry) = &placed.entry else {
        let raw = String::from_utf8_lossy(&placed.bytes);
        return format!("{:>6}  (of a later version) {}", placed.index, OneLine(&raw));
    };
    let fact = serde_json::to_value(&entry.fact).unwrap_or_default();
    let facts = fact
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "kind");
    let facts: Vec<String> = facts.map(|(key, value)| shown(key, value)).collect();
    let time = instant::seconds(entry.time_s);
    format!(
        "{:>6}  {time}  {:<20} {}",
        placed.index,
        entry.fact.kind(),
        facts.join(" ")
    )
}

/// Days and seconds as people write them; lists of ids without JSON's marks; what has spaces in it, in quotes.
fn shown(key: &str, value: &Value) -> String {
    let (name, unit) = key.rsplit_once('_').unwrap_or((key, ""));
    match (unit, value) {
        ("day", Value::Number(day)) => {
            let began_s = day.as_u64().unwrap_or(0).saturating_mul(86_400);
            format!("{name}={}", Day::of(began_s))
        }
        ("s", Value::Number(second)) => format!("{name}={}", instant::seconds(second.as_u64().unwrap_or(0))),
        (_, Value::String(text)) if text.contains(char::is_whitespace) => {
            format!("{key}=\"{}\"", OneLine(text))
        }
        (_, Value::String(text)) => format!("{key}={}", OneLine(text)),
        (_, Value::Array(items)) if items.iter().all(Value::is_string) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            format!("{key}={}", OneLine(&items.join(",")))
        }
        (_, other) => format!("{key}={other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::shown;

    #[test]
    fn days_seconds_lists_and_words_are_shown_as_people_write_them() {
        assert_eq!(shown("from_day", &json!(20_781)), "from=2026-11-24");
        assert_eq!(shown("to_s", &json!(1_795_478_400)), "to=2026-11-24T00:00:00Z");
        assert_eq!(shown("segments", &json!(["ab", "cd"])), "segments=ab,cd");
        assert_eq!(
            shown("purpose", &json!("break-in of Monday")),
            "purpose=\"break-in of Monday\""
        );
        assert_eq!(shown("to", &json!("Bob")), "to=Bob");
        assert_eq!(shown("held", &json!(true)), "held=true");
    }
}
