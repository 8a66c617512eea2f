//! On wgpu: small networks and few samples have kernels of their own, others go layer by layer.

use super::buffers::gathered;
use super::{
    ActorCriticOps, Drawn, Head, Minibatch, MinibatchRows, Parameters, RolloutRows, Rows, Trace, TrainState, check, compose_act,
    compose_minibatch_step,
};
use crate::backend::{Gpu, Variant};
use crate::error::Result;
use crate::gpu::{Buffer, bind};
use crate::kernels::actor_critic::{ActorCritic, ByTile, Form, MinibatchStep};
use crate::kernels::policy::{CategoricalSampleOperands, GaussianSampleOperands};

impl Gpu {
    /// Whether `form` is asked for or, where none is, may be taken: a software adapter runs a workgroup's invocations in turn, to which tiles bring nothing.
    pub(super) fn takes(&self, form: Form) -> bool {
        match (self.variant, self.fused_form) {
            (Variant::Plain, _) => false,
            (_, Some(wanted)) => wanted == form,
            (_, None) => form == Form::ByLayer || !self.context.is_software(),
        }
    }

    fn plan_by_tile(&self, networks: &ActorCritic, batch: usize, log_std_offset: Option<usize>) -> Option<ByTile> {
        if !self.takes(Form::ByTile) {
            return None;
        }
        ByTile::new(&self.context, networks, batch, log_std_offset)
    }

    /// The packed copy of parameters, made anew where they have changed.
    fn packed(&mut self, plan: &ByTile, params: &mut Parameters<Buffer<f32>>) -> Result<Buffer<f32>> {
        let kept = params.packed.buffer.take().filter(|kept| kept.len() >= plan.packed_len());
        let is_current = kept.is_some() && params.packed.layout.as_ref() == Some(plan.layout());
        let packed = match kept {
            Some(kept) => kept,
            None => self.context.alloc(plan.packed_len())?,
        };
        if !is_current {
            plan.record_pack(&mut self.context, params.flat(), &packed)?;
            params.packed.layout = Some(plan.layout().clone());
        }
        params.packed.buffer = Some(packed.clone());
        Ok(packed)
    }
}

impl ActorCriticOps for Gpu {
    /// In one dispatch, or layer by layer.
    fn act(
        &mut self,
        networks: &ActorCritic,
        params: &mut Parameters<Buffer<f32>>,
        x: &Rows<'_, Buffer<f32>>,
        rows: RolloutRows<'_, Buffer<f32>, Buffer<u32>>,
        traces: &mut [Trace<Buffer<f32>>; 2],
    ) -> Result<()> {
        let (width, batch, log_std_offset) = match &rows.drawn {
            Drawn::Categorical(policy, _) => (policy.actions, policy.batch, None),
            Drawn::Gaussian(policy, _) => (policy.dim, policy.batch, Some(policy.log_std_offset)),
        };
        let plan = self.plan_by_tile(networks, x.count, log_std_offset);
        let Some(plan) = plan.filter(|plan| plan.width() == width && batch == x.count) else {
            return compose_act(self, networks, params.flat(), x, rows, traces);
        };
        let output = traces[0].head();
        let RolloutRows { first, noise, drawn, logp, values } = rows;
        for (layers, last) in [(&networks.actor, (output.len(), 0)), (&networks.critic, (values.len(), first))] {
            for (i, layer) in layers.iter().enumerate() {
                let linear = layer.with_batch(x.count);
                let between = |features: usize| (x.count * features, 0);
                let input = if i == 0 { (x.buffer.len(), x.offset) } else { between(linear.in_features) };
                let output = if i + 1 == layers.len() { last } else { between(linear.out_features) };
                linear.check_forward_lens(input, params.flat().len(), None, output)?;
            }
        }
        let drawn = match drawn {
            Drawn::Categorical(policy, actions) => {
                let uniforms = noise;
                policy.check_sample(&CategoricalSampleOperands {
                    logits: output,
                    mask: None,
                    uniforms,
                    offset: first,
                    actions,
                    logp,
                })?;
                actions.clone()
            }
            Drawn::Gaussian(policy, actions) => {
                let (mean, log_std, offset) = (output, params.flat(), first);
                policy.check_sample(&GaussianSampleOperands { mean, log_std, noise, offset, actions, logp })?;
                actions.cast()
            }
        };
        let packed = self.packed(&plan, params)?;
        let observations = (x.buffer, x.offset);
        plan.record_act(&mut self.context, &packed, observations, (noise, first), [output, values, logp], &drawn)
    }

    /// In three dispatches, or layer by layer.
    fn minibatch_step(
        &mut self,
        networks: &ActorCritic,
        step: &MinibatchStep,
        rows: &MinibatchRows<'_, Buffer<f32>, Buffer<u32>>,
        minibatch: &mut Minibatch<Buffer<f32>, Buffer<u32>>,
        state: &mut TrainState<Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        let MinibatchStep { loss, norm, adam, tensor, .. } = step;
        let (width, actions, log_std_offset) = match rows.head {
            Head::Categorical(policy, actions) => (policy.actions, actions.clone(), None),
            Head::Gaussian(policy, actions) => (policy.dim, actions.cast(), Some(policy.log_std_offset)),
        };
        // One pass over all parameters, and one row of statistics.
        let is_whole = |len: usize, row: usize, plan: &ByTile| len == plan.parameters() && row == loss.stats_row;
        let fits = |plan: &ByTile| {
            let whole = is_whole(norm.len, norm.stats_row, plan) && is_whole(adam.len, adam.stats_row, plan);
            whole && plan.width() == width && *tensor != 0
        };
        let plan = self.plan_by_tile(networks, loss.batch, log_std_offset).filter(fits);
        let Some(plan) = plan else {
            return match self.plan_by_layer(networks, step, &rows.head) {
                Some(plan) => self.step_by_layer(&plan, networks, step, rows, minibatch, state),
                None => compose_minibatch_step(self, networks, step, rows, minibatch, state),
            };
        };
        let Minibatch { observations, actions: room, samples, actor, critic } = minibatch;
        let inputs = gathered(observations, room, samples, rows.head)?;
        check(networks, loss, state.params.flat(), &inputs, actor, critic, &state.grads, &state.stats)?;
        let gather = rows.check(networks, loss.batch)?;
        let lens = [state.params.flat(), &state.grads, &state.m, &state.v].map(Buffer::len);
        step.check_optimizer(lens, [state.schedule.len(), state.stats.len(), state.control.len()])?;

        let packed = self.packed(&plan, &mut state.params)?;
        let TrainState { params, m, v, grads, schedule, stats, control } = state;
        let inputs = [
            bind("observations", rows.observations),
            bind("actions", &actions),
            bind("samples", rows.samples),
            bind("indices", rows.indices),
        ];
        let outputs = [bind("output", actor.head()), bind("values", critic.head())];
        plan.record_step(
            &mut self.context,
            step,
            (&gather, rows.first_sample),
            inputs,
            outputs,
            &packed,
            [params.flat(), m, v, grads],
            (schedule, stats, control),
        )
    }
}
