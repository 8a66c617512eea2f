//! Gradient norm and Adam: bound by memory.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::optimizer::{Adam, GradientNorm};
use ppo_kernels::layout::{control, schedule, stat};

/// Parameters of a 4-64-64-2 actor and critic, of 17-256-256-6 ones, and a large network.
const SIZES: [usize; 3] = [9_155, 142_605, 1 << 22];

struct Norm {
    len: usize,
}

impl common::Case for Norm {
    fn name(&self) -> String {
        format!("gradient_norm/{}", self.len)
    }

    fn throughput(&self) -> Throughput {
        Throughput::Bytes(4 * self.len as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let op = GradientNorm { len: self.len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
        let grads = backend.upload_floats(&common::floats(self.len)).unwrap();
        let mut stats = backend.alloc_floats(stat::COLUMNS).unwrap();
        Box::new(move |backend| backend.gradient_norm(&op, &grads, &mut stats).unwrap())
    }
}

struct Step {
    len: usize,
}

impl common::Case for Step {
    fn name(&self) -> String {
        format!("adam_step/{}", self.len)
    }

    fn throughput(&self) -> Throughput {
        // Parameters and both moments are read and written, gradients read.
        Throughput::Bytes(4 * 7 * self.len as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let op = Adam {
            len: self.len,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-5,
            weight_decay: 0.0,
            decoupled: false,
            schedule_row: 0,
            stats_row: 0,
        };
        let numbers = common::floats(self.len);
        let squares: Vec<f32> = numbers.iter().map(|x| x * x).collect();
        let [mut params, grads, mut m] = [(); 3].map(|()| backend.upload_floats(&numbers).unwrap());
        let mut v = backend.upload_floats(&squares).unwrap();
        let schedule = backend.upload_floats(&schedule::row(2.5e-4, op.beta1, op.beta2, 1000)).unwrap();
        let stats = backend.upload_floats(&[1.0; stat::COLUMNS]).unwrap();
        let mut control = backend.upload_words(&control::INITIAL).unwrap();
        Box::new(move |backend| {
            backend.adam_step(&op, &mut params, &grads, &mut m, &mut v, &schedule, &stats, &mut control).unwrap();
        })
    }
}

fn optimizer(criterion: &mut Criterion) {
    for len in SIZES {
        common::run(criterion, &Norm { len });
        common::run(criterion, &Step { len });
    }
}

criterion_group!(benches, optimizer);
criterion_main!(benches);
