//! The roofline (Williams, Waterman & Patterson 2009): operations a second over operations a byte, under the measured peaks, as an SVG.

use ppo_kernels::bench::{Finding, Peaks, Record};
use svg::Document;
use svg::node::element::{Circle, Group, Line, Rectangle, Text, Title};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 150.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = HEIGHT - 58.0;

const INK: &str = "#24292f";
const FAINT: &str = "#57606a";
const GRID: &str = "#e4e7eb";
const ROOF: &str = "#0b5394";
/// One a section, in the order in which sections appear.
const COLOURS: [&str; 8] = ["#c0392b", "#2e8b57", "#8e44ad", "#d98e04", "#16808a", "#6b4f2a", "#d6478c", "#5a6b7b"];

/// A logarithmic axis: powers of ten from `low` to `high` onto pixels from `start` to `end`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: i32,
    high: i32,
    start: f64,
    end: f64,
}

impl Axis {
    /// The decades that hold all `values`.
    fn around(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v.log10()), h.max(v.log10())));
        Self { low: low.floor() as i32, high: (high.ceil() as i32).max(low.floor() as i32 + 1), start, end }
    }

    fn pixel(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        tenth(self.start + share * (self.end - self.start))
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10f64.powi(power))
    }
}

fn tenth(pixel: f64) -> f64 {
    (10.0 * pixel).round() / 10.0
}

fn text(content: impl Into<String>, x: f64, y: f64, size: f64, colour: &str, anchor: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("font-size", size).set("fill", colour).set("text-anchor", anchor)
}

fn line(from: (f64, f64), to: (f64, f64), colour: &str) -> Line {
    Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1).set("stroke", colour)
}

/// A record's place: operations a byte, and 10⁹ operations a second.
fn place(record: &Record) -> (f64, f64) {
    (record.flops / record.bytes, record.flops / record.median_s / 1e9)
}

fn axes(x: &Axis, y: &Axis) -> Group {
    let mut group = Group::new();
    for tick in y.ticks() {
        let at = y.pixel(tick);
        group =
            group.add(line((LEFT, at), (RIGHT, at), GRID)).add(text(tick.to_string(), LEFT - 10.0, at + 4.0, 12.0, FAINT, "end"));
    }
    for tick in x.ticks() {
        let at = x.pixel(tick);
        group = group.add(line((at, TOP), (at, BOTTOM), GRID));
        group = group.add(text(tick.to_string(), at, BOTTOM + 20.0, 12.0, FAINT, "middle"));
    }
    let middle = (TOP + BOTTOM) / 2.0;
    let sideways = text("GFLOP/s", 22.0, middle, 13.0, INK, "middle").set("transform", format!("rotate(-90 22 {middle})"));
    group.add(text("operations a byte", (LEFT + RIGHT) / 2.0, HEIGHT - 14.0, 13.0, INK, "middle")).add(sideways)
}

/// The level part, and one slope for each copy: the large one drawn through, the cached one dashed.
fn roofs(peaks: &Peaks, x: &Axis, y: &Axis) -> Group {
    let mut group = Group::new();
    let end = 10f64.powi(x.high);
    for (copy, dashes) in peaks.copies.iter().zip(["5 4", "none"]) {
        let ridge = peaks.gflops / copy.gbps;
        // Where the slope comes in from below the picture, or from its left.
        let start = 10f64.powi(x.low).max(10f64.powi(y.low) / copy.gbps);
        let slope = line(
            (x.pixel(start), y.pixel(start * copy.gbps)),
            (x.pixel(ridge.min(end)), y.pixel((ridge.min(end)) * copy.gbps)),
            ROOF,
        );
        group = group.add(slope.set("stroke-width", 2).set("stroke-dasharray", dashes));
        if ridge < end {
            let level = y.pixel(peaks.gflops);
            group = group.add(line((x.pixel(ridge), level), (RIGHT, level), ROOF).set("stroke-width", 2));
        }
    }
    group
}

/// Draws all records that have both operations and bytes.
pub fn draw(findings: &[Finding], peaks: &Peaks, device: &str) -> String {
    let records: Vec<&Record> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Timed(record) if record.flops > 0.0 && record.bytes > 0.0 => Some(&**record),
            _ => None,
        })
        .collect();
    let ridge = peaks.gflops / peaks.copies[1].gbps;
    let intensities = records.iter().map(|record| place(record).0).chain([ridge / 10.0, ridge * 10.0]);
    let x = Axis::around(intensities, LEFT, RIGHT);
    let speeds = records.iter().map(|record| place(record).1).chain([peaks.gflops, peaks.gflops / 100.0]);
    let y = Axis::around(speeds, BOTTOM, TOP);
    let subtitle = format!(
        "{device}: {:.0} GFLOP/s, {:.0} GB/s (dashed: {:.0} GB/s in the cache)",
        peaks.gflops, peaks.copies[1].gbps, peaks.copies[0].gbps
    );
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, HEIGHT))
        .set("width", WIDTH)
        .set("height", HEIGHT)
        .set("font-family", "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif")
        .add(Rectangle::new().set("width", WIDTH).set("height", HEIGHT).set("rx", 6).set("fill", "#ffffff"))
        .add(text("Kernels under the measured roofline", LEFT, 26.0, 17.0, INK, "start").set("font-weight", 600))
        .add(text(subtitle, LEFT, TOP - 14.0, 12.0, FAINT, "start"))
        .add(axes(&x, &y))
        .add(roofs(peaks, &x, &y));
    let mut sections: Vec<&str> = Vec::new();
    for record in records {
        let section = record.bench.split('/').next().unwrap_or(&record.bench);
        let index = sections.iter().position(|known| *known == section).unwrap_or(sections.len());
        let colour = COLOURS[index % COLOURS.len()];
        if index == sections.len() {
            sections.push(section);
            let at = TOP + 12.0 + 20.0 * index as f64;
            document = document
                .add(Circle::new().set("cx", RIGHT + 20.0).set("cy", at - 4.0).set("r", 4).set("fill", colour))
                .add(text(section, RIGHT + 30.0, at, 12.0, INK, "start"));
        }
        let (intensity, speed) = place(record);
        let dot = Circle::new().set("cx", x.pixel(intensity)).set("cy", y.pixel(speed)).set("r", 4).set("fill", colour);
        // A reader with a mouse sees which shape it is.
        document = document.add(dot.set("fill-opacity", 0.75).add(Title::new(record.bench.as_str())));
    }
    document.to_string()
}
