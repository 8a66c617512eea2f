//! A minibatch step on wgpu layer by layer: each layer is a product of its own, and one dispatch adds up all that stretches of the batch have left of all
//! parameters' gradients.

use super::buffers::gathered;
use super::{Head, Minibatch, MinibatchRows, TrainState, backward_with, check, gather_rows, outputs_and_loss};
use crate::backend::{Gpu, Memory};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::actor_critic::{ActorCritic, ByLayer, Form, MinibatchStep};
use crate::layout::sample;

/// Samples whose rows begin where a binding may.
const ALIGNED_SAMPLES: usize = 64 / sample::COLUMNS;

impl Gpu {
    /// Where that is asked for, or no form is.
    pub(super) fn plan_by_layer<F, W>(
        &self,
        networks: &ActorCritic,
        step: &MinibatchStep,
        head: &Head<'_, F, W>,
    ) -> Option<ByLayer> {
        if !self.takes(Form::ByLayer) {
            return None;
        }
        let log_std = match head {
            Head::Categorical(..) => None,
            Head::Gaussian(policy, _) => Some((policy.log_std_offset, policy.dim)),
        };
        ByLayer::new(&self.context, networks, step, log_std)
    }

    pub(super) fn step_by_layer(
        &mut self,
        plan: &ByLayer,
        networks: &ActorCritic,
        step: &MinibatchStep,
        rows: &MinibatchRows<'_, Buffer<f32>, Buffer<u32>>,
        minibatch: &mut Minibatch<Buffer<f32>, Buffer<u32>>,
        state: &mut TrainState<Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        let (batch, columns) = (step.loss.batch, sample::COLUMNS);
        let Minibatch { observations, actions, samples, actor, critic } = minibatch;
        gather_rows(self, networks, batch, rows, observations, actions)?;
        let own = if rows.first_sample.is_multiple_of(ALIGNED_SAMPLES) {
            rows.samples.slice(rows.first_sample * columns, batch * columns)
        } else {
            self.copy_floats(rows.samples, rows.first_sample * columns, samples, 0, batch * columns)?;
            samples.clone()
        };
        let inputs = gathered(observations, actions, &own, rows.head)?;
        let TrainState { params, m, v, grads, schedule, stats, control } = state;
        check(networks, &step.loss, params.flat(), &inputs, actor, critic, grads, stats)?;
        step.check_optimizer([params.flat(), grads, m, v].map(Buffer::len), [schedule.len(), stats.len(), control.len()])?;

        outputs_and_loss(self, networks, &step.loss, params.flat(), &inputs, [&mut *actor, &mut *critic], grads, stats)?;
        let parts = plan.parts(&mut self.context)?;
        for (first, layers, trace) in [(0, &networks.actor, actor), (networks.actor.len(), &networks.critic, critic)] {
            backward_with(self, layers, params.flat(), inputs.observations, batch, trace, |gpu, i, linear, d_pre, input| {
                let ways = gpu.ways(linear);
                plan.record_parts(&mut gpu.context, ways, (first + i, linear), [d_pre, input, grads, &parts])
            })?;
        }
        let state = [params.flat_mut(), m, v, grads].map(|buffer| &*buffer);
        plan.record_update(&mut self.context, step.max_kl, &parts, state, (schedule, stats, control))
    }
}
