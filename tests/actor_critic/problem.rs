//! A minibatch on the host, and its gradient by each way.

use ppo_kernels::backend::{
    Backend, Drawn, Head, Minibatch, MinibatchInputs, MinibatchRows, Parameters, RolloutRows, Rows, Trace, TrainState,
    compose_minibatch_gradient,
};
use ppo_kernels::kernels::actor_critic::{ActorCritic, Layer, MinibatchStep};
use ppo_kernels::kernels::linear::{Activation, Linear};
use ppo_kernels::kernels::nonfinite::Watched;
use ppo_kernels::kernels::optimizer::{Adam, GradientNorm};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss};
use ppo_kernels::layout::{control, sample, schedule, stat};

use crate::common::{Draw, relative_error};

/// A minibatch on the host.
#[derive(Clone)]
pub struct Problem {
    pub networks: ActorCritic,
    /// What the traces are made for, where that is another network.
    pub depths: Option<ActorCritic>,
    pub op: Surrogate,
    pub max_kl: Option<f64>,
    pub outputs: usize,
    pub categorical: bool,
    pub params: Vec<f32>,
    pub observations: Vec<f32>,
    pub actions: Vec<u32>,
    pub vectors: Vec<f32>,
    pub samples: Vec<f32>,
    /// Rows before the first sample of a step.
    pub first_sample: usize,
}

/// How a gradient is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By single operations, from a minibatch.
    Composed,
    /// As a whole, from a minibatch.
    Whole,
    /// As a step, from rows of a rollout.
    Step,
}

type Prepared<F, W> = (MinibatchStep, TrainState<F, W>, Minibatch<F, W>);

