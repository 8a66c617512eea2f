//! Which of several ways of computing the same bits is the fastest on this adapter.
//!
//! Only ways whose results are the same bits compete, so no choice, and no file of choices, can change a result. That the bits are the same
//! is the kernel's claim, and is compared here before anything is timed, because a compiler may fuse products and sums in one way and not
//! in another: what differs from the usual way, on this adapter, is left out.

use std::collections::HashMap;
use std::time::Instant;

use super::autotune::Autotune;
use super::buffer::Buffer;
use super::choices::ChoicesFile;
use super::context::Context;
use super::pipeline_store::PipelineStore;
use crate::error::Result;

/// Multiply-adds of the smallest problem that is timed: below a millisecond on any GPU, a few on a software adapter.
const FIRST_WORK: usize = 1 << 22;
/// From one problem to the next larger, until the problem is whole or takes too long.
const GROWTH: usize = 16;
/// Seconds that a single run of the larger problem may take.
const LONGEST_RUN: f64 = 0.025;
/// Seconds after which no further round begins.
const LONGEST_ROUNDS: f64 = 0.05;
/// Each round times every candidate once, so that a clock that speeds up or a busy machine meets all of them.
const ROUNDS: usize = 5;
/// Seconds of work in one submission, by which the time that a submission takes is made small.
const SUBMISSION: f64 = 1e-3;
/// Runs in one submission.
const MOST_REPETITIONS: f64 = 32.0;
/// A candidate this many times slower than the fastest has lost.
const LOST: f64 = 2.0;
/// Another way has to be faster than the usual one by this factor, so that noise does not choose.
const WORTH: f64 = 1.05;
/// What an output holds before a candidate writes it: a NaN, so that one that writes nothing is noticed.
const UNWRITTEN: u32 = 0x7fc0_beef;

/// What is to be computed: an operation and its sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Kernel and operation.
    pub operation: &'static str,
    /// As coarse as a choice may be.
    pub sizes: [usize; 3],
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [rows, columns, depth] = self.sizes;
        write!(f, "{} {rows}x{columns}x{depth}", self.operation)
    }
}

/// Records one run of a candidate, by its index.
type Record<'a> = Box<dyn Fn(&mut Context, usize) -> Result<()> + 'a>;

/// A problem of bounded size, on buffers of its own.
pub(crate) struct Trial<'a> {
    /// Records one run of a candidate, by its index.
    pub record: Record<'a>,
    /// What all candidates write.
    pub output: Buffer<f32>,
    /// Whether a larger one would be no larger.
    pub is_whole: bool,
}

/// What a context has found, and what of it is kept.
pub(super) struct Tuner {
    autotune: Autotune,
    answers: HashMap<Question, &'static str>,
    /// Opened at the first question.
    file: Option<ChoicesFile>,
    /// Opened with the first pipeline.
    pipelines: Option<Option<PipelineStore>>,
    timed: u64,
}

impl Tuner {
    pub(super) fn new(autotune: Autotune) -> Self {
        Self { autotune, answers: HashMap::new(), file: None, pipelines: None, timed: 0 }
    }

    pub(super) fn is_off(&self) -> bool {
        self.autotune == Autotune::Off
    }

    /// The cache that a pipeline is to be made with.
    pub(super) fn pipeline_cache(&mut self, device: &wgpu::Device) -> Option<&wgpu::PipelineCache> {
        let folder = self.autotune.folder()?;
        self.pipelines.get_or_insert_with(|| PipelineStore::open(device, folder)).as_ref().map(PipelineStore::cache)
    }

    fn file(&mut self, info: &wgpu::AdapterInfo) -> Option<&mut ChoicesFile> {
        let folder = self.autotune.folder()?;
        Some(self.file.get_or_insert_with(|| ChoicesFile::open(folder, info)))
    }
}

impl Context {
    /// Whether to time candidates, and where to keep what is found; at first, what [the environment](Autotune::from_environment) says.
    /// Nothing is timed, read or written while indices are [checked](Self::set_bounds_checks) (the default with debug assertions), with
    /// [guard regions](Self::set_guards), and for a [replaced](Self::replace_shader) shader.
    ///
    /// Timing submits work of its own to the queue and waits for it. What is recorded stays recorded.
    pub fn set_autotune(&mut self, autotune: Autotune) {
        self.tuner = Tuner::new(autotune);
    }

    /// Whether candidates are timed, and where what was found is kept.
    pub fn autotune(&self) -> &Autotune {
        &self.tuner.autotune
    }

    /// How many candidates were timed since [`set_autotune`](Self::set_autotune). A choice found in the folder costs none.
    pub fn candidates_timed(&self) -> u64 {
        self.tuner.timed
    }

    /// The index of the way in `ways` that answers the question fastest on this adapter; `usual` where nothing may be timed, or can be.
    /// `prepare` makes a trial of at most about so many multiply-adds.
    pub(crate) fn fastest<'a>(
        &mut self,
        shader: &'static str,
        question: Question,
        ways: &[&'static str],
        usual: usize,
        prepare: impl Fn(&mut Context, usize) -> Result<Trial<'a>>,
    ) -> usize {
        if ways.len() < 2 || !self.may_keep(shader) {
            return usual;
        }
        let index_of = |name: &str| ways.iter().position(|way| *way == name);
        if let Some(known) = self.tuner.answers.get(&question) {
            return index_of(known).unwrap_or(usual);
        }
        let info = self.adapter_info();
        let kept = self.tuner.file(&info).and_then(|file| file.get(&question.to_string()).and_then(index_of));
        let answer = match kept {
            Some(kept) => kept,
            // What the device has to say of what was recorded before is the caller's to hear.
            None if self.has_reported() => return usual,
            None => match self.aside(|context| measure(context, ways, usual, prepare)) {
                Ok(found) => {
                    log::debug!("{question}: {}", ways[found]);
                    if let Some(file) = self.tuner.file(&info) {
                        file.put(question.to_string(), ways[found]);
                    }
                    found
                }
                Err(error) => {
                    log::debug!("{question} is not timed: {error}");
                    usual
                }
            },
        };
        self.tuner.answers.insert(question, ways[answer]);
        answer
    }
}

