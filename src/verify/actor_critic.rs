//! Cases of [`kernels::actor_critic`](crate::kernels::actor_critic): both networks at once, against the single operations.

use super::runner::Runner;

use crate::backend::{
    ActorCriticOps, Backend, Cpu, CrossCheck, Drawn, Head, Memory, Minibatch, MinibatchRows, Pair, Parameters, PolicyOps,
    RolloutRows, Rows, Trace, TrainState,
};
use crate::error::Result;
use crate::kernels::actor_critic::{ActorCritic, Layer, MinibatchStep, composite_tolerance};
use crate::kernels::linear::{Activation, Linear};
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::kernels::policy::{Categorical, CategoricalSampleOperands, Gaussian, GaussianSampleOperands};
use crate::kernels::surrogate::Surrogate;
use crate::layout::{control, schedule, stat, stop};
use crate::operations::Draw;
use crate::operations::surrogate::{STATS_ROWS as ROWS, objective, samples};

/// `[batch, width of the hidden layers]`: around tiles and vectors of 8, and three stretches of which sums for layers are made.
const EDGES: &[[usize; 2]] =
    &[[1, 1], [2, 7], [7, 8], [8, 9], [9, 16], [64, 17], [65, 31], [128, 64], [129, 33], [256, 8], [601, 9]];
const MOST: [usize; 2] = [120, 60];

type Checked<A> = CrossCheck<A, Cpu<f64>>;

pub(super) fn cases<A: Backend>(runner: &mut Runner<Checked<A>>) -> Result<()> {
    for (i, [batch, width]) in runner.shapes(EDGES, MOST).enumerate() {
        let (categorical, hidden) = (i % 2 == 0, i % 3);
        let head = if categorical { "actions" } else { "dim" };
        let case = |draw: &mut Draw| Case::draw(batch, width, hidden, categorical, draw);
        let name = format!("batch {batch}, {hidden} hidden layers of {width}, {head}");
        runner.case("act", &name, |backend, draw| case(draw).act(backend, draw))?;
        runner.case("minibatch_step", &name, |backend, draw| case(draw).step(backend, draw))?;
    }
    Ok(())
}

struct Case {
    networks: ActorCritic,
    batch: usize,
    observation_size: usize,
    outputs: usize,
    categorical: bool,
    /// Parameters, log-std behind them.
    params: Vec<f32>,
    log_std_offset: usize,
}

impl Case {
    fn draw(batch: usize, width: usize, hidden: usize, categorical: bool, draw: &mut Draw) -> Self {
        let activation = draw.one(&[Activation::Identity, Activation::Tanh, Activation::Relu, Activation::Elu]);
        let (observation_size, outputs) = (draw.size(20), draw.size(9));
        let mut log_std_offset = 0;
        let mut network = |outputs: usize| -> Vec<Layer> {
            let sizes: Vec<usize> = [vec![observation_size], vec![width; hidden], vec![outputs]].concat();
            let layers = sizes.windows(2).enumerate().map(|(i, pair)| {
                let weight_offset = log_std_offset;
                let bias_offset = weight_offset + pair[0] * pair[1];
                log_std_offset = bias_offset + pair[1];
                let linear = Linear { batch, in_features: pair[0], out_features: pair[1], weight_offset, bias_offset };
                Layer { linear, activation: if i == hidden { Activation::Identity } else { activation } }
            });
            layers.collect()
        };
        let networks = ActorCritic { actor: network(outputs), critic: network(1) };
        // Small, so that ratios stay near 1 and no sample outweighs all others.
        let params = draw.floats(log_std_offset + outputs, 0.1);
        Self { networks, batch, observation_size, outputs, categorical, params, log_std_offset }
    }

    fn traces<B: Memory>(&self, backend: &mut B) -> Result<[Trace<B::Floats>; 2]> {
        let networks = [&self.networks.actor, &self.networks.critic];
        let [actor, critic] = networks.map(|layers| Trace::new(backend, layers, self.batch));
        Ok([actor?, critic?])
    }

