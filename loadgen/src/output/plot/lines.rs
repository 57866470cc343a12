//! Lines over time or quantiles: the frame with its axes, the lines, and what shows when one points at a place.

use super::{Axis, Canvas, Pixel, Size};
use std::fmt::Write;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: &'static str,
    /// The classes of its colour and stroke.
    pub class: &'static str,
    /// In order of x; where y is unknown the line is broken.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A stretch of the horizontal axis with a ground of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    pub from: f64,
    pub to: f64,
    pub name: &'static str,
}

/// A plot of lines.
#[derive(Debug, Clone)]
pub struct LinePlot {
    pub says: String,
    pub x: Axis,
    pub y: Axis,
    /// Drawn in this order.
    pub lines: Vec<Line>,
    pub band: Option<Band>,
    /// Stretches of x and what shows when one points there.
    pub hints: Vec<(f64, f64, String)>,
}

impl LinePlot {
    pub fn draw(&self, size: Size) -> String {
        let mut canvas = Canvas::new(size, &self.says);
        if let Some(band) = &self.band {
            self.draw_band(&mut canvas, size, band);
        }
        frame(&mut canvas, size, &self.x, &self.y);
        for line in &self.lines {
            self.draw_line(&mut canvas, size, line);
        }
        for (from, to, text) in &self.hints {
            let (left, right) = (size.x(self.x.share(*from)), size.x(self.x.share(*to)));
            canvas.rect(
                "hint",
                (left, size.top),
                ((right - left).max(0.5), size.inner_height()),
                Some(text),
            );
        }
        canvas.finish()
    }

    fn draw_band(&self, canvas: &mut Canvas, size: Size, band: &Band) {
        let (left, right) = (size.x(self.x.share(band.from)), size.x(self.x.share(band.to)));
        canvas.rect(
            "band",
            (left, size.top),
            (right - left, size.inner_height()),
            None,
        );
        if right - left > 9.0 * band.name.chars().count() as f64 {
            canvas.label((left + 6.0, size.top + 14.0), "start", band.name);
        }
    }

    fn draw_line(&self, canvas: &mut Canvas, size: Size, line: &Line) {
        let mut path = String::new();
        let mut alone = Vec::new();
        for part in line.points.split(|(_, y)| y.is_none_or(|y| !y.is_finite())) {
            let places: Vec<(f64, f64)> = part
                .iter()
                .filter_map(|&(x, y)| Some((size.x(self.x.share(x)), size.y(self.y.share(y?)))))
                .collect();
            if let [place] = places[..] {
                alone.push(place);
            }
            for (index, (x, y)) in places.into_iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                write!(path, "{command}{} {}", Pixel(x), Pixel(y)).expect("a String takes everything");
            }
        }
        canvas.put(format_args!("<path class=\"line {}\" d=\"{path}\"/>", line.class));
        for (x, y) in alone {
            let (x, y) = (Pixel(x), Pixel(y));
            canvas.put(format_args!(
                "<circle class=\"dot {}\" cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/>",
                line.class
            ));
        }
    }
}

/// Grid, axes, names of both; the vertical axis's label stands above it, so that it reads like the rest.
pub fn frame(canvas: &mut Canvas, size: Size, x: &Axis, y: &Axis) {
    let (left, right, floor) = (size.left, size.width - size.right, size.y(0.0));
    for (value, name) in &y.ticks {
        let place = size.y(y.share(*value));
        canvas.line("grid", (left, place), (right, place));
        canvas.label((left - 8.0, place + 4.0), "end", name);
    }
    let mut free_from = f64::MIN;
    for (value, name) in &x.ticks {
        let place = size.x(x.share(*value));
        // 7 px per letter at the page's 12 px type; a name without room is left out, its tick stays.
        let half = 3.5 * name.chars().count() as f64;
        canvas.line("tick", (place, floor), (place, floor + 4.0));
        let middle = place.min(size.width - half - 1.0);
        if middle - half > free_from {
            canvas.label((middle, floor + 17.0), "middle", name);
            free_from = middle + half + 6.0;
        }
    }
    canvas.line("axis", (left, floor), (right, floor));
    canvas.label((4.0, 13.0), "start", &y.label);
    canvas.label((right, floor + 34.0), "end", &x.label);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, Option<f64>)>) -> String {
        let values = points.iter().filter_map(|(_, y)| *y).collect::<Vec<_>>();
        let plot = LinePlot {
            says: "a <plot>".to_owned(),
            x: Axis::of_time(10.0, 5),
            y: Axis::from_zero("Gb/s", values.into_iter(), 4),
            lines: vec![Line {
                name: "sent",
                class: "s1",
                points,
            }],
            band: None,
            hints: Vec::new(),
        };
        plot.draw(Size::PHONE)
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let text = plot(vec![
            (0.0, Some(1.0)),
            (1.0, Some(2.0)),
            (2.0, None),
            (3.0, Some(1.0)),
            (4.0, Some(1.0)),
        ]);
        let path = text
            .split("class=\"line s1\" d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        assert_eq!(path.map(|path| path.matches('M').count()), Some(2), "{text}");
    }

    #[test]
    fn one_point_alone_is_a_dot_and_none_at_all_is_a_frame() {
        assert!(plot(vec![(0.0, Some(1.0))]).contains("<circle"));
        let empty = plot(vec![(0.0, Some(f64::NAN)), (1.0, None)]);
        assert!(!empty.contains("NaN") && !empty.contains("<circle"), "{empty}");
        assert!(plot(Vec::new()).ends_with("</svg>"));
    }

    #[test]
    fn what_it_says_is_escaped() {
        assert!(plot(Vec::new()).contains("aria-label=\"a &lt;plot&gt;\""));
    }
}
