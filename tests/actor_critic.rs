//! The gradient of a whole minibatch, in tiles of samples, against the composition of single operations.

mod common;

use common::{Draw, relative_error};
use ppo_kernels::Error;
use ppo_kernels::backend::{
    Backend, Cpu, CrossCheck, Gpu, Head, MinibatchInputs, Rows, Trace, Variant, compose_minibatch_gradient,
};
use ppo_kernels::kernels::actor_critic::{ActorCritic, Layer};
use ppo_kernels::kernels::linear::{Activation, Linear};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss, sample, stat};

/// A minibatch on the host.
struct Problem {
    networks: ActorCritic,
    /// What the traces are made for, where that is another network.
    depths: Option<ActorCritic>,
    op: Surrogate,
    outputs: usize,
    categorical: bool,
    params: Vec<f32>,
    observations: Vec<f32>,
    actions: Vec<u32>,
    vectors: Vec<f32>,
    samples: Vec<f32>,
}

/// What an update needs of it: gradient, statistics, and heads with their gradients.
type Outcome = [Vec<f64>; 6];

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
            outputs,
            categorical,
            params,
            observations: draw.floats(batch * widths[0], 1.0),
            actions: draw.words(batch, outputs as u32),
            vectors: draw.floats(batch * outputs, 1.0),
            samples,
        }
    }

    fn solve<B: Backend>(&self, backend: &mut B, in_one: bool) -> ppo_kernels::Result<Outcome> {
        let batch = self.op.batch;
        let params = backend.upload_floats(&self.params)?;
        let observations = backend.upload_floats(&self.observations)?;
        let (actions, vectors) = (backend.upload_words(&self.actions)?, backend.upload_floats(&self.vectors)?);
        let samples = backend.upload_floats(&self.samples)?;
        let traced = self.depths.as_ref().unwrap_or(&self.networks);
        let mut actor = Trace::new(backend, &traced.actor, batch)?;
        let mut critic = Trace::new(backend, &traced.critic, batch)?;
        // What was there before must not matter.
        let mut grads = backend.upload_floats(&vec![7.0; self.params.len()])?;
        let mut stats = backend.upload_floats(&[7.0; 2 * stat::COLUMNS])?;
        let head = if self.categorical {
            Head::Categorical(Categorical { batch, actions: self.outputs }, &actions)
        } else {
            let log_std_offset = self.params.len() - self.outputs;
            Head::Gaussian(Gaussian { batch, dim: self.outputs, log_std_offset, state_dependent_std: false }, &vectors)
        };
        let inputs = MinibatchInputs { observations: &observations, head, samples: &samples };
        let (networks, op) = (&self.networks, &self.op);
        if in_one {
            backend.minibatch_gradient(networks, op, &params, &inputs, &mut actor, &mut critic, &mut grads, &mut stats)?;
        } else {
            compose_minibatch_gradient(backend, networks, op, &params, &inputs, &mut actor, &mut critic, &mut grads, &mut stats)?;
        }
        let parameters = if self.categorical { self.params.len() - self.outputs } else { self.params.len() };
        let mut read = |buffer: &B::Floats, offset, len| backend.read_f64(buffer, offset, len);
        let (head, d_head) = actor.head_and_gradient();
        let (values, d_values) = critic.head_and_gradient();
        Ok([
            read(&grads, 0, parameters)?,
            read(&stats, stat::COLUMNS, stat::CLIPFRAC + 1)?,
            read(head, 0, batch * self.outputs)?,
            read(d_head, 0, batch * self.outputs)?,
            read(values, 0, batch)?,
            read(d_values, 0, batch)?,
        ])
    }
}

impl Problem {
    /// The actor's output, and values behind three that have to stay.
    fn evaluate<B: Backend>(&self, backend: &mut B) -> ppo_kernels::Result<[Vec<f64>; 2]> {
        let batch = self.op.batch;
        let params = backend.upload_floats(&self.params)?;
        let observations = backend.upload_floats(&[&[9.0; 7], &self.observations[..]].concat())?;
        let mut actor = Trace::new(backend, &self.networks.actor, batch)?;
        let mut critic = Trace::new(backend, &self.networks.critic, batch)?;
        let mut values = backend.upload_floats(&vec![7.0; batch + 4])?;
        let x = Rows { buffer: &observations, offset: 7, count: batch };
        backend.evaluate(&self.networks, &params, &x, &mut actor, &mut critic, &mut values, 3)?;
        Ok([backend.read_f64(actor.head(), 0, batch * self.outputs)?, backend.read_f64(&values, 0, batch + 4)?])
    }
}

const TENSORS: [&str; 6] = ["grads", "stats", "head", "d_head", "values", "d_values"];

