//! `ppo-kernels verify --planted-faults`: checks that verification notices planted faults.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ppo_kernels::backend::{Gpu, Memory};
use ppo_kernels::verify::faults::{Drawn, Fault, draw, faults, first_miss, runs_on};
use ppo_kernels::verify::{KernelVariant, Options};
use ppo_kernels::{Error, Result};

use super::backend::selection;
use super::verify::{VerifiedBackend, VerifyArgs};
use super::{Outcome, output};

/// Random shapes of the first run, which finds most faults.
const FEW_CASES: usize = 4;

/// `--planted-faults` and its options.
#[derive(Debug, clap::Args)]
pub struct PlantedFaultsArgs {
    /// Plant N faults in the shaders, each in its own process, and report those not noticed
    #[arg(long, value_name = "N", conflicts_with = "operations", value_parser = clap::value_parser!(u32).range(1..))]
    planted_faults: Option<u32>,
    /// Planted faults tried at the same time
    #[arg(long, value_name = "N", default_value_t = 2, requires = "planted_faults", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Time limit of a kernel variant with a planted fault; a longer run counts as hung
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "planted_faults", value_parser = clap::value_parser!(u32).range(1..))]
    time_limit: u32,
    /// For the fault's own process: the shader, and `@` with the first byte changed
    #[arg(long, hide = true, conflicts_with = "planted_faults")]
    plant: Option<String>,
}

impl PlantedFaultsArgs {
    /// Runs the planted faults, or one process's fault; None without these flags.
    pub fn run(&self, args: &VerifyArgs, options: &Options) -> Option<Result<Outcome>> {
        let planted = self.planted_faults.map(|count| self.plant_all(args, options, count as usize));
        planted.or_else(|| self.plant.as_ref().map(|plant| try_one(args, options, plant)))
    }

    fn plant_all(&self, args: &VerifyArgs, options: &Options, count: usize) -> Result<Outcome> {
        if args.backend == VerifiedBackend::Cpu {
            return Err(Error::InvalidValue {
                argument: "backend".to_owned(),
                expected: "gpu with planted faults, which are planted in shaders".to_owned(),
                actual: "cpu".to_owned(),
            });
        }
        let gpu = Gpu::open_checked(&selection(&args.adapter)?, args.precision.precision)?;
        let (all, left_out): (Vec<_>, Vec<_>) = faults().into_iter().partition(|fault| runs_on(&gpu, fault.shader));
        let (places, left_out, adapter) = (all.len(), left_out.len(), gpu.describe());
        let Drawn { faults, not_compiling, without_effect } = draw(all, count, options.seed)?;
        drop(gpu);
        output::line(&format!(
            "{adapter}: {count} of {places} places, seed {}; {left_out} places left out that do not run here; \
             drawn anew for {not_compiling} that do not compile and {without_effect} that change no pipeline",
            options.seed
        ))?;
        let mut shaders: Vec<&str> = faults.iter().map(|fault| fault.shader).collect();
        shaders.sort_unstable();
        shaders.dedup();
        let started = |plant: String| Verdict::run(args, &plant, Duration::from_secs(u64::from(self.time_limit)));
        let bar = progress(shaders.len() + faults.len());
        let unplanted = in_parallel(self.jobs, &shaders, |shader| {
            let verdict = started((*shader).to_owned());
            bar.inc(1);
            verdict
        });
        for (shader, verdict) in shaders.iter().zip(unplanted) {
            match verdict? {
                Verdict::Unnoticed => {}
                Verdict::Missed(what) | Verdict::DeviceLost(what) | Verdict::Crashed(what) => {
                    return Err(Error::Device(format!("{shader} has a miss without a planted fault: {what}")));
                }
                Verdict::Hung => {
                    return Err(Error::Device(format!("{shader} takes longer than the time limit without a planted fault")));
                }
            }
        }
        let trials = in_parallel(self.jobs, &faults, |fault| {
            let verdict = started(format!("{}@{}", fault.shader, fault.start()));
            bar.inc(1);
            if matches!(verdict, Ok(Verdict::Unnoticed)) {
                bar.suspend(|| output::note(&format!("unnoticed: {fault}")));
            }
            verdict
        });
        bar.finish_and_clear();
        let trials = trials.into_iter().collect::<Result<Vec<_>>>()?;
        conclude(&shaders, &faults.into_iter().zip(trials).collect::<Vec<_>>())
    }
}

fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:26.blue} {pos}/{len} planted, {eta} left");
    // The template is valid; the default bar is a fallback.
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Each item's result, in order, from `jobs` threads.
fn in_parallel<T: Sync, R: Send>(jobs: u16, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((i, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?))) {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The outcome of a planted fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// A case did not pass.
    Missed(String),
    /// The device was lost.
    DeviceLost(String),
    /// The process ended before it had run all cases.
    Crashed(String),
    /// The process did not end.
    Hung,
    /// All cases passed.
    Unnoticed,
}