    /// Outputs and values against double precision, and what was drawn against the sampling kernel on the same outputs: an action is a
    /// matter of rounding where its probability ends.
    fn act<A: Backend>(&self, backend: &mut Checked<A>, draw: &mut Draw) -> Result<()> {
        let (before, first, batch, outputs) = (draw.below(5), draw.below(5), self.batch, self.outputs);
        let rows = first + batch;
        let mut params = Parameters::new(backend.a.upload_floats(&self.params)?);
        let mut expected_params = Parameters::new(backend.b.upload_floats(&self.params)?);
        let observations = backend.upload_floats(&draw.floats(before + batch * self.observation_size, 1.0))?;
        let noise = if self.categorical { draw.uniforms(rows) } else { draw.floats(rows * outputs, 1.0) };
        let noise = backend.upload_floats(&noise)?;
        let mut values = backend.alloc_floats(rows)?;
        let mut logp = backend.alloc_floats(rows)?;
        let (mut actions, mut vectors) = (backend.alloc_words(rows)?, backend.alloc_floats(rows * outputs)?);
        let (mut traces, mut expected_traces) = (self.traces(&mut backend.a)?, self.traces(&mut backend.b)?);
        // The second time with what the first has left behind.
        for _ in 0..2 {
            let x = Rows { buffer: &observations.a, offset: before, count: batch };
            let drawn = self.drawn(&mut actions.a, &mut vectors.a);
            let to = RolloutRows { first, noise: &noise.a, drawn, logp: &mut logp.a, values: &mut values.a };
            backend.a.act(&self.networks, &mut params, &x, to, &mut traces)?;
        }
        let x = Rows { buffer: &observations.b, offset: before, count: batch };
        let drawn = self.drawn(&mut actions.b, &mut vectors.b);
        let to = RolloutRows { first, noise: &noise.b, drawn, logp: &mut logp.b, values: &mut values.b };
        backend.b.act(&self.networks, &mut expected_params, &x, to, &mut expected_traces)?;
        judge(backend, "act", "output", (traces[0].head(), expected_traces[0].head()), batch * outputs)?;
        let tolerance = composite_tolerance(&values.b[first..]);
        backend.compare("act", "values", &mut values, first..rows, &tolerance)?;

        let outputs_of_a = backend.a.read_f64(traces[0].head(), 0, batch * outputs)?;
        let mut head = backend.b.alloc_floats(batch * outputs)?;
        backend.b.write_f64(&mut head, 0, &outputs_of_a)?;
        match self.drawn(&mut actions.b, &mut vectors.b) {
            Drawn::Categorical(op, drawn) => {
                backend.b.categorical_sample(
                    &op,
                    CategoricalSampleOperands {
                        logits: &head,
                        mask: None,
                        uniforms: &noise.b,
                        offset: first,
                        actions: drawn,
                        logp: &mut logp.b,
                    },
                )?;
                backend.compare_words("act", "actions", &mut actions, first..rows)?;
            }
            Drawn::Gaussian(op, drawn) => {
                backend.b.gaussian_sample(
                    &op,
                    GaussianSampleOperands {
                        mean: &head,
                        log_std: expected_params.flat(),
                        noise: &noise.b,
                        offset: first,
                        actions: drawn,
                        logp: &mut logp.b,
                    },
                )?;
                let range = first * outputs..rows * outputs;
                let tolerance = composite_tolerance(&vectors.b[range.clone()]);
                backend.compare("act", "actions", &mut vectors, range, &tolerance)?;
            }
        }
        let tolerance = composite_tolerance(&logp.b[first..]);
        backend.compare("act", "logp", &mut logp, first..rows, &tolerance)
    }

    fn step<A: Backend>(&self, backend: &mut Checked<A>, draw: &mut Draw) -> Result<()> {
        let (batch, outputs) = (self.batch, self.outputs);
        let (rows, start, first_sample) = (batch + draw.below(9), draw.below(5), draw.below(5));
        let loss: Surrogate = objective(draw, batch);
        let observations = backend.upload_floats(&draw.floats(rows * self.observation_size, 1.0))?;
        let logp = if self.categorical { -(outputs as f32).ln() } else { outputs as f32 * -1.4 };
        let samples = samples(backend, first_sample + batch, logp, draw)?;
        let actions = backend.upload_words(&draw.words(rows, outputs))?;
        let vectors = backend.upload_floats(&draw.floats(rows * outputs, 0.5))?;
        let indices = backend.upload_words(&draw.words(start + batch, rows))?;
        let step = self.minibatch_step(loss, draw);
        let len = step.adam.len;
        let moments = [draw.floats(len, 0.1), draw.floats(len, 0.1).iter().map(|x| 0.01 + x * x).collect()];
        let stopped = draw.one(&[stop::NONE, stop::NONE, stop::NONE, stop::TARGET_KL]);
        let mut state = self.state(&mut backend.a, &step, &moments, stopped)?;
        let mut expected_state = self.state(&mut backend.b, &step, &moments, stopped)?;
        let mut made = Minibatch::new(&mut backend.a, &self.networks, self.categorical, batch)?;
        let mut expected = Minibatch::new(&mut backend.b, &self.networks, self.categorical, batch)?;
        let a_rows = MinibatchRows {
            indices: &indices.a,
            start,
            rows,
            observations: &observations.a,
            head: self.head(&actions.a, &vectors.a),
            samples: &samples.a,
            first_sample,
        };
        let b_rows = MinibatchRows {
            indices: &indices.b,
            start,
            rows,
            observations: &observations.b,
            head: self.head(&actions.b, &vectors.b),
            samples: &samples.b,
            first_sample,
        };
        // The second time with what the first has left behind.
        for _ in 0..2 {
            backend.a.minibatch_step(&self.networks, &step, &a_rows, &mut made, &mut state)?;
            backend.b.minibatch_step(&self.networks, &step, &b_rows, &mut expected, &mut expected_state)?;
        }
        let (a, b) = (state, expected_state);
        // A network by itself: next to the actor's gradient, the critic's might not count.
        let [critic, log_std] = [self.networks.critic[0].linear.weight_offset, self.log_std_offset];
        let ranges = [0..critic, critic..log_std, log_std..len];
        let mut grads = Pair { a: a.grads, b: b.grads };
        for range in ranges.into_iter().filter(|range| !range.is_empty()) {
            let tolerance = composite_tolerance(&grads.b[range.clone()]);
            backend.compare("minibatch_step", "grads", &mut grads, range, &tolerance)?;
        }
        let (params, expected_params) = (a.params.into_flat(), b.params.into_flat());
        for (tensor, a, b) in [("params", params, expected_params), ("m", a.m, b.m), ("v", a.v, b.v)] {
            let tolerance = composite_tolerance(&b);
            backend.compare("minibatch_step", tensor, &mut Pair { a, b }, 0..len, &tolerance)?;
        }
        let mut stats = Pair { a: a.stats, b: b.stats };
        let row = step.loss.stats_row * stat::COLUMNS;
        for columns in
            [stat::LOSS..stat::CLIPFRAC + 1, stat::GRAD_NORM..stat::GRAD_NORM + 1, stat::CLIP_COEF..stat::CLIP_COEF + 1]
        {
            let columns = row + columns.start..row + columns.end;
            let tolerance = composite_tolerance(&stats.b[columns.clone()]);
            backend.compare("minibatch_step", "stats", &mut stats, columns, &tolerance)?;
        }
        let mut control = Pair { a: a.control, b: b.control };
        backend.compare_words("minibatch_step", "control", &mut control, 0..control::WORDS)?;
        judge(backend, "minibatch_step", "output", (made.actor.head(), expected.actor.head()), batch * outputs)?;
        judge(backend, "minibatch_step", "values", (made.critic.head(), expected.critic.head()), batch)
    }

