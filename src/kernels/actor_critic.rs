//! Actor and critic, two multilayer perceptrons in one flat parameter buffer: the gradient of PPO's loss over a whole minibatch.

use super::linear::{Activation, Linear};

/// One layer: where its parameters are, and what follows it. The batch is that of the minibatch in hand, whatever `linear` says.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Sizes and offsets.
    pub linear: Linear,
    /// Its activation; the identity for the last layer of a network.
    pub activation: Activation,
}

impl Layer {
    /// The layer for a number of rows.
    pub fn with_batch(&self, batch: usize) -> Linear {
        Linear { batch, ..self.linear }
    }
}

/// The layers of both networks, from the observation on. The critic has one output.
#[derive(Debug, Clone)]
pub struct ActorCritic {
    /// Of the actor, whose output is logits or means.
    pub actor: Vec<Layer>,
    /// Of the critic.
    pub critic: Vec<Layer>,
}