/// Prefixes of the last line of a fault's process.
const MISSED: &str = "missed ";
const DEVICE_LOST: &str = "device lost ";
const UNNOTICED: &str = "unnoticed";

impl Verdict {
    /// Starts this program for one fault. Waits until it ends, or prints nothing for `limit`.
    fn run(args: &VerifyArgs, plant: &str, limit: Duration) -> Result<Self> {
        let own = std::env::current_exe().map_err(|source| Error::Io { path: "the program's own file".into(), source })?;
        let mut command = Command::new(own);
        command.args(["verify", "--plant", plant]).args(["--seed", &args.seed.to_string(), "--cases", &args.cases.to_string()]);
        command.args(args.adapter.iter().flat_map(|adapter| ["--adapter", adapter])).args(args.precision.as_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| Error::Io { path: "a process of its own".into(), source })?;
        let lines = lines_of(&mut child);
        let mut last = String::new();
        loop {
            match lines.recv_timeout(limit) {
                Ok(line) => last = line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // It may have ended by itself.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(Self::Hung);
                }
            }
        }
        let status = child.wait().map_err(|source| Error::Io { path: "a process of its own".into(), source })?;
        Ok(Self::of_line(&last).unwrap_or_else(|| Self::Crashed(status.to_string())))
    }

    fn of_line(line: &str) -> Option<Self> {
        if line == UNNOTICED {
            return Some(Self::Unnoticed);
        }
        let missed = line.strip_prefix(MISSED).map(|what| Self::Missed(what.to_owned()));
        missed.or_else(|| line.strip_prefix(DEVICE_LOST).map(|what| Self::DeviceLost(what.to_owned())))
    }
}

/// The lines of a process, as they come.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(std::io::Result::ok);
            // Without a receiver, the process is being killed.
            lines.map_while(|line| sender.send(line).ok()).for_each(drop);
        });
    }
    receiver
}

/// In the fault's own process: plants the fault, if there is one, and verifies the shader.
/// Explained faults, and runs without a fault, take few cases.
fn try_one(args: &VerifyArgs, options: &Options, plant: &str) -> Result<Outcome> {
    let (shader, start) = plant.split_once('@').map_or((plant, None), |(shader, start)| (shader, Some(start)));
    let is_this = |fault: &Fault| fault.shader == shader && start.is_some_and(|start| start == fault.start().to_string());
    let fault = faults().into_iter().find(is_this);
    if start.is_some() && fault.is_none() {
        return Err(Error::InvalidValue {
            argument: "plant".to_owned(),
            expected: "the place of a fault".to_owned(),
            actual: plant.to_owned(),
        });
    }
    let mut gpu = Gpu::open_checked(&selection(&args.adapter)?, args.precision.precision)?;
    gpu.context.set_guards(true);
    if let Some(fault) = &fault {
        gpu.context.replace_shader(fault.shader, fault.text());
    }
    let few = Options { cases: options.cases.min(FEW_CASES), many_workgroups: false, ..options.clone() };
    let mut runs = vec![few];
    if fault.is_some_and(|fault| fault.explanation().is_none()) {
        // Other inputs than in the passed run.
        runs.push(Options { seed: options.seed.wrapping_add(1), ..options.clone() });
    }
    for options in runs {
        let passed = |variant: &KernelVariant| drop(output::line(&format!("passed {}", variant.name)));
        match first_miss(gpu, shader, &options, passed) {
            Ok((back, None)) => gpu = back,
            Ok((_, Some(miss))) => {
                output::line(&one_line(MISSED, &miss))?;
                return Ok(Outcome::Success);
            }
            Err(error @ Error::DeviceLost(_)) => {
                output::line(&one_line(DEVICE_LOST, &error))?;
                return Ok(Outcome::Success);
            }
            Err(error) => return Err(error),
        }
    }
    output::line(UNNOTICED)?;
    Ok(Outcome::Success)
}

