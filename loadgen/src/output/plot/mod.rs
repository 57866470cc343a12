//! Plots as SVG, written by hand: no script, no font, nothing to fetch. Each is drawn twice, for a desk and for a phone,
//! because a drawing that is only scaled down has letters that are too; the page shows the one that fits.
//!
//! Colours are classes (`s1`, `h3`), which the page's style sheet knows for light and dark.

pub mod axis;
pub mod bars;
pub mod heat;
pub mod lines;

pub use axis::Axis;

use std::fmt::{Display, Write};

/// What a plot is drawn on; one unit is one pixel of a page at 100 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    pub width: f64,
    pub height: f64,
    /// Around the plot, for the axes.
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Size {
    pub const DESK: Size = Size {
        width: 900.0,
        height: 280.0,
        left: 62.0,
        right: 18.0,
        top: 26.0,
        bottom: 40.0,
    };
    pub const PHONE: Size = Size {
        width: 350.0,
        height: 240.0,
        left: 52.0,
        right: 12.0,
        top: 26.0,
        bottom: 40.0,
    };

    pub fn high(self, height: f64) -> Size {
        Size { height, ..self }
    }

    pub fn inner_width(&self) -> f64 {
        self.width - self.left - self.right
    }

    pub fn inner_height(&self) -> f64 {
        self.height - self.top - self.bottom
    }

    /// Where a share of the horizontal axis is.
    pub fn x(&self, share: f64) -> f64 {
        self.left + share * self.inner_width()
    }

    /// Where a share of the vertical axis is, which points up.
    pub fn y(&self, share: f64) -> f64 {
        self.top + (1.0 - share) * self.inner_height()
    }
}

/// A drawing being written.
pub struct Canvas {
    text: String,
}

impl Canvas {
    /// `says` is what the drawing tells somebody who cannot see it.
    pub fn new(size: Size, says: &str) -> Canvas {
        let (width, height) = (size.width, size.height);
        let mut canvas = Canvas { text: String::new() };
        canvas.put(format_args!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
            escaped(says)
        ));
        canvas
    }

    pub fn put(&mut self, piece: impl Display) {
        write!(self.text, "{piece}").expect("a String takes everything");
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(Pixel);
        self.put(format_args!(
            "<path class=\"{class}\" d=\"M{x1} {y1}L{x2} {y2}\"/>"
        ));
    }

    /// `anchor`: `start`, `middle` or `end`.
    pub fn label(&mut self, at: (f64, f64), anchor: &str, text: &str) {
        let (x, y) = (Pixel(at.0), Pixel(at.1));
        let anchor = match anchor {
            "start" => String::new(),
            other => format!(" text-anchor=\"{other}\""),
        };
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\"{anchor}>{}</text>",
            escaped(text)
        ));
    }

    /// A rectangle; `title` shows when one points at it.
    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), title: Option<&str>) {
        let [x, y, width, height] = [at.0, at.1, size.0, size.1].map(Pixel);
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\""
        ));
        match title {
            Some(title) => self.put(format_args!("><title>{}</title></rect>", escaped(title))),
            None => self.put("/>"),
        }
    }

    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// A coordinate, to a tenth of a pixel.
pub struct Pixel(pub f64);

impl Display for Pixel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounded = (self.0 * 10.0).round() / 10.0;
        debug_assert!(
            rounded.is_finite(),
            "values are filtered before they become places"
        );
        write!(f, "{}", if rounded == 0.0 { 0.0 } else { rounded })
    }
}

/// A drawing for a desk and for a phone, of which the page shows one.
pub fn both(draw: impl Fn(Size) -> String) -> String {
    let (desk, phone) = (draw(Size::DESK), draw(Size::PHONE));
    format!("<div class=\"desk\">{desk}</div><div class=\"phone\">{phone}</div>")
}

/// Text as it may stand in HTML, SVG and their attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // HTML has no place for other control characters.
            control if control.is_control() && !matches!(control, '\n' | '\t') => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}
