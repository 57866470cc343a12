//! The page's tables: figures of the sender, what was done on purpose and found again, the engine, the environment, and the
//! command to repeat the run.

use super::Page;
use crate::output::plot::escaped;
use crate::output::text::command;
use crate::output::words;
use crate::result::{EngineFigures, Impaired, Percentiles, RunResult, StoredFigures};

/// A line of a table: what, how much, and whether that is bad.
struct Fact(String, String, bool);

fn fact(name: &str, value: impl Into<String>) -> Fact {
    Fact(name.to_owned(), value.into(), false)
}

fn number(name: &str, value: u64) -> Fact {
    fact(name, words::count(value))
}

/// One that ought to be 0.
fn fault(name: &str, value: u64) -> Fact {
    Fact(name.to_owned(), words::count(value), value > 0)
}

fn table(page: &mut Page, caption: &str, facts: &[Fact]) {
    page.put(format_args!(
        "<table class=\"facts\"><caption>{}</caption>",
        escaped(caption)
    ));
    for Fact(name, value, bad) in facts {
        let class = if *bad { "n bad" } else { "n" };
        let (name, value) = (escaped(name), escaped(value));
        page.put(format_args!(
            "<tr><th scope=\"row\">{name}</th><td class=\"{class}\">{value}</td></tr>"
        ));
    }
    page.put("</table>");
}

pub fn details(page: &mut Page, run: &RunResult) {
    page.put("<h2>Figures</h2><div class=\"pair\"><div>");
    table(page, "Load", &load(run));
    table(page, "Sending", &sending(run));
    if run.impaired != Impaired::default() {
        table(page, "Done on purpose", &impaired(&run.impaired));
    }
    page.put("</div><div>");
    match &run.stored {
        Some(stored) => table(page, "Found in the segments", &found(stored)),
        None => table(
            page,
            "Found in the segments",
            &[fact("all streams", "not measured")],
        ),
    }
    match &run.engine {
        Some(engine) => table(page, "The engine's own account", &engine_facts(engine)),
        None => table(page, "The engine's own account", &[fact("its lines", "not read")]),
    }
    page.put("</div></div>\n");
}

fn load(run: &RunResult) -> Vec<Fact> {
    let load = &run.load;
    vec![
        fact(
            "offered, all cameras on",
            format!("{} Mb/s", words::figures(load.mbps_offered)),
        ),
        fact(
            "sent, without warm-up and ramps",
            format!("{} Gb/s", words::figures(load.gbps)),
        ),
        fact(
            "the same in packets",
            format!("{} /s", words::count(load.packets_per_second as u64)),
        ),
        fact("duration", format!("{} s", words::figures(load.duration_s))),
        fact(
            "longer than its schedule by",
            format!("{} %", words::figures(load.stretch_percent)),
        ),
        fact("sent in all", words::bytes(load.sent_bytes)),
        number("RTCP packets sent", load.rtcp_sent),
        fault("RTCP packets not sent", load.rtcp_not_sent),
        fault("packets not sent", load.not_sent),
    ]
}

fn sending(run: &RunResult) -> Vec<Fact> {
    let sending = &run.sending;
    let mut facts = vec![
        fact("method", sending.method.clone()),
        fact("lateness", percentiles(&sending.lateness_ms)),
        fact("pacing error", percentiles(&sending.pacing_error_ms)),
        fact(
            "CPU per packet",
            format!("{} ns", words::figures(sending.cpu_ns_per_packet)),
        ),
        fact(
            "CPU of the sending thread",
            format!("{} % of one core", words::figures(sending.cpu_percent)),
        ),
        fault("refused (ICMP)", sending.refused),
    ];
    for (reason, &count) in &sending.errors {
        facts.push(fault(&format!("not taken: {reason}"), count));
    }
    facts
}

/// A line may break between two of them, not within one.
fn percentiles(ms: &Percentiles) -> String {
    let all = [
        ("p50", ms.p50),
        ("p99", ms.p99),
        ("p99.9", ms.p999),
        ("max", ms.max),
    ];
    let each = all.map(|(name, value)| format!("{name} {}", words::ms(value)).replace(' ', "\u{a0}"));
    each.join(" · ")
}

