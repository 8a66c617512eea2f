//! Training: environments on the host, the rest on a [`Backend`].

use std::collections::VecDeque;

use crate::backend::Backend;
use crate::env::{self, ActionSpace, EnvId, VecEnv};
use crate::error::Result;
use crate::ppo::{Actions, Config, Ends, Learner, ParameterTensor, PolicyKind, Rollout, UpdateStats};
use crate::shape::{defaults, reserve};

/// Episodes in the mean return.
pub const EPISODES_AVERAGED: usize = 100;

/// An episode that ended during training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FinishedEpisode {
    /// Total environment steps at its end.
    pub global_step: u64,
    /// Sum of its rewards.
    pub episodic_return: f64,
    /// Its steps.
    pub length: usize,
}

/// Results of one rollout and one update.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Updates so far.
    pub update: u64,
    /// Environment steps so far.
    pub global_step: u64,
    /// Episodes that ended during this rollout.
    pub episodes: Vec<FinishedEpisode>,
    /// Episodes ended so far.
    pub episodes_seen: u64,
    /// Mean return of the last 100 episodes, or of fewer at the start.
    pub mean_return: Option<f64>,
    /// Losses and diagnostics.
    pub stats: UpdateStats,
}

/// A tensor by name, for saving.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// `actor.W0`, `actor.b0`, …, `critic.W0`, …, `logstd`.
    pub name: String,
    /// Its shape; weights are `[out, in]`.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub data: Vec<f32>,
}

/// Data that the host collects over a rollout, then uploads at once. All `[T·N]`.
#[derive(Debug)]
struct Collected {
    rewards: Vec<f32>,
    dones: Vec<f32>,
    terminated: Vec<u32>,
    truncated: Vec<u32>,
}

impl Collected {
    fn with_capacity(rows: usize) -> Result<Self> {
        let what = "a rollout of num_steps x num_envs";
        let (rewards, dones) = (reserve(what, rows)?, reserve(what, rows)?);
        Ok(Self { rewards, dones, terminated: reserve(what, rows)?, truncated: reserve(what, rows)? })
    }

    fn clear(&mut self) {
        self.rewards.clear();
        self.dones.clear();
        self.terminated.clear();
        self.truncated.clear();
    }
}

/// An agent in its environments.
#[derive(Debug)]
pub struct Trainer<B: Backend> {
    backend: B,
    envs: VecEnv,
    learner: Learner<B>,
    rollout: Rollout<B>,
    collected: Collected,
    /// 1.0 where an environment's next step starts an episode (CleanRL's `next_done`).
    next_done: Vec<f32>,
    final_observations: B::Floats,
    returns: VecDeque<f64>,
    updates: u64,
    global_step: u64,
    episodes_seen: u64,
}

impl<B: Backend> Trainer<B> {
    /// A new agent in `config.num_envs` copies of an environment.
    ///
    /// # Errors
    /// Those of [`Config::validate`], [`Config::require_one_update`] and the backend's allocations.
    pub fn new(mut backend: B, env: EnvId, config: Config) -> Result<Self> {
        config.validate()?;
        config.require_one_update()?;
        let spec = env.spec();
        let policy = match spec.action_space {
            ActionSpace::Discrete { n } => PolicyKind::Categorical { actions: n },
            ActionSpace::Continuous { dim, .. } => PolicyKind::Gaussian { dim },
        };
        let envs = VecEnv::new(env, config.num_envs, config.seed)?;
        let rows = config.batch_size();
        let final_observations = backend.alloc_floats(config.num_envs * spec.observation_size)?;
        let next_done = defaults("ends of num_envs environments", config.num_envs)?;
        let learner = Learner::new(&mut backend, spec.observation_size, policy, config)?;
        let rollout = learner.new_rollout(&mut backend)?;
        Ok(Self {
            backend,
            envs,
            learner,
            rollout,
            collected: Collected::with_capacity(rows)?,
            next_done,
            final_observations,
            returns: VecDeque::with_capacity(EPISODES_AVERAGED),
            updates: 0,
            global_step: 0,
            episodes_seen: 0,
        })
    }

