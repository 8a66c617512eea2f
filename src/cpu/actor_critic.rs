//! The gradient of a whole minibatch on the CPU: a tile of samples at a time through both networks and back, so that activations stay in the
//! cache, on all threads. A minibatch of one tile has a thread for each network instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use smallvec::SmallVec;

use super::linear::{Target, backward_input, backward_params_into, forward, forward_transposed, transpose_weights};
use super::surrogate::{StdGradient, Sums, categorical_rows, gaussian_rows, value_rows};
use crate::elementary::vectorised;
use crate::kernels::actor_critic::{ActorCritic, Layer};
use crate::kernels::linear::Linear;
use crate::kernels::policy::Gaussian;
use crate::kernels::surrogate::Surrogate;
use crate::layout::sample;
use crate::scratch::with_scratch;

/// Samples that go through the networks together: enough for the products to be fast, few enough for the cache.
const TILE_ROWS: usize = 256;
/// Groups of tiles. Each sums its gradients, and the groups' sums are added in order: the number of threads changes nothing.
const GROUPS: usize = 4;
/// Multiply-adds from which a second thread pays.
const PARALLEL_WORK: usize = 1 << 19;
/// For which a thread without work stays awake.
const LONGEST_WAIT: Duration = Duration::from_micros(50);

/// The distribution and the actions `[batch]` or `[batch, dim]`.
#[derive(Clone, Copy)]
pub enum Head<'a> {
    /// Number of actions, actions taken.
    Categorical(usize, &'a [u32]),
    /// Actions taken.
    Gaussian(Gaussian, &'a [f32]),
}

impl Head<'_> {
    fn starting_at(self, first: usize) -> Self {
        match self {
            Head::Categorical(actions, taken) => Head::Categorical(actions, &taken[first..]),
            Head::Gaussian(policy, taken) => Head::Gaussian(policy, &taken[first * policy.dim..]),
        }
    }
}

/// A network's layers with the room for what passes through them, `[batch, out]` each; the last of `outputs` and `d_pre` are results.
pub struct Pass<'a> {
    /// From the observation on.
    pub layers: &'a [Layer],
    /// Outputs.
    pub outputs: &'a mut [Vec<f32>],
    /// Pre-activations, where the activation's derivative needs them.
    pub pre: &'a mut [Option<Vec<f32>>],
    /// Gradients with respect to the pre-activations.
    pub d_pre: &'a mut [Vec<f32>],
}

impl<'a> Pass<'a> {
    /// For each group of at most `rows` samples a tile's room in the hidden layers, and its rows of the output and of its gradient.
    fn split(self, batch: usize, rows: usize) -> (impl Iterator<Item = Hidden<'a>>, impl Iterator<Item = Output<'a>>) {
        let Self { layers, outputs, pre, d_pre } = self;
        let hidden = layers.len() - 1;
        let tile = move |layer: usize| TILE_ROWS * layers[layer].linear.out_features;
        let (outputs, head) = outputs.split_at_mut(hidden);
        let (d_pre, d_head) = d_pre.split_at_mut(hidden);
        let chunks = move |(layer, buffer): (usize, &'a mut Vec<f32>)| buffer.chunks_mut(tile(layer));
        let mut outputs: PerLayer<_> = outputs.iter_mut().enumerate().map(chunks).collect();
        let mut d_pre: PerLayer<_> = d_pre.iter_mut().enumerate().map(chunks).collect();
        let pre = pre[..hidden].iter_mut().enumerate();
        let mut pre: PerLayer<_> = pre.map(|(layer, buffer)| buffer.as_mut().map(|buffer| chunks((layer, buffer)))).collect();
        let rooms = std::iter::repeat_with(move || Hidden {
            layers,
            outputs: outputs.iter_mut().filter_map(Iterator::next).collect(),
            pre: pre.iter_mut().map(|chunks| chunks.as_mut().and_then(Iterator::next)).collect(),
            d_pre: d_pre.iter_mut().filter_map(Iterator::next).collect(),
        });
        let width = layers[hidden].linear.out_features;
        let whole = Output { width, output: &mut head[0][..batch * width], gradient: &mut d_head[0][..batch * width] };
        (rooms, whole.split(rows))
    }
}

/// One thing a layer. Deeper networks than this allocate.
type PerLayer<E> = SmallVec<[E; 8]>;

/// What a network gives for some samples, and the loss's gradient with respect to it.
struct Output<'a> {
    width: usize,
    output: &'a mut [f32],
    gradient: &'a mut [f32],
}

impl<'a> Output<'a> {
    fn split(self, rows: usize) -> impl Iterator<Item = Self> {
        let Self { width, output, gradient } = self;
        let parts = output.chunks_mut(rows * width).zip(gradient.chunks_mut(rows * width));
        parts.map(move |(output, gradient)| Self { width, output, gradient })
    }
}

