//! UTC days, by which footage is erased.

use std::fmt;

use time::{Date, Duration, Month};

const DAY_S: u64 = 86_400;
/// The last day of the year 9999: a clock beyond it is wrong, and a folder must be named all the same.
const LAST: u32 = 2_932_896;

/// A UTC day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

impl Day {
    /// The day of a second since 1970.
    pub fn of(second: u64) -> Day {
        Day(u32::try_from(second / DAY_S).unwrap_or(LAST).min(LAST))
    }

    /// Its first second.
    pub fn begins_s(self) -> u64 {
        u64::from(self.0) * DAY_S
    }

    /// The day after it.
    pub fn next(self) -> Day {
        Day(self.0.saturating_add(1).min(LAST))
    }

    /// Reads `yyyy-mm-dd`.
    pub fn parse(text: &str) -> Option<Day> {
        let digits: String = text.split('-').collect();
        Day::of_folder(&digits).filter(|day| day.to_string() == text)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// `yyyymmdd`, as under `DATA/segments`.
    pub(super) fn folder_name(self) -> String {
        let (year, month, day) = self.date().to_calendar_date();
        format!("{year:04}{:02}{day:02}", u8::from(month))
    }

    pub(super) fn of_folder(name: &str) -> Option<Day> {
        if name.len() != 8 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = name.split_at(4);
        let (month, day) = rest.split_at(2);
        let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
        let days = (date - EPOCH).whole_days();
        u32::try_from(days).ok().map(Day)
    }

    fn date(self) -> Date {
        EPOCH + Duration::days(i64::from(self.0))
    }
}

const EPOCH: Date = time::macros::date!(1970 - 01 - 01);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date().to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_named_as_the_folder_of_its_segments() {
        let day = Day::of(1_795_491_127); // 2026-11-24T03:32:07Z
        assert_eq!(
            (day.folder_name().as_str(), day.to_string().as_str()),
            ("20261124", "2026-11-24")
        );
        assert_eq!(Day::of_folder("20261124"), Some(day));
        assert_eq!(Day::parse("2026-11-24"), Some(day));
        assert_eq!((Day::parse("20261124"), Day::parse("2026-1124")), (None, None));
        assert_eq!(day.next().to_string(), "2026-11-25");
        assert_eq!(Day::of(day.begins_s()), day);
        assert_eq!(Day::of(day.begins_s() - 1).number() + 1, day.number());
        for name in ["lock", "2026112", "20261301", "20260230", "2026112x"] {
            assert_eq!(Day::of_folder(name), None, "{name}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_still_has_a_day() {
        assert_eq!(Day::of(u64::MAX).to_string(), "9999-12-31");
        assert_eq!(Day::of(0).folder_name(), "19700101");
    }
}
