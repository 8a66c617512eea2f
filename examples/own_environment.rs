//! A learner for an environment of your own, on whatever backend there is: the program's training loop without its conveniences.
//!
//! The task: an observation of four numbers, of which the largest has to be named.
//!
//! `cargo run --release --example own_environment`

use ppo_kernels::backend::{Backend, Cpu, Gpu};
use ppo_kernels::gpu::Selection;
use ppo_kernels::ppo::{Actions, Config, Ends, Learner, PolicyKind};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CHOICES: usize = 4;

fn learn<B: Backend>(backend: &mut B) -> ppo_kernels::Result<()> {
    let config = Config { num_envs: 64, num_steps: 16, total_timesteps: 100_000, learning_rate: 1e-3, ..Config::default() };
    let policy = PolicyKind::Categorical { actions: CHOICES };
    let mut learner = Learner::new(backend, CHOICES, policy, config.clone())?;
    let mut rollout = learner.new_rollout(backend)?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    println!("{}", backend.describe());
    for update in 0..config.num_updates() {
        learner.draw_noise(backend)?;
        let mut rewards = Vec::with_capacity(config.batch_size());
        for step in 0..config.num_steps {
            let observations: Vec<f32> = (0..config.num_envs * CHOICES).map(|_| rng.random_range(-1.0..1.0)).collect();
            backend.write_floats(&mut rollout.observations, step * observations.len(), &observations)?;
            learner.act(backend, &mut rollout, step)?;
            let Actions::Discrete(actions) = &rollout.actions else { unreachable!("the policy is categorical") };
            let actions = backend.read_words(actions, step * config.num_envs, config.num_envs)?;
            rewards.extend(observations.chunks(CHOICES).zip(actions).map(|(numbers, action)| {
                let largest = numbers.iter().all(|n| *n <= numbers[action as usize]);
                if largest { 1.0 } else { 0.0 }
            }));
        }
        let mean = rewards.iter().sum::<f32>() / rewards.len() as f32;
        backend.write_floats(&mut rollout.rewards, 0, &rewards)?;
        // Every step is an episode of its own.
        if let Ends::BeforeStep { dones, next_value, next_done } = &mut rollout.ends {
            backend.write_floats(dones, 0, &vec![1.0; config.batch_size()])?;
            backend.write_floats(next_value, 0, &vec![0.0; config.num_envs])?;
            backend.write_floats(next_done, 0, &vec![1.0; config.num_envs])?;
        }
        let stats = learner.update(backend, &rollout, config.learning_rate)?;
        if update % 16 == 0 {
            println!("update {update:3}: right {:5.1} %, entropy {:.3}, KL {:.4}", 100.0 * mean, stats.entropy, stats.approx_kl);
        }
    }
    Ok(())
}

fn main() -> ppo_kernels::Result<()> {
    match Gpu::open(&Selection::Hardware) {
        Ok(mut gpu) => learn(&mut gpu),
        Err(reason) => {
            println!("{reason}; using the CPU");
            learn(&mut Cpu::<f32>::new())
        }
    }
}
