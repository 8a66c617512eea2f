//! How these networks run on wgpu.

use super::{ActorCritic, Form, Layer, MinibatchStep, PackedLayout};
use crate::error::Result;
use crate::gpu::{Buffer, Context, Grid, bind, shader_params};
use crate::kernels::gather::Gather;
use crate::kernels::linear::Activation;
use crate::kernels::optimizer::{AdamParams, NormParams};
use crate::kernels::surrogate::{SurrogateParams, check_stop_on_kl};

/// As in the shader, as are the names below.
const WORKGROUP_SIZE: usize = 16;
/// Samples a workgroup of `samples_gradient`.
const WORKGROUP_SAMPLES: usize = 2 * WORKGROUP_SIZE;
const VECTOR_LANES: usize = 32;
/// Samples a workgroup of `samples_act`, up to [`FEW`] samples and beyond.
const FEW_LANES: usize = 8;
const MANY_LANES: usize = 32;
const FEW: usize = 64;
const MOST_LAYERS: usize = 4;
const MOST_GROUPS: usize = 160;
/// Packed vectors by tile: a workgroup of `sum_tiles` for each [`SUM_LANES`] of them, and one for the partial sums.
const MOST_VECTORS: usize = (MOST_GROUPS - 1) * SUM_LANES;
const WINDOW: usize = 4096;
const KEPT: usize = 40;
const TILE: usize = 8;
const TILE_LANES: usize = 256;
const SUM_LANES: usize = 128;
/// Workgroups in x of `tiles_gradient`: beyond that, each takes several tiles.
const MOST_TILES: usize = 256;
/// Workgroups in x up to which each copies its network's weights to workgroup memory, so that one round of loads brings them all. Beyond, there are several
/// to a multiprocessor, which have others to wait for, and need the room.
const FEW_TILES: usize = 64;
/// Packed vectors of the larger network, of which each of a workgroup's invocations copies eight.
const MOST_COPIED: usize = 8 * TILE_LANES;
/// Samples times packed vectors that the form by tiles takes: each tile adds to the whole gradient, and many of them are better served by large
/// matrix products.
const MOST_IN_TILES: usize = 1 << 25;
/// Outputs of the actor: their partial sums are an invocation each.
const MOST_OUTPUTS: usize = 160;
// A dimension's standard deviation is an invocation's; squares are read eight at a time; a workgroup that copies weights has one tile.
const _: () = assert!(MOST_OUTPUTS <= TILE_LANES && MOST_GROUPS.is_multiple_of(8) && FEW_TILES <= MOST_TILES);
/// Windows of the trace: observations, three a network, partial sums.
const WINDOWS: usize = 8;

shader_params! {
    struct ActorCriticParams {
        layers: [[u32; 4]; 2 * MOST_LAYERS],
        packed_layers: [[u32; 4]; 2 * MOST_LAYERS],
        batch: u32,
        width: u32,
        partial_rows: u32,
        partial_width: u32,
        value_loss: u32,
        log_std_offset: u32,
        ratio_low: f32,
        ratio_high: f32,
        dual_clip: f32,
        value_range: f32,
        vf_coef: f32,
        ent_coef: f32,
        kl_coef: f32,
        one_over_batch: f32,
        not_a_number: f32,
        observation_size: u32,
        observation_vectors: u32,
        first_hidden: u32,
        actor_layers: u32,
        critic_layers: u32,
        packed_log_std: u32,
        packed_vectors: u32,
        observations_offset: u32,
        first_row: u32,
        rows: u32,
        first_index: u32,
        first_sample: u32,
        stats_row: u32,
        square_groups: u32,
        limited: u32,
        max_kl: f32,
        max_grad_norm: f32,
        norm_epsilon: f32,
        tensor: u32,
        len: u32,
        schedule_row: u32,
        beta1: f32,
        one_minus_beta1: f32,
        beta2: f32,
        one_minus_beta2: f32,
        adam_epsilon: f32,
        l2: f32,
        decay: f32,
    }
}

/// Vectors of four for a size padded to a multiple of eight.
fn vectors(size: usize) -> usize {
    2 * size.div_ceil(8)
}

fn window(windows: &Buffer<f32>, i: usize) -> Buffer<f32> {
    windows.slice(4 * WINDOW * i, 4 * WINDOW)
}

