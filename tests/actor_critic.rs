//! The gradient of a whole minibatch, in tiles of samples, against the composition of single operations.

mod common;

use common::{Draw, relative_error};
use ppo_kernels::Error;
use ppo_kernels::backend::{
    ActorCriticOps, Backend, Cpu, CrossCheck, Drawn, Gpu, Head, Memory, Minibatch, MinibatchInputs, MinibatchRows, Parameters,
    RolloutRows, Rows, Trace, TrainState, Variant, compose_minibatch_gradient,
};
use ppo_kernels::kernels::actor_critic::{ActorCritic, Form, Layer, MinibatchStep};
use ppo_kernels::kernels::linear::{Activation, Linear};
use ppo_kernels::kernels::optimizer::{Adam, GradientNorm, control, schedule, stop};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss, sample, stat};

/// A minibatch on the host.
#[derive(Clone)]
struct Problem {
    networks: ActorCritic,
    /// What the traces are made for, where that is another network.
    depths: Option<ActorCritic>,
    op: Surrogate,
    max_kl: Option<f64>,
    outputs: usize,
    categorical: bool,
    params: Vec<f32>,
    observations: Vec<f32>,
    actions: Vec<u32>,
    vectors: Vec<f32>,
    samples: Vec<f32>,
}

/// How a gradient is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By single operations, from a minibatch.
    Composed,
    /// As a whole, from a minibatch.
    Whole,
    /// As a step, from rows of a rollout.
    Step,
}

