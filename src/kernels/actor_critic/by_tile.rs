//! Small networks as a whole on wgpu, a tile of samples a workgroup.

use super::{ActorCritic, Layer, MinibatchStep, PackedLayout};
use crate::error::Result;
use crate::gpu::{Bound, Buffer, Context, Field, Grid, Indices, Shader, ShaderParams, bind, shader_params};
use crate::kernels::gather::Gather;
use crate::kernels::linear::Activation;
use crate::kernels::optimizer::{AdamParams, NormParams};
use crate::kernels::surrogate::{SurrogateParams, check_stop_on_kl};
use crate::kernels::{Constants, ShaderInfo};

/// As in the shader, as are the names below.
const VECTOR_LANES: usize = 32;
const MOST_LAYERS: usize = 4;
const MOST_GROUPS: usize = 160;
const TILE: usize = 8;
const TILE_LANES: usize = 256;
const SUM_LANES: usize = 128;
/// Packed vectors: a workgroup of `sum_tiles` for each [`SUM_LANES`] of them, and one for the partial sums.
const MOST_VECTORS: usize = (MOST_GROUPS - 1) * SUM_LANES;
/// Workgroups in x of `tiles_gradient`: beyond that, each takes several tiles.
const MOST_TILES: usize = 256;
/// Workgroups in x up to which each copies its network's weights to workgroup memory, so that one round of loads brings them all. Beyond, there are several
/// to a multiprocessor, which have others to wait for, and need the room.
const FEW_TILES: usize = 64;
/// Packed vectors of the larger network, of which each of a workgroup's invocations copies eight.
const MOST_COPIED: usize = 8 * TILE_LANES;
/// Samples times packed vectors: each tile adds to the whole gradient, and many of them are better served by large matrix products.
const MOST_IN_TILES: usize = 1 << 25;
/// Outputs of the actor: their partial sums are an invocation each.
const MOST_OUTPUTS: usize = 160;
// A dimension's standard deviation is an invocation's; squares are read eight at a time; a workgroup that copies weights has one tile.
const _: () = assert!(MOST_OUTPUTS <= TILE_LANES && MOST_GROUPS.is_multiple_of(8) && FEW_TILES <= MOST_TILES);

const SHADER: Shader = Shader {
    name: "actor_critic/by_tile",
    source: concat!(
        include_str!("../../../shaders/elementary.wgsl"),
        include_str!("../../../shaders/linear/activation.wgsl"),
        include_str!("../../../shaders/surrogate/loss.wgsl"),
        include_str!("../../../shaders/optimizer/formulas.wgsl"),
        include_str!("../../../shaders/optimizer/conclude.wgsl"),
        include_str!("../../../shaders/actor_critic/by_tile.wgsl"),
        include_str!("../../../shaders/actor_critic/tiles.wgsl"),
        include_str!("../../../shaders/actor_critic/adam.wgsl")
    ),
    indices: Indices::Proven,
};