/// Of the step in hand, where it is packed.
fn packed_gradient(context: &mut Context) -> Result<Buffer<f32>> {
    context.scratch("actor_critic.grads", 4 * WINDOW)
}

/// Parameters, gradient and moments.
fn state_windows(packed: &Buffer<f32>, grads: &Buffer<f32>) -> [(u32, Buffer<u32>); 4] {
    let [weights, m, v] = [0, 1, 2].map(|i| window(packed, i));
    [bind(1, &weights), bind(32, &window(grads, 0)), bind(33, &m), bind(34, &v)]
}

/// Where everything of a minibatch lies in the windows, if it fits.
pub(crate) struct Plan {
    form: Form,
    params: ActorCriticParams,
    activation: Activation,
    layout: PackedLayout,
    /// Workgroups of samples.
    tiles: usize,
    /// Workgroups of `parameters_gradient` or `sum_tiles`.
    parameter_groups: [usize; 3],
    /// Vectors that a tile keeps of a sample, those of the widest layer's outputs, and those of the larger network if a tile copies its weights, or 1.
    kept: usize,
    widest: usize,
    copied: usize,
}

/// Bytes for rows, sums, segments and lanes of a tile, and some to spare.
const OF_LOSSES: usize = 3 << 8;

/// Bytes of workgroup memory that a tile takes: what is kept of its samples, with a vector between them; a layer before activation; actions; a
/// vector for each dimension of them; copied weights; and what the loss and its sums take.
fn tile_storage(kept: usize, widest: usize, copied: usize) -> usize {
    TILE * 16 * (kept + 1 + 2 * widest) + 4 * 16 * widest + 16 * copied + OF_LOSSES
}

/// Vectors of the `larger` network, if a tile copies its weights to workgroup memory, of which there is so much; otherwise 1.
fn copied(tiles: usize, kept: usize, widest: usize, larger: usize, storage: usize) -> usize {
    let copies = tiles <= FEW_TILES && larger <= MOST_COPIED && tile_storage(kept, widest, larger) <= storage;
    if copies { larger } else { 1 }
}

