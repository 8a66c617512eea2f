//! Advantages: bound by memory where there are many environments, by latency where there are few.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::Backend;
use ppo_kernels::kernels::advantage::{DiscountedReturns, Gae};

struct Advantages {
    steps: usize,
    envs: usize,
}

/// One end in about a hundred steps.
fn flags(n: usize) -> Vec<u32> {
    (0..n).map(|i| u32::from(i * 31 % 97 == 0)).collect()
}

impl common::Case for Advantages {
    fn name(&self) -> String {
        format!("gae/{}x{}", self.steps, self.envs)
    }

    fn throughput(&self) -> Throughput {
        // Five inputs, two outputs, each touched once; a parallel scan reads the inputs twice.
        Throughput::Bytes((4 * 7 * self.steps * self.envs) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let n = self.steps * self.envs;
        let op = Gae { steps: self.steps, envs: self.envs, gamma: 0.99, gae_lambda: 0.95 };
        let [rewards, values, next_values] = [(); 3].map(|()| backend.upload_floats(&common::floats(n)).unwrap());
        let terminated = backend.upload_words(&flags(n)).unwrap();
        let truncated = backend.upload_words(&vec![0; n]).unwrap();
        let [mut advantages, mut returns] = [(); 2].map(|()| backend.alloc_floats(n).unwrap());
        Box::new(move |backend| {
            let flags = (&terminated, &truncated);
            backend.gae(&op, &rewards, &values, &next_values, flags.0, flags.1, &mut advantages, &mut returns).unwrap();
        })
    }
}

struct RewardsToGo {
    steps: usize,
    envs: usize,
}

impl common::Case for RewardsToGo {
    fn name(&self) -> String {
        format!("reward_to_go/{}x{}", self.steps, self.envs)
    }

    fn throughput(&self) -> Throughput {
        Throughput::Bytes((4 * 4 * self.steps * self.envs) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let n = self.steps * self.envs;
        let op = DiscountedReturns { steps: self.steps, envs: self.envs, gamma: 0.99 };
        let rewards = backend.upload_floats(&common::floats(n)).unwrap();
        let terminated = backend.upload_words(&flags(n)).unwrap();
        let truncated = backend.upload_words(&vec![0; n]).unwrap();
        let mut returns = backend.alloc_floats(n).unwrap();
        Box::new(move |backend| backend.reward_to_go(&op, &rewards, &terminated, &truncated, &mut returns).unwrap())
    }
}

fn advantage(criterion: &mut Criterion) {
    for (steps, envs) in [(128, 8), (128, 4096), (16, 65_536), (1024, 1024), (8192, 64), (1 << 20, 1)] {
        common::run(criterion, &Advantages { steps, envs });
    }
    common::run(criterion, &RewardsToGo { steps: 1024, envs: 1024 });
}

criterion_group!(benches, advantage);
criterion_main!(benches);
