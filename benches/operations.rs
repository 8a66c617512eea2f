//! Every bench of the list that `ppo-kernels bench` runs, by criterion: on the best adapter and on `Cpu<f32>`. Arguments choose by name.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::{Backend, Cpu, Gpu};
use ppo_kernels::gpu::Selection;
use ppo_kernels::operations::{self, Benches, Call, Draw, Inputs};

/// A step on the GPU is recorded so often, submitted once and waited for, so that the cost of a submission is shared.
const RECORDED: usize = 16;

struct Timing<'a> {
    criterion: &'a mut Criterion,
}

impl Benches for Timing<'_> {
    fn add<C: Call>(&mut self, name: String, _small: bool, call: C) {
        if let Ok(mut gpu) = Gpu::open(&Selection::Best) {
            let label = gpu.context.name().to_owned();
            self.time(&name, &label, &call, &mut gpu, RECORDED);
        }
        self.time(&name, "cpu", &call, &mut Cpu::<f32>::new(), 1);
    }
}

impl Timing<'_> {
    /// The cache is warm: inputs are reused from step to step.
    fn time<B: Backend>(&mut self, name: &str, label: &str, call: &impl Call, backend: &mut B, steps: usize) {
        let mut group = self.criterion.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Bytes(call.work().bytes as u64 * steps as u64));
        // What is made in here is made only if criterion's arguments choose this bench.
        group.bench_function(format!("{label} x{steps}"), |bencher| {
            let mut step = call.prepare(&mut Inputs { backend, draw: Draw::new(1, 0) }).unwrap();
            let waited_for = backend.alloc_words(1).unwrap();
            bencher.iter(|| {
                (0..steps).for_each(|_| step(backend).unwrap());
                black_box(backend.read_words(&waited_for, 0, 1).unwrap())
            });
        });
        group.finish();
    }
}

fn all(criterion: &mut Criterion) {
    operations::benches(&mut Timing { criterion });
}

criterion_group!(benches, all);
criterion_main!(benches);
