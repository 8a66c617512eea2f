//! Action distributions: bound by memory, and by exponentials on the CPU.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::policy::{Categorical, Gaussian, SquashedGaussian};

/// What to time, of rows of logits.
#[derive(Clone, Copy)]
enum Rows {
    Evaluate,
    Sample,
    Backward,
    Kl,
}

struct OfLogits {
    what: Rows,
    batch: usize,
    actions: usize,
}

impl common::Case for OfLogits {
    fn name(&self) -> String {
        let what = match self.what {
            Rows::Evaluate => "evaluate",
            Rows::Sample => "sample",
            Rows::Backward => "backward",
            Rows::Kl => "kl",
        };
        format!("categorical_{what}/{}x{}", self.batch, self.actions)
    }

    fn throughput(&self) -> Throughput {
        // Wide and narrow tensors, read or written once each, as far as a cache holds a row.
        let (wide, narrow) = match self.what {
            Rows::Evaluate | Rows::Sample => (1, 3),
            Rows::Backward => (2, 3),
            Rows::Kl => (2, 1),
        };
        Throughput::Bytes((4 * self.batch * (wide * self.actions + narrow)) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let (what, batch, actions) = (self.what, self.batch, self.actions);
        let op = Categorical { batch, actions };
        let numbers = common::floats(batch * actions);
        let logits = backend.upload_floats(&numbers).unwrap();
        let q_logits = backend.upload_floats(&numbers.iter().map(|x| 0.9 * x).collect::<Vec<_>>()).unwrap();
        // Spread over the unit interval, so that rows end their search at different actions.
        let uniforms: Vec<f32> = (0..batch).map(|i| (i % 997) as f32 / 997.0).collect();
        let uniforms = backend.upload_floats(&uniforms).unwrap();
        let words: Vec<u32> = (0..batch).map(|i| (i % actions) as u32).collect();
        let mut words = backend.upload_words(&words).unwrap();
        let [mut logp, mut entropy] = [common::floats(batch), common::floats(batch)].map(|x| backend.upload_floats(&x).unwrap());
        let mut d_logits = backend.alloc_floats(batch * actions).unwrap();
        Box::new(move |backend| {
            match what {
                Rows::Evaluate => backend.categorical_evaluate(&op, &logits, None, &words, &mut logp, &mut entropy),
                Rows::Sample => backend.categorical_sample(&op, &logits, None, &uniforms, 0, &mut words, &mut logp),
                Rows::Backward => backend.categorical_backward(&op, &logits, None, &words, &logp, &entropy, &mut d_logits),
                Rows::Kl => backend.categorical_kl(&op, &logits, &q_logits, None, &mut logp),
            }
            .unwrap();
        })
    }
}

/// What to time, of Gaussian rows.
#[derive(Clone, Copy)]
enum Normals {
    Evaluate,
    Sample,
    Backward,
    Squash,
}

struct OfMeans {
    what: Normals,
    batch: usize,
    dim: usize,
}

impl common::Case for OfMeans {
    fn name(&self) -> String {
        let what = match self.what {
            Normals::Evaluate => "gaussian_evaluate",
            Normals::Sample => "gaussian_sample",
            Normals::Backward => "gaussian_backward",
            Normals::Squash => "squashed_gaussian_evaluate",
        };
        format!("{what}/{}x{}", self.batch, self.dim)
    }

    fn throughput(&self) -> Throughput {
        // The log-std is shared by the batch.
        let (wide, narrow) = match self.what {
            Normals::Evaluate => (2, 2),
            Normals::Sample => (3, 1),
            Normals::Backward => (3, 2),
            Normals::Squash => (4, 1),
        };
        Throughput::Bytes((4 * self.batch * (wide * self.dim + narrow)) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let (what, batch, dim) = (self.what, self.batch, self.dim);
        let op = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
        let squashed = SquashedGaussian { gaussian: op, low: -2.0, high: 2.0 };
        let means = common::floats(batch * dim);
        let mean = backend.upload_floats(&means).unwrap();
        let x = backend.upload_floats(&means.iter().map(|mean| 0.9 * mean).collect::<Vec<_>>()).unwrap();
        let log_std = backend.upload_floats(&common::floats(dim)).unwrap();
        let [mut logp, mut entropy] = [common::floats(batch), common::floats(batch)].map(|x| backend.upload_floats(&x).unwrap());
        let [mut actions, mut d_mean] = [0; 2].map(|_| backend.alloc_floats(batch * dim).unwrap());
        let mut d_log_std = backend.alloc_floats(dim).unwrap();
        Box::new(move |backend| {
            match what {
                Normals::Evaluate => backend.gaussian_evaluate(&op, &mean, &log_std, &x, &mut logp, &mut entropy),
                Normals::Sample => backend.gaussian_sample(&op, &mean, &log_std, &x, 0, &mut actions, &mut logp),
                Normals::Backward => {
                    backend.gaussian_backward(&op, &mean, &log_std, &x, &logp, &entropy, &mut d_mean, &mut d_log_std, 0)
                }
                Normals::Squash => {
                    backend.squashed_gaussian_evaluate(&squashed, &mean, &log_std, &x, &mut actions, &mut d_mean, &mut logp)
                }
            }
            .unwrap();
        })
    }
}

fn policy(criterion: &mut Criterion) {
    for (batch, actions) in [(128, 2), (1 << 20, 2), (1 << 20, 18), (512, 32_000)] {
        for what in [Rows::Evaluate, Rows::Sample, Rows::Backward, Rows::Kl] {
            common::run(criterion, &OfLogits { what, batch, actions });
        }
    }
    for (batch, dim) in [(64, 6), (1 << 20, 6), (1 << 20, 21)] {
        for what in [Normals::Evaluate, Normals::Sample, Normals::Backward, Normals::Squash] {
            common::run(criterion, &OfMeans { what, batch, dim });
        }
    }
}

criterion_group!(benches, policy);
criterion_main!(benches);
