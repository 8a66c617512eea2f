//! The gradient of a whole minibatch on the CPU, a tile of samples at a time through both networks and back, so that activations stay in the
//! cache and threads share nothing but the parameters.

use rayon::prelude::*;

use super::linear::{Target, backward_input, backward_params_into, forward};
use super::surrogate::{Sums, categorical_rows, gaussian_rows};
use crate::kernels::actor_critic::{ActorCritic, Layer};
use crate::kernels::policy::Gaussian;
use crate::kernels::surrogate::{Surrogate, sample};
use crate::real::Real;

/// Samples that go through the networks together, at most: enough for the products to be fast, few enough for the cache.
const LARGEST_TILE: usize = 256;
/// And at least, where there is more than one tile.
const SMALLEST_TILE: usize = 32;
/// Groups of tiles. Each sums its gradients, and the groups' sums are added in order: the number of threads changes nothing.
const GROUPS: usize = 4;
/// Multiply-adds below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 1 << 19;

/// The distribution and the actions `[batch]` or `[batch, dim]`.
#[derive(Clone, Copy)]
pub enum Head<'a, T> {
    /// Number of actions, actions taken.
    Categorical(usize, &'a [u32]),
    /// Actions taken.
    Gaussian(Gaussian, &'a [T]),
}

/// Outputs of both networks and their gradients, `[batch, outputs]` and `[batch]`.
pub struct Outputs<'a, T> {
    /// Of the actor.
    pub head: &'a mut [T],
    /// Gradient with respect to it.
    pub d_head: &'a mut [T],
    /// Of the critic.
    pub values: &'a mut [T],
    /// Gradient with respect to them.
    pub d_values: &'a mut [T],
}

/// Rows `first..` of all that a tile reads and writes.
struct Tile<'a, T> {
    rows: usize,
    observations: &'a [T],
    head: Head<'a, T>,
    samples: &'a [T],
    outputs: Outputs<'a, T>,
}

/// Hidden activations of a tile through one network, with their gradients.
struct Scratch<T> {
    outputs: Vec<Vec<T>>,
    pre: Vec<Vec<T>>,
    d_pre: Vec<Vec<T>>,
}

impl<T: Real> Scratch<T> {
    fn new(layers: &[Layer], rows: usize) -> Self {
        let hidden = &layers[..layers.len() - 1];
        let buffer = |layer: &Layer| vec![T::zero(); rows * layer.linear.out_features];
        let pre = |layer: &Layer| if layer.activation.needs_pre_activation() { buffer(layer) } else { Vec::new() };
        Self {
            outputs: hidden.iter().map(buffer).collect(),
            pre: hidden.iter().map(pre).collect(),
            d_pre: hidden.iter().map(buffer).collect(),
        }
    }

    fn forward(&mut self, layers: &[Layer], params: &[T], x: &[T], rows: usize, head: &mut [T]) {
        for (i, layer) in layers.iter().enumerate() {
            let (below, here) = self.outputs.split_at_mut(i);
            let input = below.last().map_or(x, Vec::as_slice);
            let pre = self.pre.get_mut(i).filter(|pre| !pre.is_empty()).map(Vec::as_mut_slice);
            let output = here.first_mut().map_or(&mut *head, Vec::as_mut_slice);
            forward(&layer.with_batch(rows), layer.activation, input, params, pre, output);
        }
    }

    /// Adds to `grads`.
    fn backward(&mut self, layers: &[Layer], params: &[T], x: &[T], rows: usize, d_head: &[T], grads: &mut [T]) {
        for (i, layer) in layers.iter().enumerate().rev() {
            let linear = layer.with_batch(rows);
            let (below, here) = self.d_pre.split_at_mut(i);
            let d_pre = here.first().map_or(d_head, Vec::as_slice);
            let input = if i == 0 { x } else { &self.outputs[i - 1] };
            backward_params_into(&linear, d_pre, input, grads, Target::AddTo);
            if i > 0 {
                let saved = if self.pre[i - 1].is_empty() { &self.outputs[i - 1] } else { &self.pre[i - 1] };
                backward_input(&linear, d_pre, params, Some((layers[i - 1].activation, saved)), &mut below[i - 1]);
            }
        }
    }
}

/// What a group of tiles adds up to.
struct Group<T> {
    grads: Vec<T>,
    d_log_std: Vec<f64>,
    sums: Vec<Sums>,
}

/// See [`ActorCriticOps::minibatch_gradient`](crate::backend::ActorCriticOps::minibatch_gradient).
pub fn minibatch_gradient<T: Real>(
    networks: &ActorCritic,
    op: &Surrogate,
    params: &[T],
    observations: &[T],
    head: Head<'_, T>,
    samples: &[T],
    outputs: Outputs<'_, T>,
    grads: &mut [T],
    stats: &mut [T],
) {
    let tile_rows = op.batch.div_ceil(GROUPS).clamp(SMALLEST_TILE, LARGEST_TILE);
    let tiles = split_into_tiles(networks, op.batch, tile_rows, observations, head, samples, outputs);
    let tiles_per_group = tiles.len().div_ceil(GROUPS);
    let mut groups: Vec<Vec<Tile<'_, T>>> = Vec::with_capacity(GROUPS);
    for (i, tile) in tiles.into_iter().enumerate() {
        if i % tiles_per_group == 0 {
            groups.push(Vec::with_capacity(tiles_per_group));
        }
        groups[i / tiles_per_group].push(tile);
    }
    let weights: usize = networks.actor.iter().chain(&networks.critic).map(|layer| layer.linear.weights()).sum();
    let run = |tiles: Vec<Tile<'_, T>>| group_gradient(networks, op, params, tile_rows, tiles, grads.len());
    let groups: Vec<Group<T>> = if 3 * op.batch * weights < PARALLEL_WORK {
        groups.into_iter().map(run).collect()
    } else {
        groups.into_par_iter().map(run).collect()
    };
    add_up(op, head, &groups, grads, stats);
}