fn one_line(prefix: &str, what: &impl std::fmt::Display) -> String {
    prefix.to_owned() + &what.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Prints the outcomes of the faults.
fn conclude(shaders: &[&str], tried: &[(Fault, Verdict)]) -> Result<Outcome> {
    let report = Report::new(shaders, tried);
    report.lines.iter().try_for_each(|line| output::line(line))?;
    Ok(report.outcome)
}

/// Whether a column counts a fault.
type Counts<'a> = &'a dyn Fn(&(Fault, Verdict)) -> bool;

struct Report {
    lines: Vec<String>,
    outcome: Outcome,
}

impl Report {
    fn new(shaders: &[&str], tried: &[(Fault, Verdict)]) -> Self {
        let is_unnoticed = |(fault, verdict): &(Fault, Verdict), explained| {
            *verdict == Verdict::Unnoticed && fault.explanation().is_some() == explained
        };
        let columns: [(&str, Counts<'_>); 7] = [
            ("planted", &|_| true),
            ("missed", &|(_, verdict)| matches!(verdict, Verdict::Missed(_))),
            ("device lost", &|(_, verdict)| matches!(verdict, Verdict::DeviceLost(_))),
            ("crashed", &|(_, verdict)| matches!(verdict, Verdict::Crashed(_))),
            ("hung", &|(_, verdict)| *verdict == Verdict::Hung),
            ("explained", &|tried| is_unnoticed(tried, true)),
            ("unnoticed", &|tried| is_unnoticed(tried, false)),
        ];
        let header: Vec<&str> = std::iter::once("shader").chain(columns.iter().map(|(name, _)| *name)).collect();
        let mut table = output::table(&header);
        for shader in shaders.iter().map(|&shader| Some(shader)).chain([None]) {
            let here = || tried.iter().filter(|(fault, _)| shader.is_none_or(|shader| fault.shader == shader));
            let counts = columns.iter().map(|(_, counts)| here().filter(|tried| counts(tried)).count().to_string());
            table.add_row(std::iter::once(shader.unwrap_or("all").to_owned()).chain(counts));
        }
        let mut lines = vec![table.to_string()];
        let (mut explained, mut unnoticed, mut wrong) = (0, 0, 0);
        for (fault, verdict) in tried {
            match (verdict, fault.explanation()) {
                (Verdict::Unnoticed, None) => {
                    unnoticed += 1;
                    lines.push(format!("unnoticed: {fault}"));
                }
                (Verdict::Unnoticed, Some(reason)) => {
                    explained += 1;
                    lines.push(format!("explained: {fault}: {reason}"));
                }
                (_, Some(_)) => {
                    wrong += 1;
                    lines.push(format!("noticed, although it is explained: {fault}: {verdict:?}"));
                }
                (_, None) => {}
            }
        }
        let noticed = tried.len() - unnoticed - explained;
        lines.push(format!("{noticed} of {} planted faults noticed, {explained} explained, {unnoticed} unnoticed", tried.len()));
        let outcome = if unnoticed + wrong == 0 { Outcome::Success } else { Outcome::Negative };
        Self { lines, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..20).collect();
        for jobs in [1, 3, 40] {
            assert_eq!(in_parallel(jobs, &items, |i| i * i), items.iter().map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_last_line_says_what_became_of_a_fault() {
        assert_eq!(Verdict::of_line("unnoticed"), Some(Verdict::Unnoticed));
        assert_eq!(Verdict::of_line("missed gae: a b"), Some(Verdict::Missed("gae: a b".to_owned())));
        assert_eq!(Verdict::of_line(&one_line(DEVICE_LOST, &"a\n  b")), Some(Verdict::DeviceLost("a b".to_owned())));
        assert_eq!([Verdict::of_line(""), Verdict::of_line("passed plain")], [None, None]);
    }

    #[test]
    fn what_goes_unnoticed_is_listed_and_fails() {
        let faults = faults();
        let explained = faults.iter().find(|fault| fault.explanation().is_some()).unwrap();
        let other = faults.iter().find(|fault| fault.shader == "gather").unwrap();
        let shaders = ["gather", explained.shader];
        let report = |trials: [Verdict; 2]| {
            Report::new(&shaders, &[other.clone(), explained.clone()].into_iter().zip(trials).collect::<Vec<_>>())
        };

        let all_is_well = report([Verdict::Hung, Verdict::Unnoticed]);
        assert_eq!(all_is_well.outcome, Outcome::Success);
        assert_eq!(all_is_well.lines.last().unwrap(), "1 of 2 planted faults noticed, 1 explained, 0 unnoticed");
        assert!(all_is_well.lines.iter().any(|line| line.starts_with(&format!("explained: {explained}: "))));

        let survivor = report([Verdict::Unnoticed, Verdict::Unnoticed]);
        assert_eq!(survivor.outcome, Outcome::Negative);
        assert_eq!(survivor.lines.last().unwrap(), "0 of 2 planted faults noticed, 1 explained, 1 unnoticed");
        assert!(survivor.lines.contains(&format!("unnoticed: {other}")), "{:?}", survivor.lines);

        let wrongly_explained = report([Verdict::Hung, Verdict::Missed("a case".to_owned())]);
        assert_eq!(wrongly_explained.outcome, Outcome::Negative);
    }
}
