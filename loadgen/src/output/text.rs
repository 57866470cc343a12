//! `report` without `--html`: a run in words, one line per question.

use super::waterfall::{self, Kind};
use super::words;
use crate::result::{Percentiles, RunResult};
use std::fmt::Write;

/// The whole report; ends with a line feed.
pub fn report(run: &RunResult) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<12}{value}").expect("a String takes everything");
    };
    let load = &run.load;
    line(
        "run",
        format!(
            "{} {}, seed {}, to {}",
            run.profile,
            words::date(&run.started),
            run.seed,
            run.targets.join(", ")
        ),
    );
    line(
        "asked",
        format!(
            "{} cameras, {} streams, {} customers: {} Mb/s for {} s, of these {} s warm-up",
            words::count(load.cameras),
            words::count(load.streams),
            words::count(load.customers),
            words::figures(load.mbps_offered),
            words::figures(load.seconds),
            words::figures(load.warm_up_s)
        ),
    );
    for step in waterfall::steps(run) {
        let sign = if step.kind == Kind::Loss && step.packets != 0 {
            "− "
        } else {
            ""
        };
        let (number, share) = (
            words::signed(step.packets),
            words::share(step.packets.unsigned_abs(), load.intended),
        );
        let name = if step.kind == Kind::Loss {
            format!("  {}", step.label)
        } else {
            step.label
        };
        line(
            "",
            format!("{name:<24}{sign}{number} packets ({share}): {}", step.note),
        );
    }
    line(
        "rate",
        format!(
            "{} Gb/s, {} packets/s; {} s in all, {} % longer than planned",
            words::figures(load.gbps),
            words::count(load.packets_per_second as u64),
            words::figures(load.duration_s),
            words::figures(load.stretch_percent)
        ),
    );
    let sending = &run.sending;
    line("lateness", percentiles(&sending.lateness_ms));
    line(
        "pacing",
        format!("error {}", percentiles(&sending.pacing_error_ms)),
    );
    line(
        "sending",
        format!(
            "{}: {} packets per message (at most {}), {} messages per call, {} ns CPU per packet, {} % of one core",
            sending.method,
            words::figures(sending.packets_per_message),
            sending.packets_per_message_max,
            words::figures(sending.messages_per_call),
            words::figures(sending.cpu_ns_per_packet),
            words::figures(sending.cpu_percent)
        ),
    );
    match &run.engine {
        Some(engine) => line(
            "engine",
            format!(
                "{} received, {} stored, {} never received; durable p50 {}, p99 {}",
                words::count(engine.received),
                words::count(engine.stored),
                words::signed(engine.never_received),
                engine
                    .durable_ms_p50
                    .map_or_else(|| "not measured".to_owned(), words::ms),
                engine
                    .durable_ms_p99
                    .map_or_else(|| "not measured".to_owned(), words::ms)
            ),
        ),
        None => line("engine", "not measured (--engine-stats)".to_owned()),
    }
    match &run.stored {
        Some(stored) => line(
            "stored",
            format!(
                "{} of {} expected; lost {}, duplicates {}, out of order {}, corrupt {}, wrong customer {}, foreign {}",
                words::count(stored.stored),
                words::count(stored.expected),
                words::count(stored.stored_loss),
                words::count(stored.duplicates),
                words::count(stored.reordered),
                words::count(stored.corrupt),
                words::count(stored.wrong_customer),
                words::count(stored.foreign)
            ),
        ),
        None => line(
            "stored",
            "not measured (--segments and --identity, or `verify`)".to_owned(),
        ),
    }
    for assertion in &run.assertions {
        let value = assertion
            .value
            .map_or_else(|| "not measured".to_owned(), words::figures);
        let word = if assertion.holds { "holds" } else { "FAILS" };
        line("assertion", format!("{word}: {} (it is {value})", assertion.text));
    }
    match run.valid {
        true => line("valid", "yes: the load was the one asked for".to_owned()),
        false => line("valid", format!("NO: {}", run.invalid_because.join("; "))),
    }
    line("to repeat", command(run));
    text
}

fn percentiles(ms: &Percentiles) -> String {
    let [p50, p90, p99, p999, max] = [ms.p50, ms.p90, ms.p99, ms.p999, ms.max].map(words::ms);
    format!("p50 {p50} · p90 {p90} · p99 {p99} · p99.9 {p999} · max {max}")
}

/// The command line that does this run again: as it was given, or put together from what the run says of itself.
pub fn command(run: &RunResult) -> String {
    if let Some(given) = run.environment.get("command") {
        return given.clone();
    }
    let mut words = vec!["harborseal-loadgen".to_owned(), "run".to_owned()];
    words.extend((!run.profile.is_empty()).then(|| run.profile.clone()));
    for setting in &run.settings {
        words.extend(["-s".to_owned(), setting.clone()]);
    }
    if !run.settings.iter().any(|setting| setting.starts_with("seed=")) {
        words.extend(["-s".to_owned(), format!("seed={}", run.seed)]);
    }
    for target in &run.targets {
        words.extend(["--target".to_owned(), target.clone()]);
    }
    for assertion in &run.assertions {
        words.extend(["--assert".to_owned(), assertion.text.clone()]);
    }
    words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as a shell takes it for one.
pub fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_=./:,@%+".contains(character);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn a_report_names_verdict_losses_and_the_command() {
        let text = report(&fixture::lossy());
        for part in [
            "engine: pool_empty",
            "remainder",
            "FAILS: stored_loss==0",
            "valid       yes",
            "run city -s",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let text = report(&fixture::one_second());
        assert!(
            text.contains("NO: packets left late") && text.contains("not measured"),
            "{text}"
        );
        assert!(report(&fixture::empty()).ends_with('\n'));
    }

    #[test]
    fn a_command_put_together_stands_a_shell() {
        let mut run = fixture::lossy();
        run.environment.clear();
        run.settings.push("name=it's".to_owned());
        let text = command(&run);
        assert!(
            text.contains("--assert 'stored_loss==0'") || text.contains("--assert stored_loss==0"),
            "{text}"
        );
        assert!(
            text.contains("'name=it'\\''s'") && text.contains("-s seed=7"),
            "{text}"
        );
    }
}
