//! The gradient of a whole minibatch on the CPU: a tile of samples at a time through both networks and back, so that activations stay in the
//! cache, on all threads. A minibatch of one tile has a thread for each network instead.

use rayon::prelude::*;

use super::linear::{Target, backward_input, backward_params_into, forward};
use super::surrogate::{Sums, categorical_rows, gaussian_rows};
use crate::elementary::vectorised;
use crate::kernels::actor_critic::{ActorCritic, Layer};
use crate::kernels::linear::Linear;
use crate::kernels::policy::Gaussian;
use crate::kernels::surrogate::{Surrogate, sample};
use crate::real::Real;

/// Samples that go through the networks together: enough for the products to be fast, few enough for the cache.
const TILE_ROWS: usize = 256;
/// Groups of tiles. Each sums its gradients, and the groups' sums are added in order: the number of threads changes nothing.
const GROUPS: usize = 4;
/// Multiply-adds from which a second thread pays.
const PARALLEL_WORK: usize = 1 << 19;

/// The distribution and the actions `[batch]` or `[batch, dim]`.
#[derive(Clone, Copy)]
pub enum Head<'a, T> {
    /// Number of actions, actions taken.
    Categorical(usize, &'a [u32]),
    /// Actions taken.
    Gaussian(Gaussian, &'a [T]),
}

impl<'a, T> Head<'a, T> {
    fn starting_at(self, first: usize) -> Self {
        match self {
            Head::Categorical(actions, taken) => Head::Categorical(actions, &taken[first..]),
            Head::Gaussian(policy, taken) => Head::Gaussian(policy, &taken[first * policy.dim..]),
        }
    }
}

/// A network's layers with the room for what passes through them, `[batch, out]` each; the last of `outputs` and `d_pre` are results.
pub struct Pass<'a, T> {
    /// From the observation on.
    pub layers: &'a [Layer],
    /// Outputs.
    pub outputs: &'a mut [Vec<T>],
    /// Pre-activations, where the activation's derivative needs them.
    pub pre: &'a mut [Option<Vec<T>>],
    /// Gradients with respect to the pre-activations.
    pub d_pre: &'a mut [Vec<T>],
}

impl<'a, T> Pass<'a, T> {
    /// For each group a tile's room in the hidden layers, and for each tile its rows of the output and of its gradient.
    fn split(self, batch: usize, groups: usize) -> (Vec<Hidden<'a, T>>, Vec<Output<'a, T>>) {
        let hidden = self.layers.len() - 1;
        let width = |layer: usize| self.layers[layer].linear.out_features;
        let (outputs, head) = self.outputs.split_at_mut(hidden);
        let (d_pre, d_head) = self.d_pre.split_at_mut(hidden);
        let chunks = |(layer, buffer): (usize, &'a mut Vec<T>)| buffer.chunks_mut(TILE_ROWS * width(layer));
        let mut outputs: Vec<_> = outputs.iter_mut().enumerate().map(chunks).collect();
        let mut d_pre: Vec<_> = d_pre.iter_mut().enumerate().map(chunks).collect();
        let pre = self.pre[..hidden].iter_mut().enumerate();
        let mut pre: Vec<_> = pre.map(|(layer, buffer)| buffer.as_mut().map(|buffer| chunks((layer, buffer)))).collect();
        let rooms = (0..groups).map(|_| Hidden {
            layers: self.layers,
            outputs: outputs.iter_mut().filter_map(Iterator::next).collect(),
            pre: pre.iter_mut().map(|chunks| chunks.as_mut().and_then(Iterator::next)).collect(),
            d_pre: d_pre.iter_mut().filter_map(Iterator::next).collect(),
        });
        let rooms = rooms.collect();
        let last = width(hidden);
        let heads =
            head[0][..batch * last].chunks_mut(TILE_ROWS * last).zip(d_head[0][..batch * last].chunks_mut(TILE_ROWS * last));
        (rooms, heads.map(|(output, gradient)| Output { output, gradient }).collect())
    }
}

/// What a network gives for a tile, and the loss's gradient with respect to it.
struct Output<'a, T> {
    output: &'a mut [T],
    gradient: &'a mut [T],
}

/// Room for a tile in the hidden layers of one network.
struct Hidden<'a, T> {
    layers: &'a [Layer],
    outputs: Vec<&'a mut [T]>,
    pre: Vec<Option<&'a mut [T]>>,
    d_pre: Vec<&'a mut [T]>,
}