/// What an update needs of it.
type Outcome = Vec<(&'static str, Vec<f64>)>;

impl Problem {
    fn new(batch: usize, widths: &[usize], outputs: usize, activation: Activation, categorical: bool) -> Self {
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
        }
    }

    fn solve<B: Backend>(&self, backend: &mut B, way: Way) -> ppo_kernels::Result<Outcome> {
        let batch = self.op.batch;
        let traced = self.depths.as_ref().unwrap_or(&self.networks);
        let parameters = if self.categorical { self.params.len() - self.outputs } else { self.params.len() };
        let step = self.step(parameters);
        let mut state = self.state(backend, &step)?;
        let mut minibatch = Minibatch::new(backend, traced, self.categorical, batch)?;
        let (networks, op) = (&self.networks, &self.op);
        if way == Way::Step {
            let rollout = self.scatter();
            let (actions, vectors) = (backend.upload_words(&rollout.actions)?, backend.upload_floats(&rollout.vectors)?);
            let rows = MinibatchRows {
                indices: &backend.upload_words(&rollout.indices)?,
                start: START,
                rows: ROWS_A_SAMPLE * batch,
                observations: &backend.upload_floats(&rollout.observations)?,
                head: self.head(&actions, &vectors),
                samples: &backend.upload_floats(&rollout.samples)?,
                first_sample: FIRST_SAMPLE,
            };
            backend.minibatch_step(networks, &step, &rows, &mut minibatch, &mut state)?;
        } else {
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
            backend.find_nonfinite(TENSOR, parameters, grads, control)?;
            backend.gradient_norm(&step.norm, grads, stats)?;
            backend.adam_step(&step.adam, params.flat_mut(), grads, m, v, schedule, stats, control)?;
        }
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

    fn head<'a, F, W>(&self, actions: &'a W, vectors: &'a F) -> Head<'a, F, W> {
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
            samples: [&[f32::NAN; FIRST_SAMPLE * sample::COLUMNS], &self.samples[..]].concat(),
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
const FIRST_SAMPLE: usize = 2;
/// The number under which a gradient that is not finite is reported.
const TENSOR: u32 = 3;

impl Problem {
    /// The actor's output, values behind three that have to stay, and what was drawn.
    fn act<B: Backend>(&self, backend: &mut B) -> ppo_kernels::Result<Acted> {
        let (batch, first) = (self.op.batch, 3);
        let rows = first + batch + 1;
        let mut draw = Draw::new(78);
        let noise = draw.floats(rows * self.outputs, 1.0).into_iter().map(|x| if self.categorical { x.abs().fract() } else { x });
        let noise = backend.upload_floats(&noise.collect::<Vec<f32>>())?;
        let mut params = Parameters::new(backend.upload_floats(&self.params)?);
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
type Acted = [Vec<f64>; 5];
const ACTED: [&str; 5] = ["head", "values", "actions", "vectors", "logp"];

/// The first tensor further from the expected one than `tolerance`, relative to its norm. (Of a single clipped sample, all can be zero.)
fn first_difference(outcome: &Outcome, expected: &Outcome, tolerance: f64) -> Option<String> {
    outcome.iter().zip(expected).find_map(|((name, a), (_, b))| {
        let error = if a == b { 0.0 } else { relative_error(a, b) };
        if error <= tolerance { None } else { Some(format!("{name}: {error:e}")) }
    })
}

/// One sample to many tiles, their edges, no hidden layer to three, every activation, both policies.
fn problems() -> impl Iterator<Item = Problem> {
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
    sizes.into_iter().enumerate().flat_map(move |(i, batch)| {
        let (widths, activation) = (widths[i % widths.len()], activations[i % activations.len()]);
        [true, false].map(|categorical| Problem::new(batch, widths, 1 + i % 6, activation, categorical))
    })
}

#[test]
fn tiles_give_what_the_single_operations_give() {
    for problem in problems() {
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        let batch = problem.op.batch;
        for (what, outcome, tolerance) in [
            ("f64", problem.solve(&mut Cpu::<f64>::new(), Way::Whole), 1e-12),
            ("f32", problem.solve(&mut Cpu::<f32>::new(), Way::Whole), 2e-5),
            ("f64, as a step", problem.solve(&mut Cpu::<f64>::new(), Way::Step), 1e-12),
        ] {
            let difference = first_difference(&outcome.unwrap(), &expected, tolerance);
            assert_eq!(difference, None, "{what}, batch {batch}, categorical {}", problem.categorical);
        }
    }
}

#[test]
fn the_adapter_passes_the_cross_check() {
    for problem in problems().filter(|problem| problem.op.batch < 200) {
        let Some(mut both) = common::checked() else { return };
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        let outcome = problem.solve::<CrossCheck<Gpu, Cpu<f64>>>(&mut both, Way::Step).unwrap();
        assert_eq!(first_difference(&outcome, &expected, 1e-4), None, "batch {}", problem.op.batch);
    }
}

/// The composition, and every form of the fused kernel.
const VARIANTS: [(Variant, Option<Form>); 4] = [
    (Variant::Plain, None),
    (Variant::Fast, Some(Form::ByInvocation)),
    (Variant::Fast, Some(Form::BySubgroup)),
    (Variant::Fast, Some(Form::ByTile)),
];

/// With every variant, in fresh memory full of NaN.
#[test]
fn the_adapter_gives_what_the_single_operations_give() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for problem in problems() {
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        for (variant, form) in VARIANTS {
            (gpu.variant, gpu.fused_form) = (variant, form);
            gpu.context.release();
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            let difference = first_difference(&outcome, &expected, 1e-4);
            assert_eq!(
                difference, None,
                "{variant:?}, {form:?}, batch {}, categorical {}",
                problem.op.batch, problem.categorical
            );
        }
    }
}

/// Into the middle of buffers, as a rollout has them. No uniform number of these is where an action's probability ends, so all agree on them.
#[test]
fn acting_gives_what_the_single_operations_give() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for problem in problems() {
        let expected = problem.act(&mut Cpu::<f64>::new()).unwrap();
        for (variant, form) in VARIANTS {
            (gpu.variant, gpu.fused_form) = (variant, form);
            gpu.context.release();
            let acted = problem.act(&mut gpu).unwrap();
            for (tensor, (a, b)) in ACTED.iter().zip(acted.iter().zip(&expected)) {
                let error = relative_error(a, b);
                assert!(error <= 1e-5, "{variant:?}, {form:?}, batch {}: {tensor}: {error:e}", problem.op.batch);
            }
        }
    }
}

/// A text, what it becomes, and the first tensor that is wrong.
type Fault = (&'static str, &'static str, &'static str);

/// Of what all forms share.
const FAULTS: [Fault; 10] = [
    ("written.squares += gradient * gradient;", "", "norm"),
    ("all.squares += bitcast<f32>(word_of_block(own.x, i));", "", "norm"),
    ("coef = max_grad_norm / divisor;", "coef = 1.0;", "factor"),
    ("store_element(at.first + 2u, third);", "", "params"),
    ("m[index] = element.m;", "", "m"),
    ("v[index] = element.v;", "", "v"),
    ("params.adam_epsilon,", "0.0,", "params"),
    ("(bitcast<u32>(gradient) & EXPONENT) == EXPONENT", "index == 1u", "control"),
    ("stage_value_sum(local, loss);", "", "stats"),
    ("z * z - 1.0", "z * z", "grads"),
];

const FAULTS_BY_SAMPLE: [Fault; 7] = [
    ("(*tile).low_bias += low;", "", "grads"),
    ("low = activate_all(low);", "", "grads"),
    ("kept[output_at].x, sample, &loss", "0.0, sample, &loss", "grads of the critic"),
    ("params.first_index + sample_index", "sample_index", "grads"),
    ("params.first_sample + sample_index", "sample_index", "grads"),
    ("actions[source_row", "actions[sample_index", "grads"),
    ("all.squares += sh_written[lane].squares;", "", "norm"),
];

const FAULTS_BY_TILE: [Fault; 18] = [
    ("bias += gradient;", "", "grads"),
    ("= activate_all(y);", "= y;", "grads"),
    ("* derivatives(sh_kept[own])", "", "grads"),
    ("low.x * w.a", "low.x * w.b", "grads"),
    ("value_terms(logit(0u), sample", "value_terms(0.0, sample", "grads of the critic"),
    ("params.first_index + index", "index", "grads"),
    ("params.first_sample + index", "index", "grads"),
    ("actions[source_row", "actions[own_sample", "grads"),
    ("store_d_logit(o, 0.0);", "", "grads"),
    ("(a + b) + (c + d)", "(a + b) + c", "grads"),
    ("for (; t < tiles; t++) {", "for (; t < 0u; t++) {", "grads"),
    ("d_logp == 0.0);", "true);", "grads of log_std"),
    ("column - SUMS, sum - params.ent_coef", "column - SUMS, sum - 100.0 * params.ent_coef", "grads of log_std"),
    ("row = local / SUMS; row", "row = 1u + local / SUMS; row", "grads of log_std"),
    ("own_partial += sh_sums", "own_partial = sh_sums", "stats"),
    ("+= sh_written[local + half].squares", "+= sh_written[local].squares", "norm"),
    ("odd * sh_kept[one + k + 1u]", "odd", "grads"),
    ("column_vector * 4u * at.y + row", "column_vector * 4u * at.y", "grads"),
];

#[test]
fn a_planted_fault_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let of_form = [(Form::BySubgroup, &FAULTS_BY_SAMPLE[..]), (Form::ByTile, &FAULTS_BY_TILE[..])];
    for (form, faults) in of_form {
        gpu.fused_form = Some(form);
        for (from, to, tensor) in FAULTS.iter().chain(faults) {
            plant_in_forms(&mut gpu, form, from, to);
            let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
            assert!(difference.as_deref().is_some_and(|found| found.starts_with(tensor)), "{form:?}, {from}: {difference:?}");
        }
    }
}

/// What is added to a tile before is left behind, or what was in memory before is not.
#[test]
fn a_fault_of_a_workgroups_later_tiles_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::ByTile);
    let problem = Problem::new(2049, &[3, 7], 2, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let mut difference = |from: &str, to: &str| {
        plant_in_forms(&mut gpu, Form::ByTile, from, to);
        gpu.context.set_guards(true);
        gpu.context.release();
        first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4)
    };
    assert_eq!(difference("if is_first {", "if is_first {"), None);
    assert!(difference("if is_first {", "if true {").is_some_and(|found| found.starts_with("grads")));
    assert!(difference("if is_first {", "if false {").is_some_and(|found| found.starts_with("grads")));
}

/// Into what runs where `form` is asked for.
fn plant_in_forms(gpu: &mut Gpu, form: Form, from: &str, to: &str) {
    let names: &[_] = if form == Form::ByTile { &["actor_critic/by_tile"] } else { &FORMS };
    for name in names {
        gpu.context.replace_shader(name, common::plant(common::shader(name), from, to));
    }
}

#[test]
fn a_planted_fault_of_acting_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    for (categorical, from, to, wrong) in [
        (true, "params.observations_offset + ", "", "head"),
        (true, "values[row] = ", "values[row + 1u] = ", "values"),
        (true, "output[i * params.width + a] = logit(a);", "output[i * params.width + a] = logit(0u);", "head"),
        (true, "noise[row] * sum", "noise[0] * sum", "actions"),
        (true, "!is_found && cumulative > wanted", "cumulative > wanted", "actions"),
        (true, "(logit(action) - largest) - log(sum)", "(logit(action) - largest)", "logp"),
        (false, "exp_of(log_std) * z", "z", "vectors"),
        (false, "0.5 * z * z + log_std", "0.5 * z * z", "logp"),
    ] {
        let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, categorical);
        let expected = problem.act(&mut Cpu::<f64>::new()).unwrap();
        for (form, names, end) in [
            (Form::BySubgroup, &FORMS[..], "fn samples_gradient"),
            (Form::ByTile, &["actor_critic/by_tile"], "fn tiles_gradient"),
        ] {
            gpu.fused_form = Some(form);
            for shader in names {
                let text = common::shader(shader);
                let end = text.find(end).unwrap();
                gpu.context.replace_shader(shader, common::plant(&text[..end], from, to) + &text[end..]);
            }
            let acted = problem.act(&mut gpu).unwrap();
            let found = (0..5).find(|&i| !(relative_error(&acted[i], &expected[i]) <= 1e-5));
            assert_eq!(found.map(|i| ACTED[i]), Some(wrong), "{form:?}, {from}");
        }
    }
}

