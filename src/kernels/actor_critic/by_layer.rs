//! The end of a minibatch step of networks whose layers are matrix products of their own, on wgpu.

use super::{ActorCritic, MinibatchStep};
use crate::error::Result;
use crate::gpu::{Buffer, Context, Field, Grid, Indices, Shader, ShaderParams, bind, shader_params};
use crate::kernels::ShaderInfo;
use crate::kernels::linear::{Linear, Ways, parts_len, record_parts};
use crate::kernels::optimizer::{AdamParams, NormParams};
use crate::kernels::surrogate::check_stop_on_kl;

/// As in the shader.
const MOST_LAYERS: usize = 17;
const WORKGROUP_SIZE: usize = 256;
/// Most workgroups of `sum_layers`: each of `update_layers` reads what all of them found.
const MOST_WORKGROUPS: usize = 1024;
/// Elements an invocation of `sum_layers`, where that makes no more workgroups.
const FEWEST_ROUNDS: usize = 4;
/// Elements by which the parts of one layer are set off from another's: what bindings have to be aligned to.
const ALIGNMENT: usize = 64;

const SHADER: Shader = Shader {
    name: "actor_critic/by_layer",
    source: concat!(
        include_str!("../../../shaders/elementary.wgsl"),
        include_str!("../../../shaders/optimizer/formulas.wgsl"),
        include_str!("../../../shaders/optimizer/conclude.wgsl"),
        include_str!("../../../shaders/actor_critic/by_layer.wgsl")
    ),
    indices: Indices::Proven,
};

const PARAMS: &[(&str, usize, &[Field])] = &[(ByLayerParams::NAME, size_of::<ByLayerParams>(), ByLayerParams::FIELDS)];

pub(super) const SHADER_INFO: ShaderInfo =
    ShaderInfo { shader: SHADER, params: PARAMS, entries: &[("sum_layers", &[&[]]), ("update_layers", &[&[]])] };

shader_params! {
    struct ByLayerParams {
        sums: [[u32; 4]; MOST_LAYERS],
        places: [[u32; 4]; MOST_LAYERS],
        count: u32,
        workgroups: u32,
        rounds: u32,
        len: u32,
        stats_row: u32,
        schedule_row: u32,
        tensor: u32,
        limited: u32,
        max_grad_norm: f32,
        norm_epsilon: f32,
        max_kl: f32,
        beta1: f32,
        one_minus_beta1: f32,
        beta2: f32,
        one_minus_beta2: f32,
        adam_epsilon: f32,
        l2: f32,
        decay: f32,
    }
}

/// How the gradients of all layers, and of log_std, are summed together.
#[derive(Debug)]
pub(crate) struct ByLayer {
    /// First element and elements of the parts of each layer, the actor's, then the critic's.
    parts: Vec<(usize, usize)>,
    params: ByLayerParams,
}

impl ByLayer {
    /// For a step whose norm and Adam go over exactly the parameters of these networks and `log_std` (offset and dimensions), on an adapter that allows a
    /// buffer of all parts.
    pub(crate) fn new(
        context: &Context,
        networks: &ActorCritic,
        step: &MinibatchStep,
        log_std: Option<(usize, usize)>,
    ) -> Option<Self> {
        let (norm, adam, loss) = (&step.norm, &step.adam, &step.loss);
        let layers: Vec<Linear> =
            networks.actor.iter().chain(&networks.critic).map(|layer| layer.with_batch(loss.batch)).collect();
        let is_one_row = [norm.stats_row, adam.stats_row].iter().all(|&row| row == loss.stats_row);
        if layers.len() >= MOST_LAYERS || norm.len != adam.len || !is_one_row || step.tensor == 0 {
            return None;
        }
        if !are_all_parameters(&layers, log_std, norm.len) {
            return None;
        }
        let mut end = 0;
        let mut parts = Vec::new();
        for layer in &layers {
            let len = parts_len(layer);
            parts.push((end, len));
            end += len.next_multiple_of(ALIGNMENT);
        }
        if u32::try_from(end).is_err() || !context.allows(end) {
            return None;
        }
        let params = Self::params(&layers, &parts, step, log_std);
        Some(Self { parts, params })
    }