/// Parameters, and where more than one tile reads them, a buffer of the same layout whose weights are transposed.
#[derive(Clone, Copy)]
struct Params<'a> {
    stored: &'a [f32],
    transposed: Option<&'a [f32]>,
}

/// Room for a tile in the hidden layers of one network.
struct Hidden<'a> {
    layers: &'a [Layer],
    outputs: PerLayer<&'a mut [f32]>,
    pre: PerLayer<Option<&'a mut [f32]>>,
    d_pre: PerLayer<&'a mut [f32]>,
}

impl Hidden<'_> {
    fn forward(&mut self, params: Params<'_>, x: &[f32], rows: usize, head: &mut [f32]) {
        for (i, layer) in self.layers.iter().enumerate() {
            let (below, here) = self.outputs.split_at_mut(i);
            let input = below.last().map_or(x, |input| &**input);
            let pre = self.pre.get_mut(i).and_then(|pre| pre.as_deref_mut());
            let output = here.first_mut().map_or(&mut *head, |output| &mut **output);
            let (linear, activation) = (layer.with_batch(rows), layer.activation);
            match params.transposed {
                Some(transposed) => forward_transposed(transposed, &linear, activation, input, params.stored, pre, output),
                None => forward(&linear, activation, input, params.stored, pre, output),
            }
        }
    }

    /// `grads` starts with the gradient of parameter `first`.
    fn backward(
        &mut self,
        params: &[f32],
        x: &[f32],
        rows: usize,
        d_head: &[f32],
        (grads, first): (&mut [f32], usize),
        target: Target,
    ) {
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

/// Inputs of some samples: everything that starts with the first of them.
#[derive(Clone, Copy)]
struct Samples<'a> {
    observations: &'a [f32],
    observation_size: usize,
    head: Head<'a>,
    packed: &'a [f32],
}

impl Samples<'_> {
    fn starting_at(self, first: usize) -> Self {
        Self {
            observations: &self.observations[first * self.observation_size..],
            head: self.head.starting_at(first),
            packed: &self.packed[first * sample::COLUMNS..],
            ..self
        }
    }

    /// The policy's part of the loss; adds the gradient with respect to the log-std to `d_log_std`.
    fn policy_loss(self, op: &Surrogate, params: &[f32], actor: &mut Output<'_>, d_log_std: &mut [f64]) -> Sums {
        let (output, d_head) = (&*actor.output, &mut *actor.gradient);
        match self.head {
            Head::Categorical(actions, taken) => categorical_rows(op, actions, output, None, taken, self.packed, d_head),
            Head::Gaussian(policy, taken) => with_scratch(policy.dim, |part: &mut [f64]| {
                let log_std = &params[policy.log_std_offset..];
                let of_std = StdGradient::Shared(part);
                let sums = gaussian_rows(op, policy.dim, output, log_std, taken, self.packed, d_head, of_std);
                d_log_std.iter_mut().zip(part).for_each(|(sum, d)| *sum += *d);
                sums
            }),
        }
    }
}

/// Tiles that one thread takes one after the other, adding up their gradients.
struct Group<'a> {
    samples: Samples<'a>,
    actor: (Hidden<'a>, Output<'a>),
    critic: (Hidden<'a>, Output<'a>),
    grads: &'a mut [f32],
    d_log_std: &'a mut [f64],
}

impl Group<'_> {
    /// With `boundary`, the first parameter of the critic where all of the actor's come before, each network has a thread.
    fn gradient(self, op: &Surrogate, params: Params<'_>, boundary: Option<usize>) -> Sums {
        let Self { samples, actor: (mut actor, actor_output), critic: (mut critic, critic_output), grads, d_log_std } = self;
        d_log_std.fill(0.0);
        let mut sums = Sums::default();
        let tiles = actor_output.split(TILE_ROWS).zip(critic_output.split(TILE_ROWS));
        for (i, (mut of_actor, of_critic)) in tiles.enumerate() {
            let target = if i == 0 { Target::Overwrite } else { Target::AddTo };
            let samples = samples.starting_at(i * TILE_ROWS);
            let (x, rows) = (samples.observations, of_actor.output.len() / of_actor.width);
            let mut through_actor = |grads: &mut [f32]| {
                actor.forward(params, x, rows, of_actor.output);
                let sums = samples.policy_loss(op, params.stored, &mut of_actor, d_log_std);
                actor.backward(params.stored, x, rows, of_actor.gradient, (grads, 0), target);
                sums
            };
            let mut through_critic = |grads: &mut [f32], first: usize| {
                critic.forward(params, x, rows, of_critic.output);
                let sums = value_rows(op, of_critic.output, samples.packed, of_critic.gradient);
                critic.backward(params.stored, x, rows, of_critic.gradient, (grads, first), target);
                sums
            };
            let (of_policy, of_values) = match boundary {
                Some(first) => {
                    let (of_actor, of_critic) = grads.split_at_mut(first);
                    together(|| through_actor(of_actor), || through_critic(of_critic, first))
                }
                None => (through_actor(grads), through_critic(grads, 0)),
            };
            sums = sums + of_policy + of_values;
        }
        sums
    }
}