/// The names of the shader's forms that take samples one by one.
const FORMS: [&str; 2] = ["actor_critic", "actor_critic/by_subgroup"];

/// Where the adapter has subgroups of eight.
#[test]
fn who_reads_what_all_read_changes_no_bit() {
    let Some(mut gpu) = common::gpu() else { return };
    let mut forms = |problem: &Problem| {
        [Form::BySubgroup, Form::ByInvocation].map(|form| {
            gpu.fused_form = Some(form);
            (problem.act(&mut gpu).unwrap(), problem.solve(&mut gpu, Way::Step).unwrap())
        })
    };
    for problem in problems() {
        let [by_subgroup, by_invocation] = forms(&problem);
        assert_eq!(by_subgroup, by_invocation, "batch {}", problem.op.batch);
    }
}

/// By each form, so that both are seen to run where both can.
#[test]
fn a_fault_planted_in_one_form_is_noticed_in_that_alone() {
    let Some(mut gpu) = common::gpu() else { return };
    let has_subgroups = gpu.context.adapter_info().subgroup_min_size >= 8;
    gpu.fused_form = Some(Form::BySubgroup);
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.solve(&mut gpu, Way::Step).unwrap();
    for (shader, from, to, by_subgroup) in [
        (FORMS[0], "weights.vectors[first + 2u * stride]", "weights.vectors[first + stride]", false),
        (FORMS[1], "(own_of_block % 4u) * stride", "(own_of_block % 2u) * stride", true),
        (FORMS[1], "subgroupShuffle(own.w, i)", "own.w", true),
        (FORMS[1], "subgroupShuffle(own, i)", "own", true),
        (FORMS[1], "n * groups.x * WORKGROUP_SIZE", "n * params.len", true),
    ] {
        gpu.context.replace_shader(shader, common::plant(common::shader(shader), from, to));
        for (allowed, faulty) in [(by_subgroup, true), (!by_subgroup, false)] {
            gpu.fused_form = Some(if allowed { Form::BySubgroup } else { Form::ByInvocation });
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            let runs_here = if has_subgroups { faulty } else { !by_subgroup };
            assert_eq!(outcome != expected, runs_here, "{shader}, {from}, subgroups allowed: {allowed}");
        }
        gpu.context.replace_shader(shader, common::shader(shader).to_owned());
    }
}