    fn minibatch_step(&self, loss: Surrogate, draw: &mut Draw) -> MinibatchStep {
        let len = if self.categorical { self.log_std_offset } else { self.params.len() };
        let stats_row = loss.stats_row;
        let norm = GradientNorm { len, max_grad_norm: draw.one(&[0.5, f64::INFINITY]), epsilon: 1e-6, stats_row };
        let adam = Adam {
            len,
            beta1: 0.9,
            beta2: draw.one(&[0.99, 0.999]),
            epsilon: draw.one(&[1e-8, 1e-5]),
            weight_decay: draw.one(&[0.0, 0.01]),
            decoupled: draw.coin(),
            schedule_row: draw.below(2),
            stats_row,
        };
        MinibatchStep { loss, tensor: 1, norm, max_kl: draw.one(&[None, Some(0.0), Some(10.0)]), adam }
    }

    /// In the midst of an update, now and then one that was stopped.
    fn state<B: Memory>(
        &self,
        backend: &mut B,
        step: &MinibatchStep,
        moments: &[Vec<f32>; 2],
        stop: u32,
    ) -> Result<TrainState<B::Floats, B::Words>> {
        let mut state = TrainState::new(backend, step.adam.len, 2, ROWS)?;
        state.params = Parameters::new(backend.upload_floats(&self.params)?);
        backend.write_floats(&mut state.m, 0, &moments[0])?;
        backend.write_floats(&mut state.v, 0, &moments[1])?;
        let rows = [1, 500].map(|t| schedule::row(2.5e-4, step.adam.beta1, step.adam.beta2, t));
        backend.write_floats(&mut state.schedule, 0, rows.as_flattened())?;
        backend.write_words(&mut state.control, control::STOP, &[stop])?;
        Ok(state)
    }

    /// Rooms for actions, as [`head`](Self::head) has them.
    fn drawn<'a, F, W>(&self, actions: &'a mut W, vectors: &'a mut F) -> Drawn<'a, F, W> {
        match self.head(&(), &()) {
            Head::Categorical(op, _) => Drawn::Categorical(op, actions),
            Head::Gaussian(op, _) => Drawn::Gaussian(op, vectors),
        }
    }

    fn head<'a, F, W>(&self, actions: &'a W, vectors: &'a F) -> Head<'a, F, W> {
        let Self { batch, outputs, log_std_offset, .. } = *self;
        if self.categorical {
            Head::Categorical(Categorical { batch, actions: outputs }, actions)
        } else {
            Head::Gaussian(Gaussian { batch, dim: outputs, log_std_offset, state_dependent_std: false }, vectors)
        }
    }
}

/// Compares what is in a trace.
fn judge<A: Backend>(
    backend: &mut Checked<A>,
    operation: &'static str,
    tensor: &'static str,
    (a, b): (&A::Floats, &Vec<f64>),
    len: usize,
) -> Result<()> {
    let values = backend.a.read_f64(a, 0, len)?;
    backend.judge(operation, tensor, 0, &values, &b[..len], &composite_tolerance(&b[..len]))
}
