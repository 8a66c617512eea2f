//! The actor and the critic: two multilayer perceptrons in one flat parameter buffer.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use crate::elementary::vectorised;
use crate::error::{Error, Result};
use crate::kernels::actor_critic::{ActorCritic, Layer};
use crate::kernels::linear::{Activation, Linear};
use crate::kernels::policy::Gaussian;
use crate::shape::{defaults, require_size, reserve};

/// The distribution of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Logits of this many actions.
    Categorical {
        /// Number of actions.
        actions: usize,
    },
    /// Means of `dim` dimensions, each with a learned log standard deviation shared by all states.
    Gaussian {
        /// Dimensions of an action.
        dim: usize,
    },
}

impl PolicyKind {
    /// Outputs of the actor.
    pub fn outputs(self) -> usize {
        match self {
            PolicyKind::Categorical { actions } => actions,
            PolicyKind::Gaussian { dim } => dim,
        }
    }
}

/// Sizes of an actor and a critic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Elements of an observation.
    pub observation_size: usize,
    /// Widths of the hidden layers, in each network.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// The distribution of actions.
    pub policy: PolicyKind,
}

/// A named tensor in the flat parameter buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterTensor {
    /// `actor.W0`, `actor.b0`, …, `critic.W0`, …, `logstd`.
    pub name: String,
    /// First element.
    pub offset: usize,
    /// `[out, in]`, `[out]` or `[dim]`.
    pub shape: Vec<usize>,
}

impl ParameterTensor {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The layout of all parameters.
#[derive(Debug, Clone)]
pub struct Network {
    spec: NetworkSpec,
    pub(crate) layers: ActorCritic,
    tensors: Vec<ParameterTensor>,
    len: usize,
}

impl Network {
    /// Lays out the parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] for a size of 0, or 2³² parameters or more.
    pub fn new(spec: NetworkSpec) -> Result<Self> {
        require_size("observation_size", spec.observation_size)?;
        require_size("policy", spec.policy.outputs())?;
        spec.hidden.iter().try_for_each(|&width| require_size("hidden", width))?;
        let layers = ActorCritic { actor: Vec::new(), critic: Vec::new() };
        let mut network = Self { layers, tensors: Vec::new(), len: 0, spec };
        network.layers.actor = network.lay_out("actor", network.spec.policy.outputs())?;
        network.layers.critic = network.lay_out("critic", 1)?;
        if let PolicyKind::Gaussian { dim } = network.spec.policy {
            network.place("logstd".to_owned(), vec![dim])?;
        }
        Ok(network)
    }

    fn lay_out(&mut self, name: &str, outputs: usize) -> Result<Vec<Layer>> {
        let widths: Vec<usize> =
            std::iter::once(self.spec.observation_size).chain(self.spec.hidden.iter().copied()).chain([outputs]).collect();
        let last = widths.len() - 2;
        widths
            .windows(2)
            .enumerate()
            .map(|(i, pair)| {
                let (in_features, out_features) = (pair[0], pair[1]);
                let weight_offset = self.place(format!("{name}.W{i}"), vec![out_features, in_features])?;
                let bias_offset = self.place(format!("{name}.b{i}"), vec![out_features])?;
                let activation = if i == last { Activation::Identity } else { self.spec.activation };
                Ok(Layer { linear: Linear { batch: 1, in_features, out_features, weight_offset, bias_offset }, activation })
            })
            .collect()
    }

    fn place(&mut self, name: String, shape: Vec<usize>) -> Result<usize> {
        let offset = self.len;
        let size = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let end = size.and_then(|n| n.checked_add(offset)).filter(|&n| n <= u32::MAX as usize);
        self.len = end.ok_or_else(|| Error::shape(&name, "fewer than 2^32 parameters in all", format!("{shape:?}")))?;
        self.tensors.push(ParameterTensor { name, offset, shape });
        Ok(offset)
    }

    /// Its sizes.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// All tensors in buffer order: actor, critic, logstd.
    pub fn tensors(&self) -> &[ParameterTensor] {
        &self.tensors
    }

    /// The layers of both networks, with their parameters' offsets.
    pub fn layers(&self) -> &ActorCritic {
        &self.layers
    }

