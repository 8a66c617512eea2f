//! The environments against trajectories recorded in Gymnasium, and what `VecEnv` adds to them.

use ppo_kernels::Error;
use ppo_kernels::env::{Action, ActionSpace, Actions, EnvId, Physics, VecEnv};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// 1200 steps of random actions in Gymnasium. States and rewards are its float64 ones, observations its float32 ones.
struct Trajectory {
    env: EnvId,
    states: Vec<Vec<f64>>,
    next_states: Vec<Vec<f64>>,
    observations: Vec<Vec<f64>>,
    next_observations: Vec<Vec<f64>>,
    actions: Vec<Action>,
    rewards: Vec<f64>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
    episode_start: Vec<bool>,
}

fn numbers(tensor: &TensorView<'_>) -> Vec<f64> {
    let bytes = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        Dtype::U8 => bytes.iter().map(|b| f64::from(*b)).collect(),
        other => panic!("no {other:?} expected"),
    }
}

impl Trajectory {
    fn load(env: EnvId) -> Self {
        let path = format!("{}/tests/environments/{}.safetensors", env!("CARGO_MANIFEST_DIR"), env.spec().id);
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let column = |name: &str| numbers(&file.tensor(name).unwrap());
        let rows = |name: &str| {
            let width = file.tensor(name).unwrap().shape()[1];
            column(name).chunks(width).map(<[f64]>::to_vec).collect::<Vec<_>>()
        };
        let flags = |name: &str| column(name).iter().map(|&flag| flag != 0.0).collect::<Vec<_>>();
        let action = |a: &f64| match env.spec().action_space {
            ActionSpace::Discrete { .. } => Action::Discrete(*a as u32),
            ActionSpace::Continuous { .. } => Action::Continuous(*a as f32),
        };
        Self {
            env,
            states: rows("state"),
            next_states: rows("next_state"),
            observations: rows("obs"),
            next_observations: rows("next_obs"),
            actions: column("action").iter().map(action).collect(),
            rewards: column("reward"),
            terminated: flags("terminated"),
            truncated: flags("truncated"),
            episode_start: flags("episode_start"),
        }
    }

    /// The first step whose outcome differs from the recorded one by more than rounding. Each step starts at the recorded state.
    fn first_difference(&self, actions: &[Action]) -> Option<String> {
        let mut physics = Physics::new(self.env);
        for (t, &action) in actions.iter().enumerate() {
            physics.set_state(&self.states[t]).unwrap();
            if !close(&observation(&physics), &self.observations[t], F32_STEP) {
                return Some(format!("step {t}: observation {:?}, not {:?}", observation(&physics), self.observations[t]));
            }
            let outcome = physics.step(action).unwrap();
            if !close(physics.state(), &self.next_states[t], F64_STEP) {
                return Some(format!("step {t}: state {:?}, not {:?}", physics.state(), self.next_states[t]));
            }
            if !close(&observation(&physics), &self.next_observations[t], F32_STEP) {
                return Some(format!("step {t}: next observation"));
            }
            if !close(&[outcome.reward], &[self.rewards[t]], F32_STEP) {
                return Some(format!("step {t}: reward {}, not {}", outcome.reward, self.rewards[t]));
            }
            if outcome.terminated != self.terminated[t] {
                return Some(format!("step {t}: terminated {}", outcome.terminated));
            }
        }
        None
    }

    /// Steps of each recorded episode that ended.
    fn whole_episodes(&self) -> Vec<std::ops::Range<usize>> {
        let starts = (0..self.actions.len()).filter(|&t| self.episode_start[t]);
        let end = |start: usize| (start..self.actions.len()).find(|&t| self.terminated[t] || self.truncated[t]);
        starts.filter_map(|start| Some(start..end(start)? + 1)).collect()
    }
}

/// A sine may differ in its last bit between two mathematical libraries; a step multiplies that by a few.
const F64_STEP: f64 = 1e-13;
/// One rounding to f32, which may fall on the other side.
const F32_STEP: f64 = 1.2e-7;

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0))
}

fn observation(physics: &Physics) -> Vec<f64> {
    let mut out = vec![0.0; physics.id().spec().observation_size];
    physics.observe(&mut out).unwrap();
    out.into_iter().map(f64::from).collect()
}

#[test]
fn every_step_of_gymnasiums_trajectories_is_reproduced() {
    for env in EnvId::ALL {
        let recorded = Trajectory::load(env);
        assert_eq!(recorded.actions.len(), 1200);
        assert_eq!(recorded.first_difference(&recorded.actions), None, "{env}");
    }
}

