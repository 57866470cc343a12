//! The plot of `shapes`: a panel for each shape, the cost of a packet over the number of streams (decades), a line for either receiver and number of
//! shards. One SVG with its style in it, for light and dark pages.

use std::fmt::Write;

use harborseal_loadgen::output::plot::{Axis, Pixel, Size, escaped};

use super::{Case, Point, name};
use crate::machine::Machine;

const PANEL: Size = Size {
    width: 430.0,
    height: 290.0,
    left: 58.0,
    right: 16.0,
    top: 44.0,
    bottom: 44.0,
};
const COLUMNS: usize = 2;
const LEGEND_HEIGHT: f64 = 58.0;
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600}.g{stroke:#ddd}.a{stroke:#888}\
    .l{fill:none;stroke-width:2}.e{stroke:#0b6bcb}.d{stroke:#b3541e}.s2{stroke-dasharray:6 4}.pe{fill:#0b6bcb}.pd{fill:#b3541e}\
    @media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#ddd}.g{stroke:#333}.e{stroke:#6cb6ff}.d{stroke:#f0a06a}.pe{fill:#6cb6ff}.pd{fill:#f0a06a}}";

/// One line of a panel.
struct Line {
    class: &'static str,
    shards: usize,
    /// Streams, and nanoseconds.
    points: Vec<(u32, f64)>,
}

pub fn draw(points: &[Point], machine: &Machine) -> String {
    let panels = panels(points);
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (
        PANEL.width * COLUMNS as f64,
        PANEL.height * rows as f64 + LEGEND_HEIGHT,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"CPU time per packet by number of streams\"><style>{STYLE}</style>\n"
    );
    for (index, points) in panels.iter().enumerate() {
        let (x, y) = (
            PANEL.width * (index % COLUMNS) as f64,
            PANEL.height * (index / COLUMNS) as f64,
        );
        put(&mut svg, format_args!("<g transform=\"translate({x} {y})\">"));
        panel(&mut svg, points);
        svg += "</g>\n";
    }
    legend(&mut svg, PANEL.height * rows as f64, points, machine);
    svg + "</svg>\n"
}

fn put(svg: &mut String, piece: std::fmt::Arguments<'_>) {
    svg.write_fmt(piece).expect("a String takes all");
}

/// Points of the same shape, whatever the shards, in the order in which they were measured first.
fn panels(points: &[Point]) -> Vec<Vec<&Point>> {
    let shape = |case: Case| (case.packet_bytes, case.gso);
    let mut panels: Vec<Vec<&Point>> = Vec::new();
    for point in points {
        match panels
            .iter_mut()
            .find(|panel| shape(panel[0].case) == shape(point.case))
        {
            Some(panel) => panel.push(point),
            None => panels.push(vec![point]),
        }
    }
    panels
}

fn lines(points: &[&Point]) -> Vec<Line> {
    let mut shards: Vec<usize> = points.iter().map(|point| point.case.shards).collect();
    shards.sort_unstable();
    shards.dedup();
    let line = |shards: usize, class, value: fn(&Point) -> f64| Line {
        class,
        shards,
        points: points
            .iter()
            .filter(|point| point.case.shards == shards && value(point).is_finite())
            .map(|point| (point.case.streams, value(point)))
            .collect(),
    };
    shards
        .into_iter()
        .flat_map(|shards| {
            [
                line(shards, "e", |point| point.engine_ns),
                line(shards, "d", |point| point.discard_ns),
            ]
        })
        .collect()
}

fn panel(svg: &mut String, points: &[&Point]) {
    let lines = lines(points);
    let values = || {
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|(_, ns)| *ns))
    };
    let y = Axis::from_zero("ns", values(), 5);
    let most = points.iter().map(|point| point.case.streams).max().unwrap_or(1);
    // Half a step of room on both sides; a single number of streams stands in the middle.
    let share = |streams: u32| match most {
        0 | 1 => 0.5,
        most => 0.03 + 0.94 * f64::from(streams.max(1)).log10() / f64::from(most).log10(),
    };
    put(
        svg,
        format_args!(
            "<text class=\"t\" x=\"{}\" y=\"18\">{}</text><text x=\"{}\" y=\"35\">ns CPU per packet</text>",
            PANEL.left,
            escaped(&name(points[0].case)),
            PANEL.left
        ),
    );
    let (left, right, floor) = (PANEL.left, PANEL.width - PANEL.right, PANEL.y(0.0));
    for (value, label) in &y.ticks {
        let at = PANEL.y(y.share(*value));
        put(
            svg,
            format_args!(
                "<path class=\"g\" d=\"M{left} {at}H{right}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
                left - 8.0,
                Pixel(at + 4.0),
                at = Pixel(at),
            ),
        );
    }
    put(
        svg,
        format_args!("<path class=\"a\" d=\"M{left} {floor}H{right}\"/>"),
    );
    let mut streams: Vec<u32> = points.iter().map(|point| point.case.streams).collect();
    streams.sort_unstable();
    streams.dedup();
    for streams in streams {
        put(
            svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                Pixel(PANEL.x(share(streams))),
                floor + 17.0,
                short(streams)
            ),
        );
    }
    put(
        svg,
        format_args!(
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">streams</text>",
            floor + 34.0
        ),
    );
    for line in &lines {
        draw_line(
            svg,
            line,
            |streams| PANEL.x(share(streams)),
            |ns| PANEL.y(y.share(ns)),
        );
    }
}

