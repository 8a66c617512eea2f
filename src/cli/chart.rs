//! Parts of all pictures: palette, text, lines, the empty page, a logarithmic axis.

use svg::Document;
use svg::node::element::{Line, Rectangle, Text};

/// Titles and labels.
pub const INK: &str = "#24292f";
/// Ticks and subtitles.
pub const FAINT: &str = "#57606a";
/// Lines behind the data.
pub const GRID: &str = "#e4e7eb";
/// Curves, and roofs over dots.
pub const BLUE: &str = "#0b5394";

/// A white page with title and subtitle at `left`; the plot starts at `top`. In pixels.
pub fn page((width, height): (f64, f64), (left, top): (f64, f64), title: &str, subtitle: &str) -> Document {
    Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif")
        .add(Rectangle::new().set("width", width).set("height", height).set("rx", 6).set("fill", "#ffffff"))
        .add(text(title, left, 26.0, 17.0, INK, "start").set("font-weight", 600))
        .add(text(subtitle, left, top - 14.0, 12.0, FAINT, "start"))
}

/// Text at a point; `anchor` is `start`, `middle` or `end`.
pub fn text(content: impl Into<String>, x: f64, y: f64, size: f64, colour: &str, anchor: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("font-size", size).set("fill", colour).set("text-anchor", anchor)
}

/// The name of a vertical axis, turned, at its middle.
pub fn sideways(content: &str, x: f64, middle: f64) -> Text {
    text(content, x, middle, 13.0, INK, "middle").set("transform", format!("rotate(-90 {x} {middle})"))
}

pub fn line(from: (f64, f64), to: (f64, f64), colour: &str) -> Line {
    let line = Line::new().set("x1", tenth(from.0)).set("y1", tenth(from.1)).set("x2", tenth(to.0)).set("y2", tenth(to.1));
    line.set("stroke", colour)
}

/// Rounds to a tenth of a pixel, for small files.
pub fn tenth(pixel: f64) -> f64 {
    (10.0 * pixel).round() / 10.0
}

/// A logarithmic axis from pixel `start` to `end`.
#[derive(Debug, Clone, Copy)]
pub struct LogAxis {
    /// Decimal logarithm of the value at `start`.
    low: f64,
    /// Decimal logarithm of the value at `end`.
    high: f64,
    start: f64,
    end: f64,
}

impl LogAxis {
    /// From the least to the largest of positive `values`; half a decade around a single one.
    pub fn spanning(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v.log10()), h.max(v.log10())));
        let widened = if low < high { 0.0 } else { 0.5 };
        Self { low: low - widened, high: high + widened, start, end }
    }

    /// The whole decades that hold all positive `values`.
    pub fn around(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v.log10()), h.max(v.log10())));
        Self { low: low.floor(), high: high.ceil().max(low.floor() + 1.0), start, end }
    }

    /// The value at `start`.
    pub fn least(&self) -> f64 {
        10f64.powf(self.low)
    }

    /// The value at `end`.
    pub fn largest(&self) -> f64 {
        10f64.powf(self.high)
    }

    /// The pixel of `value`.
    pub fn pixel(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        tenth(self.start + share * (self.end - self.start))
    }

    /// Powers of ten within the axis.
    pub fn decades(&self) -> impl Iterator<Item = f64> {
        (self.low.ceil() as i32..=self.high.floor() as i32).map(|power| 10f64.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_logarithmic_and_hold_their_values() {
        let around = LogAxis::around([0.02, 300.0].into_iter(), 0.0, 100.0);
        assert_eq!(around.decades().collect::<Vec<_>>(), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!([0.01, 1.0, 1000.0].map(|value| around.pixel(value)), [0.0, 40.0, 100.0]);
        let spanning = LogAxis::spanning([64.0, 1024.0, 256.0].into_iter(), 200.0, 300.0);
        assert_eq!([64.0, 256.0, 1024.0].map(|value| spanning.pixel(value)), [200.0, 250.0, 300.0]);
    }

    #[test]
    fn a_single_value_is_in_the_middle() {
        let axis = LogAxis::spanning(std::iter::once(64.0), 0.0, 100.0);
        assert_eq!(axis.pixel(64.0), 50.0);
        assert!(axis.least() < 64.0 && axis.largest() > 64.0);
        assert_eq!(LogAxis::around(std::iter::once(10.0), 0.0, 100.0).decades().collect::<Vec<_>>(), [10.0, 100.0]);
    }
}
