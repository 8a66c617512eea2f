//! Cases of [`kernels::actor_critic`](crate::kernels::actor_critic): both networks at once, against the single operations.

use super::draw::Draw;
use super::runner::Runner;
use super::surrogate::{empty_stats, objective, samples};
use crate::backend::{
    ActorCriticOps, Backend, Cpu, CrossCheck, Head, Memory, MinibatchInputs, Rows, Trace, compose_minibatch_gradient,
};
use crate::error::Result;
use crate::kernels::actor_critic::{ActorCritic, Layer, composite_tolerance};
use crate::kernels::linear::{Activation, Linear};
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
        runner.case("minibatch_gradient", &name, |backend, draw| case(draw).gradient(backend, draw))?;
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
        let op: Surrogate = objective(draw, batch);
        let params = backend.upload_floats(&self.params)?;
        let observations = backend.upload_floats(&draw.floats(batch * self.observation_size, 1.0))?;
        let logp = if self.categorical { -(outputs as f32).ln() } else { outputs as f32 * -1.4 };
        let samples = samples(backend, batch, logp, draw)?;
        let actions = backend.upload_words(&draw.words(batch, outputs))?;
        let vectors = backend.upload_floats(&draw.floats(batch * outputs, 0.5))?;
        let parameters = if self.categorical { self.log_std_offset } else { self.params.len() };
        let (mut grads, mut stats) = (backend.alloc_floats(parameters)?, empty_stats(backend)?);
        let ([mut actor, mut critic], [mut actor_b, mut critic_b]) = (self.traces(&mut backend.a)?, self.traces(&mut backend.b)?);
        let (observations_a, head) = (&observations.a, self.head(&actions.a, &vectors.a));
        let inputs = MinibatchInputs { observations: observations_a, head, samples: &samples.a };
        let (a, outputs_a) = (&mut backend.a, (&mut grads.a, &mut stats.a));
        a.minibatch_gradient(&self.networks, &op, &params.a, &inputs, &mut actor, &mut critic, outputs_a.0, outputs_a.1)?;
        let (observations_b, head) = (&observations.b, self.head(&actions.b, &vectors.b));
        let inputs = MinibatchInputs { observations: observations_b, head, samples: &samples.b };
        let (b, outputs_b) = (&mut backend.b, (&mut grads.b, &mut stats.b));
        let traces = (&mut actor_b, &mut critic_b);
        compose_minibatch_gradient(b, &self.networks, &op, &params.b, &inputs, traces.0, traces.1, outputs_b.0, outputs_b.1)?;
        let tolerance = composite_tolerance(&grads.b);
        backend.compare("minibatch_gradient", "grads", &mut grads, 0..parameters, &tolerance)?;
        // Up to the loss's own columns: what others write into the row is not there yet.
        let row = op.stats_row * stat::COLUMNS;
        let columns = row..row + stat::CLIPFRAC + 1;
        let tolerance = composite_tolerance(&stats.b[columns.clone()]);
        backend.compare("minibatch_gradient", "stats", &mut stats, columns, &tolerance)?;
        let (head, d_head) = actor.head_and_gradient();
        let (head_b, d_head_b) = actor_b.head_and_gradient();
        judge(backend, "minibatch_gradient", "output", (head, head_b), batch * outputs)?;
        judge(backend, "minibatch_gradient", "d_output", (d_head, d_head_b), batch * outputs)?;
        let (values, d_values) = critic.head_and_gradient();
        let (values_b, d_values_b) = critic_b.head_and_gradient();
        judge(backend, "minibatch_gradient", "values", (values, values_b), batch)?;
        judge(backend, "minibatch_gradient", "d_values", (d_values, d_values_b), batch)
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