impl Plan {
    /// `log_std_offset` of a Gaussian policy. `None` where sizes or activations are beyond this kernel.
    pub(crate) fn new(
        context: &Context,
        networks: &ActorCritic,
        batch: usize,
        log_std_offset: Option<usize>,
        form: Option<Form>,
    ) -> Option<Self> {
        let form = Form::choose(context, form);
        let by_tile = form == Form::ByTile;
        let activation = networks.actor.first()?.activation;
        let [actor, critic] = [&networks.actor, &networks.critic];
        let width = actor.last()?.linear.out_features;
        let observation_size = actor.first()?.linear.in_features;
        let mlp = |layers: &[Layer], outputs: usize| {
            let (last, hidden) = layers.split_last()?;
            let sizes = layers.iter().map(|layer| layer.linear.in_features);
            let inputs = [observation_size].into_iter().chain(layers.iter().map(|layer| layer.linear.out_features));
            let alike = hidden.iter().all(|layer| layer.activation == activation) && last.activation == Activation::Identity;
            let small = layers.len() <= MOST_LAYERS && outputs <= MOST_OUTPUTS;
            Some(alike && small && sizes.eq(inputs.take(layers.len())) && last.linear.out_features == outputs)
        };
        let fits = mlp(actor, width)? && mlp(critic, 1)? && !activation.needs_pre_activation();
        let windows = context.limits().max_uniform_buffer_binding_size >= 16 * WINDOW as u64;
        if !fits || !(windows || by_tile) || form == Form::ByLayer {
            return None;
        }
        // Of layers that are not there, no packed vector.
        let (mut layers, mut packed_layers) = ([[0; 4]; 2 * MOST_LAYERS], [[0, 0, u32::MAX, u32::MAX]; 2 * MOST_LAYERS]);
        let (mut packed, mut most_kept, mut widest) = (0, 0, 0);
        // By sample the output's gradient takes the place of the observation.
        let first_hidden = vectors(if by_tile { observation_size } else { observation_size.max(width) });
        for (first, network) in [(0, actor), (MOST_LAYERS, critic)] {
            let mut kept = first_hidden;
            let mut hidden = 0;
            for (i, layer) in network.iter().enumerate() {
                let linear = &layer.linear;
                let (inputs, outputs) = (vectors(linear.in_features), vectors(linear.out_features));
                kept += outputs;
                hidden += if i + 1 < network.len() { outputs } else { 0 };
                if !by_tile && (kept > KEPT || batch * outputs.max(hidden) > WINDOW) {
                    return None;
                }
                most_kept = kept.max(most_kept);
                widest = outputs.max(widest);
                layers[first + i] =
                    [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset].map(|x| x as u32);
                let biases = packed + 4 * inputs * outputs;
                packed_layers[first + i] = [inputs, outputs, packed, biases].map(|x| x as u32);
                packed = biases + outputs;
            }
        }
        let packed_log_std = packed;
        packed += if log_std_offset.is_some() { vectors(width) } else { 0 };
        let tiles = if by_tile { batch.div_ceil(TILE).min(MOST_TILES) } else { batch.div_ceil(WORKGROUP_SAMPLES) };
        let partial_rows = 2 * tiles;
        let partial_width = SurrogateParams::partial_width(width, log_std_offset.is_some());
        let storage = context.limits().max_compute_workgroup_storage_size as usize;
        let of_critic = packed_layers[MOST_LAYERS][2] as usize;
        let larger = of_critic.max(packed_log_std - of_critic);
        let too_large = if by_tile {
            packed > MOST_VECTORS || batch.saturating_mul(packed) > MOST_IN_TILES || tile_storage(most_kept, widest, 1) > storage
        } else {
            packed > WINDOW || batch * vectors(observation_size) > WINDOW || partial_rows * partial_width > WINDOW
        };
        if too_large {
            return None;
        }
        let params = ActorCriticParams {
            batch: batch as u32,
            width: width as u32,
            partial_rows: partial_rows as u32,
            partial_width: partial_width as u32,
            log_std_offset: log_std_offset.unwrap_or(0) as u32,
            observation_size: observation_size as u32,
            observation_vectors: vectors(observation_size) as u32,
            first_hidden: first_hidden as u32,
            actor_layers: actor.len() as u32,
            critic_layers: critic.len() as u32,
            packed_log_std: packed_log_std as u32,
            packed_vectors: packed as u32,
            layers,
            packed_layers,
            ..bytemuck::Zeroable::zeroed()
        };
        // By tile the last one has the statistics.
        let parameter_groups =
            if by_tile { [packed.div_ceil(SUM_LANES) + 1, 1, 1] } else { [widest.div_ceil(4), actor.len().max(critic.len()), 2] };
        debug_assert!(parameter_groups.iter().product::<usize>() <= MOST_GROUPS);
        let places = actor
            .iter()
            .chain(critic)
            .map(|Layer { linear, .. }| [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset]);
        let layout = PackedLayout { layers: places.collect(), log_std_offset, by_tile };
        Some(Self {
            form,
            params,
            activation,
            layout,
            tiles,
            parameter_groups,
            kept: most_kept,
            widest,
            copied: copied(tiles, most_kept, widest, larger, storage),
        })
    }

    /// Outputs of the actor.
    pub(crate) fn width(&self) -> usize {
        self.params.width as usize
    }

    /// Parameters of both networks and the policy.
    pub(crate) fn parameters(&self) -> usize {
        let of_layers: usize = self.layout.layers.iter().map(|[inputs, outputs, ..]| (inputs + 1) * outputs).sum();
        of_layers + self.layout.log_std_offset.map_or(0, |_| self.width())
    }

    /// Whether steps change parameters and moments where they are; otherwise packed ones, from one buffer into another.
    pub(crate) fn is_in_place(&self) -> bool {
        self.form == Form::ByTile
    }

    /// Elements of a buffer of packed parameters, and moments where steps change those.
    pub(crate) fn packed_len(&self) -> usize {
        if self.is_in_place() { 4 * self.params.packed_vectors as usize } else { 3 * 4 * WINDOW }
    }

    /// What decides where they are in it.
    pub(crate) fn layout(&self) -> &PackedLayout {
        &self.layout
    }

    fn policy(&self) -> (&'static str, f64) {
        ("GAUSSIAN", f64::from(u8::from(self.layout.log_std_offset.is_some())))
    }

