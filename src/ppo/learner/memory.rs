//! How much memory an update takes, from its configuration alone.

use super::Learner;
use crate::backend::{Backend, DryRun, Memory, MemoryPlanner};
use crate::error::Result;
use crate::ppo::{Config, Network, PolicyKind};

/// A learner, its rollout, and one update.
struct Update {
    network: Network,
    config: Config,
    minibatch_size: usize,
}

impl Update {
    fn learner<M: Memory>(&self, memory: &mut M) -> Result<Learner<M>> {
        Learner::allocate(memory, self.network.clone(), self.config.clone(), self.minibatch_size)
    }
}

impl DryRun for Update {
    fn allocate<M: Memory>(&self, memory: &mut M) -> Result<()> {
        let learner = self.learner(memory)?;
        learner.new_rollout(memory)?;
        memory.alloc_floats(learner.noise_len()).map(drop)
    }

    fn run<B: Backend>(&self, backend: &mut B) -> Result<()> {
        let mut learner = self.learner(backend)?;
        let rollout = learner.new_rollout(backend)?;
        learner.draw_noise(backend)?;
        learner.update(backend, &rollout, self.config.learning_rate).map(drop)
    }
}

impl<B: MemoryPlanner> Learner<B> {
    /// Bytes of `backend`'s memory that a learner of this configuration, its rollout and an update will take, before any is allocated: all
    /// buffers, those for acting and its random numbers among them, and on a GPU the update's scratch buffers; see
    /// [`MemoryPlanner::memory_bytes`]. Not counted are environments, copies on the host, the backend's pipelines, and, on a GPU, a uniform of
    /// less than 512 bytes for each dispatch of acting.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn planned_memory_bytes(backend: &B, observation_size: usize, policy: PolicyKind, config: &Config) -> Result<u64> {
        let minibatch_size = config.minibatch_size();
        let network = Self::network_of(observation_size, policy, config, minibatch_size)?;
        backend.memory_bytes(&Update { network, config: config.clone(), minibatch_size })
    }

    /// As [`planned_memory_bytes`](Self::planned_memory_bytes) for this learner, on the backend that it is on.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn memory_bytes(&self, backend: &B) -> Result<u64> {
        let Self { network, config, minibatch_size, .. } = self;
        let update = Update { network: network.clone(), config: config.clone(), minibatch_size: *minibatch_size };
        backend.memory_bytes(&update)
    }
}
