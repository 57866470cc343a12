//! The page's plots: which lines each has, on which axes, and what its caption says.

use super::{Input, Page};
use crate::output::hlog::{self, Interval};
use crate::output::plot::lines::{Band, Line, LinePlot};
use crate::output::plot::{Axis, Size, bars, both, escaped, heat as heat_map};
use crate::output::series::{Bin, Series};
use crate::output::words;
use crate::result::{Percentiles, RunResult};
use hdrhistogram::Histogram;

/// Steps of the percentile plot in decades: fine enough for a smooth line on a desk.
const QUANTILE_STEP: f64 = 0.02;

fn figure(page: &mut Page, title: &str, caption: &str, legend: &[(&str, &str)], drawing: &str) {
    page.put(format_args!(
        "<figure><h3>{}</h3><figcaption>{}</figcaption>",
        escaped(title),
        escaped(caption)
    ));
    if !legend.is_empty() {
        page.put("<ul class=\"legend\">");
        for (class, name) in legend {
            page.put(format_args!(
                "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\">"
            ));
            match class.strip_prefix('=') {
                Some(area) => page.put(format_args!(
                    "<rect class=\"{area}\" x=\"6\" y=\"0\" width=\"14\" height=\"10\"/>"
                )),
                None => page.put(format_args!("<path class=\"line {class}\" d=\"M2 5L24 5\"/>")),
            }
            page.put(format_args!("</svg>{}</li>", escaped(name)));
        }
        page.put("</ul>");
    }
    page.put(format_args!("{drawing}</figure>\n"));
}

fn missing(page: &mut Page, title: &str, why: &str) {
    page.put(format_args!(
        "<figure><h3>{}</h3><figcaption>Not measured: {}</figcaption></figure>\n",
        escaped(title),
        escaped(why)
    ));
}

/// A line through the middles of the bins.
fn line(series: &Series, name: &'static str, class: &'static str, get: impl Fn(&Bin) -> Option<f64>) -> Line {
    let point = |bin: &Bin| (bin.at_s + bin.length_s / 2.0, get(bin));
    Line {
        name,
        class,
        points: series.bins.iter().map(point).collect(),
    }
}

fn known(line: &Line) -> bool {
    line.points.iter().any(|(_, y)| y.is_some())
}

fn values(lines: &[Line]) -> Vec<f64> {
    lines
        .iter()
        .flat_map(|line| &line.points)
        .filter_map(|(_, y)| *y)
        .collect()
}

/// Lines over the run's time, with the figures of a bin where one points.
fn time_plot(
    says: &str,
    y: Axis,
    lines: Vec<Line>,
    series: &Series,
    hint: impl Fn(&Bin) -> String,
) -> String {
    let warm_up = series.bins.iter().take_while(|bin| bin.warm_up).last();
    let plot = |size: Size| LinePlot {
        says: says.to_owned(),
        x: Axis::of_time(series.end_s, (size.inner_width() / 70.0) as usize),
        y: y.clone(),
        lines: lines.clone(),
        band: warm_up.map(|bin| Band {
            from: 0.0,
            to: bin.at_s + bin.length_s,
            name: "warm-up",
        }),
        hints: series
            .bins
            .iter()
            .map(|bin| {
                let at = words::moment(bin.at_s, series.end_s.max(1.0));
                (
                    bin.at_s,
                    bin.at_s + bin.length_s,
                    format!("at {at}: {}", hint(bin)),
                )
            })
            .collect(),
    };
    both(|size| plot(size).draw(size))
}

fn legend(lines: &[Line]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (line.class, line.name)).collect()
}

