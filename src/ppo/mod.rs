//! PPO on any [`Backend`](crate::backend::Backend): configuration, network, rollout, learner.

mod config;
pub mod infinity_as_text;
mod learner;
mod network;
mod rollout;

pub use crate::backend::Actions;
pub use config::{AdvantageScope, Config, KlStop};
pub use learner::{Learner, StopReason, UpdateStats};
pub use network::{Network, NetworkSpec, ParameterTensor, PolicyKind};
pub use rollout::{Ends, Rollout};