/// A packed copy must not outlive what it was made of, nor serve a policy of another kind.
#[test]
fn parameters_that_change_are_packed_anew() {
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, false);
    let other = Problem { params: problem.params.iter().map(|x| 0.5 - x).collect(), ..problem.clone() };
    let discrete = Problem { categorical: true, ..problem.clone() };
    let x = gpu.upload_floats(&problem.observations).unwrap();
    let mut params = Parameters::new(gpu.upload_floats(&problem.params).unwrap());
    let mut values = gpu.alloc_floats(33).unwrap();
    let mut run = |gpu: &mut Gpu, problem: &Problem, params: &mut Parameters<_>| {
        let noise = gpu.upload_floats(&[0.5; 99]).unwrap();
        let [mut logp, mut vectors] = [33, 99].map(|len| gpu.alloc_floats(len).unwrap());
        let mut actions = gpu.alloc_words(33).unwrap();
        let mut traces = [&problem.networks.actor, &problem.networks.critic].map(|layers| Trace::new(gpu, layers, 33).unwrap());
        let drawn = match problem.head(&(), &()) {
            Head::Categorical(op, ()) => Drawn::Categorical(op, &mut actions),
            Head::Gaussian(op, ()) => Drawn::Gaussian(op, &mut vectors),
        };
        let rows = RolloutRows { first: 0, noise: &noise, drawn, logp: &mut logp, values: &mut values };
        let x = Rows { buffer: &x, offset: 0, count: 33 };
        gpu.act(&problem.networks, params, &x, rows, &mut traces).unwrap();
        [gpu.read_f64(&values, 0, 33).unwrap(), gpu.read_f64(&logp, 0, 33).unwrap()]
    };
    let fresh = |gpu: &mut Gpu, problem: &Problem| Parameters::new(gpu.upload_floats(&problem.params).unwrap());
    let mut expected = fresh(&mut gpu, &problem);
    let first = run(&mut gpu, &problem, &mut expected);
    assert_eq!(run(&mut gpu, &problem, &mut params), first);
    assert_eq!(run(&mut gpu, &problem, &mut params), first);
    gpu.write_floats(params.flat_mut(), 0, &other.params).unwrap();
    let mut expected = fresh(&mut gpu, &other);
    let second = run(&mut gpu, &other, &mut expected);
    assert_ne!(first, second);
    assert_eq!(run(&mut gpu, &other, &mut params), second);
    // First without log-std, then with it.
    let mut params = fresh(&mut gpu, &problem);
    run(&mut gpu, &discrete, &mut params);
    assert_eq!(run(&mut gpu, &problem, &mut params), first);
}

