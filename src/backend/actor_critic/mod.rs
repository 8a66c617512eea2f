//! Actor and critic at once: a step of a rollout, and a minibatch step of learning.

mod buffers;
#[cfg(feature = "gpu")]
mod by_layer;
#[cfg(feature = "gpu")]
mod gpu;

pub use buffers::{
    Actions, Drawn, Head, Minibatch, MinibatchInputs, MinibatchRows, Parameters, RolloutRows, Rows, Trace, TrainState,
};

use crate::kernels::optimizer::AdamOperands;
use buffers::{gathered, sizes};

use super::{Cpu, CrossCheck, GatherOps, Length, LinearOps, NonfiniteOps, OptimizerOps, PolicyOps, SurrogateOps};
use crate::cpu::actor_critic as cpu;
use crate::error::Result;
use crate::kernels::actor_critic::{ActorCritic, Layer, MinibatchStep};
use crate::kernels::gather::Gather;
use crate::kernels::linear::{ForwardOperands, Linear};
use crate::kernels::nonfinite::Watched;
use crate::kernels::policy::{CategoricalSampleOperands, GaussianSampleOperands};
use crate::kernels::surrogate::{CategoricalOperands, GaussianOperands, Surrogate};
use crate::layout::sample;

/// Both networks at once.
pub trait ActorCriticOps: LinearOps + PolicyOps + SurrogateOps + GatherOps + OptimizerOps + NonfiniteOps {
    /// A step of a rollout: both networks over the observations `x`, actions drawn from the actor's output with the noise of `rows`, their
    /// log-probabilities, and the critic's values. Leaves the actor's output in its trace; what else is in the traces of actor and critic is
    /// the backend's affair.
    ///
    /// # Errors
    /// As [`linear_forward`](LinearOps::linear_forward), [`categorical_sample`](PolicyOps::categorical_sample) and
    /// [`gaussian_sample`](PolicyOps::gaussian_sample).
    fn act(
        &mut self,
        networks: &ActorCritic,
        params: &mut Parameters<Self::Floats>,
        x: &Rows<'_, Self::Floats>,
        rows: RolloutRows<'_, Self::Floats, Self::Words>,
        traces: &mut [Trace<Self::Floats>; 2],
    ) -> Result<()> {
        compose_act(self, networks, params.flat(), x, rows, traces)
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

    /// A step of learning: gathers a minibatch, makes its gradient as [`minibatch_gradient`](Self::minibatch_gradient) does,
    /// [stops](SurrogateOps::stop_on_kl) where approx_kl is beyond the limit, else [looks for NaN](NonfiniteOps::find_nonfinite) in the gradient, makes
    /// its [norm and clip factor](OptimizerOps::gradient_norm), and takes a [step of Adam](OptimizerOps::adam_step). Leaves the networks' outputs in
    /// the traces of `minibatch`; what else is there is the backend's affair.
    ///
    /// # Errors
    /// Those of these operations.
    fn minibatch_step(
        &mut self,
        networks: &ActorCritic,
        step: &MinibatchStep,
        rows: &MinibatchRows<'_, Self::Floats, Self::Words>,
        minibatch: &mut Minibatch<Self::Floats, Self::Words>,
        state: &mut TrainState<Self::Floats, Self::Words>,
    ) -> Result<()> {
        compose_minibatch_step(self, networks, step, rows, minibatch, state)
    }
}

/// Operation by operation, so that each is compared.
impl<A: ActorCriticOps, B: ActorCriticOps> ActorCriticOps for CrossCheck<A, B> {}

/// The oracle composes.
impl ActorCriticOps for Cpu<f64> {}

impl ActorCriticOps for Cpu<f32> {
    fn minibatch_gradient(
        &mut self,
        networks: &ActorCritic,
        op: &Surrogate,
        params: &Vec<f32>,
        inputs: &MinibatchInputs<'_, Vec<f32>, Vec<u32>>,
        actor: &mut Trace<Vec<f32>>,
        critic: &mut Trace<Vec<f32>>,
        grads: &mut Vec<f32>,
        stats: &mut Vec<f32>,
    ) -> Result<()> {
        check(networks, op, params, inputs, actor, critic, grads, stats)?;
        let MinibatchInputs { observations, head, samples } = inputs;
        let head = match head {
            Head::Categorical(policy, actions) => cpu::Head::Categorical(policy.actions, actions),
            Head::Gaussian(policy, actions) => cpu::Head::Gaussian(*policy, actions),
        };
        let actor = actor.pass(&networks.actor);
        let critic = critic.pass(&networks.critic);
        cpu::minibatch_gradient(networks, op, params, observations, head, samples, actor, critic, grads, stats);
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
            linear.check_forward_lens((input, 0), params.len(), None, (output.len(), 0))?;
            linear.check_backward_params(output.len(), input, grads.len())?;
            input = output.len();
        }
    }
    // Of buffers that are elsewhere, their lengths.
    let [(output, mut d_output), (values, mut d_values)] = [actor, critic].map(|trace| {
        let last = trace.outputs.len() - 1;
        (trace.outputs[last].len(), trace.d_pre[last].len())
    });
    let (samples, mut d_log_std, mut stats) = (inputs.samples.len(), grads.len(), stats.len());
    let (samples, values, d_values, stats) = (&samples, &values, &mut d_values, &mut stats);
    match inputs.head {
        Head::Categorical(policy, actions) => {
            let (logits, actions, d_logits) = (&output, &actions.len(), &mut d_output);
            let mask = None;
            let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
            op.check_categorical(&policy, &operands)
        }
        Head::Gaussian(policy, actions) => {
            let operands = GaussianOperands {
                mean: &output,
                log_std: &params.len(),
                actions: &actions.len(),
                values,
                samples,
                d_mean: &mut d_output,
                d_log_std: &mut d_log_std,
                d_log_std_offset: policy.log_std_offset,
                d_values,
                stats,
            };
            op.check_gaussian(&policy, &operands)
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
    outputs_and_loss(backend, networks, op, params, inputs, [&mut *actor, &mut *critic], grads, stats)?;
    backward(backend, &networks.actor, params, inputs.observations, op.batch, actor, grads)?;
    backward(backend, &networks.critic, params, inputs.observations, op.batch, critic, grads)
}

/// Forward through both networks, and the loss: leaves the gradients of their outputs in the traces, and that of a log-std in `grads`.
fn outputs_and_loss<B: LinearOps + SurrogateOps + ?Sized>(
    backend: &mut B,
    networks: &ActorCritic,
    op: &Surrogate,
    params: &B::Floats,
    inputs: &MinibatchInputs<'_, B::Floats, B::Words>,
    [actor, critic]: [&mut Trace<B::Floats>; 2],
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
            let (logits, mask, d_logits) = (output, None, d_output);
            let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
            backend.surrogate_categorical(op, &policy, operands)
        }
        Head::Gaussian(policy, actions) => {
            let (mean, log_std, d_mean, d_log_std) = (output, params, d_output, grads);
            let d_log_std_offset = policy.log_std_offset;
            let operands = GaussianOperands {
                mean,
                log_std,
                actions,
                values,
                samples,
                d_mean,
                d_log_std,
                d_log_std_offset,
                d_values,
                stats,
            };
            backend.surrogate_gaussian(op, &policy, operands)
        }
    }
}

