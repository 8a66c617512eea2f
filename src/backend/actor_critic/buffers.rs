//! What the operations on both networks read and write.

use crate::backend::{Length, Memory};
use crate::error::{Error, Result};
use crate::kernels::actor_critic::{ActorCritic, Layer, PackedLayout};
use crate::kernels::gather::Gather;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::layout::{control, sample, schedule, stat};
use crate::reference::actor_critic as reference;
use crate::shape::{elements, require_len, require_size};

/// What a forward pass leaves behind, for up to a number of rows: one entry a layer.
#[derive(Debug)]
pub struct Trace<F> {
    /// Outputs `[rows, out]`.
    pub(super) outputs: Vec<F>,
    /// Pre-activations, where the activation's derivative needs them.
    pub(super) pre: Vec<Option<F>>,
    /// Gradients with respect to the pre-activations `[rows, out]`.
    pub(super) d_pre: Vec<F>,
}

impl<F> Trace<F> {
    /// Room for `rows` rows through `layers`.
    ///
    /// # Errors
    /// No layer; those of the backend's allocations.
    pub fn new<B: Memory<Floats = F>>(backend: &mut B, layers: &[Layer], rows: usize) -> Result<Self> {
        require_size("layers", layers.len())?;
        let mut trace = Self { outputs: Vec::new(), pre: Vec::new(), d_pre: Vec::new() };
        for layer in layers {
            let len = rows * layer.linear.out_features;
            trace.outputs.push(backend.alloc_floats(len)?);
            trace.d_pre.push(backend.alloc_floats(len)?);
            let needs_pre = layer.activation.needs_pre_activation();
            trace.pre.push(if needs_pre { Some(backend.alloc_floats(len)?) } else { None });
        }
        Ok(trace)
    }

    /// Refuses a network of another depth than the one this was made for.
    pub(super) fn require_depth(&self, layers: &[Layer]) -> Result<()> {
        if layers.len() == self.outputs.len() {
            return Ok(());
        }
        Err(Error::shape("layers", format!("{}, as the trace has", self.outputs.len()), layers.len()))
    }

    /// The network's output `[rows, out]`.
    pub fn head(&self) -> &F {
        &self.outputs[self.outputs.len() - 1]
    }

    /// The network's output, whose activation is the identity, and its gradient.
    pub fn head_and_gradient(&mut self) -> (&F, &mut F) {
        let last = self.outputs.len() - 1;
        (&self.outputs[last], &mut self.d_pre[last])
    }
}

impl<T> Trace<Vec<T>> {
    pub(super) fn pass<'a>(&'a mut self, layers: &'a [Layer]) -> reference::Pass<'a, T> {
        reference::Pass { layers, outputs: &mut self.outputs, pre: &mut self.pre, d_pre: &mut self.d_pre }
    }
}

/// A matrix `[rows, columns]` inside a buffer, from element `offset` on.
#[derive(Debug)]
pub struct Rows<'a, F> {
    /// The buffer.
    pub buffer: &'a F,
    /// First element.
    pub offset: usize,
    /// Rows.
    pub count: usize,
}

