//! `report --html`: one page that can be handed to somebody who was not there. Invariants: it fetches nothing and runs
//! nothing (its own Content-Security-Policy says so to the browser); every text from outside is escaped; a figure that was
//! not measured is called so.

mod figures;
mod tables;

use super::hlog::Interval;
use super::plot::escaped;
use super::series::{Series, series};
use super::waterfall::{self, Kind};
use super::words;
use crate::result::RunResult;
use std::fmt::{Display, Write};

const STYLE: &str = include_str!("style.css");

/// What a report is made of.
#[derive(Debug, Clone, Default)]
pub struct Input {
    pub run: RunResult,
    /// The intervals of `lateness.hlog` and `durable.hlog`; none where there is no such log.
    pub lateness: Vec<Interval>,
    pub durable: Vec<Interval>,
}

/// The page being written.
pub(super) struct Page(String);

impl Page {
    fn put(&mut self, piece: impl Display) {
        write!(self.0, "{piece}").expect("a String takes everything");
    }
}

/// The whole page.
pub fn page(input: &Input) -> String {
    let run = &input.run;
    let series = series(run, &input.lateness, &input.durable);
    let mut page = Page(String::new());
    page.put("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.put("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.put("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">");
    page.put(format_args!("<title>{}</title>", escaped(&title(run))));
    page.put(format_args!("<style>{STYLE}</style></head><body>\n"));
    header(&mut page, run);
    what_came(&mut page, run);
    over_time(&mut page, input, &series);
    tables::details(&mut page, run);
    tables::environment(&mut page, run);
    tables::again(&mut page, run);
    page.put("</body></html>\n");
    page.0
}

fn title(run: &RunResult) -> String {
    let profile = if run.profile.is_empty() {
        "without a profile"
    } else {
        &run.profile
    };
    format!("Run {profile}, {}", words::date(&run.started))
        .trim_end_matches([' ', ','])
        .to_owned()
}

fn header(page: &mut Page, run: &RunResult) {
    page.put(format_args!("<header><h1>{}</h1>", escaped(&title(run))));
    let load = &run.load;
    let (cameras, streams, customers) = (
        words::count(load.cameras),
        words::count(load.streams),
        words::count(load.customers),
    );
    page.put(format_args!(
        "<p class=\"quiet\">{cameras} cameras · {streams} streams · {customers} customers · {} Mb/s offered · {} s, of these \
         {} s warm-up · seed {} · to {}</p>",
        words::figures(load.mbps_offered),
        words::figures(load.seconds),
        words::figures(load.warm_up_s),
        run.seed,
        escaped(&run.targets.join(", ")),
    ));
    page.put("<ul class=\"verdict\">");
    match run.valid {
        true => badge(page, "good", "VALID: the load was the one asked for"),
        false => badge(page, "bad", "INVALID: the generator was the limit"),
    }
    if run.stopped {
        badge(page, "plain", "stopped before its end");
    }
    for assertion in &run.assertions {
        let value = match assertion.value {
            Some(value) => words::figures(value),
            None => "not measured".to_owned(),
        };
        let (class, word) = if assertion.holds {
            ("good", "holds")
        } else {
            ("bad", "fails")
        };
        badge(
            page,
            class,
            &format!("{word}: {} (it is {value})", assertion.text),
        );
    }
    if run.assertions.is_empty() {
        badge(page, "plain", "nothing was asserted");
    }
    page.put("</ul>");
    if !run.invalid_because.is_empty() {
        page.put("<ul class=\"because\">");
        for reason in &run.invalid_because {
            page.put(format_args!("<li>{}</li>", escaped(reason)));
        }
        page.put("</ul>");
    }
    page.put("</header>\n");
}

fn badge(page: &mut Page, class: &str, text: &str) {
    page.put(format_args!("<li class=\"{class}\">{}</li>", escaped(text)));
}

/// What was asked and what came: four figures, then who lost what.
fn what_came(page: &mut Page, run: &RunResult) {
    let load = &run.load;
    page.put("<section class=\"tiles\">");
    tile(page, "intended", Some(load.intended), "packets that came due");
    let sent = match run.impaired.duplicated {
        0 => format!("{} Gb/s of RTP", words::figures(load.gbps)),
        doubles => format!("{} of them duplicates on purpose", words::count(doubles)),
    };
    tile(page, "sent", Some(load.sent), &sent);
    let received = run.engine.as_ref().map(|engine| engine.received);
    let note = match received {
        Some(_) => "datagrams, RTCP and junk included",
        None => "the engine's lines were not read",
    };
    tile(page, "received", received, note);
    let stored = run.stored.as_ref().map(|stored| stored.stored);
    let note = run.stored.as_ref().map_or_else(
        || "the segments were not opened".to_owned(),
        |stored| {
            format!(
                "{} of {} expected",
                words::share(stored.stored, stored.expected),
                words::count(stored.expected)
            )
        },
    );
    tile(page, "stored", stored, &note);
    page.put("</section>\n<h2>Who lost what</h2>");
    let whole = load.intended.max(1) as f64;
    page.put("<table class=\"falls\">");
    let mut left = load.intended as f64;
    for step in waterfall::steps(run) {
        let packets = step.packets as f64;
        let (class, sign, from) = match step.kind {
            Kind::Level => ("level", "", 0.0),
            Kind::Loss => {
                left -= packets;
                ("loss", "−\u{202f}", left.min(left + packets))
            }
        };
        let (from, wide) = (
            100.0 * (from / whole).clamp(0.0, 1.0),
            100.0 * (packets.abs() / whole).min(1.0),
        );
        let sign = if step.packets == 0 { "" } else { sign };
        page.put(format_args!(
            "<tr class=\"{class}\"><td>{}</td>",
            escaped(&step.label)
        ));
        page.put(format_args!(
            "<td class=\"n\">{sign}{}</td>",
            words::signed(step.packets)
        ));
        let share = words::share(step.packets.unsigned_abs(), load.intended);
        page.put(format_args!(
            "<td class=\"n\">{share}</td><td class=\"way\"><div class=\"track\">"
        ));
        if step.packets != 0 {
            // Kept on the track even where the smallest visible width would leave it.
            page.put(format_args!(
                "<div class=\"fill\" style=\"left:min({from:.3}%,calc(100% - 2px));width:{wide:.3}%\"></div>"
            ));
        }
        page.put(format_args!(
            "</div></td><td class=\"note\">{}</td></tr>",
            escaped(&step.note)
        ));
    }
    page.put("</table>\n");
}

fn tile(page: &mut Page, name: &str, packets: Option<u64>, note: &str) {
    let number = packets.map_or_else(|| "not measured".to_owned(), words::count);
    page.put(format_args!(
        "<div class=\"tile\"><span>{name}</span><b>{number}</b><span>{}</span></div>",
        escaped(note)
    ));
}

fn over_time(page: &mut Page, input: &Input, series: &Series) {
    page.put("<h2>Over time</h2>");
    if series.bins.is_empty() {
        page.put("<p class=\"quiet\">The run has no whole step in time to show.</p>");
    } else {
        figures::rate(page, series);
        figures::lateness(page, series);
        figures::durable(page, series);
        figures::cpu(page, series);
    }
    figures::heat(page, &input.run);
    page.put("<h2>Distributions</h2>");
    figures::percentiles(page, input);
    figures::bursts(page, &input.run);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    fn full(run: RunResult) -> Input {
        Input {
            run,
            lateness: fixture::intervals(60, 300),
            durable: fixture::intervals(60, 200_000),
        }
    }

    /// Every element that is opened is closed, in order; attributes' quotes are balanced.
    fn assert_well_formed(page: &str) {
        let void = ["meta", "!DOCTYPE", "rect/", "circle/", "path/"];
        let mut open = Vec::new();
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            let name = tag
                .split([' ', '\n'])
                .next()
                .expect("split gives at least one part");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "closed in order"),
                None if tag.ends_with('/') || void.contains(&name) => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn every_run_gives_a_well_formed_page_without_numbers_that_are_none() {
        let inputs = [
            full(fixture::lossy()),
            full(fixture::many_streams()),
            Input {
                run: fixture::empty(),
                ..Default::default()
            },
            Input {
                run: fixture::one_second(),
                ..Default::default()
            },
        ];
        for input in inputs {
            let page = page(&input);
            assert_well_formed(&page);
            assert!(
                !page.contains("NaN") && !page.contains(">inf"),
                "{}",
                input.run.profile
            );
            assert!(page.len() < 4_000_000, "{} bytes", page.len());
        }
    }

    #[test]
    fn nothing_is_fetched_and_nothing_runs() {
        let page = page(&full(fixture::lossy()));
        for bad in [
            "http://", "https://", "<script", "url(", "@import", "<link", "<img", " src=", "onload",
        ] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_verdict_and_the_losses_stand_in_the_page_exactly() {
        let run = fixture::lossy();
        let loss = run
            .stored
            .as_ref()
            .map(|stored| stored.lost_by.remainder)
            .expect("the fixture has it");
        let page = page(&full(run));
        for text in [
            "VALID: the load",
            "fails: stored_loss==0",
            &words::signed(loss),
            "engine: pool_empty",
            "AMD EPYC",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("INVALID"));
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_not_measured() {
        let page = page(&Input {
            run: fixture::one_second(),
            ..Default::default()
        });
        assert!(page.contains("INVALID") && page.contains("not measured") && page.contains("p99 31.0 ms"));
        assert!(page.contains("stopped before its end"));
    }

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let mut run = fixture::lossy();
        let evil = "<script>alert(\"1\")</script>&'".to_owned();
        run.profile.clone_from(&evil);
        run.targets = vec![evil.clone()];
        run.settings = vec![evil.clone()];
        run.invalid_because = vec![evil.clone()];
        run.environment.insert(evil.clone(), evil.clone());
        run.sending.errors.insert(evil.clone(), 1);
        run.assertions[0].text.clone_from(&evil);
        run.engine
            .as_mut()
            .expect("the fixture has it")
            .dropped
            .insert(evil.clone(), 3);
        run.stored
            .as_mut()
            .expect("the fixture has it")
            .lost_by
            .engine
            .insert(evil, 3);
        let page = page(&full(run));
        assert!(!page.contains("<script"));
        assert_well_formed(&page);
    }
}