#[test]
fn another_action_is_noticed() {
    for env in EnvId::ALL {
        let recorded = Trajectory::load(env);
        let mut actions = recorded.actions.clone();
        actions[700] = match actions[700] {
            Action::Discrete(choice) => Action::Discrete(1 - choice.min(1)),
            Action::Continuous(force) => Action::Continuous(force * 0.99),
        };
        let difference = recorded.first_difference(&actions).expect("a difference");
        assert!(difference.starts_with("step 700: state"), "{env}: {difference}");
    }
}

#[test]
fn whole_episodes_end_where_gymnasiums_do() {
    for env in EnvId::ALL {
        let recorded = Trajectory::load(env);
        let episodes = recorded.whole_episodes();
        assert!(!episodes.is_empty(), "{env}");
        for steps in episodes {
            let mut physics = Physics::new(env);
            physics.set_state(&recorded.states[steps.start]).unwrap();
            let mut total = 0.0;
            for t in steps.clone() {
                let outcome = physics.step(recorded.actions[t]).unwrap();
                total += outcome.reward;
                assert_eq!(outcome.terminated, recorded.terminated[t], "{env}, step {t}");
                let at_limit = t + 1 - steps.start == env.spec().max_episode_steps;
                assert_eq!(at_limit, recorded.truncated[t], "{env}, step {t}");
            }
            let expected: f64 = recorded.rewards[steps.clone()].iter().sum();
            assert!(close(&[total], &[expected], 1e-6), "{env}: {total}, not {expected}");
            // Differences in the last bit grow along a chaotic trajectory, but not to this.
            assert!(close(physics.state(), &recorded.next_states[steps.end - 1], 1e-6), "{env}: {:?}", physics.state());
        }
    }
}

/// An action that every environment takes, different from step to step.
fn steer(envs: &mut VecEnv, t: usize) {
    let (n, choice) = (envs.num_envs(), t % 2);
    match envs.id().spec().action_space {
        ActionSpace::Discrete { .. } => envs.step(Actions::Discrete(&vec![choice as u32; n])),
        ActionSpace::Continuous { .. } => envs.step(Actions::Continuous(&vec![choice as f32 - 0.5; n])),
    }
    .unwrap();
}

#[test]
fn an_episode_ends_with_its_own_last_observation_and_the_next_one_starts() {
    for env in EnvId::ALL {
        let spec = env.spec();
        let (mut envs, n) = (VecEnv::new(env, 3, 1).unwrap(), 3);
        assert_eq!(envs.observations(), envs.final_observations(), "before the first step");
        let (mut lengths, mut totals, mut ended) = (vec![0; n], vec![0.0; n], 0);
        for t in 0..2 * spec.max_episode_steps + 5 {
            steer(&mut envs, t);
            let finished = envs.take_finished();
            for i in 0..n {
                lengths[i] += 1;
                totals[i] += f64::from(envs.rewards()[i]);
                let row = i * spec.observation_size..(i + 1) * spec.observation_size;
                let (next, last) = (&envs.observations()[row.clone()], &envs.final_observations()[row]);
                let over = envs.terminated()[i] | envs.truncated()[i] != 0;
                assert_eq!(envs.truncated()[i] != 0, lengths[i] == spec.max_episode_steps, "{env}");
                assert_eq!(over, finished.iter().any(|e| e.env == i), "{env}");
                assert_eq!(over, next != last, "{env}");
                if over {
                    let episode = finished.iter().find(|e| e.env == i).unwrap();
                    assert_eq!(episode.length, lengths[i], "{env}");
                    assert!((episode.total_reward - totals[i]).abs() < 1e-3, "{env}: {} and {}", episode.total_reward, totals[i]);
                    (lengths[i], totals[i], ended) = (0, 0.0, ended + 1);
                }
            }
        }
        assert!(ended >= 2 * n, "{env}: {ended} episodes");
        assert!(envs.take_finished().is_empty(), "taken once");
    }
}

#[test]
fn a_copys_episodes_depend_on_seed_index_and_actions_alone() {
    for env in EnvId::ALL {
        let width = env.spec().observation_size;
        let run = |n: usize, seed: u64| {
            let mut envs = VecEnv::new(env, n, seed).unwrap();
            (0..300).map(|t| (steer(&mut envs, t), envs.observations()[width..2 * width].to_vec()).1).collect::<Vec<_>>()
        };
        assert_eq!(run(2, 9), run(7, 9), "{env}");
        assert_ne!(run(2, 9), run(2, 10), "{env}");
    }
}