fn measure<'a>(
    context: &mut Context,
    ways: &[&'static str],
    usual: usize,
    prepare: impl Fn(&mut Context, usize) -> Result<Trial<'a>>,
) -> Result<usize> {
    let mut work = FIRST_WORK;
    let mut trial = prepare(context, work)?;
    let able = with_the_usual_bits(context, &trial, ways, usual)?;
    if able.len() < 2 {
        return Ok(usual);
    }
    context.tuner.timed += able.len() as u64;
    loop {
        let mut once = Vec::new();
        for &way in &able {
            once.push((way, seconds(context, &trial, way, 1)?));
        }
        let slowest = once.iter().fold(0.0, |slowest: f64, &(_, seconds)| slowest.max(seconds));
        if trial.is_whole || slowest * GROWTH as f64 > LONGEST_RUN {
            return compete(context, &trial, once, usual);
        }
        work *= GROWTH;
        match prepare(context, work) {
            Ok(larger) => trial = larger,
            Err(_) => return compete(context, &trial, once, usual),
        }
    }
}

/// The candidates that run at all and write what the usual one does. Compiles and warms up all of them.
fn with_the_usual_bits(context: &mut Context, trial: &Trial<'_>, ways: &[&'static str], usual: usize) -> Result<Vec<usize>> {
    let len = trial.output.len();
    let unwritten = vec![f32::from_bits(UNWRITTEN); len];
    let mut bits_of = |way| -> Result<Vec<u32>> {
        context.write(&trial.output, 0, &unwritten)?;
        (trial.record)(context, way)?;
        context.read(&trial.output.cast(), 0, len)
    };
    let expected = bits_of(usual)?;
    let is_able = |&way: &usize| {
        way == usual
            || match bits_of(way) {
                Ok(bits) if bits == expected => true,
                Ok(_) => {
                    log::warn!("{} computes other bits than {} on this adapter: left out", ways[way], ways[usual]);
                    false
                }
                Err(error) => {
                    log::debug!("{} does not run here: {error}", ways[way]);
                    false
                }
            }
    };
    Ok((0..ways.len()).filter(is_able).collect())
}

/// Alternating rounds among those that have not lost by their first run; the least time counts.
fn compete(context: &mut Context, trial: &Trial<'_>, once: Vec<(usize, f64)>, usual: usize) -> Result<usize> {
    let first_runs = once.iter().map(|&(_, seconds)| seconds).fold(f64::INFINITY, f64::min);
    let repetitions = (SUBMISSION / first_runs).clamp(1.0, MOST_REPETITIONS) as usize;
    let mut times: Vec<(usize, f64)> = once.into_iter().filter(|&(_, seconds)| seconds <= LOST * first_runs).collect();
    if let [(only, _)] = times[..] {
        return Ok(only);
    }
    times.iter_mut().for_each(|(_, least)| *least = f64::INFINITY);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for (way, least) in &mut times {
            *least = least.min(seconds(context, trial, *way, repetitions)?);
        }
        if start.elapsed().as_secs_f64() > LONGEST_ROUNDS {
            break;
        }
    }
    let (fastest, least) =
        times.iter().copied().fold((usual, f64::INFINITY), |best, time| if time.1 < best.1 { time } else { best });
    let is_worth_it = !times.iter().any(|&(way, seconds)| way == usual && seconds < WORTH * least);
    Ok(if is_worth_it { fastest } else { usual })
}

/// Seconds by the wall's clock for one of so many runs, submitted together.
fn seconds(context: &mut Context, trial: &Trial<'_>, way: usize, repetitions: usize) -> Result<f64> {
    for _ in 0..repetitions {
        (trial.record)(context, way)?;
    }
    let start = Instant::now();
    context.flush()?;
    context.wait()?;
    Ok(start.elapsed().as_secs_f64() / repetitions as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common;
    use crate::error::Error;
    use crate::gpu::{Grid, Indices, Shader, bind, shader_params};

    /// Three ways of writing the same numbers, and two of failing to.
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

    /// The winner among these entry points, of which the slow one takes longer than a busy machine lets anybody wait. None where there is no adapter and the tests may do without.
    fn winner(ways: &[&'static str], usual: usize) -> Option<&'static str> {
        let mut context = common::gpu()?.context;
        context.set_bounds_checks(false);
        context.set_autotune(Autotune::Forgotten);
        let prepare = |context: &mut Context, _| {
            let output = context.alloc::<f32>(LEN)?;
            let buffers = [bind(3, &output)];
            let record = move |context: &mut Context, way: usize| {
                context.dispatch(SHADER, ways[way], &[], &Ways { rounds: 100_000 }, &buffers, Grid::covering(LEN, 64))
            };
            Ok(Trial { record: Box::new(record), output, is_whole: true })
        };
        let question = Question { operation: "ways", sizes: [LEN, 1, 1] };
        let found = context.fastest(SHADER.name, question.clone(), ways, usual, prepare);
        let nobody_is_timed = |_: &mut Context, _| Err(Error::value("trial", "none", "a second one"));
        assert_eq!(context.fastest(SHADER.name, question, ways, usual, nobody_is_timed), found);
        Some(ways[found])
    }

    #[test]
    fn the_fastest_of_those_with_the_usual_bits_wins() {
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