/// What an update needs of it.
pub type Outcome = Vec<(&'static str, Vec<f64>)>;

impl Problem {
    pub fn new(batch: usize, widths: &[usize], outputs: usize, activation: Activation, categorical: bool) -> Self {
        let mut parameters = 0;
        let mut network = |outputs: usize| {
            let widths = [widths, &[outputs]].concat();
            let layer = |(i, pair): (usize, &[usize])| {
                let (in_features, out_features) = (pair[0], pair[1]);
                let weight_offset = parameters;
                let bias_offset = weight_offset + in_features * out_features;
                parameters = bias_offset + out_features;
                let activation = if i + 2 == widths.len() { Activation::Identity } else { activation };
                Layer { linear: Linear { batch: 1, in_features, out_features, weight_offset, bias_offset }, activation }
            };
            widths.windows(2).enumerate().map(layer).collect::<Vec<_>>()
        };
        let networks = ActorCritic { actor: network(outputs), critic: network(1) };
        let mut draw = Draw::new((batch * 31 + outputs) as u64);
        let params = draw.floats(parameters + outputs, 0.3);
        let mut samples = draw.floats(batch * sample::COLUMNS, 1.0);
        // Log-probabilities near the new ones, so that ratios are near 1.
        let logp = if categorical { -(outputs as f32).ln() } else { -(outputs as f32) };
        samples.chunks_mut(sample::COLUMNS).for_each(|row| row[sample::OLD_LOGP] = logp + 0.2 * row[sample::OLD_LOGP]);
        let op = Surrogate {
            batch,
            clip_low: 0.2,
            clip_high: 0.3,
            dual_clip: None,
            vf_coef: 0.5,
            ent_coef: 0.01,
            kl_coef: 0.1,
            value_loss: ValueLoss::Clipped { clip: 0.2 },
            stats_row: 1,
        };
        Self {
            networks,
            depths: None,
            op,
            max_kl: None,
            outputs,
            categorical,
            params,
            observations: draw.floats(batch * widths[0], 1.0),
            actions: draw.words(batch, outputs as u32),
            vectors: draw.floats(batch * outputs, 1.0),
            samples,
            first_sample: 2,
        }
    }

    pub fn solve<B: Backend>(&self, backend: &mut B, way: Way) -> ppo_kernels::Result<Outcome> {
        if way == Way::Step {
            return self.take_steps(backend, 1, |_, _, _| Ok(()));
        }
        let (step, mut state, mut minibatch) = self.prepare(backend)?;
        let (networks, op) = (&self.networks, &self.op);
        let (actions, vectors) = (backend.upload_words(&self.actions)?, backend.upload_floats(&self.vectors)?);
        let observations = &backend.upload_floats(&self.observations)?;
        let samples = &backend.upload_floats(&self.samples)?;
        let inputs = MinibatchInputs { observations, head: self.head(&actions, &vectors), samples };
        let Minibatch { actor, critic, .. } = &mut minibatch;
        let TrainState { params, m, v, grads, schedule, stats, control } = &mut state;
        if way == Way::Whole {
            backend.minibatch_gradient(networks, op, params.flat(), &inputs, actor, critic, grads, stats)?;
        } else {
            compose_minibatch_gradient(backend, networks, op, params.flat(), &inputs, actor, critic, grads, stats)?;
        }
        backend.find_nonfinite(&[Watched { tensor: TENSOR, len: self.parameters(), x: grads }], control)?;
        backend.gradient_norm(&step.norm, grads, stats)?;
        backend.adam_step(&step.adam, params.flat_mut(), grads, m, v, schedule, stats, control)?;
        self.read(backend, way, state, minibatch)
    }

    /// Steps one after the other from the same rows; `before` has the backend and the state before each.
    pub fn take_steps<B: Backend>(
        &self,
        backend: &mut B,
        steps: usize,
        mut before: impl FnMut(usize, &mut B, &mut TrainState<B::Floats, B::Words>) -> ppo_kernels::Result<()>,
    ) -> ppo_kernels::Result<Outcome> {
        let (_, mut state, mut minibatch) = self.prepare(backend)?;
        for i in 0..steps {
            before(i, backend, &mut state)?;
            self.take_step(backend, &mut minibatch, &mut state)?;
        }
        self.read(backend, Way::Step, state, minibatch)
    }

    fn take_step<B: Backend>(
        &self,
        backend: &mut B,
        minibatch: &mut Minibatch<B::Floats, B::Words>,
        state: &mut TrainState<B::Floats, B::Words>,
    ) -> ppo_kernels::Result<()> {
        let step = self.step(self.parameters());
        let rollout = self.scatter();
        let (actions, vectors) = (backend.upload_words(&rollout.actions)?, backend.upload_floats(&rollout.vectors)?);
        let rows = MinibatchRows {
            indices: &backend.upload_words(&rollout.indices)?,
            start: START,
            rows: ROWS_A_SAMPLE * self.op.batch,
            observations: &backend.upload_floats(&rollout.observations)?,
            head: self.head(&actions, &vectors),
            samples: &backend.upload_floats(&rollout.samples)?,
            first_sample: self.first_sample,
        };
        backend.minibatch_step(&self.networks, &step, &rows, minibatch, state)
    }

    fn parameters(&self) -> usize {
        if self.categorical { self.params.len() - self.outputs } else { self.params.len() }
    }

    fn prepare<B: Backend>(&self, backend: &mut B) -> ppo_kernels::Result<Prepared<B::Floats, B::Words>> {
        let traced = self.depths.as_ref().unwrap_or(&self.networks);
        let step = self.step(self.parameters());
        Ok((step, self.state(backend, &step)?, Minibatch::new(backend, traced, self.categorical, self.op.batch)?))
    }

    fn read<B: Backend>(
        &self,
        backend: &mut B,
        way: Way,
        state: TrainState<B::Floats, B::Words>,
        mut minibatch: Minibatch<B::Floats, B::Words>,
    ) -> ppo_kernels::Result<Outcome> {
        let (networks, batch, parameters) = (&self.networks, self.op.batch, self.parameters());
        let TrainState { params, m, v, grads, stats, control, .. } = state;
        let control = backend.read_words(&control, 0, control::WORDS)?;
        let (critic, log_std) = (networks.critic[0].linear.weight_offset, self.params.len() - self.outputs);
        let mut read =
            |buffer: &B::Floats, offset, len| if len > 0 { backend.read_f64(buffer, offset, len) } else { Ok(Vec::new()) };
        let mut outcome = vec![
            // Each by itself: next to the actor's, the critic's would not count.
            ("grads of the actor", read(&grads, 0, critic)?),
            ("grads of the critic", read(&grads, critic, log_std - critic)?),
            ("grads of log_std", read(&grads, log_std, parameters - log_std)?),
            ("stats", read(&stats, stat::COLUMNS, stat::CLIPFRAC + 1)?),
            ("norm", read(&stats, stat::COLUMNS + stat::GRAD_NORM, 1)?),
            ("factor", read(&stats, stat::COLUMNS + stat::CLIP_COEF, 1)?),
            ("control", control.into_iter().map(f64::from).collect()),
            ("params", read(params.flat(), 0, self.params.len())?),
            ("m", read(&m, 0, parameters)?),
            ("v", read(&v, 0, parameters)?),
            ("head", read(minibatch.actor.head(), 0, batch * self.outputs)?),
            ("values", read(minibatch.critic.head(), 0, batch)?),
        ];
        if way != Way::Step {
            outcome.push(("d_head", read(minibatch.actor.head_and_gradient().1, 0, batch * self.outputs)?));
            outcome.push(("d_values", read(minibatch.critic.head_and_gradient().1, 0, batch)?));
        }
        Ok(outcome)
    }

    /// Adam with every one of its parts.
    fn step(&self, len: usize) -> MinibatchStep {
        let norm = GradientNorm { len, max_grad_norm: 0.05, epsilon: 1e-6, stats_row: 1 };
        let (weight_decay, decoupled) = (0.02, self.categorical);
        let adam = Adam { len, beta1: 0.9, beta2: 0.99, epsilon: 1e-3, weight_decay, decoupled, schedule_row: 1, stats_row: 1 };
        MinibatchStep { loss: self.op, tensor: TENSOR, norm, max_kl: self.max_kl, adam }
    }

    /// What was there before must not matter, but for parameters and moments.
    fn state<B: Backend>(&self, backend: &mut B, step: &MinibatchStep) -> ppo_kernels::Result<TrainState<B::Floats, B::Words>> {
        let mut draw = Draw::new(77);
        let len = self.params.len();
        let moments = draw.floats(len, 0.1);
        let squares: Vec<f32> = draw.floats(len, 0.1).iter().map(|x| 1e-3 + x * x).collect();
        let row = schedule::row(0.01, step.adam.beta1, step.adam.beta2, 3);
        Ok(TrainState {
            params: Parameters::new(backend.upload_floats(&self.params)?),
            m: backend.upload_floats(&moments)?,
            v: backend.upload_floats(&squares)?,
            grads: backend.upload_floats(&vec![7.0; len])?,
            schedule: backend.upload_floats(&[[f32::NAN; schedule::COLUMNS], row].concat())?,
            stats: backend.upload_floats(&[7.0; 2 * stat::COLUMNS])?,
            control: backend.upload_words(&control::INITIAL)?,
        })
    }

    pub fn head<'a, F, W>(&self, actions: &'a W, vectors: &'a F) -> Head<'a, F, W> {
        let batch = self.op.batch;
        if self.categorical {
            return Head::Categorical(Categorical { batch, actions: self.outputs }, actions);
        }
        let log_std_offset = self.params.len() - self.outputs;
        Head::Gaussian(Gaussian { batch, dim: self.outputs, log_std_offset, state_dependent_std: false }, vectors)
    }

    /// The minibatch's rows somewhere in a rollout: every [`ROWS_A_SAMPLE`]-th, from the last to the first. What is between is NaN or no action.
    fn scatter(&self) -> Rollout {
        let batch = self.op.batch;
        let row = |i: usize| ROWS_A_SAMPLE * (batch - i) - 1;
        fn spread<T: Copy>(from: &[T], width: usize, rows: usize, empty: T, row: impl Fn(usize) -> usize) -> Vec<T> {
            let mut to = vec![empty; rows * width];
            from.chunks(width).enumerate().for_each(|(i, x)| to[row(i) * width..][..width].copy_from_slice(x));
            to
        }
        let rows = ROWS_A_SAMPLE * batch;
        let observation_size = self.networks.actor[0].linear.in_features;
        Rollout {
            indices: std::iter::repeat_n(u32::MAX, START).chain((0..batch).map(|i| row(i) as u32)).collect(),
            observations: spread(&self.observations, observation_size, rows, f32::NAN, row),
            actions: spread(&self.actions, 1, rows, u32::MAX, row),
            vectors: spread(&self.vectors, self.outputs, rows, f32::NAN, row),
            samples: [&vec![f32::NAN; self.first_sample * sample::COLUMNS], &self.samples[..]].concat(),
        }
    }
}

/// A rollout that a minibatch is gathered from.
struct Rollout {
    indices: Vec<u32>,
    observations: Vec<f32>,
    actions: Vec<u32>,
    vectors: Vec<f32>,
    samples: Vec<f32>,
}

const ROWS_A_SAMPLE: usize = 3;
const START: usize = 5;
/// The number under which a gradient that is not finite is reported.
pub const TENSOR: u32 = 3;

impl Problem {
    /// The actor's output, values behind three that have to stay, and what was drawn.
    pub fn act<B: Backend>(&self, backend: &mut B) -> ppo_kernels::Result<Acted> {
        let mut params = Parameters::new(backend.upload_floats(&self.params)?);
        let (batch, first) = (self.op.batch, 3);
        let rows = first + batch + 1;
        let mut draw = Draw::new(78);
        let noise = draw.floats(rows * self.outputs, 1.0).into_iter().map(|x| if self.categorical { x.abs().fract() } else { x });
        let noise = backend.upload_floats(&noise.collect::<Vec<f32>>())?;
        let observations = backend.upload_floats(&[&[9.0; 7], &self.observations[..]].concat())?;
        let mut traces = [Trace::new(backend, &self.networks.actor, batch)?, Trace::new(backend, &self.networks.critic, batch)?];
        let mut values = backend.upload_floats(&vec![7.0; rows])?;
        let mut logp = backend.upload_floats(&vec![7.0; rows])?;
        let mut actions = backend.upload_words(&vec![7; rows])?;
        let mut vectors = backend.upload_floats(&vec![7.0; rows * self.outputs])?;
        let drawn = match self.head(&(), &()) {
            Head::Categorical(op, ()) => Drawn::Categorical(op, &mut actions),
            Head::Gaussian(op, ()) => Drawn::Gaussian(op, &mut vectors),
        };
        let x = Rows { buffer: &observations, offset: 7, count: batch };
        let to = RolloutRows { first, noise: &noise, drawn, logp: &mut logp, values: &mut values };
        backend.act(&self.networks, &mut params, &x, to, &mut traces)?;
        let actions = backend.read_words(&actions, 0, rows)?;
        Ok([
            backend.read_f64(traces[0].head(), 0, batch * self.outputs)?,
            backend.read_f64(&values, 0, rows)?,
            actions.into_iter().map(f64::from).collect(),
            backend.read_f64(&vectors, 0, rows * self.outputs)?,
            backend.read_f64(&logp, 0, rows)?,
        ])
    }
}

/// The actor's output, values, actions of either kind, and their log-probabilities.
pub type Acted = [Vec<f64>; 5];
pub const ACTED: [&str; 5] = ["head", "values", "actions", "vectors", "logp"];

/// The first tensor further from the expected one than `tolerance`, relative to its norm (of a single clipped sample, all can be zero), or of words that
/// are not the same.
pub fn first_difference(outcome: &Outcome, expected: &Outcome, tolerance: f64) -> Option<String> {
    outcome.iter().zip(expected).find_map(|((name, a), (_, b))| {
        let error = if a == b { 0.0 } else { relative_error(a, b) };
        let differs = a != b && (*name == "control" || !(error <= tolerance));
        differs.then(|| format!("{name}: {error:e}"))
    })
}

/// One sample to many tiles, their edges, no hidden layer to three, every activation, both policies, and networks that take all the room
/// a sample has: by their observations, a hidden layer, or both.
pub fn problems() -> impl Iterator<Item = Problem> {
    let activations = [
        Activation::Tanh,
        Activation::Relu,
        Activation::Elu,
        Activation::Silu,
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Identity,
    ];
    let widths: [&[usize]; 4] = [&[5], &[3, 7], &[17, 33, 9], &[4, 16, 8, 12]];
    let sizes = [1, 2, 31, 32, 33, 64, 127, 128, 129, 255, 1023, 1025, 2049];
    let small = sizes.into_iter().enumerate().map(move |(i, batch)| {
        let (widths, activation) = (widths[i % widths.len()], activations[i % activations.len()]);
        (batch, widths, [1, 2, 3, 11, 5, 6][i % 6], activation)
    });
    let wide: [(usize, &[usize], usize, Activation); 3] =
        [(33, &[133, 5], 6, Activation::Elu), (20, &[66, 69, 3], 7, Activation::Tanh), (9, &[3, 130, 2], 8, Activation::Relu)];
    small.chain(wide).flat_map(|(batch, widths, outputs, activation)| {
        [true, false].map(|categorical| Problem::new(batch, widths, outputs, activation, categorical))
    })
}