impl<T: Real> Hidden<'_, T> {
    fn forward(&mut self, params: &[T], x: &[T], rows: usize, head: &mut [T]) {
        for (i, layer) in self.layers.iter().enumerate() {
            let (below, here) = self.outputs.split_at_mut(i);
            let input = below.last().map_or(x, |input| &**input);
            let pre = self.pre.get_mut(i).and_then(|pre| pre.as_deref_mut());
            let output = here.first_mut().map_or(&mut *head, |output| &mut **output);
            forward(&layer.with_batch(rows), layer.activation, input, params, pre, output);
        }
    }

    /// `grads` starts with the gradient of parameter `first`.
    fn backward(&mut self, params: &[T], x: &[T], rows: usize, d_head: &[T], (grads, first): (&mut [T], usize), target: Target) {
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let linear = layer.with_batch(rows);
            let (below, here) = self.d_pre.split_at_mut(i);
            let d_pre = here.first().map_or(d_head, |d_pre| &**d_pre);
            let input = if i == 0 { x } else { &*self.outputs[i - 1] };
            let (weight_offset, bias_offset) = (linear.weight_offset - first, linear.bias_offset - first);
            backward_params_into(&Linear { weight_offset, bias_offset, ..linear }, d_pre, input, grads, target);
            if i > 0 {
                let saved = self.pre[i - 1].as_deref().unwrap_or(&*self.outputs[i - 1]);
                backward_input(&linear, d_pre, params, Some((self.layers[i - 1].activation, saved)), below[i - 1]);
            }
        }
    }
}

/// Some samples: everything that starts with the first of them.
struct Tile<'a, T> {
    rows: usize,
    observations: &'a [T],
    head: Head<'a, T>,
    samples: &'a [T],
    actor: Output<'a, T>,
    critic: Output<'a, T>,
}

impl<T: Real> Tile<'_, T> {
    /// Sums for the statistics, and of the gradient with respect to the log-std.
    fn loss(&mut self, op: &Surrogate, params: &[T]) -> (Sums, Vec<f64>) {
        let Self { head, samples, actor, critic, .. } = self;
        let (output, d_head) = (&*actor.output, &mut *actor.gradient);
        let (values, d_values) = (&*critic.output, &mut *critic.gradient);
        match *head {
            Head::Categorical(actions, taken) => {
                (categorical_rows(op, actions, output, None, taken, values, samples, d_head, d_values), Vec::new())
            }
            Head::Gaussian(policy, taken) => {
                let log_std = &params[policy.log_std_offset..];
                gaussian_rows(op, policy.dim, output, log_std, taken, values, samples, d_head, None, d_values)
            }
        }
    }
}

/// Tiles that one thread takes one after the other, adding up their gradients.
struct Group<'a, T> {
    tiles: Vec<Tile<'a, T>>,
    actor: Hidden<'a, T>,
    critic: Hidden<'a, T>,
}

impl<T: Real> Group<'_, T> {
    /// With `boundary`, the first parameter of the critic where all of the actor's come before, each network has a thread.
    fn gradient(mut self, op: &Surrogate, params: &[T], grads: &mut [T], boundary: Option<usize>) -> (Sums, Vec<f64>) {
        let mut parts = Vec::with_capacity(self.tiles.len());
        for (i, tile) in self.tiles.iter_mut().enumerate() {
            let target = if i == 0 { Target::Overwrite } else { Target::AddTo };
            let (x, rows) = (tile.observations, tile.rows);
            both(
                boundary.is_some(),
                || self.actor.forward(params, x, rows, tile.actor.output),
                || self.critic.forward(params, x, rows, tile.critic.output),
            );
            parts.push(tile.loss(op, params));
            let (d_head, d_values) = (&*tile.actor.gradient, &*tile.critic.gradient);
            match boundary {
                Some(first) => {
                    let (of_actor, of_critic) = grads.split_at_mut(first);
                    rayon::join(
                        || self.actor.backward(params, x, rows, d_head, (of_actor, 0), target),
                        || self.critic.backward(params, x, rows, d_values, (of_critic, first), target),
                    );
                }
                None => {
                    self.actor.backward(params, x, rows, d_head, (grads, 0), target);
                    self.critic.backward(params, x, rows, d_values, (grads, 0), target);
                }
            }
        }
        let mut d_log_std = vec![0.0; parts.first().map_or(0, |(_, d)| d.len())];
        parts.iter().for_each(|(_, part)| d_log_std.iter_mut().zip(part).for_each(|(sum, d)| *sum += d));
        (parts.into_iter().map(|(sums, _)| sums).sum(), d_log_std)
    }
}

