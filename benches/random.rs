//! Random numbers: bound by integer arithmetic.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::random::RandomStream;

#[derive(Clone, Copy)]
enum Kind {
    Uniform,
    Normal,
    Permutation,
}

struct Stretch {
    kind: Kind,
    len: usize,
}

impl common::Case for Stretch {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Uniform => "uniform",
            Kind::Normal => "normal",
            Kind::Permutation => "permutation",
        };
        format!("random/{kind}/{}", self.len)
    }

    fn throughput(&self) -> Throughput {
        // Each element is written; nothing is read.
        Throughput::Bytes(4 * self.len as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let op = RandomStream { len: self.len, seed: 1, stream: 2 };
        let mut floats = backend.alloc_floats(self.len).unwrap();
        let mut words = backend.alloc_words(self.len).unwrap();
        let kind = self.kind;
        Box::new(move |backend| match kind {
            Kind::Uniform => backend.random_uniform(&op, &mut floats).unwrap(),
            Kind::Normal => backend.random_normal(&op, &mut floats).unwrap(),
            Kind::Permutation => backend.random_permutations(&op, 1, &mut words, 0).unwrap(),
        })
    }
}

fn random(criterion: &mut Criterion) {
    for kind in [Kind::Uniform, Kind::Normal, Kind::Permutation] {
        for len in [512, 1 << 20] {
            common::run(criterion, &Stretch { kind, len });
        }
    }
}

criterion_group!(benches, random);
criterion_main!(benches);
