//! Whose key the customers' footage would be sealed to: what is enrolled, held against this node's pins and its audit log.

use std::io;

use super::{Row, State};
use crate::config::Config;
use crate::engine::{self, Standing};
use crate::text::{Plain, counted};

/// A line for the enrolments as a whole, and one for each customer who would not be recorded.
pub fn rows(config: &Config) -> Vec<Row> {
    if config.registry.customers.is_empty() {
        return Vec::new();
    }
    match looked(config) {
        Ok(standing) => of_standing(config, &standing),
        Err((what, remedy)) => vec![Row::lacking("enrolments", State::Needed, what, remedy)],
    }
}

fn looked(config: &Config) -> Result<Standing, (String, String)> {
    let path = config.data_dir.join("keys/node.key");
    let node = match path.try_exists() {
        Ok(false) => None,
        Ok(true) => {
            Some(engine::node_key_of(&config.data_dir).map_err(|error| (error.message, error.remedy))?)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let remedy = "run the check as the engine's own user, or as root";
            return Err((format!("cannot look for {}", path.display()), remedy.to_owned()));
        }
        Err(error) => {
            let what = format!("cannot look for {}: {}", path.display(), Plain(&error));
            return Err((what, String::new()));
        }
    };
    engine::preview(config, node.as_ref()).map_err(|error| {
        let remedy = "without its audit log and its pins a node does not record; `harborseal audit verify` shows what holds";
        (error.to_string(), remedy.to_owned())
    })
}

fn of_standing(config: &Config, standing: &Standing) -> Vec<Row> {
    let customers = config.registry.customers.len();
    let enrolled = customers - standing.refused.len() - standing.unenrolled;
    let told = format!("{enrolled} of {} enrolled", counted(customers, "customer"));
    let mut rows = vec![match standing.unenrolled {
        0 if enrolled == customers => Row::ok("enrolments", told),
        0 => Row::lacking(
            "enrolments",
            State::Wanted,
            format!("{told}; the packets of the others would be dropped as not_enrolled"),
            "",
        ),
        n => Row::lacking(
            "enrolments",
            State::Wanted,
            format!("{told}; require_enrolment is false: {n} recorded under a key that nobody signed for"),
            "have the customers make enrolments (`harborseal enrol`), and set require_enrolment = true",
        ),
    }];
    rows.extend(standing.refused.iter().map(|(customer, why)| {
        let name = format!("customer {}", customer + 1);
        let remedy = match why.is_a_swap() {
            true => "find out who changed it; a key is exchanged by a statement that the key in force signed (`harborseal enrol --replaces`)",
            false => "name it in the customer's section: enrolment = \"FILE\"",
        };
        Row::lacking(name, State::Wanted, format!("would not be recorded: {why}"), remedy)
    }));
    rows
}
