//! A minibatch step of CleanRL's size, forward, loss, backward and Adam: bound by arithmetic, on small adapters by their dispatches.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppo_kernels::backend::{Backend, Head, Minibatch as Room, MinibatchRows, TrainState};
use ppo_kernels::kernels::actor_critic::MinibatchStep;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::kernels::optimizer::{Adam, GradientNorm};
use ppo_kernels::kernels::policy::Categorical;
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss};
use ppo_kernels::layout::sample;
use ppo_kernels::ppo::{Network, NetworkSpec, PolicyKind};

struct Minibatch {
    batch: usize,
    hidden: usize,
}

const OBSERVATION_SIZE: usize = 4;
const ACTIONS: usize = 2;

impl common::Case for Minibatch {
    fn name(&self) -> String {
        format!("minibatch_step/{}x{OBSERVATION_SIZE}-{1}-{1}-{ACTIONS}", self.batch, self.hidden)
    }

    fn throughput(&self) -> Throughput {
        // Forward and the gradient of the parameters in every layer, that of the input in all but the first.
        let inner = 2 * self.hidden * self.hidden + self.hidden * (ACTIONS + 1);
        Throughput::Elements((2 * self.batch * (3 * inner + 2 * 2 * OBSERVATION_SIZE * self.hidden)) as u64)
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> Box<dyn FnMut(&mut B)>
    where
        B::Floats: 'static,
        B::Words: 'static,
    {
        let batch = self.batch;
        let network = Network::new(NetworkSpec {
            observation_size: OBSERVATION_SIZE,
            hidden: vec![self.hidden; 2],
            activation: Activation::Tanh,
            policy: PolicyKind::Categorical { actions: ACTIONS },
        })
        .unwrap();
        let layers = network.layers().clone();
        let observations = backend.upload_floats(&common::floats(batch * OBSERVATION_SIZE)).unwrap();
        // Log-probabilities near those of two actions.
        let samples: Vec<f32> = common::floats(batch * sample::COLUMNS).iter().map(|x| 0.1 * x - 0.7).collect();
        let samples = backend.upload_floats(&samples).unwrap();
        let actions: Vec<u32> = (0..batch).map(|i| (i % ACTIONS) as u32).collect();
        let actions = backend.upload_words(&actions).unwrap();
        let indices: Vec<u32> = (0..batch as u32).rev().collect();
        let indices = backend.upload_words(&indices).unwrap();
        let mut minibatch = Room::new(backend, &layers, true, batch).unwrap();
        // The schedule's zeros are a learning rate of 0, so that one call is like the other.
        let len = network.len();
        let mut state = TrainState::new(backend, len, 1, 1).unwrap();
        backend.write_floats(state.params.flat_mut(), 0, &network.initial_parameters(1, 0.0).unwrap()).unwrap();
        let loss = Surrogate {
            batch,
            clip_low: 0.2,
            clip_high: 0.2,
            dual_clip: None,
            vf_coef: 0.5,
            ent_coef: 0.01,
            kl_coef: 0.0,
            value_loss: ValueLoss::Clipped { clip: 0.2 },
            stats_row: 0,
        };
        let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
        let (weight_decay, decoupled) = (0.0, false);
        let adam = Adam { len, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay, decoupled, schedule_row: 0, stats_row: 0 };
        // As in the midst of an update.
        let step = MinibatchStep { loss, tensor: 1, norm, max_kl: None, adam };
        Box::new(move |backend| {
            let head = Head::Categorical(Categorical { batch, actions: ACTIONS }, &actions);
            let (indices, observations, samples) = (&indices, &observations, &samples);
            let rows = MinibatchRows { indices, start: 0, rows: batch, observations, head, samples, first_sample: 0 };
            backend.minibatch_step(&layers, &step, &rows, &mut minibatch, &mut state).unwrap();
        })
    }
}

fn minibatch_step(criterion: &mut Criterion) {
    common::run(criterion, &Minibatch { batch: 128, hidden: 64 });
    common::run(criterion, &Minibatch { batch: 4096, hidden: 256 });
}

criterion_group!(benches, minibatch_step);
criterion_main!(benches);
