//! Parallel copies of one environment.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{ActionSpace, EnvId, Physics, Spec};
use crate::error::{Error, Result};
use crate::shape::{defaults, elements, require_size, reserve};

/// One action for each environment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Actions<'a> {
    /// Choices, `[N]`.
    Discrete(&'a [u32]),
    /// Forces or torques, `[N, dim]`.
    Continuous(&'a [f32]),
}

impl Actions<'_> {
    /// Checks that these are actions of `space` for `count` environments.
    pub(super) fn check(&self, space: ActionSpace, count: usize) -> Result<()> {
        let require = |expected: usize, len: usize| {
            if len == expected { Ok(()) } else { Err(Error::shape("actions", format!("{expected} elements"), len)) }
        };
        match (*self, space) {
            (Actions::Discrete(actions), ActionSpace::Discrete { n }) => {
                require(count, actions.len())?;
                match actions.iter().find(|&&a| a as usize >= n) {
                    Some(action) => Err(Error::value("actions", format!("choices below {n}"), action)),
                    None => Ok(()),
                }
            }
            (Actions::Continuous(actions), ActionSpace::Continuous { dim, .. }) => {
                require(count * dim, actions.len())?;
                match actions.iter().position(|a| a.is_nan()) {
                    Some(element) => Err(Error::NonFinite { tensor: "actions".to_owned(), element }),
                    None => Ok(()),
                }
            }
            (Actions::Discrete(_), ActionSpace::Continuous { .. }) => {
                Err(Error::value("actions", "continuous actions", "discrete ones"))
            }
            (Actions::Continuous(_), ActionSpace::Discrete { .. }) => {
                Err(Error::value("actions", "discrete actions", "continuous ones"))
            }
        }
    }
}

/// An episode that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// Index of the environment.
    pub env: usize,
    /// Sum of its rewards.
    pub total_reward: f64,
    /// Its steps.
    pub length: usize,
}

/// One copy and its current episode.
#[derive(Debug)]
struct Slot {
    physics: Physics,
    rng: ChaCha8Rng,
    total_reward: f64,
    length: usize,
}

/// `N` copies of one environment. The step that ends an episode also resets its copy.
#[derive(Debug)]
pub struct VecEnv {
    id: EnvId,
    spec: Spec,
    copies: Vec<Slot>,
    observations: Vec<f32>,
    final_observations: Vec<f32>,
    rewards: Vec<f32>,
    terminated: Vec<u32>,
    truncated: Vec<u32>,
    finished: Vec<Episode>,
}

impl VecEnv {
    /// `num_envs` reset copies, each with its own random stream: episodes depend only on `seed`,
    /// index and actions.
    ///
    /// # Errors
    /// [`Error::Shape`] for a `num_envs` of 0 or too large, [`Error::OutOfMemory`] on the host.
    pub fn new(id: EnvId, num_envs: usize, seed: u64) -> Result<Self> {
        require_size("num_envs", num_envs)?;
        let spec = id.spec();
        let size = elements("num_envs x observation_size", num_envs, spec.observation_size)?;
        let mut observations: Vec<f32> = defaults("observations of num_envs environments", size)?;
        let mut final_observations = reserve("observations of num_envs environments", size)?;
        let mut copies = reserve("num_envs environments", num_envs)?;
        copies.extend(observations.chunks_exact_mut(spec.observation_size).enumerate().map(|(index, row)| {
            let (mut physics, mut rng) = (Physics::new(id), ChaCha8Rng::seed_from_u64(seed));
            rng.set_stream(index as u64);
            physics.reset(&mut rng);
            physics.observe_checked(row);
            Slot { physics, rng, total_reward: 0.0, length: 0 }
        }));
        final_observations.extend_from_slice(&observations);
        Ok(Self {
            id,
            spec,
            copies,
            final_observations,
            observations,
            rewards: defaults("rewards of num_envs environments", num_envs)?,
            terminated: defaults("ends of num_envs environments", num_envs)?,
            truncated: defaults("ends of num_envs environments", num_envs)?,
            finished: reserve("episodes of num_envs environments", num_envs)?,
        })
    }

    /// The environment's name.
    pub fn id(&self) -> EnvId {
        self.id
    }

    /// N, the number of copies.
    pub fn num_envs(&self) -> usize {
        self.copies.len()
    }

    /// Steps every copy once and resets those whose episode ends. Clips continuous actions.
    ///
    /// # Errors
    /// Actions of the wrong kind or number, out of range, or NaN; no copy is then stepped.
    pub fn step(&mut self, actions: Actions<'_>) -> Result<()> {
        actions.check(self.spec.action_space, self.copies.len())?;
        let width = self.spec.observation_size;
        for (index, copy) in self.copies.iter_mut().enumerate() {
            let row = index * width..(index + 1) * width;
            let outcome = copy.physics.step_checked(actions, index);
            copy.total_reward += outcome.reward;
            copy.length += 1;
            // Like Gymnasium's TimeLimit: the last step may terminate too.
            let truncated = copy.length >= self.spec.max_episode_steps;
            self.rewards[index] = outcome.reward as f32;
            self.terminated[index] = u32::from(outcome.terminated);
            self.truncated[index] = u32::from(truncated);
            let reached = &mut self.final_observations[row.clone()];
            copy.physics.observe_checked(reached);
            let next = &mut self.observations[row];
            if outcome.terminated || truncated {
                self.finished.push(Episode { env: index, total_reward: copy.total_reward, length: copy.length });
                copy.physics.reset(&mut copy.rng);
                copy.physics.observe_checked(next);
                (copy.total_reward, copy.length) = (0.0, 0);
            } else {
                next.copy_from_slice(reached);
            }
        }
        Ok(())
    }

    /// Current observations `[N, observation_size]`: after an end, the new episode's first.
    pub fn observations(&self) -> &[f32] {
        &self.observations
    }

    /// Observations `[N, observation_size]` that the last step reached, before resets. Before the
    /// first step, those of [`observations`](Self::observations).
    pub fn final_observations(&self) -> &[f32] {
        &self.final_observations
    }

    /// Rewards of the last step, `[N]`.
    pub fn rewards(&self) -> &[f32] {
        &self.rewards
    }

    /// 1 where the last step terminated an episode, `[N]`.
    pub fn terminated(&self) -> &[u32] {
        &self.terminated
    }

    /// 1 where the last step reached the time limit, even if it also terminated, `[N]`.
    pub fn truncated(&self) -> &[u32] {
        &self.truncated
    }

    /// Returns and clears the episodes that ended since the last call, in order.
    pub fn take_finished(&mut self) -> Vec<Episode> {
        // Drained instead of taken: `step` keeps the capacity and does not allocate.
        self.finished.drain(..).collect()
    }
}