fn split_into_tiles<'a, T: Real>(
    networks: &ActorCritic,
    batch: usize,
    tile_rows: usize,
    observations: &'a [T],
    head: Head<'a, T>,
    samples: &'a [T],
    outputs: Outputs<'a, T>,
) -> Vec<Tile<'a, T>> {
    let observation_size = networks.actor[0].linear.in_features;
    let width = networks.actor[networks.actor.len() - 1].linear.out_features;
    let heads = outputs.head[..batch * width].chunks_mut(tile_rows * width);
    let d_heads = outputs.d_head[..batch * width].chunks_mut(tile_rows * width);
    let values = outputs.values[..batch].chunks_mut(tile_rows).zip(outputs.d_values[..batch].chunks_mut(tile_rows));
    let tile =
        |(i, ((head_rows, d_head), (values, d_values))): (usize, ((&'a mut [T], &'a mut [T]), (&'a mut [T], &'a mut [T])))| {
            let first = i * tile_rows;
            Tile {
                rows: values.len(),
                observations: &observations[first * observation_size..],
                head: match head {
                    Head::Categorical(actions, taken) => Head::Categorical(actions, &taken[first..]),
                    Head::Gaussian(policy, taken) => Head::Gaussian(policy, &taken[first * policy.dim..]),
                },
                samples: &samples[first * sample::COLUMNS..],
                outputs: Outputs { head: head_rows, d_head, values, d_values },
            }
        };
    heads.zip(d_heads).zip(values).enumerate().map(tile).collect()
}

fn group_gradient<T: Real>(
    networks: &ActorCritic,
    op: &Surrogate,
    params: &[T],
    tile_rows: usize,
    tiles: Vec<Tile<'_, T>>,
    parameters: usize,
) -> Group<T> {
    let ActorCritic { actor, critic } = networks;
    let mut through_actor = Scratch::new(actor, tile_rows);
    let mut through_critic = Scratch::new(critic, tile_rows);
    let mut group = Group { grads: vec![T::zero(); parameters], d_log_std: Vec::new(), sums: Vec::with_capacity(tiles.len()) };
    for Tile { rows, observations, head, samples, outputs } in tiles {
        let Outputs { head: output, d_head, values, d_values } = outputs;
        through_actor.forward(actor, params, observations, rows, output);
        through_critic.forward(critic, params, observations, rows, values);
        match head {
            Head::Categorical(actions, taken) => {
                group.sums.push(categorical_rows(op, actions, output, None, taken, values, samples, d_head, d_values));
            }
            Head::Gaussian(policy, taken) => {
                let log_std = &params[policy.log_std_offset..];
                let (sums, d_log_std) =
                    gaussian_rows(op, policy.dim, output, log_std, taken, values, samples, d_head, None, d_values);
                group.sums.push(sums);
                group.d_log_std.resize(policy.dim, 0.0);
                group.d_log_std.iter_mut().zip(d_log_std).for_each(|(sum, d)| *sum += d);
            }
        }
        through_actor.backward(actor, params, observations, rows, d_head, &mut group.grads);
        through_critic.backward(critic, params, observations, rows, d_values, &mut group.grads);
    }
    group
}

/// Elements of the gradient that a thread adds up at once.
const ADDED_AT_ONCE: usize = 1 << 15;

fn add_up<T: Real>(op: &Surrogate, head: Head<'_, T>, groups: &[Group<T>], grads: &mut [T], stats: &mut [T]) {
    let add = |first: usize, grads: &mut [T]| {
        let range = first..first + grads.len();
        grads.copy_from_slice(&groups[0].grads[range.clone()]);
        for group in &groups[1..] {
            grads.iter_mut().zip(&group.grads[range.clone()]).for_each(|(sum, &g)| *sum += g);
        }
    };
    if grads.len() <= ADDED_AT_ONCE {
        add(0, grads);
    } else {
        grads.par_chunks_mut(ADDED_AT_ONCE).enumerate().for_each(|(i, chunk)| add(i * ADDED_AT_ONCE, chunk));
    }
    if let Head::Gaussian(policy, _) = head {
        for (d, gradient) in grads[policy.log_std_offset..][..policy.dim].iter_mut().enumerate() {
            *gradient = T::of(groups.iter().map(|group| group.d_log_std[d]).sum::<f64>() - op.ent_coef);
        }
    }
    groups.iter().flat_map(|group| group.sums.iter().copied()).sum::<Sums>().write(op, stats);
}
