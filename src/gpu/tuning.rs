//! Finds the fastest of several bit-identical kernel candidates on this adapter.
//!
//! A choice, or a file of choices, can therefore change no result. This module compares the bits
//! before it times: a compiler may fuse multiply and add in one candidate only. A candidate that
//! differs from the default on this adapter does not compete.

use super::buffer::Buffer;
use super::cache::TuningKey;
use super::context::Context;
use super::wait::Stopwatch;
use crate::error::Result;

/// Multiply-adds of the first problem: under 1 ms on a GPU, a few ms on a software adapter.
const FIRST_WORK: usize = 1 << 22;
/// Growth from problem to problem, up to the full size or the time limit.
const GROWTH: usize = 16;
/// Seconds allowed for one run of the next problem.
const LONGEST_RUN: f64 = 0.025;
/// Seconds after which no round begins.
const LONGEST_ROUNDS: f64 = 0.05;
/// Each round times every candidate, so that clock changes and other load affect all of them.
const ROUNDS: usize = 5;
/// Seconds of work in one submission, which hide the cost of submitting.
const SUBMISSION: f64 = 1e-3;
const MOST_REPETITIONS: f64 = 32.0;
/// A candidate slower than the fastest by this factor drops out.
const LOST: f64 = 2.0;
/// A candidate must beat the default by this factor, so that noise does not decide.
const WORTH: f64 = 1.05;
/// NaN, the output's value before a candidate runs, which reveals elements never written.
const UNWRITTEN: u32 = 0x7fc0_beef;

/// Records one run of a candidate, by its index.
type Record<'a> = Box<dyn Fn(&mut Context, usize) -> Result<()> + 'a>;

/// A problem of bounded size with its own buffers.
pub(crate) struct TuningProblem<'a> {
    /// Records one run of a candidate, by its index.
    pub record: Record<'a>,
    /// The output of every candidate.
    pub output: Buffer<f32>,
    /// Whether a larger limit would give the same problem.
    pub is_full_size: bool,
}

/// The index of the fastest candidate for this key, or `default` where timing is off or fails.
/// `make_problem` builds a problem of at most about the given number of multiply-adds.
pub(crate) fn fastest<'a>(
    context: &mut Context,
    shader: &'static str,
    key: TuningKey,
    candidates: &[&'static str],
    default: usize,
    make_problem: impl Fn(&mut Context, usize) -> Result<TuningProblem<'a>>,
) -> usize {
    if candidates.len() < 2 || !context.may_cache(shader) {
        return default;
    }
    let index_of = |name: &str| candidates.iter().position(|candidate| *candidate == name);
    if let Some(known) = context.cache.choice(&key) {
        return index_of(known).unwrap_or(default);
    }
    let on_disk = context.choices_file().and_then(|file| file.get(&key.to_string()).and_then(index_of));
    let choice = match on_disk {
        Some(choice) => choice,
        // An earlier error of the device belongs to the caller.
        None if context.has_reported() => return default,
        None => match context.isolated(|context| measure(context, candidates, default, make_problem)) {
            Ok(found) => {
                log::debug!("{key}: {}", candidates[found]);
                if let Some(file) = context.choices_file() {
                    file.put(key.to_string(), candidates[found]);
                }
                found
            }
            Err(error) => {
                log::debug!("{key} is not timed: {error}");
                default
            }
        },
    };
    context.cache.choose(key, candidates[choice]);
    choice
}

fn measure<'a>(
    context: &mut Context,
    candidates: &[&'static str],
    default: usize,
    make_problem: impl Fn(&mut Context, usize) -> Result<TuningProblem<'a>>,
) -> Result<usize> {
    let mut work = FIRST_WORK;
    let mut problem = make_problem(context, work)?;
    let able = with_the_default_bits(context, &problem, candidates, default)?;
    if able.len() < 2 {
        return Ok(default);
    }
    context.cache.candidates_timed += able.len() as u64;
    loop {
        let mut once = Vec::new();
        for &candidate in &able {
            once.push((candidate, seconds(context, &problem, candidate, 1)?));
        }
        let slowest = once.iter().fold(0.0, |slowest: f64, &(_, seconds)| slowest.max(seconds));
        if problem.is_full_size || slowest * GROWTH as f64 > LONGEST_RUN {
            return compete(context, &problem, once, default);
        }
        work *= GROWTH;
        match make_problem(context, work) {
            Ok(larger) => problem = larger,
            Err(_) => return compete(context, &problem, once, default),
        }
    }
}

