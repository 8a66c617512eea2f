//! Actor and critic, two multilayer perceptrons in one flat parameter buffer: a step of a rollout, and a minibatch step of learning.

#[cfg(feature = "gpu")]
mod by_layer;
#[cfg(feature = "gpu")]
mod by_tile;

#[cfg(feature = "gpu")]
pub(crate) use by_layer::ByLayer;
#[cfg(feature = "gpu")]
pub(crate) use by_tile::ByTile;

use super::linear::{Activation, Linear};
use super::optimizer::{Adam, GradientNorm};
use super::surrogate::Surrogate;
#[cfg(feature = "gpu")]
use crate::error::Result;
use crate::tolerance::Tolerance;

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

/// A minibatch step of learning: the loss and its gradient, clipping, Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinibatchStep {
    /// The loss.
    pub loss: Surrogate,
    /// The number under which a gradient that is not finite is reported, > 0.
    pub tensor: u32,
    /// Of the whole gradient.
    pub norm: GradientNorm,
    /// approx_kl beyond which neither this step nor a later one changes a parameter.
    pub max_kl: Option<f64>,
    /// Over all parameters.
    pub adam: Adam,
}

#[cfg(feature = "gpu")]
impl MinibatchStep {
    /// Checks the lengths of the buffers of norm and Adam.
    pub(crate) fn check_optimizer(
        &self,
        [params, grads, m, v]: [usize; 4],
        [schedule, stats, control]: [usize; 3],
    ) -> Result<()> {
        self.norm.check(grads, stats)?;
        self.adam.check([("params", params), ("grads", grads), ("m", m), ("v", v)], schedule, stats, control)
    }
}

/// How a minibatch step shares work among invocations on a GPU. The two add up in different orders, so their bits differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A workgroup a tile of samples, activations in workgroup memory: for small networks on hardware, which act that way too.
    ByTile,
    /// Each layer a matrix product of its own, then the sums of all their gradients at once: for large networks, and for all on software adapters.
    ByLayer,
}

#[cfg(feature = "gpu")]
pub(crate) const SHADERS: &[super::ShaderInfo] = &[by_tile::SHADER_INFO, by_layer::SHADER_INFO];

/// What decides where a parameter is in a packed copy of them: copies of one layout can stand for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedLayout {
    /// Inputs, outputs, first weight, first bias, a layer.
    layers: Vec<[usize; 4]>,
    log_std_offset: Option<usize>,
}

/// The share of a tensor's largest element by which any of its elements may be off, where a whole minibatch has been through it.
const COMPOSITE_ERROR: f64 = 1e-5;

/// What the networks as a whole may be off. A dozen operations one after the other have no bound that is of any use; each has its own, by
/// which it is judged alone.
pub fn composite_tolerance(reference: &[f64]) -> Tolerance {
    let largest = reference.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    Tolerance::PerElement(vec![COMPOSITE_ERROR * largest; reference.len()])
}
