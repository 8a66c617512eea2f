//! Gathering minibatches: bound by memory.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::gather::Gather;
use ppo_kernels::kernels::random::RandomStream;

struct Rows {
    rows: usize,
    width: usize,
}

impl common::Case for Rows {
    fn name(&self) -> String {
        format!("gather/{}x{}", self.rows, self.width)
    }

    fn throughput(&self) -> Throughput {
        // Each element is read and written, each index read.
        Throughput::Bytes((4 * self.rows * (2 * self.width + 1)) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let op = Gather { rows: self.rows, width: self.width, start: 0, count: self.rows };
        let source = backend.upload_floats(&common::floats(self.rows * self.width)).unwrap();
        let mut indices = backend.alloc_words(self.rows).unwrap();
        backend.random_permutations(&RandomStream { len: self.rows, seed: 0, stream: 0 }, 1, &mut indices, 0).unwrap();
        let mut target = backend.alloc_floats(self.rows * self.width).unwrap();
        Box::new(move |backend| backend.gather_floats(&op, &source, &indices, &mut target).unwrap())
    }
}

fn gather(criterion: &mut Criterion) {
    for (rows, width) in [(512, 4), (2048, 17), (1 << 17, 64)] {
        common::run(criterion, &Rows { rows, width });
    }
}

criterion_group!(benches, gather);
criterion_main!(benches);
