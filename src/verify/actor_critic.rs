//! Cases of [`kernels::actor_critic`](crate::kernels::actor_critic): both networks at once, against the single operations.

use super::draw::Draw;
use super::runner::Runner;
use super::surrogate::{empty_stats, objective, samples};
use crate::backend::{
    ActorCriticOps, Backend, Cpu, CrossCheck, Head, Memory, Minibatch, MinibatchRows, Rows, Trace, compose_clipped_gradient,
};
use crate::error::Result;
use crate::kernels::actor_critic::{ActorCritic, Layer, composite_tolerance};
use crate::kernels::linear::{Activation, Linear};
use crate::kernels::optimizer::{GradientNorm, control};
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{Surrogate, stat};

/// `[batch, width of the hidden layers]`: around workgroups of 32 and vectors of 8, up to what a window of 64 KiB holds.
const EDGES: &[[usize; 2]] = &[[1, 1], [2, 7], [31, 8], [32, 9], [33, 16], [64, 17], [65, 31], [128, 64], [129, 33], [256, 8]];
const MOST: [usize; 2] = [120, 60];

type Checked<A> = CrossCheck<A, Cpu<f64>>;

pub(super) fn cases<A: Backend>(runner: &mut Runner<Checked<A>>) -> Result<()> {
    for (i, [batch, width]) in runner.shapes(EDGES, MOST).into_iter().enumerate() {
        let (categorical, hidden) = (i % 2 == 0, i % 3);
        let head = if categorical { "actions" } else { "dim" };
        let case = |draw: &mut Draw| Case::draw(batch, width, hidden, categorical, draw);
        let name = format!("batch {batch}, {hidden} hidden layers of {width}, {head}");
        runner.case("evaluate", &name, |backend, draw| case(draw).evaluate(backend, draw))?;
        runner.case("clipped_gradient", &name, |backend, draw| case(draw).gradient(backend, draw))?;
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

    fn evaluate<A: Backend>(&self, backend: &mut Checked<A>, draw: &mut Draw) -> Result<()> {
        let (before, batch) = (draw.below(5), self.batch);
        let params = backend.upload_floats(&self.params)?;
        let observations = backend.upload_floats(&draw.floats(before + batch * self.observation_size, 1.0))?;
        let mut values = backend.alloc_floats(before + batch)?;
        let ([mut actor, mut critic], [mut actor_b, mut critic_b]) = (self.traces(&mut backend.a)?, self.traces(&mut backend.b)?);
        let x = Rows { buffer: &observations.a, offset: before, count: batch };
        backend.a.evaluate(&self.networks, &params.a, &x, &mut actor, &mut critic, &mut values.a, before)?;
        let x = Rows { buffer: &observations.b, offset: before, count: batch };
        backend.b.evaluate(&self.networks, &params.b, &x, &mut actor_b, &mut critic_b, &mut values.b, before)?;
        judge(backend, "evaluate", "output", (actor.head(), actor_b.head()), batch * self.outputs)?;
        let tolerance = composite_tolerance(&values.b[before..]);
        backend.compare("evaluate", "values", &mut values, before..before + batch, &tolerance)
    }

    fn gradient<A: Backend>(&self, backend: &mut Checked<A>, draw: &mut Draw) -> Result<()> {
        let (batch, outputs) = (self.batch, self.outputs);
        let (rows, start, first_sample) = (batch + draw.below(9), draw.below(5), draw.below(5));
        let op: Surrogate = objective(draw, batch);
        let params = backend.upload_floats(&self.params)?;
        let observations = backend.upload_floats(&draw.floats(rows * self.observation_size, 1.0))?;
        let logp = if self.categorical { -(outputs as f32).ln() } else { outputs as f32 * -1.4 };
        let samples = samples(backend, first_sample + batch, logp, draw)?;
        let actions = backend.upload_words(&draw.words(rows, outputs))?;
        let vectors = backend.upload_floats(&draw.floats(rows * outputs, 0.5))?;
        let indices = backend.upload_words(&draw.words(start + batch, rows))?;
        let len = if self.categorical { self.log_std_offset } else { self.params.len() };
        let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: op.stats_row };
        let (mut grads, mut stats) = (backend.alloc_floats(len)?, empty_stats(backend)?);
        let mut control = backend.upload_words(&control::INITIAL)?;
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
        let networks = &self.networks;
        let (of_a, of_b) = ((&mut grads.a, &mut stats.a, &mut control.a), (&mut grads.b, &mut stats.b, &mut control.b));
        backend.a.clipped_gradient(networks, &op, &norm, 1, &params.a, &a_rows, &mut made, of_a.0, of_a.1, of_a.2)?;
        let b = &mut backend.b;
        compose_clipped_gradient(b, networks, &op, &norm, 1, &params.b, &b_rows, &mut expected, of_b.0, of_b.1, of_b.2)?;
        // A network by itself: next to the actor's gradient, the critic's might not count.
        let [critic, log_std] = [networks.critic[0].linear.weight_offset, self.log_std_offset];
        for range in [0..critic, critic..log_std, log_std..len].into_iter().filter(|range| !range.is_empty()) {
            let tolerance = composite_tolerance(&grads.b[range.clone()]);
            backend.compare("clipped_gradient", "grads", &mut grads, range, &tolerance)?;
        }
        let row = op.stats_row * stat::COLUMNS;
        for columns in
            [stat::LOSS..stat::CLIPFRAC + 1, stat::GRAD_NORM..stat::GRAD_NORM + 1, stat::CLIP_COEF..stat::CLIP_COEF + 1]
        {
            let columns = row + columns.start..row + columns.end;
            let tolerance = composite_tolerance(&stats.b[columns.clone()]);
            backend.compare("clipped_gradient", "stats", &mut stats, columns, &tolerance)?;
        }
        backend.compare_words("clipped_gradient", "control", &mut control, 0..control::WORDS)?;
        judge(backend, "clipped_gradient", "output", (made.actor.head(), expected.actor.head()), batch * outputs)?;
        judge(backend, "clipped_gradient", "values", (made.critic.head(), expected.critic.head()), batch)
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
    backend.a.check_float_guards(a)?;
    backend.judge(operation, tensor, 0, &values, &b[..len], &composite_tolerance(&b[..len]))
}
