//! A learner for an environment of your own, on whatever backend there is: the program's training loop without its conveniences.
//!
//! The task: to walk along a line to its middle. An observation is the place, from -1 to 1; the two actions are a step to the left and one to the
//! right; every step costs 1.
//!
//! `cargo run --release --example own_environment`

use ppo_kernels::backend::{Backend, Cpu, Gpu};
use ppo_kernels::gpu::Selection;
use ppo_kernels::ppo::{Actions, Config, Ends, Learner, PolicyKind};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn learn<B: Backend>(backend: &mut B) -> ppo_kernels::Result<()> {
    let config = Config { num_envs: 64, num_steps: 16, total_timesteps: 100_000, learning_rate: 1e-3, ..Config::default() };
    let mut learner = Learner::new(backend, 1, PolicyKind::Categorical { actions: 2 }, config.clone())?;
    let mut rollout = learner.new_rollout(backend)?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut start = || rng.random_range(-1.0..1.0);
    let mut places: Vec<f32> = (0..config.num_envs).map(|_| start()).collect();
    // Whether the observation is the first of an episode: the action before it ended the one before.
    let mut is_first = vec![0.0; config.num_envs];
    let mut observations = backend.alloc_floats(config.num_envs)?;
    println!("{}", backend.describe());
    for update in 0..config.num_updates() {
        let (mut rewards, mut starts) = (Vec::new(), Vec::new());
        learner.draw_noise(backend)?;
        for step in 0..config.num_steps {
            backend.write_floats(&mut rollout.observations, step * config.num_envs, &places)?;
            starts.extend_from_slice(&is_first);
            learner.act(backend, &mut rollout, step)?;
            let Actions::Discrete(actions) = &rollout.actions else { unreachable!("the policy is categorical") };
            let actions = backend.read_words(actions, step * config.num_envs, config.num_envs)?;
            for ((place, is_first), action) in places.iter_mut().zip(&mut is_first).zip(actions) {
                *place = (*place + if action == 0 { -0.1 } else { 0.1 }).clamp(-1.0, 1.0);
                let arrived = place.abs() < 0.1;
                *is_first = if arrived { 1.0 } else { 0.0 };
                if arrived {
                    *place = start();
                }
                rewards.push(-1.0);
            }
        }
        backend.write_floats(&mut rollout.rewards, 0, &rewards)?;
        backend.write_floats(&mut observations, 0, &places)?;
        if let Ends::BeforeStep { dones, next_value, next_done } = &mut rollout.ends {
            backend.write_floats(dones, 0, &starts)?;
            backend.write_floats(next_done, 0, &is_first)?;
            // Episodes that go on after the rollout are worth what the critic says.
            learner.values(backend, &observations, config.num_envs, next_value, 0)?;
        }
        let stats = learner.update(backend, &rollout, config.learning_rate_at(update))?;
        if update % 16 == 0 {
            let episodes: f32 = starts.iter().sum();
            println!(
                "update {update:3}: {:5.1} steps an episode, entropy {:.3}, KL {:.4}",
                starts.len() as f32 / episodes,
                stats.entropy,
                stats.approx_kl
            );
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