fn compose_act<B: LinearOps + PolicyOps + ?Sized>(
    backend: &mut B,
    networks: &ActorCritic,
    params: &B::Floats,
    x: &Rows<'_, B::Floats>,
    rows: RolloutRows<'_, B::Floats, B::Words>,
    [actor, critic]: &mut [Trace<B::Floats>; 2],
) -> Result<()> {
    let RolloutRows { first, noise, drawn, logp, values } = rows;
    forward(backend, &networks.actor, params, x, actor, None)?;
    forward(backend, &networks.critic, params, x, critic, Some((values, first)))?;
    match drawn {
        Drawn::Categorical(policy, actions) => {
            let (logits, uniforms, offset) = (actor.head(), noise, first);
            backend.categorical_sample(&policy, CategoricalSampleOperands { logits, mask: None, uniforms, offset, actions, logp })
        }
        Drawn::Gaussian(policy, actions) => {
            let (mean, log_std, offset) = (actor.head(), params, first);
            backend.gaussian_sample(&policy, GaussianSampleOperands { mean, log_std, noise, offset, actions, logp })
        }
    }
}

fn compose_minibatch_step<B: ActorCriticOps + ?Sized>(
    backend: &mut B,
    networks: &ActorCritic,
    step: &MinibatchStep,
    rows: &MinibatchRows<'_, B::Floats, B::Words>,
    minibatch: &mut Minibatch<B::Floats, B::Words>,
    state: &mut TrainState<B::Floats, B::Words>,
) -> Result<()> {
    let batch = step.loss.batch;
    gather_rows(backend, networks, batch, rows, &mut minibatch.observations, &mut minibatch.actions)?;
    let columns = sample::COLUMNS;
    backend.copy_floats(rows.samples, rows.first_sample * columns, &mut minibatch.samples, 0, batch * columns)?;
    let Minibatch { observations, actions, samples, actor, critic } = minibatch;
    let inputs = gathered(observations, actions, samples, rows.head)?;
    let TrainState { params, m, v, grads, schedule, stats, control } = state;
    backend.minibatch_gradient(networks, &step.loss, params.flat(), &inputs, actor, critic, grads, stats)?;
    // First, so that nobody looks at the gradient of a step that is left out.
    if let Some(max_kl) = step.max_kl {
        backend.stop_on_kl(max_kl, step.loss.stats_row, stats, control)?;
    }
    backend.find_nonfinite(&[Watched { tensor: step.tensor, len: step.norm.len, x: grads }], control)?;
    backend.gradient_norm(&step.norm, grads, stats)?;
    backend.adam_step(&step.adam, AdamOperands { params: params.flat_mut(), grads, m, v, schedule, stats, control })
}

