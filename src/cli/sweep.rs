//! The chart of a sweep as SVG: time over size, a panel for each axis, with the peaks' bounds.

use ppo_kernels::bench::sweep::{Axis, BATCH, ENVS, WIDTH as UNITS};
use ppo_kernels::bench::{Finding, Peaks, Record};
use svg::node::element::{Circle, Group, Title};

use super::chart::{BLUE, FAINT, GRID, INK, LogAxis, line, page, sideways, text};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 82.0;
const BOTTOM: f64 = HEIGHT - 58.0;
/// Pixels between two panels.
const GAP: f64 = 28.0;

const MEASURED: &str = "#c0392b";
const DASHES: &str = "5 4";

/// Title and unit of an axis.
fn caption(axis: Axis) -> (String, &'static str) {
    match axis {
        Axis::Batch => (format!("batch: gradient, width {UNITS}"), "samples of a minibatch"),
        Axis::Width => (format!("width: gradient, {BATCH} samples"), "units of a hidden layer"),
        Axis::Horizon => (format!("horizon: GAE, {ENVS} environments"), "steps of a rollout"),
    }
}

/// Records of an axis in ascending order of size.
struct Panel<'a> {
    axis: Axis,
    points: Vec<(f64, &'a Record)>,
}

fn panels(findings: &[Finding]) -> Vec<Panel<'_>> {
    let panel = |axis| {
        let points = findings.iter().filter_map(|finding| match finding {
            Finding::Timed(record) => match Axis::of(&record.bench) {
                Some((of, size)) if of == axis => Some((size as f64, &**record)),
                _ => None,
            },
            Finding::Skipped { .. } | Finding::Failed { .. } => None,
        });
        let mut points: Vec<_> = points.collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Panel { axis, points }
    };
    Axis::ALL.into_iter().map(panel).filter(|panel| !panel.points.is_empty()).collect()
}

/// A record's least seconds by the peaks, and whether operations (not bytes) bound it.
fn bound(record: &Record, peaks: &Peaks) -> (f64, bool) {
    let peaks = peaks.of(record.variant);
    let [computing, moving] = [(record.flops, 0.0), (0.0, record.bytes)].map(|(flops, bytes)| peaks.least_seconds(flops, bytes));
    (peaks.least_seconds(record.flops, record.bytes), computing >= moving)
}