    fn constants(&self) -> [(&'static str, f64); 2] {
        [("ACTIVATION", f64::from(self.activation as u8)), self.policy()]
    }

    fn tile_constants(&self) -> [(&'static str, f64); 5] {
        let [activation, policy] = self.constants();
        let [kept, widest, copied] = [self.kept, self.widest, self.copied].map(|vectors| vectors as f64);
        [activation, policy, ("KEPT", kept), ("WIDEST", widest), ("COPIED", copied)]
    }

    /// Enough invocations for all packed vectors, when each takes so many.
    fn packed_grid(&self, vectors_each: usize) -> Grid {
        Grid::covering(self.params.packed_vectors as usize, VECTOR_LANES * vectors_each)
    }

    /// Records the packing of parameters.
    pub(crate) fn record_pack(&self, context: &mut Context, params: &Buffer<f32>, packed: &Buffer<f32>) -> Result<()> {
        let buffers = [bind(10, params), bind(11, packed)];
        context.dispatch(self.form.shader(), "pack_weights", &[self.policy()], &self.params, &buffers, self.packed_grid(1))
    }

    /// Records the packing of both moments behind the parameters.
    pub(crate) fn record_pack_moments(
        &self,
        context: &mut Context,
        [m, v]: [&Buffer<f32>; 2],
        packed: &Buffer<f32>,
    ) -> Result<()> {
        let buffers = [bind(11, packed), bind(14, m), bind(15, v)];
        context.dispatch(self.form.shader(), "pack_moments", &[self.policy()], &self.params, &buffers, self.packed_grid(1))
    }

    /// Records the unpacking of parameters, moments, and the gradient of the step before.
    pub(crate) fn record_unpack(
        &self,
        context: &mut Context,
        packed: &Buffer<f32>,
        [params, m, v, grads]: [&Buffer<f32>; 4],
    ) -> Result<()> {
        let flat = [bind(10, params), bind(14, m), bind(15, v), bind(35, grads)];
        let buffers = [flat, state_windows(packed, &packed_gradient(context)?)].concat();
        context.dispatch(self.form.shader(), "unpack_state", &[self.policy()], &self.params, &buffers, self.packed_grid(1))
    }

    /// Records a step of a rollout: buffers are those of `act`, already checked, with `noise` and what is written from row `first_row` on;
    /// `drawn` are the actions as words.
    pub(crate) fn record_act(
        &self,
        context: &mut Context,
        packed: &Buffer<f32>,
        (observations, observations_offset): (&Buffer<f32>, usize),
        (noise, first_row): (&Buffer<f32>, usize),
        [output, values, logp]: [&Buffer<f32>; 3],
        drawn: &Buffer<u32>,
    ) -> Result<()> {
        let step =
            ActorCriticParams { observations_offset: observations_offset as u32, first_row: first_row as u32, ..self.params };
        let weights = if self.is_in_place() { bind(30, packed) } else { bind(1, &window(packed, 0)) };
        let inputs = [weights, bind(2, observations), bind(9, noise)];
        let outputs = [bind(6, output), bind(8, values), bind(20, drawn), bind(21, logp)];
        let buffers = [&inputs[..], &outputs].concat();
        let batch = self.params.batch as usize;
        if self.is_in_place() {
            let grid = Grid::Xyz(batch.div_ceil(TILE), 2, 1);
            return context.dispatch(self.form.shader(), "tiles_act", &self.tile_constants(), &step, &buffers, grid);
        }
        let lanes = if batch <= FEW { FEW_LANES } else { MANY_LANES };
        let [activation, policy] = self.constants();
        let constants = [activation, policy, ("ACT_LANES", lanes as f64)];
        let grid = Grid::Xyz(batch.div_ceil(lanes), 2, 1);
        context.dispatch(self.form.shader(), "samples_act", &constants, &step, &buffers, grid)
    }

    fn step_params(&self, step: &MinibatchStep, rows: &Gather, first_sample: usize) -> ActorCriticParams {
        let loss = SurrogateParams::new(&step.loss, self.width(), WORKGROUP_SIZE);
        let (norm, adam) = (NormParams::new(&step.norm), AdamParams::new(&step.adam));
        ActorCriticParams {
            value_loss: loss.value_loss,
            ratio_low: loss.ratio_low,
            ratio_high: loss.ratio_high,
            dual_clip: loss.dual_clip,
            value_range: loss.value_range,
            vf_coef: loss.vf_coef,
            ent_coef: loss.ent_coef,
            kl_coef: loss.kl_coef,
            one_over_batch: loss.one_over_batch,
            not_a_number: loss.not_a_number,
            stats_row: loss.stats_row,
            rows: rows.rows as u32,
            first_index: rows.start as u32,
            first_sample: first_sample as u32,
            square_groups: self.parameter_groups.iter().product::<usize>() as u32,
            limited: norm.limited,
            max_kl: step.max_kl.map_or(f32::INFINITY, |kl| kl as f32),
            max_grad_norm: norm.max_grad_norm,
            norm_epsilon: norm.epsilon,
            tensor: step.tensor,
            len: adam.len,
            schedule_row: adam.schedule_row,
            beta1: adam.beta1,
            one_minus_beta1: adam.one_minus_beta1,
            beta2: adam.beta2,
            one_minus_beta2: adam.one_minus_beta2,
            adam_epsilon: adam.epsilon,
            l2: adam.l2,
            decay: adam.decay,
            ..self.params
        }
    }

    /// Records a minibatch step. Buffers are those of `minibatch_step`, already checked and bound as the shader says; `actions` as words. Where
    /// steps are not in place, reads what is packed `now` and writes the packed gradient and `next`.
    pub(crate) fn record_step(
        &self,
        context: &mut Context,
        step: &MinibatchStep,
        (rows, first_sample): (&Gather, usize),
        [observations, actions, samples, indices]: [(u32, Buffer<u32>); 4],
        [output, values]: [(u32, Buffer<u32>); 2],
        [now, next]: [&Buffer<f32>; 2],
        [params, m, v, grads]: [&Buffer<f32>; 4],
        (schedule, stats, control): (&Buffer<f32>, &Buffer<f32>, &Buffer<u32>),
    ) -> Result<()> {
        if let Some(max_kl) = step.max_kl {
            check_stop_on_kl(max_kl, step.loss.stats_row, stats.len(), control.len())?;
        }
        let squares: Buffer<u32> = context.scratch("actor_critic.squares", 4 * MOST_GROUPS)?;
        let shared = self.step_params(step, rows, first_sample);
        let inputs = [observations, actions, samples, indices, output, values];
        let state = if self.is_in_place() {
            self.record_gradient_by_tile(context, &shared, &inputs, now, [grads, stats], &squares)?;
            [bind(10, params), bind(11, now), bind(14, m), bind(15, v), bind(16, grads)]
        } else {
            let grads = packed_gradient(context)?;
            self.record_gradient_by_sample(context, &shared, &inputs, now, [&grads, stats], &squares)?;
            let [weights, grads, m, v] = state_windows(now, &grads);
            [weights, grads, m, v, bind(11, next)]
        };
        let others = [bind(18, stats), bind(19, control), bind(28, schedule), bind(29, &squares.slice(0, 4 * MOST_GROUPS))];
        let buffers = [&state[..], &others].concat();
        let grid = self.packed_grid(self.form.vectors_each());
        context.dispatch(self.form.shader(), "update_parameters", &[self.policy()], &shared, &buffers, grid)
    }

    fn record_gradient_by_sample(
        &self,
        context: &mut Context,
        shared: &ActorCriticParams,
        inputs: &[(u32, Buffer<u32>)],
        packed: &Buffer<f32>,
        [grads, stats]: [&Buffer<f32>; 2],
        squares: &Buffer<u32>,
    ) -> Result<()> {
        let trace: Buffer<f32> = context.scratch("actor_critic.trace", WINDOWS * 4 * WINDOW)?;
        let buffers = [inputs, &[bind(1, &window(packed, 0)), bind(5, &trace)]].concat();
        let grid = Grid::Xyz(self.tiles, 2, 1);
        context.dispatch(self.form.shader(), "samples_gradient", &self.constants(), shared, &buffers, grid)?;

        let [x, y, z] = self.parameter_groups;
        // Observations and partial sums, then activations, their gradients and the output's, of both networks.
        let windows =
            [(12, 0), (13, 7), (22, 1), (23, 2), (24, 3), (25, 4), (26, 5), (27, 6)].map(|(at, i)| bind(at, &window(&trace, i)));
        let buffers = [&windows[..], &[bind(16, grads), bind(17, squares), bind(18, stats)]].concat();
        context.dispatch(self.form.shader(), "parameters_gradient", &[self.policy()], shared, &buffers, Grid::Xyz(x, y, z))
    }

    fn record_gradient_by_tile(
        &self,
        context: &mut Context,
        shared: &ActorCriticParams,
        inputs: &[(u32, Buffer<u32>)],
        packed: &Buffer<f32>,
        [grads, stats]: [&Buffer<f32>; 2],
        squares: &Buffer<u32>,
    ) -> Result<()> {
        let ActorCriticParams { packed_vectors, partial_rows, partial_width, .. } = self.params;
        let len = 4 * (self.tiles * packed_vectors as usize + (partial_rows * partial_width) as usize);
        let gradients: Buffer<f32> = context.scratch("actor_critic.tile_gradients", len)?;
        let buffers = [inputs, &[bind(30, packed), bind(31, &gradients)]].concat();
        let grid = Grid::Xyz(self.tiles, 2, 1);
        context.dispatch(self.form.shader(), "tiles_gradient", &self.tile_constants(), shared, &buffers, grid)?;

        let [x, y, z] = self.parameter_groups;
        let buffers = [bind(31, &gradients), bind(16, grads), bind(17, squares), bind(18, stats)];
        context.dispatch(self.form.shader(), "sum_tiles", &[self.policy()], shared, &buffers, Grid::Xyz(x, y, z))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CartPole's 64-64 fits 32 KiB. What an invocation's eight vectors do not cover is not copied, however much room there is.
    #[test]
    fn weights_are_copied_where_they_fit_and_tiles_are_few() {
        const KIB: usize = 1 << 10;
        assert_eq!(copied(16, 36, 16, 1314, 32 * KIB), 1314);
        assert_eq!(copied(16, 36, 16, 1314, 30 * KIB), 1);
        assert_eq!(copied(FEW_TILES + 1, 36, 16, 1314, 32 * KIB), 1);
        assert_eq!(copied(FEW_TILES, 40, 16, MOST_COPIED, 64 * KIB), MOST_COPIED);
        assert_eq!(copied(FEW_TILES, 40, 16, MOST_COPIED + 2, 64 * KIB), 1);
    }

    /// Of every specialisation, by what naga says of its variables.
    #[test]
    fn a_tile_takes_no_more_workgroup_memory_than_it_is_said_to() {
        use naga::valid::{Capabilities, ValidationFlags, Validator};
        let info = super::super::SHADERS.iter().find(|info| info.shader.name == Form::ByTile.shader().name).unwrap();
        let module = naga::front::wgsl::parse_str(info.shader.source).unwrap();
        let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
        let mut least = usize::MAX;
        for (entry, specialisations) in info.entries.iter().filter(|(entry, _)| entry.starts_with("tiles_")) {
            for constants in *specialisations {
                let of = |name: &str| constants.iter().find(|(known, _)| *known == name).unwrap().1 as usize;
                let said = tile_storage(of("KEPT"), of("WIDEST"), of("COPIED"));
                let constants = constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
                let stage = Some((naga::ShaderStage::Compute, *entry));
                let (special, uses) =
                    naga::back::pipeline_constants::process_overrides(&module, &validated, stage, &constants).unwrap();
                let mut layouter = naga::proc::Layouter::default();
                layouter.update(special.to_ctx()).unwrap();
                let is_taken = |(handle, variable): &(naga::Handle<naga::GlobalVariable>, &naga::GlobalVariable)| {
                    variable.space == naga::AddressSpace::WorkGroup && !uses.get_entry_point(0)[*handle].is_empty()
                };
                let variables = special.global_variables.iter().filter(is_taken);
                let taken: u32 = variables.map(|(_, variable)| layouter[variable.ty].size.next_multiple_of(16)).sum();
                let left = said.checked_sub(taken as usize);
                least = least.min(left.unwrap_or_else(|| panic!("{entry}, {constants:?}: {taken} bytes, said {said}")));
            }
        }
        assert!(least < 256, "{least} bytes more than any of them takes");
    }
}