    fn params(
        layers: &[Linear],
        parts: &[(usize, usize)],
        step: &MinibatchStep,
        log_std: Option<(usize, usize)>,
    ) -> ByLayerParams {
        let (norm, adam) = (NormParams::new(&step.norm), AdamParams::new(&step.adam));
        let mut params = ByLayerParams {
            len: adam.len,
            stats_row: step.loss.stats_row as u32,
            schedule_row: adam.schedule_row,
            tensor: step.tensor,
            limited: norm.limited,
            max_grad_norm: norm.max_grad_norm,
            norm_epsilon: norm.epsilon,
            max_kl: step.max_kl.map_or(f32::INFINITY, |kl| kl as f32),
            beta1: adam.beta1,
            one_minus_beta1: adam.one_minus_beta1,
            beta2: adam.beta2,
            one_minus_beta2: adam.one_minus_beta2,
            adam_epsilon: adam.epsilon,
            l2: adam.l2,
            decay: adam.decay,
            ..bytemuck::Zeroable::zeroed()
        };
        let of_layers = layers.iter().zip(parts).map(|(layer, &(first, len))| {
            let elements = layer.weights() + layer.out_features;
            ([elements, len / elements, first], [layer.in_features + 1, layer.weight_offset, layer.bias_offset])
        });
        // A row without a bias, which the loss has summed.
        let of_log_std = log_std.map(|(offset, dim)| ([dim, 0, 0], [dim + 1, offset, 0]));
        let all: Vec<_> = of_layers.chain(of_log_std).collect();
        let mut rounds = FEWEST_ROUNDS;
        let count =
            |rounds: usize| all.iter().map(|([elements, ..], _)| elements.div_ceil(rounds * WORKGROUP_SIZE)).sum::<usize>();
        while count(rounds) > MOST_WORKGROUPS {
            rounds *= 2;
        }
        for (i, ([elements, splits, first], place)) in all.iter().enumerate() {
            params.sums[i] = [params.workgroups, *elements as u32, *splits as u32, *first as u32];
            params.places[i] = [place[0] as u32, place[1] as u32, place[2] as u32, 0];
            params.workgroups += elements.div_ceil(rounds * WORKGROUP_SIZE) as u32;
        }
        params.count = all.len() as u32;
        params.rounds = rounds as u32;
        params
    }

    /// Room for the parts of all layers.
    pub(crate) fn parts(&self, context: &mut Context) -> Result<Buffer<f32>> {
        let end = self.parts.last().map_or(0, |(first, len)| first + len);
        context.scratch("actor_critic.parts", end.next_multiple_of(ALIGNMENT).max(ALIGNMENT))
    }

    /// Records the gradient of layer `i`'s parameters, the actor's first, of each stretch of the batch by itself; where that is all of it, into `grads`.
    pub(crate) fn record_parts(
        &self,
        context: &mut Context,
        ways: Ways,
        (i, layer): (usize, &Linear),
        [d_pre, x, grads, parts]: [&Buffer<f32>; 4],
    ) -> Result<()> {
        let (first, len) = self.parts[i];
        let output = if len == 0 { grads.clone() } else { parts.slice(first, len) };
        record_parts(context, ways, layer, d_pre, x, &output).map(drop)
    }

    /// Records what follows when all layers have left their parts: sums, norm, clipping, Adam. Buffers are checked already.
    pub(crate) fn record_update(
        &self,
        context: &mut Context,
        max_kl: Option<f64>,
        parts: &Buffer<f32>,
        [params, m, v, grads]: [&Buffer<f32>; 4],
        (schedule, stats, control): (&Buffer<f32>, &Buffer<f32>, &Buffer<u32>),
    ) -> Result<()> {
        if let Some(max_kl) = max_kl {
            check_stop_on_kl(max_kl, self.params.stats_row as usize, stats.len(), control.len())?;
        }
        let found: Buffer<u32> = context.scratch("actor_critic.found", 2 * MOST_WORKGROUPS)?;
        let buffers = [bind("parts", parts), bind("grads", grads), bind("found", &found)];
        let grid = Grid::Linear(self.params.workgroups as usize);
        context.dispatch(SHADER, "sum_layers", &[], &self.params, &buffers, grid)?;
        let state = [bind("grads", grads), bind("found", &found), bind("stats", stats), bind("control", control)];
        let state = [&state[..], &[bind("parameters", params), bind("m", m), bind("v", v), bind("schedule", schedule)]].concat();
        let grid = Grid::covering(self.params.len as usize, WORKGROUP_SIZE);
        context.dispatch(SHADER, "update_layers", &[], &self.params, &state, grid)
    }
}

/// Whether weights, biases and log_std lie end to end from 0 to `len`, in any order.
fn are_all_parameters(layers: &[Linear], log_std: Option<(usize, usize)>, len: usize) -> bool {
    let of_layer = |layer: &Linear| [(layer.weight_offset, layer.weights()), (layer.bias_offset, layer.out_features)];
    let mut tensors: Vec<(usize, usize)> = layers.iter().flat_map(of_layer).chain(log_std).collect();
    tensors.sort_unstable();
    let mut end = 0;
    tensors.iter().all(|&(first, size)| {
        let is_next = first == end;
        end = first.saturating_add(size);
        is_next
    }) && end == len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(weight_offset: usize, bias_offset: usize) -> Linear {
        Linear { batch: 1, in_features: 3, out_features: 2, weight_offset, bias_offset }
    }

    #[test]
    fn gaps_and_overlaps_are_noticed() {
        assert!(are_all_parameters(&[layer(0, 6), layer(8, 14)], Some((16, 2)), 18));
        assert!(are_all_parameters(&[layer(12, 10), layer(2, 8)], Some((0, 2)), 18));
        for (layers, log_std, len) in [
            ([layer(0, 6), layer(8, 14)], Some((16, 2)), 19),
            ([layer(0, 6), layer(8, 14)], None, 18),
            ([layer(0, 6), layer(9, 15)], None, 17),
            ([layer(0, 6), layer(6, 12)], None, 14),
            ([layer(0, 6), layer(0, 6)], None, 8),
            ([layer(0, 6), layer(8, usize::MAX)], None, 16),
        ] {
            assert!(!are_all_parameters(&layers, log_std, len), "{layers:?}");
        }
    }
}
