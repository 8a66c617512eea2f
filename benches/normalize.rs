//! Advantage normalisation and explained variance: bound by memory.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::normalize::{EpsilonMode, Normalize};
use ppo_kernels::layout::stat;

/// In place, so each step normalises what is normalised already: the same work.
struct InPlace {
    len: usize,
}

impl common::Case for InPlace {
    fn name(&self) -> String {
        format!("normalize/{}", self.len)
    }

    fn throughput(&self) -> Throughput {
        // Mean, variance about it, and the result: three readings and a writing.
        Throughput::Bytes(4 * 4 * self.len as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let epsilon_mode = EpsilonMode::AddToStd;
        let op = Normalize { len: self.len, vectors: 1, offset: 0, stride: 1, ddof: 1, epsilon: 1e-8, epsilon_mode };
        let mut x = backend.upload_floats(&common::floats(self.len)).unwrap();
        let mut moments = backend.alloc_floats(2).unwrap();
        Box::new(move |backend| backend.normalize(&op, &mut x, &mut moments).unwrap())
    }
}

struct ExplainedVariance {
    len: usize,
}

impl common::Case for ExplainedVariance {
    fn name(&self) -> String {
        format!("explained_variance/{}", self.len)
    }

    fn throughput(&self) -> Throughput {
        // Values and returns, for the means and for the variances.
        Throughput::Bytes(4 * 4 * self.len as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let len = self.len;
        let values = backend.upload_floats(&common::floats(len)).unwrap();
        let returns = backend.upload_floats(&common::floats(len)).unwrap();
        let mut stats = backend.alloc_floats(stat::COLUMNS).unwrap();
        Box::new(move |backend| backend.explained_variance(len, &values, &returns, &mut stats, 0).unwrap())
    }
}

fn normalize(criterion: &mut Criterion) {
    for len in [128, 32768, 1 << 20] {
        common::run(criterion, &InPlace { len });
        common::run(criterion, &ExplainedVariance { len });
    }
}

criterion_group!(benches, normalize);
criterion_main!(benches);
