//! Tables for people, on stderr.

use crate::sample::{Figure, spread_percent};

pub enum Columns {
    Packets,
    Bytes,
}

/// One line per figure. The spread is (largest − smallest) ÷ median of the CPU time over the runs.
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
            "\n{title:width$} {:>10} {:>9} {:>11} {:>7} {:>8}",
            "GB/s", "GB/CPU s", "µs CPU/op", "CPU %", "spread"
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
        let costs: Vec<f64> = figure.runs.iter().map(|run| run.cpu_ns_per_packet).collect();
        let spread = spread_percent(&costs);
        match columns {
            Columns::Packets => eprintln!(
                "{name:width$} {:>10.3} {gbps:>9.2} {cpu_ns_per_packet:>11.0} {cpu_percent:>7.0} {spread:>7.0}%",
                per_second / 1e6
            ),
            Columns::Bytes => eprintln!(
                "{name:width$} {gigabytes_per_second:>10.2} {:>9.2} {:>11.2} {cpu_percent:>7.0} {spread:>7.0}%",
                figure.gigabytes_per_cpu_second,
                cpu_ns_per_packet / 1e3
            ),
        }
    }
}