pub fn rate(page: &mut Page, series: &Series) {
    // Wide to narrow: where all are equal, each still shows.
    let mut lines = vec![
        line(series, "due", "offered", |bin| bin.due),
        line(series, "sent", "sent", |bin| Some(bin.sent)),
        line(series, "received by the engine", "received", |bin| bin.received),
        line(series, "stored", "stored", |bin| bin.stored),
        line(series, "dropped by the engine", "dropped", |bin| bin.dropped),
    ];
    lines.retain(|line| {
        known(line)
            && (line.class != "dropped" || values(std::slice::from_ref(line)).iter().any(|&y| y > 0.0))
    });
    let (unit, scale) = match values(&lines).into_iter().fold(0.0, f64::max) {
        most if most >= 2e6 => ("million packets/s", 1e-6),
        most if most >= 2e3 => ("thousand packets/s", 1e-3),
        _ => ("packets/s", 1.0),
    };
    for (_, y) in lines.iter_mut().flat_map(|line| &mut line.points) {
        *y = y.map(|y| y * scale);
    }
    let y = Axis::from_zero(unit, values(&lines).into_iter(), 5);
    let hint = |bin: &Bin| {
        let rate = |name: &str, value: Option<f64>| {
            value.map_or_else(String::new, |value| {
                format!(", {name} {}", words::count(value.round() as u64))
            })
        };
        format!(
            "packets/s{}{}{}{}{}; {} Mb/s",
            rate("due", bin.due),
            rate("sent", Some(bin.sent)),
            rate("received", bin.received),
            rate("stored", bin.stored),
            rate("dropped", bin.dropped),
            words::figures(bin.mbps)
        )
    };
    let drawing = time_plot("Packets per second over time", y, lines.clone(), series, hint);
    let caption = match lines.len() {
        ..=2 => "RTP packets. The engine's figures were not read (--engine-stats).",
        _ => {
            "RTP packets sent; the engine's own count of datagrams, RTCP included. Lines that cover each other are equal. What the engine \
             stored while it was waited for at the end stands in the last step."
        }
    };
    figure(page, "Rate", caption, &legend(&lines), &drawing);
}

pub fn lateness(page: &mut Page, series: &Series) {
    let lines = vec![
        line(series, "p50", "q50", |bin| Some(bin.lateness_ms.p50)),
        line(series, "p99", "q99", |bin| Some(bin.lateness_ms.p99)),
        line(series, "p99.9", "q999", |bin| Some(bin.lateness_ms.p999)),
        line(series, "largest", "qmax", |bin| Some(bin.lateness_ms.max)),
    ];
    let y = Axis::of_ms(values(&lines).into_iter(), 5);
    let hint = |bin: &Bin| {
        let Percentiles {
            p50, p99, p999, max, ..
        } = bin.lateness_ms;
        let [p50, p99, p999, max] = [p50, p99, p999, max].map(words::ms);
        format!("p50 {p50}, p99 {p99}, p99.9 {p999}, largest {max}")
    };
    let drawing = time_plot("Lateness percentiles over time", y, lines.clone(), series, hint);
    let caption = format!(
        "From a packet's intended time to the return of the call that sent it: how late the generator was. {}",
        step(series)
    );
    figure(
        page,
        "Lateness of the generator",
        &caption,
        &legend(&lines),
        &drawing,
    );
}

/// What a point of a percentile line stands for.
fn step(series: &Series) -> String {
    match (series.seconds_per_bin, series.lateness_merged) {
        (1, _) => "One point per second.".to_owned(),
        (many, true) => format!("One point per {many} seconds, of all their packets."),
        (many, false) => format!("One point per {many} seconds: the worst of them."),
    }
}

pub fn durable(page: &mut Page, series: &Series) {
    let mut lines = vec![
        line(series, "p50", "q50", |bin| Some(bin.durable_ms?.0)),
        line(series, "p99", "q99", |bin| Some(bin.durable_ms?.1)),
        line(series, "p99.9", "q999", |bin| bin.durable_ms?.2),
    ];
    lines.retain(known);
    if lines.is_empty() {
        return missing(
            page,
            "Durable latency",
            "the engine's lines were not read (--engine-stats)",
        );
    }
    let y = Axis::of_ms(values(&lines).into_iter(), 5);
    let hint = |bin: &Bin| match bin.durable_ms {
        Some((p50, p99, _)) => format!("p50 {}, p99 {}", words::ms(p50), words::ms(p99)),
        None => "not measured".to_owned(),
    };
    let drawing = time_plot(
        "Durable latency percentiles over time",
        y,
        lines.clone(),
        series,
        hint,
    );
    let caption =
        "From a chunk's first packet to the completion of its fdatasync, as the engine measures it.";
    figure(page, "Durable latency", caption, &legend(&lines), &drawing);
}

pub fn cpu(page: &mut Page, series: &Series) {
    let lines = vec![line(series, "sending thread", "sent", |bin| {
        Some(bin.cpu_percent)
    })];
    let y = Axis::from_zero("% of one core", values(&lines).into_iter().chain([100.0]), 4);
    let hint = |bin: &Bin| format!("{} % of one core", words::figures(bin.cpu_percent));
    let drawing = time_plot("CPU of the sending thread over time", y, lines, series, hint);
    let caption = "The sending thread's share of one core. On loopback the kernel's delivery is in it.";
    figure(page, "CPU of the generator", caption, &[], &drawing);
}