/// A minibatch's observations and actions, where there is room for their kind.
fn gather_rows<B: GatherOps + ?Sized>(
    backend: &mut B,
    networks: &ActorCritic,
    batch: usize,
    rows: &MinibatchRows<'_, B::Floats, B::Words>,
    observations: &mut B::Floats,
    actions: &mut Actions<B::Floats, B::Words>,
) -> Result<()> {
    let gather = rows.check(networks, batch)?;
    let [observation_size, width] = sizes(networks)?;
    let of_width = |width| Gather { width, ..gather };
    backend.gather_floats(&of_width(observation_size), rows.observations, rows.indices, observations)?;
    match (rows.head, actions) {
        (Head::Categorical(_, source), Actions::Discrete(target)) => backend.gather_words(&gather, source, rows.indices, target),
        (Head::Gaussian(_, source), Actions::Continuous(target)) => {
            backend.gather_floats(&of_width(width), source, rows.indices, target)
        }
        // Refused by `gathered`.
        _ => Ok(()),
    }
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
        backend.linear_forward(
            &linear,
            layer.activation,
            ForwardOperands { x: input, x_offset: input_offset, params, pre, y, y_offset },
        )?;
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
    backward_with(backend, layers, params, x, rows, trace, |backend, _, linear, d_pre, input| {
        backend.linear_backward_params(linear, d_pre, input, grads)
    })
}

/// The gradients that go through `layers`; what becomes of those of layer `i`'s parameters, made of `d_pre` and its input, is said by `of_params`.
fn backward_with<B: LinearOps + ?Sized>(
    backend: &mut B,
    layers: &[Layer],
    params: &B::Floats,
    x: &B::Floats,
    rows: usize,
    trace: &mut Trace<B::Floats>,
    mut of_params: impl FnMut(&mut B, usize, &Linear, &B::Floats, &B::Floats) -> Result<()>,
) -> Result<()> {
    for (i, layer) in layers.iter().enumerate().rev() {
        let linear = layer.with_batch(rows);
        let (below, here) = trace.d_pre.split_at_mut(i);
        let input = if i == 0 { x } else { &trace.outputs[i - 1] };
        of_params(backend, i, &linear, &here[0], input)?;
        if i > 0 {
            let saved = trace.pre[i - 1].as_ref().unwrap_or(&trace.outputs[i - 1]);
            let through = Some((layers[i - 1].activation, saved));
            backend.linear_backward_input(&linear, &here[0], params, through, &mut below[i - 1])?;
        }
    }
    Ok(())
}
