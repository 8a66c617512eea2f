//! Actor and critic, two multilayer perceptrons in one flat parameter buffer: a step of a rollout, and a minibatch step of learning.

use super::linear::{Activation, Linear};
use super::optimizer::{Adam, GradientNorm};
use super::surrogate::Surrogate;
use crate::tolerance::Tolerance;

/// One layer: where its parameters are, and what follows it. The batch is that of the minibatch in hand, whatever `linear` says.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Sizes and offsets.
    pub linear: Linear,
    /// Its activation; the identity for the last layer of a network.
    pub activation: Activation,
}

impl Layer {
    /// The layer for a number of rows.
    pub fn with_batch(&self, batch: usize) -> Linear {
        Linear { batch, ..self.linear }
    }
}

/// The layers of both networks, from the observation on. The critic has one output.
#[derive(Debug, Clone)]
pub struct ActorCritic {
    /// Of the actor, whose output is logits or means.
    pub actor: Vec<Layer>,
    /// Of the critic.
    pub critic: Vec<Layer>,
}

/// A minibatch step of learning: the loss and its gradient, clipping, Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinibatchStep {
    /// The loss.
    pub loss: Surrogate,
    /// The number under which a gradient that is not finite is reported, > 0.
    pub tensor: u32,
    /// Of the whole gradient.
    pub norm: GradientNorm,
    /// approx_kl beyond which neither this step nor a later one changes a parameter.
    pub max_kl: Option<f64>,
    /// Over all parameters.
    pub adam: Adam,
}

/// What decides where a parameter is in a packed copy of them: copies of one layout can stand for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedLayout {
    /// Inputs, outputs, first weight, first bias, a layer.
    layers: Vec<[usize; 4]>,
    log_std_offset: Option<usize>,
}

/// The share of a tensor's largest element by which any of its elements may be off, where a whole minibatch has been through it.
const COMPOSITE_ERROR: f64 = 1e-5;

