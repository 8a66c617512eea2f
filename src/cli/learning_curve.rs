//! The learning curve as SVG: episodes' returns and their running mean over environment steps.

use std::collections::VecDeque;
use std::fmt::Write;

use ppo_kernels::train::{EPISODES_AVERAGED, FinishedEpisode};
use svg::node::element::{Group, Path};

use super::chart::{BLUE, FAINT, GRID, INK, line, page, sideways, tenth, text};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = HEIGHT - 58.0;

const DOTS: &str = "#6ea8dc";
const TARGET: &str = "#2e8b57";

/// Most points of a series; a curve is 760 pixels wide.
const MOST_POINTS: usize = 4000;

/// The picture's texts.
#[derive(Debug, Clone)]
pub struct Caption {
    pub title: String,
    /// Under the title: preset, seed, backend.
    pub subtitle: String,
    /// The mean return at which training stops, drawn if near the data.
    pub target: f64,
}

/// A linear axis: `low` is at pixel `start`, `high` at `end`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn pixel(&self, value: f64) -> f64 {
        self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    /// About `count` round numbers within the axis.
    fn ticks(&self, count: f64) -> Vec<f64> {
        let step = round_step((self.high - self.low) / count);
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// 1500 as 1.5k, 2000000 as 2M.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{}M", value / 1e6),
        v if v >= 1e3 => format!("{}k", value / 1e3),
        // Beyond six digits of a round step there is only rounding.
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

/// After each episode, the mean of the last 100, or of fewer at the start.
fn running_mean(episodes: &[FinishedEpisode]) -> Vec<(f64, f64)> {
    let mut last = VecDeque::with_capacity(EPISODES_AVERAGED);
    let mut mean = |episode: &FinishedEpisode| {
        if last.len() == EPISODES_AVERAGED {
            last.pop_front();
        }
        last.push_back(episode.episodic_return);
        (episode.global_step as f64, last.iter().sum::<f64>() / last.len() as f64)
    };
    episodes.iter().map(&mut mean).collect()
}

/// Every k-th point, and the last.
fn thinned<T: Copy>(points: &[T]) -> Vec<T> {
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let mut drawn: Vec<T> = points.iter().copied().step_by(every).collect();
    if !(points.len().max(1) - 1).is_multiple_of(every) {
        drawn.extend(points.last());
    }
    drawn
}

fn return_axis(episodes: &[FinishedEpisode], target: f64) -> Axis {
    let returns = episodes.iter().map(|episode| episode.episodic_return).filter(|r| r.is_finite());
    let (mut low, mut high) = returns.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), r| (l.min(r), h.max(r)));
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    let span = (high - low).max(1e-9);
    if target.is_finite() && target > low - span && target < high + span {
        (low, high) = (low.min(target), high.max(target));
    }
    if low > 0.0 && low < high / 2.0 {
        low = 0.0;
    }
    if high - low < 1e-6 {
        (low, high) = (low - 1.0, high + 1.0);
    }
    let margin = 0.03 * (high - low);
    Axis { low: if low == 0.0 { 0.0 } else { low - margin }, high: high + margin, start: BOTTOM, end: TOP }
}

fn axes(x: &Axis, y: &Axis) -> Group {
    let mut group = Group::new();
    for tick in y.ticks(6.0) {
        let at = y.pixel(tick);
        group = group.add(line((LEFT, at), (RIGHT, at), GRID));
        group = group.add(text(short(tick), LEFT - 10.0, tenth(at + 4.0), 12.0, FAINT, "end"));
    }
    for tick in x.ticks(8.0) {
        let at = x.pixel(tick);
        group = group.add(line((at, BOTTOM), (at, BOTTOM + 5.0), FAINT));
        group = group.add(text(short(tick), tenth(at), BOTTOM + 20.0, 12.0, FAINT, "middle"));
    }
    let middle = (TOP + BOTTOM) / 2.0;
    group
        .add(line((LEFT, BOTTOM), (RIGHT, BOTTOM), FAINT))
        .add(text("environment steps", (LEFT + RIGHT) / 2.0, HEIGHT - 14.0, 13.0, INK, "middle"))
        .add(sideways("episodic return", 22.0, middle))
}

/// Episodes as dots: a path of empty strokes with round ends takes a tenth of the bytes of circles.
fn dots(episodes: &[FinishedEpisode], x: &Axis, y: &Axis) -> Path {
    let mut data = String::new();
    for episode in thinned(episodes).iter().filter(|episode| episode.episodic_return.is_finite()) {
        let (px, py) = (tenth(x.pixel(episode.global_step as f64)), tenth(y.pixel(episode.episodic_return)));
        let _ = write!(data, "M{px} {py}h0");
    }
    let path = Path::new().set("d", data).set("fill", "none").set("stroke", DOTS).set("stroke-width", 3.2);
    path.set("stroke-linecap", "round").set("stroke-opacity", 0.45)
}