/// Both on a thread each. The second thread stays awake for the first: rayon lets it sleep after some ten microseconds, and to wake it up for what
/// follows would take longer than that.
fn together<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    let is_done = AtomicBool::new(false);
    rayon::join(
        || {
            let result = first();
            is_done.store(true, Ordering::Relaxed);
            result
        },
        || {
            let result = second();
            let begin = Instant::now();
            while !is_done.load(Ordering::Relaxed) && begin.elapsed() < LONGEST_WAIT {
                std::hint::spin_loop();
            }
            result
        },
    )
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
pub fn minibatch_gradient(
    networks: &ActorCritic,
    op: &Surrogate,
    params: &[f32],
    observations: &[f32],
    head: Head<'_>,
    samples: &[f32],
    actor: Pass<'_>,
    critic: Pass<'_>,
    grads: &mut [f32],
    stats: &mut [f32],
) {
    let transposes = op.batch > TILE_ROWS;
    let sums = with_scratch(if transposes { params.len() } else { 0 }, |transposed: &mut [f32]| {
        if transposes {
            let layers = networks.actor.iter().chain(&networks.critic);
            layers.for_each(|layer| transpose_weights(&layer.linear, params, transposed));
        }
        let params = Params { stored: params, transposed: transposes.then_some(&*transposed) };
        gradient_by_groups(networks, op, params, observations, head, samples, actor, critic, grads)
    });
    sums.write(op, stats);
}

fn gradient_by_groups(
    networks: &ActorCritic,
    op: &Surrogate,
    params: Params<'_>,
    observations: &[f32],
    head: Head<'_>,
    samples: &[f32],
    actor: Pass<'_>,
    critic: Pass<'_>,
    grads: &mut [f32],
) -> Sums {
    let tiles = op.batch.div_ceil(TILE_ROWS);
    let rows = tiles.div_ceil(GROUPS) * TILE_ROWS;
    let groups = op.batch.div_ceil(rows);
    let weights: usize = networks.actor.iter().chain(&networks.critic).map(|layer| layer.linear.weights()).sum();
    let parallel = 3 * op.batch * weights >= PARALLEL_WORK;
    let boundary = boundary(networks).filter(|_| parallel && groups == 1);
    let log_std = match head {
        Head::Categorical(..) => 0..0,
        Head::Gaussian(policy, _) => policy.log_std_offset..policy.log_std_offset + policy.dim,
    };
    let samples = Samples { observations, observation_size: networks.actor[0].linear.in_features, head, packed: samples };
    // The first group adds up in `grads` itself, the others beside it.
    with_scratch((groups - 1) * grads.len(), |others: &mut [f32]| {
        others.fill(0.0);
        with_scratch(groups * log_std.len(), |d_log_std: &mut [f64]| {
            let (actors, actor_outputs) = actor.split(op.batch, rows);
            let (critics, critic_outputs) = critic.split(op.batch, rows);
            let len = grads.len();
            let mut targets = std::iter::once(&mut *grads).chain(others.chunks_exact_mut(len));
            let mut d_log_stds = d_log_std.chunks_exact_mut(log_std.len().max(1));
            let networks = actors.zip(actor_outputs).zip(critics.zip(critic_outputs));
            let groups = networks.enumerate().map(|(i, (actor, critic))| Group {
                samples: samples.starting_at(i * rows),
                actor,
                critic,
                grads: targets.next().unwrap_or_default(),
                d_log_std: d_log_stds.next().unwrap_or_default(),
            });
            let mut work: SmallVec<[(Option<Group<'_>>, Sums); GROUPS]> =
                groups.map(|group| (Some(group), Sums::default())).collect();
            let run = |(group, sums): &mut (Option<Group<'_>>, Sums)| {
                if let Some(group) = group.take() {
                    *sums = group.gradient(op, params, boundary);
                }
            };
            if parallel {
                work.par_iter_mut().for_each(run);
            } else {
                work.iter_mut().for_each(run);
            }
            let sums = work.iter().map(|(_, sums)| *sums).sum::<Sums>();
            drop(work);
            for other in others.chunks_exact(len) {
                vectorised!({
                    for (sum, &g) in grads.iter_mut().zip(other) {
                        *sum += g;
                    }
                });
            }
            for (d, gradient) in grads[log_std.clone()].iter_mut().enumerate() {
                let parts = d_log_std.iter().skip(d).step_by(log_std.len());
                *gradient = (parts.sum::<f64>() - op.ent_coef) as f32;
            }
            sums
        })
    })
}