/// The candidates that run and write the default's bits. Compiles and warms up all of them.
fn with_the_default_bits(
    context: &mut Context,
    problem: &TuningProblem<'_>,
    candidates: &[&'static str],
    default: usize,
) -> Result<Vec<usize>> {
    let len = problem.output.len();
    let unwritten = vec![f32::from_bits(UNWRITTEN); len];
    let mut bits_of = |candidate| -> Result<Vec<u32>> {
        context.write(&problem.output, 0, &unwritten)?;
        (problem.record)(context, candidate)?;
        context.read(&problem.output.cast(), 0, len)
    };
    let expected = bits_of(default)?;
    let is_able = |&candidate: &usize| {
        candidate == default
            || match bits_of(candidate) {
                Ok(bits) if bits == expected => true,
                Ok(_) => {
                    log::warn!(
                        "{} and {} differ in bits on this adapter; the first is not used",
                        candidates[candidate],
                        candidates[default]
                    );
                    false
                }
                Err(error) => {
                    log::debug!("{} does not run here: {error}", candidates[candidate]);
                    false
                }
            }
    };
    Ok((0..candidates.len()).filter(is_able).collect())
}

/// Times the remaining candidates in alternating rounds; the least time counts.
fn compete(context: &mut Context, problem: &TuningProblem<'_>, once: Vec<(usize, f64)>, default: usize) -> Result<usize> {
    let first_runs = once.iter().map(|&(_, seconds)| seconds).fold(f64::INFINITY, f64::min);
    let repetitions = (SUBMISSION / first_runs).clamp(1.0, MOST_REPETITIONS) as usize;
    let mut times: Vec<(usize, f64)> = once.into_iter().filter(|&(_, seconds)| seconds <= LOST * first_runs).collect();
    if let [(only, _)] = times[..] {
        return Ok(only);
    }
    times.iter_mut().for_each(|(_, least)| *least = f64::INFINITY);
    let stopwatch = Stopwatch::start();
    for _ in 0..ROUNDS {
        for (candidate, least) in &mut times {
            *least = least.min(seconds(context, problem, *candidate, repetitions)?);
        }
        if stopwatch.seconds() > LONGEST_ROUNDS {
            break;
        }
    }
    let (fastest, least) =
        times.iter().copied().fold((default, f64::INFINITY), |best, time| if time.1 < best.1 { time } else { best });
    let is_worth_it = !times.iter().any(|&(candidate, seconds)| candidate == default && seconds < WORTH * least);
    Ok(if is_worth_it { fastest } else { default })
}

/// Wall seconds of a run, over `repetitions` runs in one submission.
fn seconds(context: &mut Context, problem: &TuningProblem<'_>, candidate: usize, repetitions: usize) -> Result<f64> {
    for _ in 0..repetitions {
        (problem.record)(context, candidate)?;
    }
    let stopwatch = Stopwatch::start();
    context.flush()?;
    context.wait()?;
    Ok(stopwatch.seconds() / repetitions as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common;
    use crate::error::Error;
    use crate::gpu::{Autotune, Grid, Indices, Shader, bind, shader_params};

    /// Three entry points that write the same numbers, and two that do not.
    const SHADER: Shader = Shader {
        name: "ways",
        indices: Indices::Checked,
        source: "
            struct Ways { rounds: u32 }
            @group(0) @binding(0) var<uniform> params: Ways;
            @group(0) @binding(3) var<storage, read_write> output: array<f32>;
            fn write(i: u32, rounds: u32) {
                var x = f32(i);
                for (var round = 0u; round < rounds; round += 1u) { x = x * 0.999 + 1.0; }
                output[i] = select(f32(i), -1.0, x < 0.0);
            }
            @compute @workgroup_size(64) fn slow(@builtin(global_invocation_id) id: vec3<u32>) { write(id.x, params.rounds); }
            @compute @workgroup_size(64) fn quick(@builtin(global_invocation_id) id: vec3<u32>) { write(id.x, min(params.rounds, 1u)); }
            @compute @workgroup_size(64) fn wrong(@builtin(global_invocation_id) id: vec3<u32>) {
                output[id.x] = select(f32(id.x), f32(params.rounds), id.x == 4095u);
            }
            @compute @workgroup_size(64) fn lazy(@builtin(global_invocation_id) id: vec3<u32>) {
                if id.x < min(params.rounds, 4095u) { output[id.x] = f32(id.x); }
            }
        ",
    };
    const LEN: usize = 4096;

    shader_params! {
        struct Ways {
            rounds: u32,
        }
    }

    /// The winner among these entry points. `slow` takes longer than noise on a busy machine. None
    /// without an adapter, where tests may run without one.
    fn winner(candidates: &[&'static str], default: usize) -> Option<&'static str> {
        let mut context = common::gpu()?.context;
        context.set_bounds_checks(false);
        context.set_autotune(Autotune::InMemory);
        let make_problem = |context: &mut Context, _| {
            let output = context.alloc::<f32>(LEN)?;
            let buffers = [bind("output", &output)];
            let record = move |context: &mut Context, candidate: usize| {
                context.dispatch(SHADER, candidates[candidate], &[], &Ways { rounds: 100_000 }, &buffers, Grid::covering(LEN, 64))
            };
            Ok(TuningProblem { record: Box::new(record), output, is_full_size: true })
        };
        let key = TuningKey { operation: "ways", sizes: [LEN, 1, 1] };
        let found = fastest(&mut context, SHADER.name, key.clone(), candidates, default, make_problem);
        let nothing_is_timed = |_: &mut Context, _| Err(Error::value("problem", "none", "a second one"));
        assert_eq!(fastest(&mut context, SHADER.name, key, candidates, default, nothing_is_timed), found);
        Some(candidates[found])
    }

    #[test]
    fn the_fastest_of_those_with_the_default_bits_wins() {
        let Some(found) = winner(&["slow", "quick"], 0) else { return };
        assert_eq!(found, "quick");
        assert_eq!(winner(&["quick", "slow"], 0), Some("quick"));
        assert_eq!(winner(&["slow", "wrong"], 0), Some("slow"), "one number is another");
        assert_eq!(winner(&["slow", "lazy"], 0), Some("slow"), "one number is missing");
        assert_eq!(winner(&["no such entry", "slow"], 1), Some("slow"), "one does not compile");
        assert_eq!(winner(&["no such entry", "slow"], 0), Some("no such entry"), "nothing to compare with");
        assert_eq!(winner(&["wrong", "lazy", "quick", "slow"], 3), Some("quick"));
    }
}
