//! Limits on a change: `lateness_ms_p99>+5%` fails a comparison whose B is more than five percent above its A.
//!
//! A limit is held against the medians as they are; whether the difference is told from noise stands beside it.

use super::Row;
use crate::assert::FIGURES;
use crate::nearest::nearest;
use std::str::FromStr;

/// A parsed limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub text: String,
    /// Name of the figure.
    pub figure: String,
    above: bool,
    amount: f64,
    percent: bool,
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LimitError {
    #[error(
        "{0:?} is no limit: wanted is a figure, > or <, and a change with its sign, as in 'lateness_ms_p99>+5%'"
    )]
    Shape(String),
    #[error("{name:?} is no figure of a run{}", .nearest.map_or_else(String::new, |near| format!("; did you mean {near:?}?")))]
    Name {
        name: String,
        nearest: Option<&'static str>,
    },
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Limit, LimitError> {
        let shape = || LimitError::Shape(text.to_owned());
        let at = text.find(['>', '<']).ok_or_else(shape)?;
        let (name, change) = (text[..at].trim(), text[at + 1..].trim());
        let number = change.strip_suffix('%').unwrap_or(change).trim();
        if !number.starts_with(['+', '-']) {
            return Err(shape());
        }
        let amount: f64 = number.parse().map_err(|_| shape())?;
        if !amount.is_finite() {
            return Err(shape());
        }
        if !FIGURES.iter().any(|figure| figure.name == name) {
            let nearest = nearest(name, FIGURES.iter().map(|figure| figure.name));
            return Err(LimitError::Name {
                name: name.to_owned(),
                nearest,
            });
        }
        Ok(Limit {
            text: text.to_owned(),
            figure: name.to_owned(),
            above: text[at..].starts_with('>'),
            amount,
            percent: change.ends_with('%'),
        })
    }
}

impl Limit {
    /// Whether the change from A to B is beyond the limit.
    pub fn crossed(&self, row: &Row) -> bool {
        let change = match (self.percent, row.median_a) {
            (false, _) => row.difference,
            (true, _) if row.difference == 0.0 => 0.0,
            // From nothing to something is more than any percentage; dividing says so, with the sign of the change.
            (true, before) => 100.0 * row.difference / before.abs(),
        };
        if self.above {
            change > self.amount
        } else {
            change < self.amount
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(text: &str, a: f64, b: f64) -> bool {
        let limit: Limit = text.parse().unwrap_or_else(|error| panic!("{error}"));
        limit.crossed(&Row::of("lateness_ms_p99", &[a], &[b], 1))
    }

    #[test]
    fn a_limit_is_on_the_change() {
        assert!(crossed("lateness_ms_p99>+5%", 100.0, 105.1));
        assert!(!crossed("lateness_ms_p99>+5%", 100.0, 105.0));
        assert!(!crossed("lateness_ms_p99 > +5 %", 100.0, 50.0));
        assert!(crossed("lateness_ms_p99<-10%", 100.0, 80.0));
        assert!(crossed("lateness_ms_p99>+0.5", 1.0, 1.6));
        assert!(
            crossed("lateness_ms_p99>+1000%", 0.0, 0.1),
            "from nothing to something"
        );
        assert!(!crossed("lateness_ms_p99>+0%", 0.0, 0.0));
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_would_be() {
        for bad in [
            "",
            "sent",
            "sent>",
            "sent>5%",
            "sent==+5%",
            ">+5%x",
            "sent>+inf",
            "sent>+NaN%",
            "sent>++5",
        ] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
        let error = "latenes_ms_p99>+5%"
            .parse::<Limit>()
            .expect_err("misspelt")
            .to_string();
        assert!(error.contains("\"lateness_ms_p99\""), "{error}");
    }
}
