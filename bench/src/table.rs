//! Tables for people.

use std::fmt::Write;

use crate::sample::{Figure, spread_percent};

pub enum Columns {
    Packets,
    Bytes,
}

/// One line per figure. The spread is (largest − smallest) ÷ median of the CPU time over the runs.
pub fn of(title: &str, columns: &Columns, figures: &[Figure]) -> String {
    let mut text = String::new();
    if figures.is_empty() {
        return text;
    }
    let mut line =
        |arguments: std::fmt::Arguments<'_>| writeln!(text, "{arguments}").expect("a String takes all");
    let width = figures
        .iter()
        .map(|figure| figure.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(title.len());
    match columns {
        Columns::Packets => {
            line(format_args!(
                "\n{title:width$} {:>10} {:>9} {:>11} {:>7} {:>8}",
                "Mpackets/s", "Gb/s", "ns CPU/pkt", "CPU %", "spread"
            ));
        }
        Columns::Bytes => line(format_args!(
            "\n{title:width$} {:>10} {:>9} {:>11} {:>7} {:>8}",
            "GB/s", "GB/CPU s", "µs CPU/op", "CPU %", "spread"
        )),
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
            Columns::Packets => line(format_args!(
                "{name:width$} {:>10.3} {gbps:>9.2} {cpu_ns_per_packet:>11.0} {cpu_percent:>7.0} {spread:>7.0}%",
                per_second / 1e6
            )),
            Columns::Bytes => line(format_args!(
                "{name:width$} {gigabytes_per_second:>10.2} {:>9.2} {:>11.2} {cpu_percent:>7.0} {spread:>7.0}%",
                figure.gigabytes_per_cpu_second,
                cpu_ns_per_packet / 1e3
            )),
        }
    }
    text
}
