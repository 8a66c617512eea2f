//! Progress of training: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ppo_kernels::Result;
use ppo_kernels::train::Progress;

use super::output;

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Display {
    started: Instant,
    total_timesteps: u64,
    surface: Surface,
}

#[derive(Debug)]
enum Surface {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Display {
    pub fn new(total_timesteps: u64) -> Self {
        let surface =
            if std::io::stdout().is_terminal() { Surface::Bar(bar(total_timesteps)) } else { Surface::Lines { last: None } };
        Self { started: Instant::now(), total_timesteps, surface }
    }

    /// Shows an update; always, if it is the `last`.
    pub fn show(&mut self, progress: &Progress, last: bool) -> Result<()> {
        let pace = self.pace(progress.global_step);
        match &mut self.surface {
            Surface::Bar(bar) => {
                bar.set_position(progress.global_step);
                bar.set_prefix(pace);
                bar.set_message(diagnostics(progress));
                Ok(())
            }
            Surface::Lines { last: shown } => {
                if !last && shown.is_some_and(|shown| shown.elapsed() < LINE_EVERY) {
                    return Ok(());
                }
                *shown = Some(Instant::now());
                let (done, total) = (HumanCount(progress.global_step), HumanCount(self.total_timesteps));
                output::line(&format!("{done}/{total} steps  {pace}  {}", diagnostics(progress)))
            }
        }
    }

    /// Steps per second, and the time left at that rate.
    fn pace(&self, steps: u64) -> String {
        let per_second = steps as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let rest = self.total_timesteps.saturating_sub(steps) as f64 / per_second;
        let left = HumanDuration(Duration::try_from_secs_f64(rest).unwrap_or(Duration::MAX));
        format!("{} steps/s  {left:#} left", HumanCount(per_second as u64))
    }

    /// Time since training started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the bar's line.
    pub fn close(&self) {
        if let Surface::Bar(bar) = &self.surface {
            bar.abandon();
        }
    }
}

fn bar(total_timesteps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total_timesteps), ProgressDrawTarget::stdout());
    let style = ProgressStyle::with_template("{bar:26.blue} {human_pos}/{human_len}  {prefix}\n{msg}");
    // The template is valid; the default bar is a fallback.
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Diagnostics in less than 80 columns.
fn diagnostics(progress: &Progress) -> String {
    let stats = &progress.stats;
    let mean_return = progress.mean_return.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1}"));
    format!(
        "return {mean_return}  loss {:.3}  KL {:.4}  entropy {:.2}  expl.var. {:.2}  clipped {:.0} %",
        stats.loss,
        stats.approx_kl,
        stats.entropy,
        stats.explained_variance,
        100.0 * stats.clipfrac,
    )
}
