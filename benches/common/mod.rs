//! What the benches of all kernels share.
#![allow(dead_code)] // each bench uses its part

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use ppo_kernels::backend::{Backend, Cpu, Gpu};
use ppo_kernels::gpu::Selection;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Standard normal numbers, the same on every run. Never zeros: some hardware is faster on them.
pub fn floats(n: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    (0..n).map(|_| Distribution::<f32>::sample(&StandardNormal, &mut rng)).collect()
}

/// One case of a bench, written once for every backend: what it moves or computes, and the step to time. A step on the GPU is recorded
/// `RECORDED` times, submitted once and waited for, so that the cost of a submission is shared.
pub trait Case {
    /// Name with its sizes.
    fn name(&self) -> String;
    /// Bytes read and written, or floating-point operations, a step.
    fn throughput(&self) -> Throughput;
    /// Uploads the inputs and returns the step.
    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static;
}

const RECORDED: usize = 16;

/// Times a case on the best adapter and on `Cpu<f32>`. The cache is warm: inputs are reused from step to step.
pub fn run(criterion: &mut Criterion, case: &impl Case) {
    let mut group = criterion.benchmark_group(case.name());
    group.sample_size(20);
    let per_step = case.throughput();
    if let Ok(mut gpu) = Gpu::open(&Selection::Best) {
        let label = gpu.context.name().to_owned();
        time(&mut group, &label, case, &mut gpu, RECORDED, &per_step);
    }
    time(&mut group, "cpu", case, &mut Cpu::<f32>::new(), 1, &per_step);
    group.finish();
}

fn time<B: Backend>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: &str,
    case: &impl Case,
    backend: &mut B,
    steps: usize,
    per_step: &Throughput,
) where
    B::Floats: 'static,
    B::Words: 'static,
{
    let mut step = case.prepare(backend);
    let waited_for = backend.alloc_words(1).unwrap();
    group.throughput(match *per_step {
        Throughput::Bytes(n) => Throughput::Bytes(n * steps as u64),
        Throughput::Elements(n) => Throughput::Elements(n * steps as u64),
        _ => panic!("declare bytes, or floating-point operations as elements"),
    });
    group.bench_function(format!("{label} x{steps}"), |bencher| {
        bencher.iter(|| {
            (0..steps).for_each(|_| step(backend));
            backend.read_words(&waited_for, 0, 1).unwrap()
        });
    });
}