/// Every activation with both policies, of the smallest networks, and of some that only some adapters have the workgroup memory for.
const OF_TILES: &[Constants] = &[
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("KEPT", 4.0), ("WIDEST", 2.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("KEPT", 4.0), ("WIDEST", 2.0), ("COPIED", 18.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("KEPT", 36.0), ("WIDEST", 16.0), ("COPIED", 1314.0)],
    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("KEPT", 40.0), ("WIDEST", 16.0), ("COPIED", 1570.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("KEPT", 94.0), ("WIDEST", 32.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("KEPT", 94.0), ("WIDEST", 32.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("KEPT", 126.0), ("WIDEST", 16.0), ("COPIED", 1.0)],
    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("KEPT", 126.0), ("WIDEST", 16.0), ("COPIED", 1.0)],
];

/// Both policies, where the activation makes no difference.
const POLICIES: &[Constants] = &[&[("GAUSSIAN", 0.0)], &[("GAUSSIAN", 1.0)]];

const PARAMS: &[(&str, usize, &[Field])] =
    &[(ActorCriticParams::NAME, size_of::<ActorCriticParams>(), ActorCriticParams::FIELDS)];

const ENTRIES: &[(&str, &[Constants])] = &[
    ("pack_weights", POLICIES),
    ("tiles_act", OF_TILES),
    ("tiles_gradient", OF_TILES),
    ("sum_tiles", POLICIES),
    ("update_parameters", POLICIES),
];

pub(super) const SHADER_INFO: ShaderInfo = ShaderInfo { shader: SHADER, params: PARAMS, entries: ENTRIES };

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

/// How networks and a batch are shared among workgroups.
pub(crate) struct ByTile {
    params: ActorCriticParams,
    activation: Activation,
    layout: PackedLayout,
    /// Workgroups in x of `tiles_gradient`.
    tiles: usize,
    /// Workgroups of `sum_tiles`; the last one has the statistics.
    sum_groups: usize,
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

impl ByTile {
    /// `log_std_offset` of a Gaussian policy. `None` where sizes or activations are beyond this kernel.
    pub(crate) fn new(context: &Context, networks: &ActorCritic, batch: usize, log_std_offset: Option<usize>) -> Option<Self> {
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
        if !mlp(actor, width)? || !mlp(critic, 1)? || activation.needs_pre_activation() {
            return None;
        }
        // Of layers that are not there, no packed vector.
        let (mut layers, mut packed_layers) = ([[0; 4]; 2 * MOST_LAYERS], [[0, 0, u32::MAX, u32::MAX]; 2 * MOST_LAYERS]);
        let (mut packed, mut most_kept, mut widest) = (0, 0, 0);
        for (first, network) in [(0, actor), (MOST_LAYERS, critic)] {
            let mut kept = vectors(observation_size);
            for (i, layer) in network.iter().enumerate() {
                let linear = &layer.linear;
                let (inputs, outputs) = (vectors(linear.in_features), vectors(linear.out_features));
                kept += outputs;
                widest = outputs.max(widest);
                layers[first + i] =
                    [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset].map(|x| x as u32);
                let biases = packed + 4 * inputs * outputs;
                packed_layers[first + i] = [inputs, outputs, packed, biases].map(|x| x as u32);
                packed = biases + outputs;
            }
            most_kept = kept.max(most_kept);
        }
        let packed_log_std = packed;
        packed += if log_std_offset.is_some() { vectors(width) } else { 0 };
        let storage = context.limits().max_compute_workgroup_storage_size as usize;
        let fits = packed <= MOST_VECTORS && batch.saturating_mul(packed) <= MOST_IN_TILES;
        if !fits || tile_storage(most_kept, widest, 1) > storage {
            return None;
        }
        let tiles = batch.div_ceil(TILE).min(MOST_TILES);
        let of_critic = packed_layers[MOST_LAYERS][2] as usize;
        let larger = of_critic.max(packed_log_std - of_critic);
        let params = ActorCriticParams {
            batch: batch as u32,
            width: width as u32,
            partial_rows: 2 * tiles as u32,
            partial_width: SurrogateParams::partial_width(width, log_std_offset.is_some()) as u32,
            log_std_offset: log_std_offset.unwrap_or(0) as u32,
            observation_size: observation_size as u32,
            observation_vectors: vectors(observation_size) as u32,
            actor_layers: actor.len() as u32,
            critic_layers: critic.len() as u32,
            packed_log_std: packed_log_std as u32,
            packed_vectors: packed as u32,
            layers,
            packed_layers,
            ..bytemuck::Zeroable::zeroed()
        };
        let places = actor
            .iter()
            .chain(critic)
            .map(|Layer { linear, .. }| [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset]);
        Some(Self {
            params,
            activation,
            layout: PackedLayout { layers: places.collect(), log_std_offset },
            tiles,
            sum_groups: packed.div_ceil(SUM_LANES) + 1,
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

    /// Elements of a buffer of packed parameters.
    pub(crate) fn packed_len(&self) -> usize {
        4 * self.params.packed_vectors as usize
    }

    /// What decides where they are in it.
    pub(crate) fn layout(&self) -> &PackedLayout {
        &self.layout
    }

    fn policy(&self) -> (&'static str, f64) {
        ("GAUSSIAN", f64::from(u8::from(self.layout.log_std_offset.is_some())))
    }

    fn tile_constants(&self) -> [(&'static str, f64); 5] {
        let [kept, widest, copied] = [self.kept, self.widest, self.copied].map(|vectors| vectors as f64);
        let activation = ("ACTIVATION", f64::from(self.activation as u8));
        [activation, self.policy(), ("KEPT", kept), ("WIDEST", widest), ("COPIED", copied)]
    }

    /// An invocation a packed vector.
    fn packed_grid(&self) -> Grid {
        Grid::covering(self.params.packed_vectors as usize, VECTOR_LANES)
    }

    /// Records the packing of parameters.
    pub(crate) fn record_pack(&self, context: &mut Context, params: &Buffer<f32>, packed: &Buffer<f32>) -> Result<()> {
        let buffers = [bind("parameters", params), bind("packed", packed)];
        context.dispatch(SHADER, "pack_weights", &[self.policy()], &self.params, &buffers, self.packed_grid())
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
        let inputs = [bind("packed_weights", packed), bind("observations", observations), bind("noise", noise)];
        let outputs = [bind("output", output), bind("values", values), bind("drawn", drawn), bind("logp", logp)];
        let buffers = [&inputs[..], &outputs].concat();
        let grid = Grid::Xyz((self.params.batch as usize).div_ceil(TILE), 2, 1);
        context.dispatch(SHADER, "tiles_act", &self.tile_constants(), &step, &buffers, grid)
    }

    fn step_params(&self, step: &MinibatchStep, rows: &Gather, first_sample: usize) -> ActorCriticParams {
        let loss = SurrogateParams::new(&step.loss, self.width(), TILE);
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
            square_groups: self.sum_groups as u32,
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

    /// Records a minibatch step, which leaves `packed` as it leaves `params`. Buffers are those of `minibatch_step`, already checked and bound as the shader
    /// says; `actions` as words.
    pub(crate) fn record_step(
        &self,
        context: &mut Context,
        step: &MinibatchStep,
        (rows, first_sample): (&Gather, usize),
        [observations, actions, samples, indices]: [Bound; 4],
        [output, values]: [Bound; 2],
        packed: &Buffer<f32>,
        [params, m, v, grads]: [&Buffer<f32>; 4],
        (schedule, stats, control): (&Buffer<f32>, &Buffer<f32>, &Buffer<u32>),
    ) -> Result<()> {
        if let Some(max_kl) = step.max_kl {
            check_stop_on_kl(max_kl, step.loss.stats_row, stats.len(), control.len())?;
        }
        let squares: Buffer<u32> = context.scratch("actor_critic.squares", 4 * MOST_GROUPS)?;
        let ActorCriticParams { packed_vectors, partial_rows, partial_width, .. } = self.params;
        let len = 4 * (self.tiles * packed_vectors as usize + (partial_rows * partial_width) as usize);
        let gradients: Buffer<f32> = context.scratch("actor_critic.tile_gradients", len)?;
        let shared = self.step_params(step, rows, first_sample);

        let buffers = [
            observations,
            actions,
            samples,
            indices,
            output,
            values,
            bind("packed_weights", packed),
            bind("tile_gradients", &gradients),
        ];
        let grid = Grid::Xyz(self.tiles, 2, 1);
        context.dispatch(SHADER, "tiles_gradient", &self.tile_constants(), &shared, &buffers, grid)?;

        let buffers = [bind("tile_gradients", &gradients), bind("grads", grads), bind("squares", &squares), bind("stats", stats)];
        let grid = Grid::Xyz(self.sum_groups, 1, 1);
        context.dispatch(SHADER, "sum_tiles", &[self.policy()], &shared, &buffers, grid)?;

        let state = [bind("parameters", params), bind("packed", packed), bind("m", m), bind("v", v), bind("grads", grads)];
        let others = [
            bind("stats", stats),
            bind("control", control),
            bind("schedule", schedule),
            bind("all_squares", &squares.slice(0, 4 * MOST_GROUPS)),
        ];
        let buffers = [&state[..], &others].concat();
        context.dispatch(SHADER, "update_parameters", &[self.policy()], &shared, &buffers, self.packed_grid())
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
        let module = naga::front::wgsl::parse_str(SHADER.source).unwrap();
        let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
        let mut least = usize::MAX;
        for (entry, specialisations) in ENTRIES.iter().filter(|(entry, _)| entry.starts_with("tiles_")) {
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