pub fn heat(page: &mut Page, run: &RunResult) {
    let title = "Where packets were lost";
    let Some(stored) = &run.stored else {
        return missing(
            page,
            title,
            "the segments were not opened (--segments, --identity, or `verify`)",
        );
    };
    let Some(map) = stored.heat.as_ref().filter(|map| !map.lost.is_empty()) else {
        return missing(
            page,
            title,
            "there is no loss by stream and second in this run's file",
        );
    };
    let swatches = ["=h0", "=h1", "=h2", "=h3", "=h4", "=h5"];
    let legend: Vec<_> = swatches
        .into_iter()
        .zip(heat_map::CLASSES.map(|(name, _)| name))
        .collect();
    let lossy = map
        .lost
        .iter()
        .filter(|row| row.iter().any(|lost| *lost > 0))
        .count();
    let row = match map.streams_per_row {
        ..=1 => "streams",
        _ => "rows of streams",
    };
    let caption = format!(
        "Share of the packets that ought to be stored and are not, by stream and time. {} of {} {row} lost something.",
        words::count(lossy as u64),
        words::count(map.lost.len() as u64)
    );
    let drawing = both(|size| heat_map::draw(map, stored.streams.max(run.load.streams), size));
    figure(page, title, &caption, &legend, &drawing);
}

pub fn percentiles(page: &mut Page, input: &Input) {
    let (run, warm_up_s) = (&input.run, input.run.load.warm_up_s);
    let mut drawn = vec![
        quantiles(
            "lateness (to the sender's call)",
            "q99",
            &input.lateness,
            warm_up_s,
        )
        .unwrap_or_else(|| points("lateness (to the sender's call)", "q99", &run.sending.lateness_ms)),
    ];
    let pacing = &run.sending.pacing_error_ms;
    if *pacing != Percentiles::default() {
        drawn.push(points("pacing error", "q50", pacing));
    }
    if let Some(arrival) = run.stored.as_ref().and_then(|stored| stored.arrival_ms.as_ref()) {
        drawn.push(points("arrival at the engine", "received", arrival));
    }
    drawn.extend(quantiles("durable", "stored", &input.durable, warm_up_s));
    let far = drawn
        .iter()
        .flat_map(|line| &line.points)
        .map(|(x, _)| *x)
        .fold(2.0, f64::max);
    let y = Axis::of_ms(values(&drawn).into_iter(), 5);
    let plot = LinePlot {
        says: "Latency by percentile".to_owned(),
        x: Axis::of_quantiles(far),
        y,
        lines: drawn.clone(),
        band: None,
        hints: Vec::new(),
    };
    let caption = "Each grid step to the right is ten times fewer packets. Without warm-up. Lines of few points come from \
                   stated percentiles, smooth ones from whole histograms.";
    figure(
        page,
        "Latency by percentile",
        caption,
        &legend(&drawn),
        &both(|size| plot.draw(size)),
    );
}

/// A whole distribution, over −log10(1 − q).
fn quantiles(name: &'static str, class: &'static str, log: &[Interval], warm_up_s: f64) -> Option<Line> {
    let warm = log
        .iter()
        .filter(|interval| interval.at_s >= warm_up_s)
        .map(|interval| &interval.values);
    let values: Histogram<u64> = hlog::merge(warm);
    if values.is_empty() {
        return None;
    }
    let far = (values.len() as f64).log10().max(1.0);
    let steps = (far / QUANTILE_STEP) as usize;
    let point = |index: usize| {
        let x = index as f64 * QUANTILE_STEP;
        (
            x,
            Some(values.value_at_quantile(1.0 - 10f64.powf(-x)) as f64 / 1000.0),
        )
    };
    Some(Line {
        name,
        class,
        points: (0..=steps).map(point).collect(),
    })
}

fn points(name: &'static str, class: &'static str, ms: &Percentiles) -> Line {
    let places = [(0.5f64, ms.p50), (0.9, ms.p90), (0.99, ms.p99), (0.999, ms.p999)];
    Line {
        name,
        class,
        points: places.map(|(q, ms)| (-(1.0 - q).log10(), Some(ms))).into(),
    }
}

pub fn bursts(page: &mut Page, run: &RunResult) {
    let sending = &run.sending;
    if sending.bursts.is_empty() {
        return missing(page, "Burst sizes", "no burst was counted");
    }
    let caption = format!(
        "What leaves back to back from one stream is a burst on the wire, whatever the rate. Sent by {}: {} packets per message, \
         at most {}; {} messages per call.",
        sending.method,
        words::figures(sending.packets_per_message),
        sending.packets_per_message_max,
        words::figures(sending.messages_per_call)
    );
    figure(
        page,
        "Burst sizes",
        &caption,
        &[],
        &both(|size| bars::bursts(&sending.bursts, size)),
    );
}
