//! Looking for NaN and infinities where there are none, as nearly always: bound by memory.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::nonfinite::Watched;
use ppo_kernels::layout::control;

struct Find {
    len: usize,
}

impl common::Case for Find {
    fn name(&self) -> String {
        format!("find_nonfinite/{}", self.len)
    }

    fn throughput(&self) -> Throughput {
        Throughput::Bytes(4 * self.len as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let len = self.len;
        let x = backend.upload_floats(&common::floats(len)).unwrap();
        let mut control = backend.upload_words(&control::INITIAL).unwrap();
        Box::new(move |backend| backend.find_nonfinite(&[Watched { tensor: 1, len, x: &x }], &mut control).unwrap())
    }
}

fn nonfinite(criterion: &mut Criterion) {
    for len in [512, 9_155, 142_605, 1 << 22] {
        common::run(criterion, &Find { len });
    }
}

criterion_group!(benches, nonfinite);
criterion_main!(benches);