fn impaired(impaired: &Impaired) -> Vec<Fact> {
    let all = [
        ("lost", impaired.lost),
        ("duplicated", impaired.duplicated),
        ("reordered", impaired.reordered),
        ("corrupted", impaired.corrupted),
        ("truncated", impaired.truncated),
        ("cut to less than RTP of ours", impaired.runts),
        ("SSRC restarts", impaired.restarts),
        ("sequence jumps", impaired.sequence_jumps),
        ("timestamp jumps", impaired.timestamp_jumps),
        ("payload type changes", impaired.payload_type_changes),
        ("source port changes", impaired.rebinds),
        ("junk datagrams", impaired.junk),
        ("packets of unknown cameras", impaired.unknown),
    ];
    all.into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| number(name, count))
        .collect()
}

fn found(stored: &StoredFigures) -> Vec<Fact> {
    let against = |name: &str, found: u64, expected: u64| {
        let text = format!("{} of {} expected", words::count(found), words::count(expected));
        Fact(name.to_owned(), text, found != expected)
    };
    let mut facts = vec![
        number("streams looked at", stored.streams),
        against("packets", stored.stored, stored.expected),
        fault("lost", stored.stored_loss),
        number("gaps", stored.gaps),
        number("longest gap, packets", stored.longest_gap),
        fault("duplicates", stored.duplicates),
        number("duplicates because they left so", stored.duplicates_expected),
        fault("out of order", stored.reordered),
        number("out of order because they left so", stored.reordered_expected),
        fault("corrupt", stored.corrupt),
        number("corrupt because they left so", stored.corrupt_expected),
        fault("with a wrong customer or camera", stored.wrong_customer),
        fault("foreign", stored.foreign),
        against("RTCP", stored.rtcp_stored, stored.rtcp_expected),
    ];
    if let Some(arrival) = &stored.arrival_ms {
        facts.push(fact("arrival, from the intended time", percentiles(arrival)));
    }
    facts
}

fn engine_facts(engine: &EngineFigures) -> Vec<Fact> {
    let measured = |value: Option<String>| value.unwrap_or_else(|| "not measured".to_owned());
    let mut facts = vec![
        number("received, all datagrams", engine.received),
        number("stored", engine.stored),
        Fact(
            "sent and never received".to_owned(),
            words::signed(engine.never_received),
            engine.never_received != 0,
        ),
        fact("in flight at the end", words::signed(engine.in_flight)),
        number("kernel drops (batches, not packets)", engine.kernel_drop_batches),
        fact(
            "CPU per packet",
            measured(
                engine
                    .cpu_ns_per_packet
                    .map(|ns| format!("{} ns", words::figures(ns))),
            ),
        ),
        fact("durable p50", measured(engine.durable_ms_p50.map(words::ms))),
        fact("durable p99", measured(engine.durable_ms_p99.map(words::ms))),
        fact("memory", measured(engine.memory_bytes.map(words::bytes))),
    ];
    for (reason, &count) in &engine.dropped {
        facts.push(fault(&format!("dropped: {reason}"), count));
    }
    facts
}

pub fn environment(page: &mut Page, run: &RunResult) {
    page.put("<h2>Environment</h2><table class=\"facts wide\">");
    let version = ("loadgen version".to_owned(), run.version.clone());
    let settings = ("settings".to_owned(), run.settings.join(" "));
    let all = run
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in [version, settings].into_iter().chain(all) {
        if name != "command" && !value.is_empty() {
            let name = escaped(&name.replace('_', " "));
            page.put(format_args!(
                "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>",
                escaped(&value)
            ));
        }
    }
    page.put("</table>\n");
}

pub fn again(page: &mut Page, run: &RunResult) {
    page.put(format_args!(
        "<h2>To repeat it</h2><pre>{}</pre>\n",
        escaped(&command(run))
    ));
}