/// Every element in turn, of either network and of the log-std: the first one is reported, and what was reported before stays.
#[test]
fn a_gradient_that_is_not_finite_is_reported() {
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, false);
    let parameters = problem.params.len();
    let store = "    grads[index] = gradient;\n    note(index, gradient);";
    for (first, second) in [(0, 1), (parameters - 1, parameters - 1), (parameters - 5, parameters - 2), (7, 200)] {
        // A NaN and an infinity, by bits, as the compiler may assume there are none.
        let planted = format!(
            "    var bad = gradient;\n    if index == {second}u {{ bad = bitcast<f32>(params.rows * 0u + 0x7fc00000u); }}\n    \
             if index == {first}u {{ bad = bitcast<f32>(params.rows * 0u + 0xff800000u); }}\n    grads[index] = bad;\n    note(index, bad);"
        );
        for form in [Form::BySubgroup, Form::ByTile] {
            gpu.fused_form = Some(form);
            plant_in_forms(&mut gpu, form, store, &planted);
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            let control = &outcome.iter().find(|(name, _)| *name == "control").unwrap().1;
            let expected =
                [(control::STOP, stop::NON_FINITE), (control::BAD_TENSOR, TENSOR), (control::BAD_ELEMENT, first as u32)];
            let found = expected.iter().all(|&(word, value)| control[word] == f64::from(value));
            assert!(found, "{form:?}, {first}, {second}: {control:?}");
        }
    }
}