fn draw_line(svg: &mut String, line: &Line, x: impl Fn(u32) -> f64, y: impl Fn(f64) -> f64) {
    let class = if line.shards > 1 { " s2" } else { "" };
    put(svg, format_args!("<path class=\"l {}{class}\" d=\"", line.class));
    for (index, &(streams, ns)) in line.points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        put(
            svg,
            format_args!("{command}{} {}", Pixel(x(streams)), Pixel(y(ns))),
        );
    }
    *svg += "\"/>";
    for &(streams, ns) in &line.points {
        put(
            svg,
            format_args!(
                "<circle class=\"p{}\" cx=\"{}\" cy=\"{}\" r=\"3.5\"><title>{streams} streams: {ns:.0} ns</title></circle>",
                line.class,
                Pixel(x(streams)),
                Pixel(y(ns))
            ),
        );
    }
}

/// `4k`, `100`.
fn short(streams: u32) -> String {
    match streams {
        thousands if thousands >= 1000 && thousands % 1000 == 0 => format!("{}k", thousands / 1000),
        other => other.to_string(),
    }
}

fn legend(svg: &mut String, top: f64, points: &[Point], machine: &Machine) {
    let two = points.iter().any(|point| point.case.shards > 1);
    let dashed = if two { "; dashed: two shards" } else { "" };
    put(
        svg,
        format_args!(
            "<path class=\"l e\" d=\"M58 {y}h26\"/><text x=\"92\" y=\"{t}\">engine</text>\
             <path class=\"l d\" d=\"M158 {y}h26\"/><text x=\"192\" y=\"{t}\">receive and discard{dashed}</text>\
             <text x=\"58\" y=\"{u}\">{machine}, Linux {kernel}</text>\n",
            y = top + 14.0,
            t = top + 18.0,
            u = top + 40.0,
            machine = escaped(&machine.cpu),
            kernel = escaped(&machine.kernel),
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(gso: bool, shards: usize, streams: u32, engine_ns: f64) -> Point {
        Point {
            case: Case {
                packet_bytes: 1200,
                gso,
                shards,
                streams,
            },
            engine_ns,
            discard_ns: engine_ns / 2.0,
            ratio: 2.0,
            packets_per_datagram: 1.0,
            lost: 0,
            valid: true,
            invalid_because: None,
        }
    }

    fn machine() -> Machine {
        Machine {
            cpu: "a <CPU>".to_owned(),
            cpus: vec![0],
            memory_mib: 1,
            kernel: "6".to_owned(),
            optimised: true,
        }
    }

    #[test]
    fn every_shape_has_a_panel_and_every_receiver_a_line() {
        let points = [
            point(true, 1, 1, 400.0),
            point(true, 1, 10_000, 900.0),
            point(true, 2, 1, 500.0),
            point(false, 1, 1, 1500.0),
        ];
        let svg = draw(&points, &machine());
        assert_eq!(svg.matches("<g transform").count(), 2);
        // Two receivers: of bursts on one shard and on two, and of single ones on one; and the two of the legend.
        assert_eq!(svg.matches("<path class=\"l ").count(), 2 * 3 + 2);
        assert_eq!(svg.matches("<circle").count(), 2 * points.len());
        assert!(svg.contains("10k") && svg.contains("a &lt;CPU&gt;"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn one_number_of_streams_is_a_plot_too() {
        let svg = draw(&[point(true, 1, 1, 0.0)], &machine());
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
