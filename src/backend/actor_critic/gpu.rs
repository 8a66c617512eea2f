//! On wgpu: small networks and few samples have kernels of their own, others go layer by layer.

use super::buffers::{Packed, gathered};
use super::{
    ActorCriticOps, Drawn, Head, Minibatch, MinibatchRows, Parameters, RolloutRows, Rows, Trace, TrainState, check, compose_act,
    compose_minibatch_step,
};
use crate::backend::{Gpu, Variant};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, bind};
use crate::kernels::actor_critic::{ActorCritic, Form, MinibatchStep, Plan};

impl Gpu {
    fn plan(&self, networks: &ActorCritic, batch: usize, log_std_offset: Option<usize>) -> Option<Plan> {
        match self.variant {
            Variant::Plain => None,
            Variant::Auto | Variant::Fast => Plan::new(&self.context, networks, batch, log_std_offset, self.fused_form),
        }
    }

    /// The packed copy of parameters, made anew where they have changed.
    fn packed(&mut self, plan: &Plan, params: &mut Parameters<Buffer<f32>>) -> Result<Buffer<f32>> {
        let is_current = params.packed.layout.as_ref() == Some(plan.layout());
        if !is_current {
            params.require_flat()?;
        }
        let packed = self.room(&mut params.packed.now, plan)?;
        if !is_current {
            plan.record_pack(&mut self.context, params.flat(), &packed)?;
            params.packed.layout = Some(plan.layout().clone());
        }
        Ok(packed)
    }

    /// Parameters and moments packed, and room for what a step makes of them.
    fn packed_state(&mut self, plan: &Plan, state: &mut TrainState<Buffer<f32>, Buffer<u32>>) -> Result<[Buffer<f32>; 2]> {
        let now = self.packed(plan, &mut state.params)?;
        if !state.params.packed.is_ahead {
            plan.record_pack_moments(&mut self.context, [&state.m, &state.v], &now)?;
        }
        Ok([now, self.room(&mut state.params.packed.next, plan)?])
    }

    fn room(&mut self, kept: &mut Option<Buffer<f32>>, plan: &Plan) -> Result<Buffer<f32>> {
        let room = match kept.take().filter(|kept| kept.len() >= plan.packed_len()) {
            Some(kept) => kept,
            None => self.context.alloc(plan.packed_len())?,
        };
        Ok(kept.insert(room).clone())
    }

    /// What minibatch steps have left packed, for others to follow, into the state's buffers.
    fn unpack(
        &mut self,
        networks: &ActorCritic,
        log_std_offset: Option<usize>,
        state: &mut TrainState<Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        let TrainState { params, m, v, grads, .. } = state;
        let (true, Some(packed)) = (params.packed.is_ahead, &params.packed.now) else { return Ok(()) };
        let plan = Plan::new(&self.context, networks, 1, log_std_offset, Some(Form::BySubgroup));
        let plan = plan.filter(|plan| params.packed.layout.as_ref() == Some(plan.layout())).ok_or_else(|| {
            Error::value("networks", "those of the minibatch steps before, none of which was the last", "others")
        })?;
        plan.record_unpack(&mut self.context, packed, [params.flat(), m, v, grads])?;
        params.packed.is_ahead = false;
        Ok(())
    }
}

impl ActorCriticOps for Gpu {
    /// In one dispatch.
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
        let plan = self.plan(networks, x.count, log_std_offset);
        let Some(plan) = plan.filter(|plan| plan.width() == width && batch == x.count) else {
            params.require_flat()?;
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
                let lens = [("uniforms", noise.len()), ("actions", actions.len()), ("logp", logp.len())];
                policy.check_sample(None, output.len(), first, &lens)?;
                actions.clone()
            }
            Drawn::Gaussian(policy, actions) => {
                let lens = [("noise", noise.len()), ("actions", actions.len())];
                policy.check_sample(output.len(), params.flat().len(), first, &lens, logp.len())?;
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
        let is_whole = |len: usize, row: usize, plan: &Plan| len == plan.parameters() && row == loss.stats_row;
        let fits = |plan: &Plan| {
            let whole = is_whole(norm.len, norm.stats_row, plan) && is_whole(adam.len, adam.stats_row, plan);
            whole && plan.width() == width && *tensor != 0
        };
        let plan = self.plan(networks, loss.batch, log_std_offset).filter(fits);
        if plan.as_ref().map(Plan::layout) != state.params.packed.layout.as_ref() {
            self.unpack(networks, log_std_offset, state)?;
        }
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

        let [packed, next] = if plan.is_in_place() {
            let packed = self.packed(&plan, &mut state.params)?;
            [packed.clone(), packed]
        } else {
            self.packed_state(&plan, state)?
        };
        let TrainState { params, m, v, grads, schedule, stats, control } = &mut *state;
        let inputs = [bind(2, rows.observations), bind(3, &actions), bind(4, rows.samples), bind(7, rows.indices)];
        let outputs = [bind(6, actor.head()), bind(8, critic.head())];
        plan.record_step(
            &mut self.context,
            step,
            (&gather, rows.first_sample),
            inputs,
            outputs,
            [&packed, &next],
            [params.flat(), m, v, grads],
            (schedule, stats, control),
        )?;
        if plan.is_in_place() {
            return Ok(());
        }
        let Packed { now, next, is_ahead, .. } = &mut params.packed;
        std::mem::swap(now, next);
        *is_ahead = true;
        if step.is_last { self.unpack(networks, log_std_offset, state) } else { Ok(()) }
    }
}