/// A power of ten of seconds, in a unit in which it is 1, 10 or 100.
fn decade(seconds: f64) -> String {
    let (factor, unit) = match seconds {
        s if s > 0.9 => (1.0, "s"),
        s if s > 0.9e-3 => (1e3, "ms"),
        s if s > 0.9e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    let value = seconds * factor;
    if value > 0.9 { format!("{value:.0} {unit}") } else { format!("{value:e} {unit}") }
}

/// At most five powers of two from the first size on, so that labels do not overlap.
fn ticks(panel: &Panel<'_>) -> Vec<f64> {
    let (Some((first, _)), Some((last, _))) = (panel.points.first(), panel.points.last()) else { return Vec::new() };
    let every = ((last / first).log2() / 4.0).ceil().max(1.0) as i32;
    (0..5).map(|i| first * 2f64.powi(i * every)).filter(|tick| tick <= last).collect()
}

fn axes(panel: &Panel<'_>, x: &LogAxis, y: &LogAxis, left: f64, right: f64) -> Group {
    let mut group = Group::new();
    for tick in y.decades() {
        group = group.add(line((left, y.pixel(tick)), (right, y.pixel(tick)), GRID));
    }
    for tick in ticks(panel) {
        let at = x.pixel(tick);
        group = group.add(line((at, BOTTOM), (at, BOTTOM + 5.0), FAINT));
        group = group.add(text(format!("{tick}"), at, BOTTOM + 20.0, 12.0, FAINT, "middle"));
    }
    let (title, unit) = caption(panel.axis);
    group
        .add(line((left, BOTTOM), (right, BOTTOM), FAINT))
        .add(text(title, left, TOP - 10.0, 12.0, INK, "start").set("font-weight", 600))
        .add(text(unit, (left + right) / 2.0, HEIGHT - 14.0, 13.0, INK, "middle"))
}

/// Medians as dots on a curve, 10-90 % quantiles as strokes.
fn times(panel: &Panel<'_>, x: &LogAxis, y: &LogAxis) -> Group {
    let place = |&(size, record): &(f64, &Record)| (x.pixel(size), y.pixel(record.median_s));
    let mut group = Group::new();
    for pair in panel.points.windows(2) {
        group = group.add(line(place(&pair[0]), place(&pair[1]), MEASURED).set("stroke-width", 1.4));
    }
    for point in &panel.points {
        let ((at, median), record) = (place(point), point.1);
        let spread = line((at, y.pixel(record.p10_s)), (at, y.pixel(record.p90_s)), MEASURED);
        let dot = Circle::new().set("cx", at).set("cy", median).set("r", 3.2).set("fill", MEASURED);
        // The tooltip names the size.
        group = group.add(spread.set("stroke-width", 2)).add(dot.add(Title::new(record.bench.as_str())));
    }
    group
}

/// Solid where operations bound the larger size, dashed where bytes do.
fn bounds(panel: &Panel<'_>, peaks: &Peaks, x: &LogAxis, y: &LogAxis) -> Group {
    let mut group = Group::new();
    for pair in panel.points.windows(2) {
        let [(from, _), (to, by_operations)] = [pair[0].1, pair[1].1].map(|record| bound(record, peaks));
        let stroke = line((x.pixel(pair[0].0), y.pixel(from)), (x.pixel(pair[1].0), y.pixel(to)), BLUE).set("stroke-width", 2);
        group = group.add(if by_operations { stroke } else { stroke.set("stroke-dasharray", DASHES) });
    }
    if let [(size, record)] = panel.points[..] {
        let at = (x.pixel(size), y.pixel(bound(record, peaks).0));
        group = group.add(line((at.0 - 8.0, at.1), (at.0 + 8.0, at.1), BLUE).set("stroke-width", 2));
    }
    group
}

fn legend() -> Group {
    let (left, y) = (RIGHT - 440.0, 26.0);
    let stroke = |at: f64, colour| line((at, y - 4.0), (at + 24.0, y - 4.0), colour).set("stroke-width", 2);
    let label = |content: &str, at: f64| text(content, at + 30.0, y, 12.0, INK, "start");
    Group::new()
        .add(stroke(left, MEASURED))
        .add(Circle::new().set("cx", left + 12.0).set("cy", y - 4.0).set("r", 3.2).set("fill", MEASURED))
        .add(label("measured", left))
        .add(stroke(left + 104.0, BLUE))
        .add(label("least for its operations", left + 104.0))
        .add(stroke(left + 282.0, BLUE).set("stroke-dasharray", DASHES))
        .add(label("least for its bytes", left + 282.0))
}

pub fn draw(findings: &[Finding], peaks: &Peaks, device: &str) -> String {
    let panels = panels(findings);
    let subtitle = format!(
        "{device}: {:.0} GFLOP/s, {:.0} GB/s ({:.0} GB/s in the cache); strokes: 10-90 %",
        peaks.gflops, peaks.copies[1].gbps, peaks.copies[0].gbps
    );
    let document = page((WIDTH, HEIGHT), (LEFT, TOP - 26.0), "Time of a call over size", &subtitle);
    if panels.is_empty() {
        let at = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        return document.add(text("no size was timed", at.0, at.1, 14.0, FAINT, "middle")).to_string();
    }
    let seconds = |(_, record): &(f64, &Record)| [record.p10_s, record.median_s, record.p90_s, bound(record, peaks).0];
    let y = LogAxis::around(panels.iter().flat_map(|panel| panel.points.iter().flat_map(seconds)), BOTTOM, TOP);
    let mut document = document.add(legend()).add(sideways("time of a call", 18.0, (TOP + BOTTOM) / 2.0));
    for tick in y.decades() {
        document = document.add(text(decade(tick), LEFT - 8.0, y.pixel(tick) + 4.0, 12.0, FAINT, "end"));
    }
    let width = (RIGHT - LEFT + GAP) / panels.len() as f64 - GAP;
    for (i, panel) in panels.iter().enumerate() {
        let left = LEFT + i as f64 * (width + GAP);
        // A margin for the outermost dots.
        let x = LogAxis::spanning(panel.points.iter().map(|(size, _)| *size), left + 14.0, left + width - 14.0);
        document =
            document.add(axes(panel, &x, &y, left, left + width)).add(bounds(panel, peaks, &x, &y)).add(times(panel, &x, &y));
    }
    document.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ppo_kernels::bench::Bandwidth;

    use super::*;

    fn record(bench: &str, median_s: f64, flops: f64, bytes: f64) -> Finding {
        Finding::Timed(Box::new(Record {
            bench: bench.to_owned(),
            variant: "default",
            framework: "ppo-kernels",
            device: "none".to_owned(),
            median_s,
            min_s: 0.8 * median_s,
            p10_s: 0.9 * median_s,
            p90_s: 1.1 * median_s,
            reps: 3,
            inner: 1,
            first_call_s: median_s,
            flops,
            bytes,
            derived: BTreeMap::new(),
            gpu_s: None,
            encode_s: None,
            check: BTreeMap::new(),
        }))
    }

    fn peaks() -> Peaks {
        Peaks {
            gflops: 100.0,
            tensor_gflops: None,
            copies: [(1e7, 50.0), (1e9, 10.0)].map(|(bytes, gbps)| Bandwidth { bytes, gbps }),
        }
    }

    #[test]
    fn operations_are_drawn_through_and_bytes_dashed() {
        let of = |bytes| [64, 128].map(|size| record(&format!("sweep/batch/{size}"), 1e-4, 1e6, bytes));
        let dashes = |bytes| draw(&of(bytes), &peaks(), "none").matches("stroke-dasharray").count();
        assert_eq!((dashes(1e3), dashes(1e9)), (1, 2), "one is the legend's");
    }

    #[test]
    fn only_axes_with_records_have_a_panel() {
        let findings = [record("limits/arithmetic", 1.0, 1e9, 0.0), record("sweep/horizon/16", 1e-6, 9e3, 2e4)];
        let picture = draw(&findings, &peaks(), "A & B");
        assert!(picture.contains("steps of a rollout") && !picture.contains("samples of a minibatch"), "{picture}");
        assert!(picture.contains("A &amp; B") && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        assert!(draw(&[], &peaks(), "none").contains("no size was timed"));
    }

    #[test]
    fn decades_of_seconds_have_a_unit() {
        let shown = [1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 0.1, 1.0, 10.0].map(decade);
        assert_eq!(shown, ["1e-1 ns", "10 ns", "1 µs", "100 µs", "1 ms", "100 ms", "1 s", "10 s"]);
    }
}