    /// Number of parameters.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// First element of `logstd`, if the policy is Gaussian.
    pub fn log_std_offset(&self) -> Option<usize> {
        self.tensors.iter().find(|t| t.name == "logstd").map(|t| t.offset)
    }

    pub(crate) fn gaussian(&self, batch: usize, dim: usize) -> Gaussian {
        Gaussian { batch, dim, state_dependent_std: false, log_std_offset: self.log_std_offset().unwrap_or(0) }
    }

    /// Initial parameters `[len]` as in CleanRL: orthogonal weights (Saxe et al. 2014), biases 0.
    /// The gain is √2, in the last layers 0.01 (actor) and 1 (critic).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] on the host. A layer also takes eight bytes a weight.
    pub fn initial_parameters(&self, seed: u64, log_std_init: f64) -> Result<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters: Vec<f32> = defaults("parameters", self.len)?;
        for (layers, last_gain) in [(&self.layers.actor, 0.01), (&self.layers.critic, 1.0)] {
            for (i, layer) in layers.iter().enumerate() {
                let gain = if i + 1 == layers.len() { last_gain } else { std::f64::consts::SQRT_2 };
                let Linear { in_features, out_features, weight_offset, .. } = layer.linear;
                orthogonal(&mut rng, (out_features, in_features), gain, &mut parameters[weight_offset..])?;
            }
        }
        if let Some(offset) = self.log_std_offset() {
            parameters[offset..].fill(log_std_init as f32);
        }
        Ok(parameters)
    }
}

/// Vectors orthogonalised one by one, after all threads have orthogonalised them against earlier
/// blocks. Another number changes the order of sums and so the bits.
const BLOCK: usize = 64;
/// Vectors of a block that a thread processes together, few enough for its caches.
const TOGETHER: usize = 8;

/// Writes to the start of `matrix` a `[rows, columns]` matrix with orthogonal rows (or columns, if
/// fewer) of length `gain`. It applies Gram–Schmidt, twice for accuracy, to a Gaussian matrix.
fn orthogonal(rng: &mut ChaCha8Rng, (rows, columns): (usize, usize), gain: f64, matrix: &mut [f32]) -> Result<()> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut draw = || {
        let mut vector = reserve("initial weights", length)?;
        vector.extend((0..length).map(|_| -> f64 { StandardNormal.sample(rng) }));
        Ok(vector)
    };
    let mut basis: Vec<Vec<f64>> = (0..count).map(|_| draw()).collect::<Result<_>>()?;
    for first in (0..count).step_by(BLOCK) {
        let (done, rest) = basis.split_at_mut(first);
        let block = &mut rest[..BLOCK.min(count - first)];
        block.par_chunks_mut(TOGETHER).for_each(|vectors| {
            for other in [&*done; 2].into_iter().flatten() {
                vectors.iter_mut().for_each(|vector| remove(vector, other, dot_in_lanes));
            }
        });
        for i in 0..block.len() {
            let (others, rest) = block.split_at_mut(i);
            let vector = &mut rest[0];
            for other in [&*others; 2].into_iter().flatten() {
                remove(vector, other, dot);
            }
            let norm = dot(vector, vector).sqrt();
            vector.iter_mut().for_each(|a| *a /= norm);
        }
    }
    let element = |row: usize, column: usize| if rows <= columns { basis[row][column] } else { basis[column][row] };
    for (i, weight) in matrix[..rows * columns].iter_mut().enumerate() {
        *weight = (gain * element(i / columns, i % columns)) as f32;
    }
    Ok(())
}

/// Subtracts from `vector` its projection on the unit vector `other`.
#[inline(always)]
fn remove(vector: &mut [f64], other: &[f64], dot: impl Fn(&[f64], &[f64]) -> f64) {
    vectorised!({
        let along = dot(vector, other);
        for (a, b) in vector.iter_mut().zip(other) {
            *a -= along * b;
        }
    });
}

#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A dot product whose order of sums suits SIMD.
#[inline(always)]
fn dot_in_lanes(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 32;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for k in 0..LANES {
            sums[k] += a[k] * b[k];
        }
    }
    sums.iter().sum::<f64>() + dot(a_rest, b_rest)
}
