//! Training in real environments.

mod common;

use common::plant;
use ppo_kernels::Error;
use ppo_kernels::backend::{Backend, Cpu, CrossCheck};
use ppo_kernels::env::EnvId;
use ppo_kernels::ppo::Config;
use ppo_kernels::train::{EPISODES_AVERAGED, Progress, Trainer};

/// Trains until the mean return of the last 100 episodes reaches `target`, or timesteps run out.
fn train_until<B: Backend>(backend: B, env: EnvId, config: Config, target: f64) -> Progress {
    let mut trainer = Trainer::new(backend, env, config).unwrap();
    loop {
        let progress = trainer.update().unwrap();
        let solved = progress.episodes_seen >= EPISODES_AVERAGED as u64 && progress.mean_return >= Some(target);
        if solved || trainer.finished() {
            return progress;
        }
    }
}

#[test]
fn cartpole_is_solved_with_cleanrls_defaults() {
    let progress = train_until(Cpu::<f32>::new(), EnvId::CartPole, Config::default(), 475.0);
    assert!(progress.mean_return >= Some(475.0), "{:?} after {} steps", progress.mean_return, progress.global_step);
}

#[test]
fn pendulum_swings_up_with_its_preset() {
    let config = Config::preset("pendulum").unwrap();
    assert!(config.total_timesteps <= 300_000);
    let progress = train_until(Cpu::<f32>::new(), EnvId::Pendulum, config, -250.0);
    assert!(progress.mean_return >= Some(-250.0), "{:?} after {} steps", progress.mean_return, progress.global_step);
}

/// A random policy gets 22; a software adapter has no time for the rest.
#[test]
fn cartpole_learns_on_the_gpu() {
    let Some(gpu) = common::gpu() else { return };
    let config = Config { total_timesteps: 30_000, anneal_lr: false, ..Config::default() };
    let progress = train_until(gpu, EnvId::CartPole, config, 80.0);
    assert!(progress.mean_return >= Some(80.0), "{:?} after {} steps", progress.mean_return, progress.global_step);
}

/// The control of the three above: with a learning rate of 0, nothing is learned.
#[test]
fn without_learning_there_is_no_return() {
    let config = Config { total_timesteps: 30_000, learning_rate: 0.0, ..Config::default() };
    let progress = train_until(Cpu::<f32>::new(), EnvId::CartPole, config, 80.0);
    assert!(progress.mean_return < Some(40.0), "{:?}", progress.mean_return);
}

fn short() -> Config {
    Config { num_envs: 3, num_steps: 32, hidden: vec![16], total_timesteps: 10_000, ..Config::default() }
}

/// Progress over three updates, and the parameters after them.
fn three_updates<B: Backend>(backend: B, env: EnvId, config: Config) -> (Vec<Progress>, Vec<f32>) {
    let mut trainer = Trainer::new(backend, env, config).unwrap();
    let progress = (0..3).map(|_| trainer.update().unwrap()).collect();
    (progress, trainer.policy().unwrap().into_iter().flat_map(|tensor| tensor.data).collect())
}

fn every_environment_gives_the_same_numbers_again<B: Backend>(open: impl Fn() -> Option<B>) {
    for env in EnvId::ALL {
        for bootstrap_truncated in [false, true] {
            let train = |seed: u64| Some(three_updates(open()?, env, Config { seed, bootstrap_truncated, ..short() }));
            let Some((progress, parameters)) = train(1) else { return };
            assert_eq!((&progress, &parameters), (&train(1).unwrap().0, &train(1).unwrap().1), "{env}");
            assert_ne!(parameters, train(2).unwrap().1, "{env}: another seed");
            assert!(parameters.iter().all(|p| p.is_finite()), "{env}");
            for (i, progress) in progress.iter().enumerate() {
                assert_eq!((progress.update, progress.global_step), (i as u64 + 1, (i as u64 + 1) * 96), "{env}");
                assert!(progress.stats.loss.is_finite() && progress.stats.grad_norm > 0.0, "{env}: {:?}", progress.stats);
            }
        }
    }
}

#[test]
fn gpu_gives_the_same_numbers_again() {
    every_environment_gives_the_same_numbers_again(common::gpu);
}

#[test]
fn cpu_gives_the_same_numbers_again() {
    every_environment_gives_the_same_numbers_again(|| Some(Cpu::<f32>::new()));
    every_environment_gives_the_same_numbers_again(|| Some(Cpu::<f64>::new()));
}

#[test]
fn every_environment_passes_the_cross_check() {
    for env in EnvId::ALL {
        let Some(both) = common::checked() else { return };
        let mut trainer = Trainer::new(both, env, short()).unwrap();
        (0..3).for_each(|_| drop(trainer.update().unwrap()));
        let worst = trainer.backend().worst();
        for operation in ["linear_forward", "linear_backward_params", "gae_cleanrl", "normalize", "adam_step", "gather_samples"] {
            let compared = worst.iter().filter(|((of, _), _)| *of == operation).map(|(_, worst)| worst.compared).sum::<u64>();
            assert!(compared > 0, "{env}: {operation} was not compared: {:?}", worst.keys());
        }
    }
}

#[test]
fn a_fault_planted_in_a_kernel_stops_training_and_names_exactly_that_kernel() {
    let faults = [
        ("optimizer", common::shader("optimizer"), "adam.beta2 * old.v", "adam.beta1 * old.v", "adam_step"),
        ("advantage", include_str!("../shaders/advantage.wgsl"), "params.gamma * bootstrap", "bootstrap", "gae_cleanrl"),
        ("linear", common::shader("linear"), "return 1.0 - s * s;", "return 1.0 - s;", "linear_backward_input"),
    ];
    for (shader, source, from, to, operation) in faults {
        let Some(gpu) = common::gpu() else { return };
        let mut both = CrossCheck::new(gpu, Cpu::<f64>::new());
        both.a.context.replace_shader(shader, plant(source, from, to));
        let mut trainer = Trainer::new(both, EnvId::CartPole, short()).unwrap();
        match (0..3).try_for_each(|_| trainer.update().map(drop)) {
            Err(Error::Mismatch(mismatch)) => {
                assert_eq!((mismatch.operation, mismatch.update), (operation, Some(0)), "{mismatch}");
                assert_eq!(mismatch.minibatch.is_some(), operation != "gae_cleanrl", "{mismatch}");
            }
            other => panic!("{shader}: {other:?}"),
        }
    }
}

#[test]
fn a_reward_beyond_f32_stops_the_update_and_changes_nothing() {
    let mut trainer = Trainer::new(Cpu::<f32>::new(), EnvId::CartPole, Config { reward_scale: 1e39, ..short() }).unwrap();
    let before = trainer.policy().unwrap();
    match trainer.update() {
        Err(Error::NonFinite { tensor, .. }) => assert_eq!(tensor, "rewards"),
        other => panic!("{other:?}"),
    }
    assert_eq!(before, trainer.policy().unwrap());
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let no_rollout = Config { total_timesteps: 95, ..short() };
    for config in [Config { num_envs: 0, ..short() }, Config { gamma: f64::NAN, ..short() }, no_rollout] {
        assert!(matches!(
            Trainer::new(Cpu::<f32>::new(), EnvId::CartPole, config),
            Err(Error::InvalidValue { .. } | Error::Shape { .. })
        ));
    }
}