fn mean_curve(means: &[(f64, f64)], x: &Axis, y: &Axis) -> Path {
    let mut data = String::new();
    for (step, mean) in thinned(means).into_iter().filter(|(_, mean)| mean.is_finite()) {
        let command = if data.is_empty() { 'M' } else { 'L' };
        let _ = write!(data, "{command}{} {}", tenth(x.pixel(step)), tenth(y.pixel(mean)));
    }
    let path = Path::new().set("d", data).set("fill", "none").set("stroke", BLUE).set("stroke-width", 2.4);
    path.set("stroke-linejoin", "round").set("stroke-linecap", "round")
}

fn legend() -> Group {
    let y = 26.0;
    let dot = Path::new().set("d", format!("M{} {}h0", RIGHT - 262.0, y - 4.0)).set("stroke", DOTS).set("stroke-width", 6.0);
    Group::new()
        .add(dot.set("stroke-linecap", "round"))
        .add(text("one episode", RIGHT - 252.0, y, 12.0, INK, "start"))
        .add(line((RIGHT - 164.0, y - 4.0), (RIGHT - 140.0, y - 4.0), BLUE).set("stroke-width", 2.4))
        .add(text(format!("mean of the last {EPISODES_AVERAGED}"), RIGHT - 132.0, y, 12.0, INK, "start"))
}

/// Draws the curve of a run after `steps` environment steps.
pub fn draw(episodes: &[FinishedEpisode], steps: u64, caption: &Caption) -> String {
    let x = Axis { low: 0.0, high: steps.max(1) as f64, start: LEFT, end: RIGHT };
    let y = return_axis(episodes, caption.target);
    let mut document = page((WIDTH, HEIGHT), (LEFT, TOP), &caption.title, &caption.subtitle).add(axes(&x, &y));
    if caption.target > y.low && caption.target < y.high {
        let at = y.pixel(caption.target);
        let label = text(format!("target {}", short(caption.target)), LEFT + 6.0, tenth(at - 5.0), 12.0, TARGET, "start");
        document = document.add(line((LEFT, at), (RIGHT, at), TARGET).set("stroke-dasharray", "6 4")).add(label);
    }
    if episodes.is_empty() {
        let at = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        return document.add(text("no episode has ended yet", at.0, at.1, 14.0, FAINT, "middle")).to_string();
    }
    document.add(dots(episodes, &x, &y)).add(mean_curve(&running_mean(episodes), &x, &y)).add(legend()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episodes(returns: &[f64]) -> Vec<FinishedEpisode> {
        let episode = |(i, &episodic_return): (usize, &f64)| FinishedEpisode {
            global_step: 100 * (i as u64 + 1),
            episodic_return,
            length: 100,
        };
        returns.iter().enumerate().map(episode).collect()
    }

    fn caption() -> Caption {
        Caption { title: "A & B".to_owned(), subtitle: "seed 1".to_owned(), target: 475.0 }
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let axis = |low, high| Axis { low, high, start: 0.0, end: 100.0 };
        assert_eq!(axis(0.0, 500_000.0).ticks(8.0), [0.0, 1e5, 2e5, 3e5, 4e5, 5e5]);
        assert_eq!(axis(-1700.0, -120.0).ticks(6.0), [-1500.0, -1000.0, -500.0]);
        assert_eq!(
            axis(0.0, 1.0).ticks(5.0).iter().map(|t| short(*t)).collect::<Vec<_>>(),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
    }

    #[test]
    fn large_numbers_are_shortened() {
        assert_eq!([short(1500.0), short(2e6), short(-250.0), short(0.0)], ["1.5k", "2M", "-250", "0"]);
    }

    #[test]
    fn the_mean_is_of_the_last_hundred() {
        let returns: Vec<f64> = (0..150).map(f64::from).collect();
        let means = running_mean(&episodes(&returns));
        assert_eq!(means[0], (100.0, 0.0));
        assert_eq!(means[1].1, 0.5);
        assert_eq!(means[149].1, (50..150).sum::<i32>() as f64 / 100.0);
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let many: Vec<usize> = (0..10 * MOST_POINTS + 3).collect();
        let drawn = thinned(&many);
        assert!(drawn.len() <= MOST_POINTS + 1, "{}", drawn.len());
        assert_eq!((drawn.first(), drawn.last()), (Some(&0), many.last()));
        assert_eq!(thinned(&[1, 2, 3]), [1, 2, 3]);
        assert!(thinned::<u8>(&[]).is_empty());
    }

    #[test]
    fn the_picture_has_dots_a_curve_a_target_and_its_text_escaped() {
        let returns: Vec<f64> = (0..120).map(|i| 4.0 * f64::from(i)).collect();
        let picture = draw(&episodes(&returns), 12_000, &caption());
        assert_eq!(picture.matches("h0").count(), 121, "a dot an episode and one in the legend");
        assert!(picture.contains("target 475") && picture.contains("A &amp; B") && picture.contains("environment steps"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn degenerate_runs_are_drawn_too() {
        for (returns, steps) in [(vec![], 0), (vec![], 50), (vec![9.0], 0), (vec![3.0; 5], 500), (vec![f64::NAN, 1.0], 200)] {
            let picture = draw(&episodes(&returns), steps, &caption());
            assert!(picture.starts_with("<svg") && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }
}
