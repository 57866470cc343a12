//! What protects the process here: tried on a thread of its own, and told line by line.

use super::{Row, State};
use crate::cli::run::reach;
use crate::config::Config;
use crate::process::folders::{self, Place, Verdict};
use crate::process::{self, Protection, user};
use crate::text::Plain;

/// A line for each protection, and for each place that others could use.
pub fn rows(config: &Config) -> Vec<Row> {
    let settings = &config.settings.process;
    // What `main` did already, done again to hear of it.
    let mut all = process::begin();
    all.extend(process::rehearse(&reach(config)));
    all.push(process::secrets());
    let lacking = match settings.require_sandbox {
        true => State::Needed,
        false => State::Wanted,
    };
    let mut rows: Vec<Row> = all
        .into_iter()
        .map(|protection| row(protection, lacking))
        .collect();
    rows.push(match &settings.user {
        Some(name) => Row::ok("user", format!("becomes {name} once its sockets are bound")),
        None => row(user::report(), State::Wanted),
    });
    let places = [
        (Place::Data, config.data_dir.clone()),
        (Place::Keys, config.data_dir.join("keys")),
        (Place::Config, config.path.clone()),
    ];
    rows.extend(places.into_iter().filter_map(|(place, path)| {
        let name = "access by others";
        match folders::look(place, &path) {
            Ok(Verdict::Fine) => None,
            Ok(Verdict::Loose(what, remedy)) => {
                Some(Row::lacking(name, State::Wanted, what, format!("`{remedy}`")))
            }
            Ok(Verdict::Open(what, remedy)) => {
                Some(Row::lacking(name, State::Needed, what, format!("`{remedy}`")))
            }
            Err(error) => Some(Row::lacking(
                name,
                State::Needed,
                format!("cannot look at {}: {}", path.display(), Plain(&error)),
                "see the folder's permissions",
            )),
        }
    }));
    rows
}

fn row(protection: Protection, lacking: State) -> Row {
    match protection.in_force {
        true => Row::ok(protection.name, protection.detail),
        false => Row::lacking(protection.name, lacking, protection.detail, protection.remedy),
    }
}
