//! Actor and critic, two multilayer perceptrons in one flat parameter buffer: the gradient of PPO's loss over a whole minibatch.

use super::linear::{Activation, Linear};
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
    use super::{ActorCritic, Layer};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::gather::Gather;
    use crate::kernels::linear::Activation;
    use crate::kernels::optimizer::GradientNorm;
    use crate::kernels::surrogate::{Surrogate, SurrogateParams};
    use crate::kernels::{Constants, ShaderInfo};

    pub(crate) const SHADER: Shader = Shader {
        name: "actor_critic",
        source: concat!(
            include_str!("../../shaders/elementary.wgsl"),
            include_str!("../../shaders/linear/activation.wgsl"),
            include_str!("../../shaders/surrogate/loss.wgsl"),
            include_str!("../../shaders/actor_critic.wgsl")
        ),
        indices: Indices::Proven,
    };

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

    /// Both policies, where the activation makes no difference.
    const POLICIES: &[Constants] = &[&[("GAUSSIAN", 0.0)], &[("GAUSSIAN", 1.0)]];

    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[(ActorCriticParams::NAME, size_of::<ActorCriticParams>(), ActorCriticParams::FIELDS)],
        entries: &[
            ("pack_weights", POLICIES),
            ("samples_forward", FORMS),
            ("samples_gradient", FORMS),
            ("parameters_gradient", &[&[]]),
            ("finish_gradient", POLICIES),
        ],
    }];

    /// As in the shader.
    const WORKGROUP_SIZE: usize = 32;
    const MOST_LAYERS: usize = 4;
    const INPUT_LANES: usize = 16;
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
            network: u32,
            packed_log_std: u32,
            observations_offset: u32,
            values_offset: u32,
            rows: u32,
            first_index: u32,
            first_sample: u32,
            stats_row: u32,
            first_square: u32,
            partial_squares: u32,
            limited: u32,
            max_grad_norm: f32,
            norm_epsilon: f32,
            tensor: u32,
        }
    }

    /// Vectors of four for a size padded to a multiple of eight.
    fn vectors(size: usize) -> usize {
        2 * size.div_ceil(8)
    }

    /// Where everything of a minibatch lies in the windows, if it fits.
    pub(crate) struct Plan {
        params: ActorCriticParams,
        activation: Activation,
        log_std: bool,
        /// Workgroups of samples.
        tiles: usize,
        /// Vectors of packed parameters.
        packed: usize,
        /// Workgroups of `parameters_gradient` in x and y, a network.
        parameter_groups: [[usize; 2]; 2],
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
                layers,
                packed_layers,
                ..bytemuck::Zeroable::zeroed()
            };
            let parameter_groups = [actor, critic].map(|layers| {
                let widest = layers.iter().map(|layer| vectors(layer.linear.out_features)).max().unwrap_or(0);
                [widest / 2, layers.len()]
            });
            Some(Self { params, activation, log_std: log_std_offset.is_some(), tiles, packed, parameter_groups })
        }

        /// Outputs of the actor.
        pub(crate) fn width(&self) -> usize {
            self.params.width as usize
        }

        fn policy(&self) -> (&'static str, f64) {
            ("GAUSSIAN", f64::from(u8::from(self.log_std)))
        }

        fn constants(&self) -> [(&'static str, f64); 2] {
            [("ACTIVATION", f64::from(self.activation as u8)), self.policy()]
        }

        /// Records the packing of weights; returns their window.
        fn pack(&self, context: &mut Context, params: &Buffer<f32>) -> Result<Buffer<f32>> {
            let packed: Buffer<f32> = context.scratch("actor_critic.weights", 4 * WINDOW)?;
            let grid = Grid::covering(self.packed, WORKGROUP_SIZE);
            let buffers = [bind(10, params), bind(11, &packed)];
            context.dispatch(SHADER, "pack_weights", &[self.policy()], &self.params, &buffers, grid)?;
            Ok(packed.slice(0, 4 * WINDOW))
        }

        /// Records a forward pass through both networks. Buffers are those of `evaluate`, already checked.
        pub(crate) fn record_forward(
            &self,
            context: &mut Context,
            params: &Buffer<f32>,
            (observations, observations_offset): (&Buffer<f32>, usize),
            output: &Buffer<f32>,
            (values, values_offset): (&Buffer<f32>, usize),
        ) -> Result<()> {
            let weights = self.pack(context, params)?;
            let offsets = ActorCriticParams {
                observations_offset: observations_offset as u32,
                values_offset: values_offset as u32,
                ..self.params
            };
            let buffers = [bind(1, &weights), bind(2, observations), bind(6, output), bind(8, values)];
            let grid = Grid::Xyz(self.tiles, 2, 1);
            context.dispatch(SHADER, "samples_forward", &self.constants(), &offsets, &buffers, grid)
        }

        /// Parameters of both networks and the policy.
        pub(crate) fn parameters(&self) -> usize {
            let of_layers: u32 = self.params.layers.iter().map(|[inputs, outputs, ..]| (inputs + 1) * outputs).sum();
            of_layers as usize + if self.log_std { self.width() } else { 0 }
        }

        /// Records the gradient of a minibatch, its norm and the search for what is not finite. Buffers are those of `clipped_gradient`, already
        /// checked and bound as the shader says; `actions` as words.
        pub(crate) fn record_gradient(
            &self,
            context: &mut Context,
            (op, norm, tensor): (&Surrogate, &GradientNorm, u32),
            params: &Buffer<f32>,
            (rows, first_sample): (&Gather, usize),
            [observations, actions, samples, indices]: [(u32, Buffer<u32>); 4],
            [output, values]: [(u32, Buffer<u32>); 2],
            (grads, stats, control): (&Buffer<f32>, &Buffer<f32>, &Buffer<u32>),
        ) -> Result<()> {
            let weights = self.pack(context, params)?;
            let trace: Buffer<f32> = context.scratch("actor_critic.trace", WINDOWS * 4 * WINDOW)?;
            let window = |i: usize| trace.slice(4 * WINDOW * i, 4 * WINDOW);
            let loss = SurrogateParams::new(op, self.width(), WORKGROUP_SIZE);
            let clip = norm.max_grad_norm as f32;
            let partial_squares = self.parameter_groups.map(|[x, y]| x * y * INPUT_LANES);
            let step = ActorCriticParams {
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
                partial_squares: partial_squares.iter().sum::<usize>() as u32,
                limited: u32::from(clip.is_finite()),
                max_grad_norm: if clip.is_finite() { clip } else { 0.0 },
                norm_epsilon: norm.epsilon as f32,
                tensor,
                ..self.params
            };
            let buffers = [bind(1, &weights), observations, actions, samples, bind(5, &trace), output, indices, values];
            let grid = Grid::Xyz(self.tiles, 2, 1);
            context.dispatch(SHADER, "samples_gradient", &self.constants(), &step, &buffers, grid)?;

            // Two words an invocation.
            let squares: Buffer<u32> = context.scratch("actor_critic.squares", 2 * step.partial_squares as usize)?;
            for (network, [outputs, layers]) in self.parameter_groups.into_iter().enumerate() {
                let first_square = if network == 0 { 0 } else { partial_squares[0] as u32 };
                let params = ActorCriticParams { network: network as u32, first_square, ..self.params };
                let first = 1 + 3 * network;
                let [hidden, d_hidden, d_output] = [window(first), window(first + 1), window(first + 2)];
                let buffers = [
                    bind(12, &window(0)),
                    bind(13, &hidden),
                    bind(14, &d_hidden),
                    bind(15, &d_output),
                    bind(16, grads),
                    bind(17, &squares),
                ];
                context.dispatch(SHADER, "parameters_gradient", &[], &params, &buffers, Grid::Xyz(outputs, layers, 1))?;
            }
            let buffers = [bind(5, &trace), bind(16, grads), bind(17, &squares), bind(18, stats), bind(19, control)];
            context.dispatch(SHADER, "finish_gradient", &[self.policy()], &step, &buffers, Grid::Linear(1))
        }
    }
}