#[test]
fn resets_are_drawn_from_gymnasiums_distributions() {
    // Uniform: CartPole and Acrobot in each number, Pendulum in angle and speed, the car in its position.
    for (env, index, low, high) in [
        (EnvId::CartPole, 3, -0.05, 0.05),
        (EnvId::Acrobot, 5, -0.1, 0.1),
        (EnvId::Pendulum, 2, -1.0, 1.0),
        (EnvId::MountainCarContinuous, 0, -0.6, -0.4),
    ] {
        let n = 4000;
        let envs = VecEnv::new(env, n, 5).unwrap();
        let drawn: Vec<f64> = envs.observations().chunks(env.spec().observation_size).map(|o| f64::from(o[index])).collect();
        assert!(drawn.iter().all(|x| (low..=high).contains(x)), "{env}");
        let mean = drawn.iter().sum::<f64>() / n as f64;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let width: f64 = high - low;
        // Four standard errors: σ²/n for the mean, and for the variance (μ₄ − σ⁴)/n = width⁴/180n.
        let error = 4.0 / f64::sqrt(n as f64);
        assert!((mean - (low + high) / 2.0).abs() < error * width / 12f64.sqrt(), "{env}: mean {mean}");
        assert!((variance - width * width / 12.0).abs() < error * width * width / 180f64.sqrt(), "{env}: variance {variance}");
    }
}

#[test]
fn continuous_actions_are_clipped() {
    for (env, bound) in [(EnvId::Pendulum, 2.0), (EnvId::MountainCarContinuous, 1.0)] {
        let after = |force: f32| {
            let mut physics = Physics::new(env);
            physics.set_state(&[-0.5, 0.01]).unwrap();
            let outcome = physics.step(Action::Continuous(force)).unwrap();
            (physics, outcome)
        };
        assert_eq!(after(f32::INFINITY), after(bound), "{env}");
        assert_eq!(after(-1e9), after(-bound), "{env}");
        assert_ne!(after(0.9 * bound), after(bound), "{env}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_stepped() {
    let mut poles = VecEnv::new(EnvId::CartPole, 2, 1).unwrap();
    let before = poles.observations().to_vec();
    for (actions, expected) in [
        (Actions::Discrete(&[0]), "2 elements"),
        (Actions::Discrete(&[0, 1, 0]), "2 elements"),
        (Actions::Discrete(&[0, 2]), "choices below 2"),
        (Actions::Continuous(&[0.0, 0.0]), "discrete actions"),
    ] {
        let error = poles.step(actions).unwrap_err().to_string();
        assert!(error.contains("actions") && error.contains(expected), "{error}");
    }
    assert_eq!(before, poles.observations());

    let mut pendulums = VecEnv::new(EnvId::Pendulum, 2, 1).unwrap();
    let error = pendulums.step(Actions::Continuous(&[0.0, f32::NAN])).unwrap_err();
    assert!(matches!(error, Error::NonFinite { ref tensor, element: 1 } if tensor == "actions"), "{error}");
    assert!(pendulums.step(Actions::Discrete(&[0, 0])).is_err());

    assert!(matches!(VecEnv::new(EnvId::CartPole, 0, 1), Err(Error::Shape { argument, .. }) if argument == "num_envs"));
    assert!(matches!(VecEnv::new(EnvId::CartPole, usize::MAX, 1), Err(Error::Shape { argument, .. }) if argument == "num_envs"));
    let mut physics = Physics::new(EnvId::Acrobot);
    assert!(matches!(physics.set_state(&[0.0; 3]), Err(Error::Shape { argument, .. }) if argument == "state"));
    assert!(matches!(physics.set_state(&[0.0, 0.0, f64::INFINITY, 0.0]), Err(Error::NonFinite { element: 2, .. })));
    assert!(matches!(physics.observe(&mut [0.0; 5]), Err(Error::Shape { argument, .. }) if argument == "observation"));
    assert!(matches!("breakout".parse::<EnvId>(), Err(Error::InvalidValue { argument, .. }) if argument == "environment"));
}

#[test]
fn names_are_this_crates_or_gymnasiums() {
    for env in EnvId::ALL {
        assert_eq!(env.to_string().parse::<EnvId>().unwrap(), env);
        assert_eq!(env.spec().id.parse::<EnvId>().unwrap(), env);
    }
}