/// The step itself does not count any more, but its statistics do.
#[test]
fn a_step_beyond_the_kl_limit_changes_no_parameter() {
    let Some(mut gpu) = common::gpu() else { return };
    for (max_kl, stopped) in [(0.0, true), (100.0, false)] {
        let problem = Problem { max_kl: Some(max_kl), ..Problem::new(33, &[5, 16], 3, Activation::Tanh, true) };
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap();
        let of = |name: &str| &expected.iter().find(|(tensor, _)| *tensor == name).unwrap().1;
        let initial: Vec<f64> = problem.params.iter().map(|&x| f64::from(x)).collect();
        assert_eq!(of("control")[control::STOP] == f64::from(stop::TARGET_KL), stopped);
        assert_eq!(*of("params") == initial, stopped);
        assert!(of("norm")[0] > 0.0);
        for (variant, form) in VARIANTS {
            (gpu.variant, gpu.fused_form) = (variant, form);
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            assert_eq!(first_difference(&outcome, &expected, 1e-4), None, "{variant:?}, {form:?}, {max_kl}");
        }
    }
}

#[test]
fn networks_of_another_depth_than_the_trace_are_refused() {
    fn check<B: Backend>(backend: &mut B) {
        assert!(matches!(Trace::new(backend, &[], 3), Err(Error::Shape { argument, .. }) if argument == "layers"));
        let mut deeper = Problem::new(3, &[5, 8], 2, Activation::Tanh, true);
        let actor = deeper.networks.actor.clone();
        deeper.depths = Some(ActorCritic { actor: actor[..1].to_vec(), critic: deeper.networks.critic.clone() });
        for way in [Way::Composed, Way::Whole, Way::Step] {
            let result = deeper.solve(backend, way).map(drop);
            assert!(matches!(result, Err(Error::Shape { argument, .. }) if argument == "layers"));
        }
    }
    check(&mut Cpu::<f32>::new());
    if let Some(mut gpu) = common::gpu() {
        check(&mut gpu);
    }
}

#[test]
fn another_loss_is_noticed() {
    let problem = Problem::new(129, &[5, 16], 3, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let op = Surrogate { ent_coef: 0.011, ..problem.op };
    let outcome = Problem { op, ..problem }.solve(&mut Cpu::<f64>::new(), Way::Whole).unwrap();
    assert!(first_difference(&outcome, &expected, 1e-12).is_some_and(|difference| difference.starts_with("grads")));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let problem = Problem::new(1025, &[17, 64, 64], 6, Activation::Tanh, false);
    let solve = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem.solve(&mut Cpu::<f32>::new(), Way::Whole).unwrap())
    };
    assert_eq!(solve(1), solve(3));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let shorter = |change: fn(&mut Problem), expected: &str| {
        for categorical in [true, false] {
            let mut problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, categorical);
            change(&mut problem);
            match problem.solve(&mut Cpu::<f32>::new(), Way::Whole) {
                Err(Error::Shape { argument, .. } | Error::InvalidValue { argument, .. }) => assert_eq!(argument, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    };
    shorter(|problem| problem.observations.truncate(164), "x");
    shorter(|problem| problem.samples.truncate(131), "samples");
    shorter(|problem| problem.params.truncate(20), "params");
    shorter(|problem| problem.op.vf_coef = -1.0, "vf_coef");
    shorter(|problem| (problem.actions.truncate(32), problem.vectors.truncate(98)).0, "actions");
}