/// What the networks as a whole may be off. A dozen operations one after the other have no bound that is of any use; each has its own, by
/// which it is judged alone.
pub fn composite_tolerance(reference: &[f64]) -> Tolerance {
    let largest = reference.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    Tolerance::PerElement(vec![COMPOSITE_ERROR * largest; reference.len()])
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{ActorCritic, Layer, MinibatchStep, PackedLayout};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Field, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::gather::Gather;
    use crate::kernels::linear::Activation;
    use crate::kernels::optimizer::{AdamParams, NormParams};
    use crate::kernels::surrogate::{SurrogateParams, record_stop_on_kl};
    use crate::kernels::{Constants, ShaderInfo};

    macro_rules! shader {
        ($name:literal, $head:literal) => {
            Shader {
                name: $name,
                source: concat!(
                    include_str!(concat!("../../shaders/actor_critic/", $head, ".wgsl")),
                    include_str!("../../shaders/elementary.wgsl"),
                    include_str!("../../shaders/linear/activation.wgsl"),
                    include_str!("../../shaders/surrogate/loss.wgsl"),
                    include_str!("../../shaders/optimizer/formulas.wgsl"),
                    include_str!("../../shaders/actor_critic/actor_critic.wgsl"),
                    include_str!("../../shaders/actor_critic/parameters.wgsl")
                ),
                indices: Indices::Proven,
            }
        };
    }

    /// One of the ways in which invocations share the work. All give the same bits.
    struct Form {
        shader: Shader,
        /// Packed vectors that an invocation of `update_parameters` takes.
        vectors_each: usize,
    }

    const BY_INVOCATION: Form = Form { shader: shader!("actor_critic", "by_invocation"), vectors_each: 1 };
    const BY_SUBGROUP: Form = Form { shader: shader!("actor_critic/by_subgroup", "by_subgroup"), vectors_each: 4 };
    /// Vectors that a subgroup reads together in the latter.
    const BLOCK: u32 = 8;

    /// Every specialisation of what takes samples.
    const FORMS: &[Constants] = &[
        &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0)],
        &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0)],
        &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0)],
        &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0)],
        &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0)],
        &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0)],
        &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0)],
        &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0)],
    ];

    /// The same for few and for many samples to act on.
    const ACT_FORMS: &[Constants] = &[
        &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 8.0)],
        &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("ACT_LANES", 32.0)],
        &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("ACT_LANES", 32.0)],
    ];

    /// Both policies, where the activation makes no difference.
    const POLICIES: &[Constants] = &[&[("GAUSSIAN", 0.0)], &[("GAUSSIAN", 1.0)]];

    const PARAMS: &[(&str, usize, &[Field])] =
        &[(ActorCriticParams::NAME, size_of::<ActorCriticParams>(), ActorCriticParams::FIELDS)];
    const ENTRIES: &[(&str, &[Constants])] = &[
        ("pack_weights", POLICIES),
        ("samples_act", ACT_FORMS),
        ("samples_gradient", FORMS),
        ("parameters_gradient", POLICIES),
        ("update_parameters", POLICIES),
    ];

    pub(crate) const SHADERS: &[ShaderInfo] = &[
        ShaderInfo { shader: BY_INVOCATION.shader, params: PARAMS, entries: ENTRIES },
        ShaderInfo { shader: BY_SUBGROUP.shader, params: PARAMS, entries: ENTRIES },
    ];

    /// As in the shader.
    const WORKGROUP_SIZE: usize = 32;
    /// Of `samples_act`, for up to [`FEW`] samples.
    const FEW_LANES: usize = 8;
    const FEW: usize = 64;
    const MOST_LAYERS: usize = 4;
    const MOST_GROUPS: usize = 160;
    const WINDOW: usize = 4096;
    const KEPT: usize = 40;
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

    /// Where everything of a minibatch lies in the windows, if it fits.
    pub(crate) struct Plan {
        form: Form,
        params: ActorCriticParams,
        activation: Activation,
        layout: PackedLayout,
        /// Workgroups of samples.
        tiles: usize,
        /// Workgroups of `parameters_gradient`.
        parameter_groups: [usize; 3],
    }

    impl Plan {
        /// `log_std_offset` of a Gaussian policy. `None` where sizes or activations are beyond this kernel.
        pub(crate) fn new(
            context: &Context,
            networks: &ActorCritic,
            batch: usize,
            log_std_offset: Option<usize>,
        ) -> Option<Self> {
            let activation = networks.actor.first()?.activation;
            let [actor, critic] = [&networks.actor, &networks.critic];
            let width = actor.last()?.linear.out_features;
            let observation_size = actor.first()?.linear.in_features;
            let mlp = |layers: &[Layer], outputs: usize| {
                let (last, hidden) = layers.split_last()?;
                let sizes = layers.iter().map(|layer| layer.linear.in_features);
                let inputs = [observation_size].into_iter().chain(layers.iter().map(|layer| layer.linear.out_features));
                let alike = hidden.iter().all(|layer| layer.activation == activation) && last.activation == Activation::Identity;
                let small = layers.len() <= MOST_LAYERS && observation_size.max(outputs) <= 4 * KEPT;
                Some(alike && small && sizes.eq(inputs.take(layers.len())) && last.linear.out_features == outputs)
            };
            let fits = mlp(actor, width)? && mlp(critic, 1)? && !activation.needs_pre_activation();
            let uniform = context.limits().max_uniform_buffer_binding_size >= 16 * WINDOW as u64;
            if !fits || !uniform || batch > WINDOW {
                return None;
            }
            let (mut layers, mut packed_layers) = ([[0; 4]; 2 * MOST_LAYERS], [[0; 4]; 2 * MOST_LAYERS]);
            let mut packed = 0;
            for (first, network) in [(0, actor), (MOST_LAYERS, critic)] {
                let mut kept = vectors(observation_size);
                let mut hidden = 0;
                for (i, layer) in network.iter().enumerate() {
                    let linear = &layer.linear;
                    let (inputs, outputs) = (vectors(linear.in_features), vectors(linear.out_features));
                    kept += outputs;
                    hidden += if i + 1 < network.len() { outputs } else { 0 };
                    if kept > KEPT || batch * outputs.max(hidden) > WINDOW {
                        return None;
                    }
                    layers[first + i] =
                        [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset].map(|x| x as u32);
                    let biases = packed + 4 * inputs * outputs;
                    packed_layers[first + i] = [inputs, outputs, packed, biases].map(|x| x as u32);
                    packed = biases + outputs;
                }
            }
            let packed_log_std = packed;
            packed += if log_std_offset.is_some() { vectors(width) } else { 0 };
            let tiles = batch.div_ceil(WORKGROUP_SIZE);
            let partial_rows = 2 * tiles;
            let partial_width = SurrogateParams::partial_width(width, log_std_offset.is_some());
            if packed > WINDOW || batch * vectors(observation_size) > WINDOW || partial_rows * partial_width > 4 * WINDOW {
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
                actor_layers: actor.len() as u32,
                critic_layers: critic.len() as u32,
                packed_log_std: packed_log_std as u32,
                packed_vectors: packed as u32,
                layers,
                packed_layers,
                ..bytemuck::Zeroable::zeroed()
            };
            let widest = actor.iter().chain(critic).map(|layer| vectors(layer.linear.out_features)).max()?;
            let parameter_groups = [widest / 2, actor.len().max(critic.len()), 2];
            debug_assert!(parameter_groups.iter().product::<usize>() <= MOST_GROUPS);
            let places = actor
                .iter()
                .chain(critic)
                .map(|Layer { linear, .. }| [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset]);
            let layout = PackedLayout { layers: places.collect(), log_std_offset };
            let by_subgroup = context.is_software() && context.has_subgroups_of(BLOCK);
            let form = if by_subgroup { BY_SUBGROUP } else { BY_INVOCATION };
            Some(Self { form, params, activation, layout, tiles, parameter_groups })
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
        pub(crate) const PACKED: usize = 4 * WINDOW;

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

        /// Enough invocations for all packed vectors, when each takes so many.
        fn packed_grid(&self, vectors_each: usize) -> Grid {
            Grid::covering(self.params.packed_vectors as usize, WORKGROUP_SIZE * vectors_each)
        }

        /// Records the packing of parameters.
        pub(crate) fn record_pack(&self, context: &mut Context, params: &Buffer<f32>, packed: &Buffer<f32>) -> Result<()> {
            let buffers = [bind(10, params), bind(11, packed)];
            context.dispatch(self.form.shader, "pack_weights", &[self.policy()], &self.params, &buffers, self.packed_grid(1))
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
            let inputs = [bind(1, &packed.slice(0, Self::PACKED)), bind(2, observations), bind(9, noise)];
            let outputs = [bind(6, output), bind(8, values), bind(20, drawn), bind(21, logp)];
            let batch = self.params.batch as usize;
            let lanes = if batch <= FEW { FEW_LANES } else { WORKGROUP_SIZE };
            let [activation, policy] = self.constants();
            let constants = [activation, policy, ("ACT_LANES", lanes as f64)];
            let grid = Grid::Xyz(batch.div_ceil(lanes), 2, 1);
            context.dispatch(self.form.shader, "samples_act", &constants, &step, &[&inputs[..], &outputs].concat(), grid)
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

        /// Records a minibatch step. Buffers are those of `minibatch_step`, already checked and bound as the shader says; `actions` as words.
        pub(crate) fn record_step(
            &self,
            context: &mut Context,
            step: &MinibatchStep,
            (rows, first_sample): (&Gather, usize),
            [observations, actions, samples, indices]: [(u32, Buffer<u32>); 4],
            [output, values]: [(u32, Buffer<u32>); 2],
            packed: &Buffer<f32>,
            [params, m, v, grads]: [&Buffer<f32>; 4],
            (schedule, stats, control): (&Buffer<f32>, &Buffer<f32>, &Buffer<u32>),
        ) -> Result<()> {
            let weights = packed.slice(0, Self::PACKED);
            let trace: Buffer<f32> = context.scratch("actor_critic.trace", WINDOWS * 4 * WINDOW)?;
            let window = |i: usize| trace.slice(4 * WINDOW * i, 4 * WINDOW);
            let squares: Buffer<u32> = context.scratch("actor_critic.squares", 4 * MOST_GROUPS)?;
            let shared = self.step_params(step, rows, first_sample);

            let buffers = [bind(1, &weights), observations, actions, samples, bind(5, &trace), output, indices, values];
            let grid = Grid::Xyz(self.tiles, 2, 1);
            context.dispatch(self.form.shader, "samples_gradient", &self.constants(), &shared, &buffers, grid)?;

            let [x, y, z] = self.parameter_groups;
            // Observations and partial sums, then activations, their gradients and the output's, of both networks.
            let windows =
                [(12, 0), (13, 7), (22, 1), (23, 2), (24, 3), (25, 4), (26, 5), (27, 6)].map(|(at, i)| bind(at, &window(i)));
            let outputs = [bind(16, grads), bind(17, &squares), bind(18, stats)];
            let buffers = [&windows[..], &outputs].concat();
            context.dispatch(self.form.shader, "parameters_gradient", &[self.policy()], &shared, &buffers, Grid::Xyz(x, y, z))?;

            if let Some(max_kl) = step.max_kl {
                record_stop_on_kl(context, max_kl, step.loss.stats_row, stats, control)?;
            }
            let state = [bind(10, params), bind(11, packed), bind(14, m), bind(15, v), bind(16, grads)];
            let others = [bind(18, stats), bind(19, control), bind(28, schedule), bind(29, &squares.slice(0, 4 * MOST_GROUPS))];
            let buffers = [&state[..], &others].concat();
            let grid = self.packed_grid(self.form.vectors_each);
            context.dispatch(self.form.shader, "update_parameters", &[self.policy()], &shared, &buffers, grid)
        }
    }
}