/// The distribution at the end of the actor, and the actions `[batch]` or `[batch, dim]` taken.
#[derive(Debug)]
pub enum Head<'a, F, W> {
    /// Logits of a categorical distribution.
    Categorical(Categorical, &'a W),
    /// Means of a Gaussian one, whose log-std (not state-dependent) is in the parameter buffer; its gradient goes to the same place.
    Gaussian(Gaussian, &'a F),
}

impl<F, W> Clone for Head<'_, F, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, W> Copy for Head<'_, F, W> {}

/// The distribution at the end of the actor, and the buffer that takes the actions drawn from it, as those of [`Head`].
#[derive(Debug)]
pub enum Drawn<'a, F, W> {
    /// From logits.
    Categorical(Categorical, &'a mut W),
    /// From means.
    Gaussian(Gaussian, &'a mut F),
}

/// Where a step of a rollout comes from and goes: rows `first` on of `[first + batch or more]`.
#[derive(Debug)]
pub struct RolloutRows<'a, F, W> {
    /// The first row.
    pub first: usize,
    /// Uniform numbers in [0, 1) `[rows]` for a categorical policy, standard normal ones `[rows, dim]` for a Gaussian one.
    pub noise: &'a F,
    /// Takes the actions.
    pub drawn: Drawn<'a, F, W>,
    /// Takes their log-probabilities.
    pub logp: &'a mut F,
    /// Takes the critic's output.
    pub values: &'a mut F,
}

/// Parameters of both networks and the policy, flat, and the copy that a backend may have packed of them to read them faster.
#[derive(Debug)]
pub struct Parameters<F> {
    flat: F,
    pub(super) packed: Packed<F>,
}

/// A packed copy.
#[derive(Debug)]
#[cfg_attr(not(feature = "gpu"), expect(dead_code))] // no other backend packs
pub(super) struct Packed<F> {
    pub(super) buffer: Option<F>,
    /// How the buffer is laid out, where it holds the same parameters as the flat one.
    pub(super) layout: Option<PackedLayout>,
}

impl<F> Parameters<F> {
    /// Of a buffer.
    pub fn new(flat: F) -> Self {
        Self { flat, packed: Packed { buffer: None, layout: None } }
    }

    /// The buffer.
    pub fn flat(&self) -> &F {
        &self.flat
    }

    /// The buffer alone.
    pub fn into_flat(self) -> F {
        self.flat
    }

    /// The buffer, to be written. A buffer that shares its memory must not be written behind this one's back.
    pub fn flat_mut(&mut self) -> &mut F {
        self.packed.layout = None;
        &mut self.flat
    }
}

/// Everything that minibatch steps read and change.
#[derive(Debug)]
pub struct TrainState<F, W> {
    /// `[len]`.
    pub params: Parameters<F>,
    /// Adam's first moments `[len]`.
    pub m: F,
    /// Adam's second moments `[len]`.
    pub v: F,
    /// The last step's gradient before clipping `[len]`.
    pub grads: F,
    /// Learning rate and bias corrections, a [row](schedule) a step.
    pub schedule: F,
    /// A [row](stat) a step.
    pub stats: F,
    /// See [`control`].
    pub control: W,
}

impl<F, W> TrainState<F, W> {
    /// Room for `len` parameters, `steps` rows of the schedule and `rows` of statistics.
    ///
    /// # Errors
    /// Those of the backend's allocations.
    pub fn new<B>(backend: &mut B, len: usize, steps: usize, rows: usize) -> Result<Self>
    where
        B: Memory<Floats = F, Words = W>,
    {
        let [params, m, v, grads] = [(); 4].map(|()| backend.alloc_floats(len));
        Ok(Self {
            params: Parameters::new(params?),
            m: m?,
            v: v?,
            grads: grads?,
            schedule: backend.alloc_floats(steps * schedule::COLUMNS)?,
            stats: backend.alloc_floats(rows * stat::COLUMNS)?,
            control: backend.upload_words(&control::INITIAL)?,
        })
    }
}

/// A gathered minibatch.
#[derive(Debug)]
pub struct MinibatchInputs<'a, F, W> {
    /// `[batch, observation_size]`.
    pub observations: &'a F,
    /// Policy and actions.
    pub head: Head<'a, F, W>,
    /// `[batch, 4]`, packed as [`sample`](crate::layout::sample) says.
    pub samples: &'a F,
}

/// Actions taken, `[rows]` or `[rows, dim]`.
#[derive(Debug)]
pub enum Actions<F, W> {
    /// Indices of a categorical policy.
    Discrete(W),
    /// Vectors of a Gaussian policy.
    Continuous(F),
}

