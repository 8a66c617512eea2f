//! Four classic-control environments with Gymnasium's dynamics, rewards, ends and resets.
//!
//! [`VecEnv`] steps many copies and resets each when its episode ends. [`Physics`] is one copy
//! without time limit or reset, for tests and planning.

mod acrobot;
mod cart_pole;
mod mountain_car;
mod pendulum;
mod vec_env;

use std::fmt;
use std::str::FromStr;

use rand::Rng;

pub use acrobot::Acrobot;
pub use cart_pole::CartPole;
pub use mountain_car::MountainCar;
pub use pendulum::Pendulum;
pub use vec_env::{Actions, Episode, VecEnv};

use crate::error::{Error, Result};

/// An environment by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnvId {
    /// Gymnasium's `CartPole-v1`.
    CartPole,
    /// Gymnasium's `Acrobot-v1`.
    Acrobot,
    /// Gymnasium's `Pendulum-v1`.
    Pendulum,
    /// Gymnasium's `MountainCarContinuous-v0`.
    MountainCarContinuous,
}

/// The actions of an environment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ActionSpace {
    /// A choice below `n`.
    Discrete {
        /// The number of choices.
        n: usize,
    },
    /// `dim` numbers, each clipped to `[low, high]`.
    Continuous {
        /// Number of dimensions.
        dim: usize,
        /// The lower bound.
        low: f32,
        /// The upper bound.
        high: f32,
    },
}

/// Sizes and limits of an environment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Gymnasium's id.
    pub id: &'static str,
    /// Numbers in an observation.
    pub observation_size: usize,
    /// Its actions.
    pub action_space: ActionSpace,
    /// Steps after which an episode is truncated.
    pub max_episode_steps: usize,
}

impl EnvId {
    /// All of them.
    pub const ALL: [EnvId; 4] = [EnvId::CartPole, EnvId::Acrobot, EnvId::Pendulum, EnvId::MountainCarContinuous];

    /// The name that it prints and parses.
    pub fn name(self) -> &'static str {
        match self {
            EnvId::CartPole => "cartpole",
            EnvId::Acrobot => "acrobot",
            EnvId::Pendulum => "pendulum",
            EnvId::MountainCarContinuous => "mountain-car-continuous",
        }
    }

    /// Its sizes and limits.
    pub fn spec(self) -> Spec {
        let continuous = |bound: f32| ActionSpace::Continuous { dim: 1, low: -bound, high: bound };
        let (id, observation_size, action_space, max_episode_steps) = match self {
            EnvId::CartPole => ("CartPole-v1", 4, ActionSpace::Discrete { n: 2 }, 500),
            EnvId::Acrobot => ("Acrobot-v1", 6, ActionSpace::Discrete { n: 3 }, 500),
            EnvId::Pendulum => ("Pendulum-v1", 3, continuous(pendulum::MAX_TORQUE), 200),
            EnvId::MountainCarContinuous => ("MountainCarContinuous-v0", 2, continuous(mountain_car::MAX_FORCE), 999),
        };
        Spec { id, observation_size, action_space, max_episode_steps }
    }
}

impl fmt::Display for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for EnvId {
    type Err = Error;

    /// Accepts this crate's names and Gymnasium's ids.
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|env| name == env.name() || name == env.spec().id);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|env| format!("{env} ({})", env.spec().id));
            Error::value("environment", format!("one of {}", names.join(", ")), name)
        })
    }
}

/// The action of a single environment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// A choice.
    Discrete(u32),
    /// A force or torque.
    Continuous(f32),
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The reward.
    pub reward: f64,
    /// Whether the state reached ends the episode.
    pub terminated: bool,
}

/// One environment's state and dynamics, without time limit and automatic resets.
///
/// ```
/// use ppo_kernels::env::{Action, EnvId, Physics};
///
/// let mut pole = Physics::new(EnvId::CartPole);
/// pole.set_state(&[0.0, 0.0, 0.05, 0.0])?;
/// let outcome = pole.step(Action::Discrete(1))?;
/// assert_eq!(outcome.reward, 1.0);
/// assert!(pole.state()[1] > 0.0, "pushed to the right");
/// # Ok::<(), ppo_kernels::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Physics {
    /// `CartPole-v1`.
    CartPole(CartPole),
    /// `Acrobot-v1`.
    Acrobot(Acrobot),
    /// `Pendulum-v1`.
    Pendulum(Pendulum),
    /// `MountainCarContinuous-v0`.
    MountainCar(MountainCar),
}

