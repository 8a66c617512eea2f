//! Actor and critic at once: forward, loss and backward over a minibatch.

use super::{Cpu, CrossCheck, GatherOps, Length, LinearOps, Memory, NonfiniteOps, OptimizerOps, SurrogateOps};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{Buffer, bind};
#[cfg(feature = "gpu")]
use crate::kernels::actor_critic::Plan;
use crate::kernels::actor_critic::{ActorCritic, Layer};
use crate::kernels::gather::Gather;
use crate::kernels::optimizer::GradientNorm;
#[cfg(feature = "gpu")]
use crate::kernels::optimizer::control;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{Surrogate, sample};
use crate::real::Real;
use crate::reference::actor_critic as reference;
use crate::shape::{elements, require_len, require_size};

/// What a forward pass leaves behind, for up to a number of rows: one entry a layer.
#[derive(Debug)]
pub struct Trace<F> {
    /// Outputs `[rows, out]`.
    outputs: Vec<F>,
    /// Pre-activations, where the activation's derivative needs them.
    pre: Vec<Option<F>>,
    /// Gradients with respect to the pre-activations `[rows, out]`.
    d_pre: Vec<F>,
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
    fn require_depth(&self, layers: &[Layer]) -> Result<()> {
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
    fn pass<'a>(&'a mut self, layers: &'a [Layer]) -> reference::Pass<'a, T> {
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

/// A gathered minibatch.
#[derive(Debug)]
pub struct MinibatchInputs<'a, F, W> {
    /// `[batch, observation_size]`.
    pub observations: &'a F,
    /// Policy and actions.
    pub head: Head<'a, F, W>,
    /// `[batch, 4]`, packed as [`sample`](crate::kernels::surrogate::sample) says.
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
    observations: F,
    actions: Actions<F, W>,
    /// `[batch, 4]`.
    samples: F,
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
fn sizes(networks: &ActorCritic) -> Result<[usize; 2]> {
    let (Some(first), Some(last)) = (networks.actor.first(), networks.actor.last()) else {
        return Err(Error::shape("layers", "at least 1", 0));
    };
    Ok([first.linear.in_features, last.linear.out_features])
}

/// Both networks at once.
pub trait ActorCriticOps: LinearOps + SurrogateOps + GatherOps + OptimizerOps + NonfiniteOps {
    /// Forward through both networks: the actor's output into its trace, the critic's into `values` from element `values_offset` on. What
    /// else is in the traces is the backend's affair.
    ///
    /// # Errors
    /// As [`linear_forward`](LinearOps::linear_forward).
    fn evaluate(
        &mut self,
        networks: &ActorCritic,
        params: &Self::Floats,
        x: &Rows<'_, Self::Floats>,
        actor: &mut Trace<Self::Floats>,
        critic: &mut Trace<Self::Floats>,
        values: &mut Self::Floats,
        values_offset: usize,
    ) -> Result<()> {
        forward(self, &networks.actor, params, x, actor, None)?;
        forward(self, &networks.critic, params, x, critic, Some((values, values_offset)))
    }

    /// Forward through both networks, loss, and backward: the gradient of the mean loss with respect to all parameters into `grads`, the
    /// row of statistics, and in both traces the networks' outputs with their gradients. What else is in the traces is the backend's affair.
    ///
    /// # Errors
    /// As [`linear_forward`](LinearOps::linear_forward) and [`surrogate`](SurrogateOps::surrogate).
    fn minibatch_gradient(
        &mut self,
        networks: &ActorCritic,
        op: &Surrogate,
        params: &Self::Floats,
        inputs: &MinibatchInputs<'_, Self::Floats, Self::Words>,
        actor: &mut Trace<Self::Floats>,
        critic: &mut Trace<Self::Floats>,
        grads: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()> {
        compose_minibatch_gradient(self, networks, op, params, inputs, actor, critic, grads, stats)
    }

    /// A step of learning up to the optimiser: gathers a minibatch, makes its gradient as
    /// [`minibatch_gradient`](Self::minibatch_gradient) does, [looks for NaN](NonfiniteOps::find_nonfinite) in it and reports them as
    /// `tensor`, and makes its [norm and clip factor](OptimizerOps::gradient_norm). Leaves the networks' outputs in the traces of `minibatch`;
    /// what else is there is the backend's affair.
    ///
    /// # Errors
    /// Those of these operations.
    fn clipped_gradient(
        &mut self,
        networks: &ActorCritic,
        op: &Surrogate,
        norm: &GradientNorm,
        tensor: u32,
        params: &Self::Floats,
        rows: &MinibatchRows<'_, Self::Floats, Self::Words>,
        minibatch: &mut Minibatch<Self::Floats, Self::Words>,
        grads: &mut Self::Floats,
        stats: &mut Self::Floats,
        control: &mut Self::Words,
    ) -> Result<()> {
        compose_clipped_gradient(self, networks, op, norm, tensor, params, rows, minibatch, grads, stats, control)
    }
}

#[cfg(feature = "gpu")]
impl Gpu {
    fn plan(&self, networks: &ActorCritic, batch: usize, log_std_offset: Option<usize>) -> Option<Plan> {
        match self.variant {
            Variant::Plain => None,
            Variant::Auto | Variant::Fast => Plan::new(&self.context, networks, batch, log_std_offset),
        }
    }
}

#[cfg(feature = "gpu")]
impl ActorCriticOps for Gpu {
    /// Small networks and few rows in two dispatches, others layer by layer.
    fn evaluate(
        &mut self,
        networks: &ActorCritic,
        params: &Buffer<f32>,
        x: &Rows<'_, Buffer<f32>>,
        actor: &mut Trace<Buffer<f32>>,
        critic: &mut Trace<Buffer<f32>>,
        values: &mut Buffer<f32>,
        values_offset: usize,
    ) -> Result<()> {
        let Some(plan) = self.plan(networks, x.count, None) else {
            forward(self, &networks.actor, params, x, actor, None)?;
            return forward(self, &networks.critic, params, x, critic, Some((values, values_offset)));
        };
        let output = actor.head();
        for (layers, last) in [(&networks.actor, (output.len(), 0)), (&networks.critic, (values.len(), values_offset))] {
            for (i, layer) in layers.iter().enumerate() {
                let linear = layer.with_batch(x.count);
                let between = |features: usize| (x.count * features, 0);
                let input = if i == 0 { (x.buffer.len(), x.offset) } else { between(linear.in_features) };
                let output = if i + 1 == layers.len() { last } else { between(linear.out_features) };
                linear.check_forward(input, params.len(), None, output)?;
            }
        }
        plan.record_forward(&mut self.context, params, (x.buffer, x.offset), output, (values, values_offset))
    }

    /// Small networks and minibatches in five dispatches, others by the composition.
    fn clipped_gradient(
        &mut self,
        networks: &ActorCritic,
        op: &Surrogate,
        norm: &GradientNorm,
        tensor: u32,
        params: &Buffer<f32>,
        rows: &MinibatchRows<'_, Buffer<f32>, Buffer<u32>>,
        minibatch: &mut Minibatch<Buffer<f32>, Buffer<u32>>,
        grads: &mut Buffer<f32>,
        stats: &mut Buffer<f32>,
        control: &mut Buffer<u32>,
    ) -> Result<()> {
        let (width, actions, log_std_offset) = match rows.head {
            Head::Categorical(policy, actions) => (policy.actions, actions.clone(), None),
            Head::Gaussian(policy, actions) => (policy.dim, actions.cast(), Some(policy.log_std_offset)),
        };
        // The norm is that of all parameters, and goes to the row of the loss.
        let fits =
            |plan: &Plan| plan.width() == width && norm.len == plan.parameters() && norm.stats_row == op.stats_row && tensor != 0;
        let Some(plan) = self.plan(networks, op.batch, log_std_offset).filter(fits) else {
            return compose_clipped_gradient(self, networks, op, norm, tensor, params, rows, minibatch, grads, stats, control);
        };
        let Minibatch { observations, actions: room, samples, actor, critic } = minibatch;
        check(networks, op, params, &gathered(observations, room, samples, rows.head)?, actor, critic, grads, stats)?;
        let gather = rows.check(networks, op.batch)?;
        norm.check(grads.len(), stats.len())?;
        require_len("control", control.len(), control::WORDS)?;
        let inputs = [bind(2, rows.observations), bind(3, &actions), bind(4, rows.samples), bind(7, rows.indices)];
        let outputs = [bind(6, actor.head()), bind(8, critic.head())];
        let loss = (op, norm, tensor);
        plan.record_gradient(
            &mut self.context,
            loss,
            params,
            (&gather, rows.first_sample),
            inputs,
            outputs,
            (grads, stats, control),
        )
    }
}

/// Operation by operation, so that each is compared.
impl<A: ActorCriticOps, B: ActorCriticOps> ActorCriticOps for CrossCheck<A, B> {}

impl<T: Real> ActorCriticOps for Cpu<T> {
    fn minibatch_gradient(
        &mut self,
        networks: &ActorCritic,
        op: &Surrogate,
        params: &Vec<T>,
        inputs: &MinibatchInputs<'_, Vec<T>, Vec<u32>>,
        actor: &mut Trace<Vec<T>>,
        critic: &mut Trace<Vec<T>>,
        grads: &mut Vec<T>,
        stats: &mut Vec<T>,
    ) -> Result<()> {
        check(networks, op, params, inputs, actor, critic, grads, stats)?;
        let MinibatchInputs { observations, head, samples } = inputs;
        let head = match head {
            Head::Categorical(policy, actions) => reference::Head::Categorical(policy.actions, actions),
            Head::Gaussian(policy, actions) => reference::Head::Gaussian(*policy, actions),
        };
        let actor = actor.pass(&networks.actor);
        let critic = critic.pass(&networks.critic);
        reference::minibatch_gradient(networks, op, params, observations, head, samples, actor, critic, grads, stats);
        Ok(())
    }
}

/// Checks the buffers of a whole minibatch.
fn check<F: Length, W: Length>(
    networks: &ActorCritic,
    op: &Surrogate,
    params: &F,
    inputs: &MinibatchInputs<'_, F, W>,
    actor: &Trace<F>,
    critic: &Trace<F>,
    grads: &F,
    stats: &F,
) -> Result<()> {
    for (layers, trace) in [(&networks.actor, actor), (&networks.critic, critic)] {
        trace.require_depth(layers)?;
        let mut input = inputs.observations.len();
        for (layer, output) in layers.iter().zip(&trace.outputs) {
            let linear = layer.with_batch(op.batch);
            linear.check_forward((input, 0), params.len(), None, (output.len(), 0))?;
            linear.check_backward_params(output.len(), input, grads.len())?;
            input = output.len();
        }
    }
    let [(output, d_output), (values, d_values)] = [actor, critic].map(|trace| {
        let last = trace.outputs.len() - 1;
        (trace.outputs[last].len(), trace.d_pre[last].len())
    });
    let samples = inputs.samples.len();
    match inputs.head {
        Head::Categorical(policy, actions) => {
            let matrices = [("logits", output), ("d_logits", d_output)];
            op.check_categorical(&policy, &matrices, actions.len(), values, samples, d_values, stats.len())
        }
        Head::Gaussian(policy, actions) => {
            let matrices = [("mean", output), ("actions", actions.len()), ("d_mean", d_output)];
            let at = policy.log_std_offset;
            let log_stds = [("log_std", params.len(), at), ("d_log_std", grads.len(), at)];
            op.check_gaussian(&policy, matrices, log_stds, values, samples, d_values, stats.len())
        }
    }
}

/// [`minibatch_gradient`](ActorCriticOps::minibatch_gradient) by the backend's other operations: what it is checked against.
///
/// # Errors
/// The same.
pub fn compose_minibatch_gradient<B: LinearOps + SurrogateOps + ?Sized>(
    backend: &mut B,
    networks: &ActorCritic,
    op: &Surrogate,
    params: &B::Floats,
    inputs: &MinibatchInputs<'_, B::Floats, B::Words>,
    actor: &mut Trace<B::Floats>,
    critic: &mut Trace<B::Floats>,
    grads: &mut B::Floats,
    stats: &mut B::Floats,
) -> Result<()> {
    let &MinibatchInputs { observations, head, samples } = inputs;
    let x = Rows { buffer: observations, offset: 0, count: op.batch };
    forward(backend, &networks.actor, params, &x, actor, None)?;
    forward(backend, &networks.critic, params, &x, critic, None)?;
    let (values, d_values) = critic.head_and_gradient();
    let (output, d_output) = actor.head_and_gradient();
    match head {
        Head::Categorical(policy, actions) => {
            backend.surrogate_categorical(op, &policy, output, None, actions, values, samples, d_output, d_values, stats)?;
        }
        Head::Gaussian(policy, actions) => {
            let at = policy.log_std_offset;
            backend.surrogate_gaussian(
                op, &policy, output, params, actions, values, samples, d_output, grads, at, d_values, stats,
            )?;
        }
    }
    backward(backend, &networks.actor, params, observations, op.batch, actor, grads)?;
    backward(backend, &networks.critic, params, observations, op.batch, critic, grads)
}

/// What was gathered, for a policy of the kind that `head` is.
fn gathered<'a, F, W>(
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
    fn check(&self, networks: &ActorCritic, batch: usize) -> Result<Gather> {
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

/// [`clipped_gradient`](ActorCriticOps::clipped_gradient) by the backend's other operations: what it is checked against.
///
/// # Errors
/// The same.
pub fn compose_clipped_gradient<B: ActorCriticOps + ?Sized>(
    backend: &mut B,
    networks: &ActorCritic,
    op: &Surrogate,
    norm: &GradientNorm,
    tensor: u32,
    params: &B::Floats,
    rows: &MinibatchRows<'_, B::Floats, B::Words>,
    minibatch: &mut Minibatch<B::Floats, B::Words>,
    grads: &mut B::Floats,
    stats: &mut B::Floats,
    control: &mut B::Words,
) -> Result<()> {
    let gather = rows.check(networks, op.batch)?;
    let [observation_size, width] = sizes(networks)?;
    let of_width = |width| Gather { width, ..gather };
    backend.gather_floats(&of_width(observation_size), rows.observations, rows.indices, &mut minibatch.observations)?;
    match (rows.head, &mut minibatch.actions) {
        (Head::Categorical(_, source), Actions::Discrete(target)) => {
            backend.gather_words(&gather, source, rows.indices, target)?;
        }
        (Head::Gaussian(_, source), Actions::Continuous(target)) => {
            backend.gather_floats(&of_width(width), source, rows.indices, target)?;
        }
        // Refused below.
        _ => {}
    }
    let columns = sample::COLUMNS;
    backend.copy_floats(rows.samples, rows.first_sample * columns, &mut minibatch.samples, 0, op.batch * columns)?;
    let Minibatch { observations, actions, samples, actor, critic } = minibatch;
    let inputs = gathered(observations, actions, samples, rows.head)?;
    backend.minibatch_gradient(networks, op, params, &inputs, actor, critic, grads, stats)?;
    backend.find_nonfinite(tensor, norm.len, grads, control)?;
    backend.gradient_norm(norm, grads, stats)
}

/// y = network(x), kept layer by layer in `trace`. With `output` the last layer writes there instead, from an element on.
///
/// # Errors
/// As [`linear_forward`](LinearOps::linear_forward).
pub fn forward<B: LinearOps + ?Sized>(
    backend: &mut B,
    layers: &[Layer],
    params: &B::Floats,
    x: &Rows<'_, B::Floats>,
    trace: &mut Trace<B::Floats>,
    mut output: Option<(&mut B::Floats, usize)>,
) -> Result<()> {
    trace.require_depth(layers)?;
    for (i, layer) in layers.iter().enumerate() {
        let (below, here) = trace.outputs.split_at_mut(i);
        let (input, input_offset) = below.last().map_or((x.buffer, x.offset), |previous| (previous, 0));
        let (y, y_offset) = match &mut output {
            Some((buffer, offset)) if i + 1 == layers.len() => (&mut **buffer, *offset),
            _ => (&mut here[0], 0),
        };
        let (linear, pre) = (layer.with_batch(x.count), trace.pre[i].as_mut());
        backend.linear_forward(&linear, layer.activation, input, input_offset, params, pre, y, y_offset)?;
    }
    Ok(())
}

/// Gradients of all parameters of `layers` into `grads`, from the head's gradient in `trace`.
fn backward<B: LinearOps + ?Sized>(
    backend: &mut B,
    layers: &[Layer],
    params: &B::Floats,
    x: &B::Floats,
    rows: usize,
    trace: &mut Trace<B::Floats>,
    grads: &mut B::Floats,
) -> Result<()> {
    for (i, layer) in layers.iter().enumerate().rev() {
        let linear = layer.with_batch(rows);
        let (below, here) = trace.d_pre.split_at_mut(i);
        let input = if i == 0 { x } else { &trace.outputs[i - 1] };
        backend.linear_backward_params(&linear, &here[0], input, grads)?;
        if i > 0 {
            let saved = trace.pre[i - 1].as_ref().unwrap_or(&trace.outputs[i - 1]);
            let through = Some((layers[i - 1].activation, saved));
            backend.linear_backward_input(&linear, &here[0], params, through, &mut below[i - 1])?;
        }
    }
    Ok(())
}