/// Rows `indices[start..start + batch]` of a rollout, for a minibatch.
#[derive(Debug)]
pub struct MinibatchRows<'a, F, W> {
    /// `[start + batch or more]`.
    pub indices: &'a W,
    /// First index.
    pub start: usize,
    /// Rows of the rollout.
    pub rows: usize,
    /// `[rows, observation_size]`.
    pub observations: &'a F,
    /// Policy, for a whole minibatch, and the actions of all rows.
    pub head: Head<'a, F, W>,
    /// `[first_sample + batch or more, 4]`, packed as [`sample`] says in the order of the indices.
    pub samples: &'a F,
    /// The row of `samples` that belongs to the first index.
    pub first_sample: usize,
}

/// Room for a minibatch, and for what two networks make of it.
#[derive(Debug)]
pub struct Minibatch<F, W> {
    /// `[batch, observation_size]`.
    pub(super) observations: F,
    pub(super) actions: Actions<F, W>,
    /// `[batch, 4]`.
    pub(super) samples: F,
    /// Of the actor.
    pub actor: Trace<F>,
    /// Of the critic.
    pub critic: Trace<F>,
}

impl<F, W> Minibatch<F, W> {
    /// Room for `batch` rows, with the actions of a categorical or a Gaussian policy.
    ///
    /// # Errors
    /// No layer; those of the backend's allocations.
    pub fn new<B>(backend: &mut B, networks: &ActorCritic, is_categorical: bool, batch: usize) -> Result<Self>
    where
        B: Memory<Floats = F, Words = W>,
    {
        let (actor, critic) = (Trace::new(backend, &networks.actor, batch)?, Trace::new(backend, &networks.critic, batch)?);
        let [observation_size, width] = sizes(networks)?;
        Ok(Self {
            observations: backend.alloc_floats(batch * observation_size)?,
            actions: if is_categorical {
                Actions::Discrete(backend.alloc_words(batch)?)
            } else {
                Actions::Continuous(backend.alloc_floats(batch * width)?)
            },
            samples: backend.alloc_floats(batch * sample::COLUMNS)?,
            actor,
            critic,
        })
    }
}

/// Inputs and outputs of the actor.
pub(super) fn sizes(networks: &ActorCritic) -> Result<[usize; 2]> {
    let (Some(first), Some(last)) = (networks.actor.first(), networks.actor.last()) else {
        return Err(Error::shape("layers", "at least 1", 0));
    };
    Ok([first.linear.in_features, last.linear.out_features])
}

/// What was gathered, for a policy of the kind that `head` is.
pub(super) fn gathered<'a, F, W>(
    observations: &'a F,
    actions: &'a Actions<F, W>,
    samples: &'a F,
    head: Head<'_, F, W>,
) -> Result<MinibatchInputs<'a, F, W>> {
    let head = match (head, actions) {
        (Head::Categorical(policy, _), Actions::Discrete(actions)) => Head::Categorical(policy, actions),
        (Head::Gaussian(policy, _), Actions::Continuous(actions)) => Head::Gaussian(policy, actions),
        _ => return Err(Error::value("minibatch", "room for the policy's kind of actions", "for the other kind")),
    };
    Ok(MinibatchInputs { observations, head, samples })
}

impl<F: Length, W: Length> MinibatchRows<'_, F, W> {
    /// Checks the buffers; returns how one column is gathered.
    pub(super) fn check(&self, networks: &ActorCritic, batch: usize) -> Result<Gather> {
        let [observation_size, width] = sizes(networks)?;
        require_size("rows", self.rows)?;
        let end = |argument, first: usize| {
            first.checked_add(batch).ok_or_else(|| Error::shape(argument, "an offset inside the buffer", first))
        };
        require_len("indices", self.indices.len(), end("start", self.start)?)?;
        let samples = elements("samples", end("first_sample", self.first_sample)?, sample::COLUMNS)?;
        require_len("samples", self.samples.len(), samples)?;
        require_len("observations", self.observations.len(), elements("observations", self.rows, observation_size)?)?;
        match self.head {
            Head::Categorical(_, actions) => require_len("actions", actions.len(), self.rows)?,
            Head::Gaussian(_, actions) => require_len("actions", actions.len(), elements("actions", self.rows, width)?)?,
        }
        Ok(Gather { rows: self.rows, width: 1, start: self.start, count: batch })
    }
}
