//! The roofline (Williams, Waterman & Patterson 2009) as SVG: operations per second over operations
//! per byte, under the measured peaks.

use ppo_kernels::bench::{Finding, Peaks, Record, TENSOR_CORES};
use svg::node::element::{Circle, Group, Title};

use super::chart::{BLUE, FAINT, GRID, INK, LogAxis, line, page, sideways, text};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 150.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = HEIGHT - 58.0;

/// Colours of sections, in order of appearance.
const COLOURS: [&str; 8] = ["#c0392b", "#2e8b57", "#8e44ad", "#d98e04", "#16808a", "#6b4f2a", "#d6478c", "#5a6b7b"];

/// A record's operations per byte, and 10⁹ operations per second.
fn place(record: &Record) -> (f64, f64) {
    (record.flops / record.bytes, record.flops / record.median_s / 1e9)
}

fn axes(x: &LogAxis, y: &LogAxis) -> Group {
    let mut group = Group::new();
    for tick in y.decades() {
        let at = y.pixel(tick);
        group =
            group.add(line((LEFT, at), (RIGHT, at), GRID)).add(text(tick.to_string(), LEFT - 10.0, at + 4.0, 12.0, FAINT, "end"));
    }
    for tick in x.decades() {
        let at = x.pixel(tick);
        group = group.add(line((at, TOP), (at, BOTTOM), GRID));
        group = group.add(text(tick.to_string(), at, BOTTOM + 20.0, 12.0, FAINT, "middle"));
    }
    let middle = (TOP + BOTTOM) / 2.0;
    group
        .add(text("operations per byte", (LEFT + RIGHT) / 2.0, HEIGHT - 14.0, 13.0, INK, "middle"))
        .add(sideways("GFLOP/s", 22.0, middle))
}

/// The level roof, and a slope for each copy: solid for the large one, dashed for the cached one.
fn roofs(peaks: &Peaks, x: &LogAxis, y: &LogAxis) -> Group {
    let mut group = Group::new();
    let end = x.largest();
    for (copy, dashes) in peaks.copies.iter().zip(["5 4", "none"]) {
        let ridge = peaks.gflops / copy.gbps;
        // The slope enters from below or from the left.
        let start = x.least().max(y.least() / copy.gbps);
        let slope = line(
            (x.pixel(start), y.pixel(start * copy.gbps)),
            (x.pixel(ridge.min(end)), y.pixel((ridge.min(end)) * copy.gbps)),
            BLUE,
        );
        group = group.add(slope.set("stroke-width", 2).set("stroke-dasharray", dashes));
        if ridge < end {
            let level = y.pixel(peaks.gflops);
            group = group.add(line((x.pixel(ridge), level), (RIGHT, level), BLUE).set("stroke-width", 2));
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
    let x = LogAxis::around(intensities, LEFT, RIGHT);
    let highest = peaks.tensor_gflops.unwrap_or(peaks.gflops);
    let speeds = records.iter().map(|record| place(record).1).chain([highest, peaks.gflops, peaks.gflops / 100.0]);
    let y = LogAxis::around(speeds, BOTTOM, TOP);
    let subtitle = format!(
        "{device}: {:.0} GFLOP/s, {:.0} GB/s (dashed: {:.0} GB/s in the cache)",
        peaks.gflops, peaks.copies[1].gbps, peaks.copies[0].gbps
    );
    let mut document = page((WIDTH, HEIGHT), (LEFT, TOP), "Kernels under the measured roofline", &subtitle)
        .add(axes(&x, &y))
        .add(roofs(peaks, &x, &y));
    for variant in TENSOR_CORES.iter().filter(|variant| records.iter().any(|record| record.variant == **variant)) {
        document = document.add(roofs(&peaks.of(variant), &x, &y));
    }
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
        // The tooltip names the shape.
        document = document.add(dot.set("fill-opacity", 0.75).add(Title::new(record.bench.as_str())));
    }
    document.to_string()
}