fn both(parallel: bool, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    if parallel {
        rayon::join(a, b);
    } else {
        a();
        b();
    }
}

/// The first parameter of the critic, if all of the actor's come before.
fn boundary(networks: &ActorCritic) -> Option<usize> {
    let starts = |layer: &Layer| layer.linear.weight_offset.min(layer.linear.bias_offset);
    let ends =
        |Layer { linear, .. }: &Layer| (linear.weight_offset + linear.weights()).max(linear.bias_offset + linear.out_features);
    let first = networks.critic.iter().map(starts).min()?;
    (networks.actor.iter().map(ends).max()? <= first).then_some(first)
}

/// See [`ActorCriticOps::minibatch_gradient`](crate::backend::ActorCriticOps::minibatch_gradient).
pub fn minibatch_gradient<T: Real>(
    networks: &ActorCritic,
    op: &Surrogate,
    params: &[T],
    observations: &[T],
    head: Head<'_, T>,
    samples: &[T],
    actor: Pass<'_, T>,
    critic: Pass<'_, T>,
    grads: &mut [T],
    stats: &mut [T],
) {
    let tiles = op.batch.div_ceil(TILE_ROWS);
    let tiles_per_group = tiles.div_ceil(GROUPS);
    let observation_size = networks.actor[0].linear.in_features;
    let groups = tiles.div_ceil(tiles_per_group);
    let (actors, actor_outputs) = actor.split(op.batch, groups);
    let (critics, critic_outputs) = critic.split(op.batch, groups);
    let mut tiles = actor_outputs.into_iter().zip(critic_outputs).enumerate().map(|(i, (actor, critic))| {
        let first = i * TILE_ROWS;
        let observations = &observations[first * observation_size..];
        let samples = &samples[first * sample::COLUMNS..];
        Tile { rows: TILE_ROWS.min(op.batch - first), observations, head: head.starting_at(first), samples, actor, critic }
    });
    let groups = actors.into_iter().zip(critics).map(|(actor, critic)| {
        let tiles = tiles.by_ref().take(tiles_per_group).collect();
        Group { tiles, actor, critic }
    });
    let groups: Vec<Group<'_, T>> = groups.collect();
    let weights: usize = networks.actor.iter().chain(&networks.critic).map(|layer| layer.linear.weights()).sum();
    let parallel = 3 * op.batch * weights >= PARALLEL_WORK;
    let parts = groups_gradient(op, params, groups, grads, parallel, boundary(networks));
    if let Head::Gaussian(policy, _) = head {
        for (d, gradient) in grads[policy.log_std_offset..][..policy.dim].iter_mut().enumerate() {
            *gradient = T::of(parts.iter().map(|(_, d_log_std)| d_log_std[d]).sum::<f64>() - op.ent_coef);
        }
    }
    parts.into_iter().map(|(sums, _)| sums).sum::<Sums>().write(op, stats);
}

/// The first group adds up in `grads` itself, the others beside it.
fn groups_gradient<T: Real>(
    op: &Surrogate,
    params: &[T],
    groups: Vec<Group<'_, T>>,
    grads: &mut [T],
    parallel: bool,
    boundary: Option<usize>,
) -> Vec<(Sums, Vec<f64>)> {
    let boundary = boundary.filter(|_| parallel && groups.len() == 1);
    let mut others = vec![vec![T::zero(); grads.len()]; groups.len() - 1];
    let targets = std::iter::once(&mut *grads).chain(others.iter_mut().map(Vec::as_mut_slice));
    let work: Vec<_> = groups.into_iter().zip(targets).collect();
    let run = |(group, grads): (Group<'_, T>, &mut [T])| group.gradient(op, params, grads, boundary);
    let parts = if parallel { work.into_par_iter().map(run).collect() } else { work.into_iter().map(run).collect() };
    for other in &others {
        vectorised(|| grads.iter_mut().zip(other).for_each(|(sum, &g)| *sum += g));
    }
    parts
}