impl Physics {
    /// The zero state; [`reset`](Self::reset) or [`set_state`](Self::set_state) starts an episode.
    pub fn new(id: EnvId) -> Self {
        match id {
            EnvId::CartPole => Self::CartPole(CartPole::default()),
            EnvId::Acrobot => Self::Acrobot(Acrobot::default()),
            EnvId::Pendulum => Self::Pendulum(Pendulum::default()),
            EnvId::MountainCarContinuous => Self::MountainCar(MountainCar::default()),
        }
    }

    /// The environment's name.
    pub fn id(&self) -> EnvId {
        match self {
            Self::CartPole(_) => EnvId::CartPole,
            Self::Acrobot(_) => EnvId::Acrobot,
            Self::Pendulum(_) => EnvId::Pendulum,
            Self::MountainCar(_) => EnvId::MountainCarContinuous,
        }
    }

    /// The state, as in Gymnasium's `env.unwrapped.state`.
    pub fn state(&self) -> &[f64] {
        match self {
            Self::CartPole(env) => &env.state,
            Self::Acrobot(env) => &env.state,
            Self::Pendulum(env) => &env.state,
            Self::MountainCar(env) => &env.state,
        }
    }

    /// Sets the state. Like Gymnasium, MountainCarContinuous computes the first step after a reset
    /// in f64, then in f32. A state that f32 represents exactly counts as one reached by a step.
    ///
    /// # Errors
    /// [`Error::Shape`] for the number of elements, [`Error::NonFinite`].
    pub fn set_state(&mut self, state: &[f64]) -> Result<()> {
        let needed = self.state().len();
        if state.len() != needed {
            return Err(Error::shape("state", format!("{needed} elements"), state.len()));
        }
        if let Some(element) = state.iter().position(|s| !s.is_finite()) {
            return Err(Error::NonFinite { tensor: "state".to_owned(), element });
        }
        match self {
            Self::CartPole(env) => env.state.copy_from_slice(state),
            Self::Acrobot(env) => env.state.copy_from_slice(state),
            Self::Pendulum(env) => env.state.copy_from_slice(state),
            Self::MountainCar(env) => env.set([state[0], state[1]]),
        }
        Ok(())
    }

    /// Draws an initial state.
    pub fn reset<R: Rng>(&mut self, rng: &mut R) {
        match self {
            Self::CartPole(env) => env.reset(rng),
            Self::Acrobot(env) => env.reset(rng),
            Self::Pendulum(env) => env.reset(rng),
            Self::MountainCar(env) => env.reset(rng),
        }
    }

    /// Writes the observation `[observation_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another length of `out`.
    pub fn observe(&self, out: &mut [f32]) -> Result<()> {
        let needed = self.id().spec().observation_size;
        if out.len() != needed {
            return Err(Error::shape("observation", format!("{needed} elements"), out.len()));
        }
        self.observe_checked(out);
        Ok(())
    }

    /// One step. A continuous action is clipped to its range.
    ///
    /// # Errors
    /// An action of the wrong kind, out of range, or NaN; the state is then unchanged.
    pub fn step(&mut self, action: Action) -> Result<Outcome> {
        let action = match action {
            Action::Discrete(choice) => Actions::Discrete(&[choice]),
            Action::Continuous(force) => Actions::Continuous(&[force]),
        };
        action.check(self.id().spec().action_space, 1)?;
        Ok(self.step_checked(action, 0))
    }

    fn observe_checked(&self, out: &mut [f32]) {
        match self {
            Self::CartPole(env) => env.observe(out),
            Self::Acrobot(env) => env.observe(out),
            Self::Pendulum(env) => env.observe(out),
            Self::MountainCar(env) => env.observe(out),
        }
    }

    /// Takes row `index` of actions that [`Actions::check`] has accepted for this environment.
    fn step_checked(&mut self, actions: Actions<'_>, index: usize) -> Outcome {
        let choice = || if let Actions::Discrete(a) = actions { a[index] } else { 0 };
        let force = |bound: f32| if let Actions::Continuous(a) = actions { a[index].clamp(-bound, bound) } else { 0.0 };
        match self {
            Self::CartPole(env) => env.step(choice()),
            Self::Acrobot(env) => env.step(choice()),
            Self::Pendulum(env) => env.step(force(pendulum::MAX_TORQUE)),
            Self::MountainCar(env) => env.step(force(mountain_car::MAX_FORCE)),
        }
    }
}