    /// The backend, for instance to read a cross-check's worst element.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        self.learner.config()
    }

    /// Whether another rollout would exceed `total_timesteps`.
    pub fn finished(&self) -> bool {
        self.updates >= self.config().num_updates()
    }

    /// One rollout and one PPO update.
    ///
    /// # Errors
    /// Those of [`Learner::update`] and of the backend; the agent is then as before the update.
    pub fn update(&mut self) -> Result<Progress> {
        let episodes = self.collect()?;
        let learning_rate = self.config().learning_rate_at(self.updates);
        let stats = self.learner.update(&mut self.backend, &self.rollout, learning_rate)?;
        self.updates += 1;
        Ok(Progress {
            update: self.updates,
            global_step: self.global_step,
            episodes,
            episodes_seen: self.episodes_seen,
            mean_return: (!self.returns.is_empty()).then(|| self.returns.iter().sum::<f64>() / self.returns.len() as f64),
            stats,
        })
    }

    fn collect(&mut self) -> Result<Vec<FinishedEpisode>> {
        let mut episodes = Vec::new();
        self.collected.clear();
        self.learner.draw_noise(&mut self.backend)?;
        let mut cut_short = Vec::new();
        for step in 0..self.rollout.steps {
            self.step(step)?;
            if self.envs.truncated().contains(&1) {
                cut_short.push((step, self.envs.final_observations().to_vec()));
            }
            for episode in self.envs.take_finished() {
                if self.returns.len() == EPISODES_AVERAGED {
                    self.returns.pop_front();
                }
                self.returns.push_back(episode.total_reward);
                self.episodes_seen += 1;
                episodes.push(FinishedEpisode {
                    global_step: self.global_step,
                    episodic_return: episode.total_reward,
                    length: episode.length,
                });
            }
        }
        self.upload_collected(&cut_short)?;
        Ok(episodes)
    }

    fn step(&mut self, step: usize) -> Result<()> {
        let (first, count) = (step * self.rollout.envs, self.rollout.envs);
        let observations = self.envs.observations();
        let width = observations.len() / count;
        self.backend.write_floats(&mut self.rollout.observations, first * width, observations)?;
        self.learner.act(&mut self.backend, &mut self.rollout, step)?;
        match &self.rollout.actions {
            Actions::Discrete(actions) => {
                let actions = self.backend.read_words(actions, first, count)?;
                self.envs.step(env::Actions::Discrete(&actions))?;
            }
            Actions::Continuous(actions) => {
                let dim = self.learner.network().spec().policy.outputs();
                let actions = self.backend.read_floats(actions, first * dim, count * dim)?;
                self.envs.step(env::Actions::Continuous(&actions))?;
            }
        }
        let scale = self.learner.config().reward_scale as f32;
        self.collected.rewards.extend(self.envs.rewards().iter().map(|r| scale * r));
        self.collected.dones.extend_from_slice(&self.next_done);
        self.collected.terminated.extend_from_slice(self.envs.terminated());
        self.collected.truncated.extend_from_slice(self.envs.truncated());
        let ended = self.envs.terminated().iter().zip(self.envs.truncated());
        self.next_done.iter_mut().zip(ended).for_each(|(done, (a, b))| *done = (a | b) as f32);
        self.global_step += count as u64;
        Ok(())
    }

    fn upload_collected(&mut self, cut_short: &[(usize, Vec<f32>)]) -> Result<()> {
        let Self { backend, learner, rollout, collected, envs, final_observations, .. } = self;
        let (steps, count) = (rollout.steps, rollout.envs);
        backend.write_floats(&mut rollout.rewards, 0, &collected.rewards)?;
        backend.write_floats(final_observations, 0, envs.observations())?;
        match &mut rollout.ends {
            Ends::BeforeStep { dones, next_value, next_done } => {
                backend.write_floats(dones, 0, &collected.dones)?;
                backend.write_floats(next_done, 0, &self.next_done)?;
                learner.values(backend, final_observations, count, next_value, 0)
            }
            Ends::AfterStep { next_values, terminated, truncated } => {
                backend.write_words(terminated, 0, &collected.terminated)?;
                backend.write_words(truncated, 0, &collected.truncated)?;
                if steps > 1 {
                    backend.copy_floats(&rollout.values, count, next_values, 0, (steps - 1) * count)?;
                }
                learner.values(backend, final_observations, count, next_values, (steps - 1) * count)?;
                // Elsewhere the step's observation is the next one, so a whole row can be replaced.
                for (step, reached) in cut_short {
                    backend.write_floats(final_observations, 0, reached)?;
                    learner.values(backend, final_observations, count, next_values, step * count)?;
                }
                Ok(())
            }
        }
    }

    /// All parameters by name.
    ///
    /// # Errors
    /// Those of the backend's read-back.
    pub fn policy(&mut self) -> Result<Vec<NamedTensor>> {
        let parameters = self.learner.parameters(&mut self.backend)?;
        let tensor = |t: &ParameterTensor| NamedTensor {
            name: t.name.clone(),
            shape: t.shape.clone(),
            data: parameters[t.offset..t.offset + t.len()].to_vec(),
        };
        Ok(self.learner.network().tensors().iter().map(tensor).collect())
    }
}