/// The first tensor further from the expected one than `tolerance`, relative to its norm. (Of a single clipped sample, all can be zero.)
fn first_difference(outcome: &Outcome, expected: &Outcome, tolerance: f64) -> Option<String> {
    let errors = outcome.iter().zip(expected).map(|(a, b)| if a == b { 0.0 } else { relative_error(a, b) });
    TENSORS.iter().zip(errors).find(|(_, error)| !(*error <= tolerance)).map(|(name, error)| format!("{name}: {error:e}"))
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
        let expected = problem.solve(&mut Cpu::<f64>::new(), false).unwrap();
        let batch = problem.op.batch;
        for (what, outcome, tolerance) in [
            ("f64", problem.solve(&mut Cpu::<f64>::new(), true), 1e-12),
            ("f32", problem.solve(&mut Cpu::<f32>::new(), true), 2e-5),
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
        let expected = problem.solve(&mut Cpu::<f64>::new(), false).unwrap();
        let outcome = problem.solve::<CrossCheck<Gpu, Cpu<f64>>>(&mut both, true).unwrap();
        assert_eq!(first_difference(&outcome, &expected, 1e-4), None, "batch {}", problem.op.batch);
    }
}

/// With every variant, in fresh memory full of NaN.
#[test]
fn the_adapter_gives_what_the_single_operations_give() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for problem in problems() {
        let expected = problem.solve(&mut Cpu::<f64>::new(), false).unwrap();
        for variant in [Variant::Plain, Variant::Fast] {
            gpu.variant = variant;
            gpu.context.release();
            let outcome = problem.solve(&mut gpu, true).unwrap();
            let difference = first_difference(&outcome, &expected, 1e-4);
            assert_eq!(difference, None, "{variant:?}, batch {}, categorical {}", problem.op.batch, problem.categorical);
        }
    }
}

/// Actor and critic into the middle of buffers, as a rollout has them.
#[test]
fn a_forward_pass_gives_what_the_layers_give() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for problem in problems() {
        let expected = problem.evaluate(&mut Cpu::<f64>::new()).unwrap();
        for variant in [Variant::Plain, Variant::Fast] {
            gpu.variant = variant;
            gpu.context.release();
            let outcome = problem.evaluate(&mut gpu).unwrap();
            for (tensor, (a, b)) in ["head", "values"].iter().zip(outcome.iter().zip(&expected)) {
                let error = relative_error(a, b);
                assert!(error <= 1e-5, "{variant:?}, batch {}: {tensor}: {error:e}", problem.op.batch);
            }
        }
    }
}

#[test]
fn a_planted_fault_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.solve(&mut Cpu::<f64>::new(), false).unwrap();
    for (from, to, tensor) in [
        ("low_bias += low;", "", "grads"),
        ("z * z - 1.0", "z * z", "grads"),
        ("stage_value_sum(local, loss);", "", "stats"),
        ("low = activate_all(low);", "", "grads"),
        ("kept[output_at].x, sample, &loss", "0.0, sample, &loss", "d_values"),
    ] {
        let text = common::shader("actor_critic");
        gpu.context.replace_shader("actor_critic", common::plant(text, from, to));
        let difference = first_difference(&problem.solve(&mut gpu, true).unwrap(), &expected, 1e-4);
        assert!(difference.as_deref().is_some_and(|difference| difference.starts_with(tensor)), "{from}: {difference:?}");
    }
}

#[test]
fn a_planted_fault_of_the_forward_pass_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, true);
    let expected = problem.evaluate(&mut Cpu::<f64>::new()).unwrap();
    for (from, to, wrong) in [
        ("params.observations_offset + sample_index", "sample_index", [true, true]),
        ("values[params.values_offset + i]", "values[params.values_offset + i + 1u]", [false, true]),
        ("output[i * params.width + a] = logit(a);", "output[i * params.width + a] = logit(0u);", [true, false]),
    ] {
        gpu.context.replace_shader("actor_critic", common::plant(common::shader("actor_critic"), from, to));
        let outcome = problem.evaluate(&mut gpu).unwrap();
        assert_eq!([0, 1].map(|i| !(relative_error(&outcome[i], &expected[i]) <= 1e-5)), wrong, "{from}");
    }
}

#[test]
fn networks_of_another_depth_than_the_trace_are_refused() {
    fn check<B: Backend>(backend: &mut B) {
        assert!(matches!(Trace::new(backend, &[], 3), Err(Error::Shape { argument, .. }) if argument == "layers"));
        let mut deeper = Problem::new(3, &[5, 8], 2, Activation::Tanh, true);
        let actor = deeper.networks.actor.clone();
        deeper.depths = Some(ActorCritic { actor: actor[..1].to_vec(), critic: deeper.networks.critic.clone() });
        for result in [deeper.solve(backend, true).map(drop), deeper.solve(backend, false).map(drop)] {
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
    let expected = problem.solve(&mut Cpu::<f64>::new(), false).unwrap();
    let op = Surrogate { ent_coef: 0.011, ..problem.op };
    let outcome = Problem { op, ..problem }.solve(&mut Cpu::<f64>::new(), true).unwrap();
    assert!(first_difference(&outcome, &expected, 1e-12).is_some_and(|difference| difference.starts_with("grads")));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let problem = Problem::new(1025, &[17, 64, 64], 6, Activation::Tanh, false);
    let solve = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem.solve(&mut Cpu::<f32>::new(), true).unwrap())
    };
    assert_eq!(solve(1), solve(3));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let shorter = |change: fn(&mut Problem), expected: &str| {
        for categorical in [true, false] {
            let mut problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, categorical);
            change(&mut problem);
            match problem.solve(&mut Cpu::<f32>::new(), true) {
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
