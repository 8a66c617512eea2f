//! Actor and critic, two multilayer perceptrons in one flat parameter buffer: the gradient of PPO's loss over a whole minibatch.

use super::linear::{Activation, Linear};

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

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{ActorCritic, Layer};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;
    use crate::kernels::linear::Activation;
    use crate::kernels::surrogate::{Surrogate, SurrogateParams};

    pub(crate) const SHADER: Shader = Shader {
        name: "actor_critic",
        source: concat!(
            include_str!("../../shaders/linear/activation.wgsl"),
            include_str!("../../shaders/surrogate/loss.wgsl"),
            include_str!("../../shaders/actor_critic.wgsl")
        ),
        indices: Indices::Proven,
    };

    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[(ActorCriticParams::NAME, size_of::<ActorCriticParams>(), ActorCriticParams::FIELDS)],
        entries: &[
            ("pack_weights", &[&[]]),
            (
                "samples_gradient",
                &[
                    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 0.0), ("GAUSSIAN", 0.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 0.0), ("GAUSSIAN", 1.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 1.0), ("GAUSSIAN", 0.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 1.0), ("GAUSSIAN", 1.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 2.0), ("GAUSSIAN", 0.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 2.0), ("GAUSSIAN", 1.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 3.0), ("GAUSSIAN", 0.0), ("SAMPLES", 2.0)],
                    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("SAMPLES", 1.0)],
                    &[("ACTIVATION", 3.0), ("GAUSSIAN", 1.0), ("SAMPLES", 2.0)],
                ],
            ),
            ("parameters_gradient", &[&[]]),
        ],
    }];

    /// As in the shader.
    const WORKGROUP_SIZE: usize = 32;
    const MOST_LAYERS: usize = 4;
    const WINDOW: usize = 4096;
    const KEPT: usize = 64;
    /// Windows of the trace: observations, three a network, partial sums.
    const WINDOWS: usize = 8;
    const PARTIALS: usize = 7;

    shader_params! {
        struct ActorCriticParams {
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
            unused_0: u32,
            unused_1: u32,
            unused_2: u32,
            layers: [[u32; 4]; 2 * MOST_LAYERS],
            packed_layers: [[u32; 4]; 2 * MOST_LAYERS],
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
        /// Samples an invocation.
        samples: usize,
        /// Workgroups of samples.
        tiles: usize,
        /// Most vectors of parameters of a layer.
        most_vectors: usize,
        /// Most vectors of outputs of a layer, a network.
        widest: [usize; 2],
    }

    impl Plan {
        /// `log_std_offset` of a Gaussian policy. `None` where sizes or activations are beyond this kernel.
        pub(crate) fn new(
            context: &Context,
            networks: &ActorCritic,
            op: &Surrogate,
            log_std_offset: Option<usize>,
        ) -> Option<Self> {
            let activation = networks.actor.first()?.activation;
            let [actor, critic] = [&networks.actor, &networks.critic];
            let width = actor.last()?.linear.out_features;
            let observation_size = actor.first()?.linear.in_features;
            let hidden_alike = |layers: &[Layer]| {
                let (last, hidden) = layers.split_last()?;
                let alike = hidden.iter().all(|layer| layer.activation == activation) && last.activation == Activation::Identity;
                Some(alike && layers.len() <= MOST_LAYERS && layers[0].linear.in_features == observation_size)
            };
            let fits = hidden_alike(actor)? && hidden_alike(critic)? && !activation.needs_pre_activation();
            let uniform = context.limits().max_uniform_buffer_binding_size >= 16 * WINDOW as u64;
            if !fits || !uniform {
                return None;
            }
            let (mut layers, mut packed_layers) = ([[0; 4]; 2 * MOST_LAYERS], [[0; 4]; 2 * MOST_LAYERS]);
            let (mut packed, mut most_vectors) = (0, vectors(width));
            for (first, network) in [(0, actor), (MOST_LAYERS, critic)] {
                let mut kept = vectors(observation_size);
                let mut hidden = 0;
                for (i, layer) in network.iter().enumerate() {
                    let linear = &layer.linear;
                    let (inputs, outputs) = (vectors(linear.in_features), vectors(linear.out_features));
                    layers[first + i] =
                        [linear.in_features, linear.out_features, linear.weight_offset, linear.bias_offset].map(|x| x as u32);
                    let biases = packed + 4 * inputs * outputs;
                    packed_layers[first + i] = [inputs, outputs, packed, biases].map(|x| x as u32);
                    most_vectors = most_vectors.max(biases + outputs - packed);
                    packed = biases + outputs;
                    kept += outputs;
                    hidden += if i + 1 < network.len() { outputs } else { 0 };
                    if kept > KEPT || op.batch * outputs.max(hidden) > WINDOW {
                        return None;
                    }
                }
            }
            let packed_log_std = packed;
            packed += if log_std_offset.is_some() { vectors(width) } else { 0 };
            // A GPU has more invocations than such a minibatch needs; a processor core does better with fewer that read less.
            let samples = if context.is_software() { 2 } else { 1 };
            let tiles = op.batch.div_ceil(WORKGROUP_SIZE * samples);
            let partial_rows = 2 * tiles;
            let loss = SurrogateParams::new(op, width, WORKGROUP_SIZE);
            let partial_width = SurrogateParams::partial_width(width, log_std_offset.is_some());
            if packed > WINDOW || op.batch * vectors(observation_size) > WINDOW || partial_rows * partial_width > 4 * WINDOW {
                return None;
            }
            let params = ActorCriticParams {
                batch: loss.batch,
                width: loss.width,
                partial_rows: partial_rows as u32,
                partial_width: partial_width as u32,
                value_loss: loss.value_loss,
                log_std_offset: log_std_offset.unwrap_or(0) as u32,
                ratio_low: loss.ratio_low,
                ratio_high: loss.ratio_high,
                dual_clip: loss.dual_clip,
                value_range: loss.value_range,
                vf_coef: loss.vf_coef,
                ent_coef: loss.ent_coef,
                kl_coef: loss.kl_coef,
                one_over_batch: loss.one_over_batch,
                not_a_number: loss.not_a_number,
                observation_size: observation_size as u32,
                observation_vectors: vectors(observation_size) as u32,
                actor_layers: actor.len() as u32,
                critic_layers: critic.len() as u32,
                network: 0,
                packed_log_std: packed_log_std as u32,
                unused_0: 0,
                unused_1: 0,
                unused_2: 0,
                layers,
                packed_layers,
            };
            let widest = |layers: &[Layer]| layers.iter().map(|layer| vectors(layer.linear.out_features)).max().unwrap_or(0);
            Some(Self {
                params,
                activation,
                log_std: log_std_offset.is_some(),
                samples,
                tiles,
                most_vectors,
                widest: [widest(actor), widest(critic)],
            })
        }

        /// Records the minibatch. Buffers are those of `minibatch_gradient`, already checked; `actions` as words.
        pub(crate) fn record(
            &self,
            context: &mut Context,
            op: &Surrogate,
            params: &Buffer<f32>,
            observations: &Buffer<f32>,
            actions: &Buffer<u32>,
            samples: &Buffer<f32>,
            [output, d_output, values, d_values]: [&Buffer<f32>; 4],
            grads: &Buffer<f32>,
            stats: &Buffer<f32>,
        ) -> Result<()> {
            let packed: Buffer<f32> = context.scratch("actor_critic.weights", 4 * WINDOW)?;
            let trace: Buffer<f32> = context.scratch("actor_critic.trace", WINDOWS * 4 * WINDOW)?;
            let window = |i: usize| trace.slice(4 * WINDOW * i, 4 * WINDOW);
            let buffers = [bind(10, params), bind(11, &packed)];
            let grid = Grid::Xyz(self.most_vectors.div_ceil(WORKGROUP_SIZE), 2 * MOST_LAYERS + usize::from(self.log_std), 1);
            context.dispatch(SHADER, "pack_weights", &[], &self.params, &buffers, grid)?;

            let constants = [
                ("ACTIVATION", f64::from(self.activation as u8)),
                ("GAUSSIAN", f64::from(u8::from(self.log_std))),
                ("SAMPLES", self.samples as f64),
            ];
            let buffers = [
                bind(1, &packed.slice(0, 4 * WINDOW)),
                bind(2, observations),
                bind(3, actions),
                bind(4, samples),
                bind(5, &trace),
                bind(6, output),
                bind(7, d_output),
                bind(8, values),
                bind(9, d_values),
            ];
            context.dispatch(SHADER, "samples_gradient", &constants, &self.params, &buffers, Grid::Xyz(self.tiles, 2, 1))?;

            let partial_rows = self.params.partial_rows as usize;
            let log_std = self.log_std.then_some((grads, self.params.log_std_offset as usize));
            let loss = SurrogateParams::new(op, self.params.width as usize, WORKGROUP_SIZE);
            loss.finish_rows(context, &window(PARTIALS), partial_rows, stats, log_std)?;

            for (network, layers) in [self.params.actor_layers, self.params.critic_layers].into_iter().enumerate() {
                let params = ActorCriticParams { network: network as u32, ..self.params };
                let first = 1 + 3 * network;
                let [hidden, d_hidden, d_output] = [window(first), window(first + 1), window(first + 2)];
                let buffers =
                    [bind(12, &window(0)), bind(13, &hidden), bind(14, &d_hidden), bind(15, &d_output), bind(16, grads)];
                let grid = Grid::Xyz(self.widest[network] / 2, layers as usize, 1);
                context.dispatch(SHADER, "parameters_gradient", &[], &params, &buffers, grid)?;
            }
            Ok(())
        }
    }
}
