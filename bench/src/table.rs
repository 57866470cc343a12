//! Tables for people, on stderr.

use crate::sample::Figure;

pub enum Columns {
    Packets,
    Bytes,
}

/// One line per figure. The spread is (largest − smallest) ÷ median of the rate over the runs.
pub fn print(title: &str, columns: &Columns, figures: &[Figure]) {
    if figures.is_empty() {
        return;
    }
    let width = figures
        .iter()
        .map(|figure| figure.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(title.len());
    match columns {
        Columns::Packets => {
            eprintln!(
                "\n{title:width$} {:>10} {:>9} {:>11} {:>7} {:>8}",
                "Mpackets/s", "Gb/s", "ns CPU/pkt", "CPU %", "spread"
            );
        }
        Columns::Bytes => eprintln!(
            "\n{title:width$} {:>10} {:>11} {:>7} {:>8}",
            "GB/s", "µs CPU/op", "CPU %", "spread"
        ),
    }
    for figure in figures {
        let Figure {
            name,
            per_second,
            gbps,
            gigabytes_per_second,
            cpu_ns_per_packet,
            cpu_percent,
            ..
        } = figure;
        let spread = spread_percent(figure);
        match columns {
            Columns::Packets => eprintln!(
                "{name:width$} {:>10.3} {gbps:>9.2} {cpu_ns_per_packet:>11.0} {cpu_percent:>7.0} {spread:>7.0}%",
                per_second / 1e6
            ),
            Columns::Bytes => eprintln!(
                "{name:width$} {gigabytes_per_second:>10.2} {:>11.2} {cpu_percent:>7.0} {spread:>7.0}%",
                cpu_ns_per_packet / 1e3
            ),
        }
    }
}

fn spread_percent(figure: &Figure) -> f64 {
    let rates = figure.runs.iter().map(|run| run.gbps);
    let (least, most) = rates.fold((f64::MAX, 0.0f64), |(least, most), rate| {
        (least.min(rate), most.max(rate))
    });
    if figure.gbps > 0.0 {
        (most - least) * 100.0 / figure.gbps
    } else {
        0.0
    }
}
