//! The memory of an update, computed from its configuration.

use super::Learner;
use crate::backend::{Backend, DryRun, Memory, MemoryPlanner};
use crate::error::Result;
use crate::ppo::{Config, Network, PolicyKind};

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
    /// Bytes of `backend`'s memory for a learner, its rollout and an update, before any is
    /// allocated. They include acting, noise and a GPU's scratch buffers; see
    /// [`MemoryPlanner::memory_bytes`]. They exclude environments, host copies, pipelines, and a
    /// GPU's uniforms for acting (less than 512 bytes a dispatch).
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn planned_memory_bytes(backend: &B, observation_size: usize, policy: PolicyKind, config: &Config) -> Result<u64> {
        let minibatch_size = config.minibatch_size();
        let network = Self::network_of(observation_size, policy, config, minibatch_size)?;
        backend.memory_bytes(&Update { network, config: config.clone(), minibatch_size })
    }

    /// [`planned_memory_bytes`](Self::planned_memory_bytes) of this learner.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn memory_bytes(&self, backend: &B) -> Result<u64> {
        let Self { network, config, minibatch_size, .. } = self;
        let update = Update { network: network.clone(), config: config.clone(), minibatch_size: *minibatch_size };
        backend.memory_bytes(&update)
    }
}
