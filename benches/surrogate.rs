//! Loss and gradient through the head: bound by memory, and by exponentials on the CPU.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss};
use ppo_kernels::layout::{sample, stat};

fn objective(batch: usize) -> Surrogate {
    Surrogate {
        batch,
        clip_low: 0.2,
        clip_high: 0.2,
        dual_clip: None,
        vf_coef: 0.5,
        ent_coef: 0.01,
        kl_coef: 0.0,
        value_loss: ValueLoss::Clipped { clip: 0.2 },
        stats_row: 0,
    }
}

/// Old log-probs near those of the head do not matter for speed; their ratios must not overflow, for infinities are slow on some CPUs.
fn samples(batch: usize) -> Vec<f32> {
    common::floats(batch * sample::COLUMNS).iter().map(|x| 0.1 * x).collect()
}

/// Bytes of values, samples and the gradient of the values, a sample.
const PER_SAMPLE: usize = 4 * (1 + sample::COLUMNS + 1);

struct ThroughCategorical {
    batch: usize,
    actions: usize,
}

impl common::Case for ThroughCategorical {
    fn name(&self) -> String {
        format!("surrogate_categorical/{}x{}", self.batch, self.actions)
    }

    fn throughput(&self) -> Throughput {
        // Logits are read and their gradient written once each, as far as a cache holds a row; the action is a word.
        Throughput::Bytes((self.batch * (4 * 2 * self.actions + 4 + PER_SAMPLE)) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let (batch, actions) = (self.batch, self.actions);
        let policy = Categorical { batch, actions };
        let logits = backend.upload_floats(&common::floats(batch * actions)).unwrap();
        let words: Vec<u32> = (0..batch).map(|i| (i % actions) as u32).collect();
        let words = backend.upload_words(&words).unwrap();
        let values = backend.upload_floats(&common::floats(batch)).unwrap();
        let samples = backend.upload_floats(&samples(batch)).unwrap();
        let mut d_logits = backend.alloc_floats(batch * actions).unwrap();
        let mut d_values = backend.alloc_floats(batch).unwrap();
        let mut stats = backend.alloc_floats(stat::COLUMNS).unwrap();
        let op = objective(batch);
        Box::new(move |backend| {
            backend
                .surrogate_categorical(
                    &op,
                    &policy,
                    &logits,
                    None,
                    &words,
                    &values,
                    &samples,
                    &mut d_logits,
                    &mut d_values,
                    &mut stats,
                )
                .unwrap();
        })
    }
}

struct ThroughGaussian {
    batch: usize,
    dim: usize,
}

impl common::Case for ThroughGaussian {
    fn name(&self) -> String {
        format!("surrogate_gaussian/{}x{}", self.batch, self.dim)
    }

    fn throughput(&self) -> Throughput {
        // Means and actions are read, the gradient of the means written.
        Throughput::Bytes((self.batch * (4 * 3 * self.dim + PER_SAMPLE)) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let (batch, dim) = (self.batch, self.dim);
        let policy = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
        let means = common::floats(batch * dim);
        let actions: Vec<f32> = means.iter().map(|mean| 0.9 * mean).collect();
        let mean = backend.upload_floats(&means).unwrap();
        let actions = backend.upload_floats(&actions).unwrap();
        let log_std = backend.upload_floats(&common::floats(dim)).unwrap();
        let values = backend.upload_floats(&common::floats(batch)).unwrap();
        let samples = backend.upload_floats(&samples(batch)).unwrap();
        let mut d_mean = backend.alloc_floats(batch * dim).unwrap();
        let mut d_log_std = backend.alloc_floats(dim).unwrap();
        let mut d_values = backend.alloc_floats(batch).unwrap();
        let mut stats = backend.alloc_floats(stat::COLUMNS).unwrap();
        let op = objective(batch);
        Box::new(move |backend| {
            backend
                .surrogate_gaussian(
                    &op,
                    &policy,
                    &mean,
                    &log_std,
                    &actions,
                    &values,
                    &samples,
                    &mut d_mean,
                    &mut d_log_std,
                    0,
                    &mut d_values,
                    &mut stats,
                )
                .unwrap();
        })
    }
}

fn surrogate(criterion: &mut Criterion) {
    for (batch, actions) in [(128, 2), (1 << 20, 2), (1 << 20, 6), (1 << 20, 18), (512, 32_000)] {
        common::run(criterion, &ThroughCategorical { batch, actions });
    }
    for (batch, dim) in [(64, 6), (1 << 20, 6), (1 << 20, 21)] {
        common::run(criterion, &ThroughGaussian { batch, dim });
    }
}

criterion_group!(benches, surrogate);
criterion_main!(benches);
