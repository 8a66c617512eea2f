//! Shaders without bounds checks, as release builds run them: which those are, and that they compute the same bits.

mod common;

use common::{Draw, ON_TENSOR_CORES, gpu};
use ppo_kernels::Error;
use ppo_kernels::backend::{
    ActorCriticOps, AdvantageOps, Drawn, GatherOps, Gpu, Head, LinearOps, Memory, Minibatch, MinibatchRows, NonfiniteOps,
    NormalizeOps, OptimizerOps, Parameters, PolicyOps, Precision, RandomOps, RolloutRows, Rows, SurrogateOps, Trace, TrainState,
    Variant,
};
use ppo_kernels::bench::{Benchmarked, Units};
use ppo_kernels::gpu::{Autotune, Buffer, Context, Indices, Selection, Shader};
use ppo_kernels::kernels::actor_critic::{ActorCritic, Form, Layer, MinibatchStep};
use ppo_kernels::kernels::advantage::{
    CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands,
};
use ppo_kernels::kernels::gather::{Gather, SamplesOperands};
use ppo_kernels::kernels::linear::{Activation, ForwardOperands, Linear, Product};
use ppo_kernels::kernels::nonfinite::{Unless, Watched};
use ppo_kernels::kernels::normalize::{EpsilonMode, Normalize};
use ppo_kernels::kernels::optimizer::{Adam, AdamOperands, GradientNorm};
use ppo_kernels::kernels::policy::*;
use ppo_kernels::kernels::random::RandomStream;
use ppo_kernels::kernels::shaders;
use ppo_kernels::kernels::surrogate::*;
use ppo_kernels::layout::{control, sample, schedule, stat, term};

/// Uploads seeded inputs and collects the bits of outputs.
struct Run<'a> {
    gpu: &'a mut Gpu,
    draw: Draw,
    bits: Vec<u32>,
}

impl Run<'_> {
    fn floats(&mut self, len: usize) -> Buffer<f32> {
        let data = self.draw.floats(len, 0.7);
        self.gpu.upload_floats(&data).unwrap()
    }

    /// Below `below`, but for a few that are far beyond.
    fn hostile_words(&mut self, len: usize, below: u32) -> Buffer<u32> {
        let mut data = self.draw.words(len, below);
        for (word, hostile) in data.iter_mut().step_by(5).zip([u32::MAX, below, below + 1, 1 << 31].into_iter().cycle()) {
            *word = hostile;
        }
        self.gpu.upload_words(&data).unwrap()
    }

    fn flags(&mut self, len: usize) -> Buffer<u32> {
        let data = self.draw.flags(len, 0.2);
        self.gpu.upload_words(&data).unwrap()
    }

    fn output(&mut self, len: usize) -> Buffer<f32> {
        self.gpu.alloc_floats(len).unwrap()
    }

    fn keep(&mut self, outputs: &[&Buffer<f32>]) {
        for output in outputs {
            let values = self.gpu.read_floats(output, 0, output.len()).unwrap();
            // What sign a NaN has is the compiler's choice.
            self.bits.extend(values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }));
        }
    }

    fn keep_words(&mut self, output: &Buffer<u32>) {
        self.bits.extend(self.gpu.read_words(output, 0, output.len()).unwrap());
    }
}

type Operation = fn(&mut Run<'_>);

/// What runs of each shader, by its name.
const OPERATIONS: &[(&str, Operation)] = &[
    ("actor_critic/by_tile", actor_critic_by_tile),
    ("actor_critic/by_layer", actor_critic_by_layer),
    ("advantage", advantage),
    ("gather", gather),
    ("linear", linear),
    ("nonfinite", nonfinite),
    ("normalize", normalize),
    ("optimizer", optimizer),
    ("policy/categorical", categorical),
    ("policy/gaussian", gaussian),
    ("random", random),
    ("surrogate", surrogate),
    ("surrogate/by_tile", surrogate_by_tile),
];

fn actor_critic_by_tile(run: &mut Run<'_>) {
    run.gpu.fused_form = Some(Form::ByTile);
    actor_critic(run, 101);
}

fn actor_critic_by_layer(run: &mut Run<'_>) {
    run.gpu.fused_form = Some(Form::ByLayer);
    // A batch of one stretch, and one of several.
    actor_critic(run, 101);
    actor_critic(run, 1301);
}

fn actor_critic(run: &mut Run<'_>, batch: usize) {
    let (inputs, hidden) = (5, 11);
    let layer = |in_features, out_features, weight_offset, activation| {
        let bias_offset = weight_offset + in_features * out_features;
        Layer { linear: Linear { batch, in_features, out_features, weight_offset, bias_offset }, activation }
    };
    for width in [2, 9] {
        let output = inputs * hidden + hidden;
        let critic = output + (hidden + 1) * width;
        let networks = ActorCritic {
            actor: vec![layer(inputs, hidden, 0, Activation::Tanh), layer(hidden, width, output, Activation::Identity)],
            critic: vec![layer(inputs, 1, critic, Activation::Identity)],
        };
        let log_std_offset = critic + inputs + 1;
        let params = run.draw.floats(log_std_offset + width, 0.7);
        let (observations, samples) = (run.floats(batch * inputs), run.floats(batch * sample::COLUMNS));
        let fair = run.draw.words(batch, width as u32);
        let fair_rows = run.draw.words(batch, batch as u32);
        let fair_rows = run.gpu.upload_words(&fair_rows).unwrap();
        let hostile_rows = run.hostile_words(batch, batch as u32);
        let (indices, hostile) = (run.gpu.upload_words(&fair).unwrap(), run.hostile_words(batch, width as u32));
        let vectors = run.floats(batch * width);
        let gaussian = Gaussian { batch, dim: width, log_std_offset, state_dependent_std: false };
        let categorical = Categorical { batch, actions: width };
        for head in [
            Head::Categorical(categorical, &indices),
            Head::Categorical(categorical, &hostile),
            Head::Gaussian(gaussian, &vectors),
        ] {
            let is_categorical = matches!(head, Head::Categorical(..));
            let len = log_std_offset + if is_categorical { 0 } else { width };
            let stats_row = LOSS.stats_row;
            let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row };
            let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.999, 1e-5, 0.01);
            let adam = Adam { len, beta1, beta2, epsilon, weight_decay, decoupled: true, schedule_row: 0, stats_row };
            let step = MinibatchStep { loss: Surrogate { batch, ..LOSS }, tensor: 1, norm, max_kl: None, adam };
            for indices in [&fair_rows, &hostile_rows] {
                let mut minibatch = Minibatch::new(run.gpu, &networks, is_categorical, batch).unwrap();
                let mut state = TrainState::new(run.gpu, params.len(), 1, 2).unwrap();
                state.params = Parameters::new(run.gpu.upload_floats(&params).unwrap());
                run.gpu.write_floats(&mut state.schedule, 0, &schedule::row(1e-3, beta1, beta2, 3)).unwrap();
                let (observations, samples) = (&observations, &samples);
                let rows = MinibatchRows { indices, start: 0, rows: batch, observations, head, samples, first_sample: 0 };
                run.gpu.minibatch_step(&networks, &step, &rows, &mut minibatch, &mut state).unwrap();
                run.keep(&[&state.grads, &state.stats, minibatch.actor.head(), minibatch.critic.head()]);
                run.keep(&[state.params.flat(), &state.m, &state.v]);
                run.keep_words(&state.control);
            }
        }
        for is_categorical in [true, false] {
            let mut params = Parameters::new(run.gpu.upload_floats(&params).unwrap());
            let noise = run.floats(batch * width);
            let [mut values, mut logp, mut vectors] = [run.output(batch), run.output(batch), run.output(batch * width)];
            let mut actions = run.gpu.alloc_words(batch).unwrap();
            let mut traces = [&networks.actor, &networks.critic].map(|layers| Trace::new(run.gpu, layers, batch).unwrap());
            let drawn = match is_categorical {
                true => Drawn::Categorical(categorical, &mut actions),
                false => Drawn::Gaussian(gaussian, &mut vectors),
            };
            let rows = RolloutRows { first: 0, noise: &noise, drawn, logp: &mut logp, values: &mut values };
            let x = Rows { buffer: &observations, offset: 0, count: batch };
            run.gpu.act(&networks, &mut params, &x, rows, &mut traces).unwrap();
            run.keep(&[&values, &logp, &vectors, traces[0].head()]);
            run.keep_words(&actions);
        }
    }
}

fn advantage(run: &mut Run<'_>) {
    // Long enough for blocks of blocks, wide enough for blocks in turn, and no multiple of anything.
    for (steps, envs) in [(37, 5), (2500, 3), (601, 251)] {
        let rows = steps * envs;
        let [rewards, values, next_values] = [0; 3].map(|_| run.floats(rows));
        let [terminated, truncated] = [0; 2].map(|_| run.flags(rows));
        let next_value = run.floats(envs);
        let (mut advantages, mut returns) = (run.output(rows), run.output(rows));
        let gae = Gae { steps, envs, gamma: 0.99, gae_lambda: 0.95 };
        let op = DiscountedReturns { steps, envs, gamma: 0.99 };
        for variant in [Variant::Plain, Variant::Fast] {
            run.gpu.variant = variant;
            let (rewards, values, next_values, next_value) = (&rewards, &values, &next_values, &next_value);
            let (terminated, truncated) = (&terminated, &truncated);
            let (advantages, returns) = (&mut advantages, &mut returns);
            run.gpu.gae(&gae, GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns }).unwrap();
            run.keep(&[advantages, returns]);
            let (dones, next_done) = (next_values, next_value);
            run.gpu
                .gae_cleanrl(&gae, CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns })
                .unwrap();
            run.keep(&[advantages, returns]);
            let operands = ReturnsOperands { rewards, next_values, next_value, terminated, truncated, returns };
            run.gpu.discounted_returns(&op, operands).unwrap();
            run.gpu.reward_to_go(&op, RewardToGoOperands { rewards, terminated, truncated, returns: advantages }).unwrap();
            run.keep(&[advantages, returns]);
        }
    }
}

fn gather(run: &mut Run<'_>) {
    let op = Gather { rows: 37, width: 3, start: 2, count: 301 };
    let source = run.floats(op.rows * op.width);
    let indices = run.hostile_words(op.start + op.count, op.rows as u32);
    let mut target = run.output(op.count * op.width);
    run.gpu.gather_floats(&op, &source, &indices, &mut target).unwrap();
    let columns = [0; 4].map(|_| run.floats(op.rows));
    let mut samples = run.output(op.count * sample::COLUMNS);
    let op = Gather { width: 1, ..op };
    let [old_logp, advantages, returns, old_values] = &columns;
    let (indices, packed) = (&indices, &mut samples);
    let operands = SamplesOperands { indices, old_logp, advantages, returns, old_values, samples: packed };
    run.gpu.gather_samples(&op, operands).unwrap();
    run.keep(&[&target, &samples]);
}

fn linear(run: &mut Run<'_>) {
    // The second has more inputs than outputs, more than a tile of 64 of each, and more samples than one stretch.
    let shapes = [(13, 5, 11), (300, 67, 65)];
    Product::ALL.into_iter().for_each(|way| products(run, &shapes, Some(way)));
}

/// In tiles of either size, with and without vectors of four.
fn linear_on_tensor_cores(run: &mut Run<'_>) {
    products(run, &[(13, 5, 11), (300, 67, 65), (300, 68, 64), (16_390, 20, 124), (16_390, 123, 19)], None);
}

fn products(run: &mut Run<'_>, shapes: &[(usize, usize, usize)], way: Option<Product>) {
    run.gpu.product = way;
    for &(batch, in_features, out_features) in shapes {
        let (weight_offset, bias_offset) = (3, 3 + in_features * out_features);
        let layer = Linear { batch, in_features, out_features, weight_offset, bias_offset };
        let (x, d_pre) = (run.floats(batch * in_features), run.floats(batch * out_features));
        let params = run.floats(bias_offset + out_features);
        let mut y = run.output(batch * out_features);
        let (mut d_x, mut grads) = (run.output(batch * in_features), run.output(bias_offset + out_features));
        for activation in [Activation::Tanh, Activation::GeluErf] {
            run.gpu
                .linear_forward(
                    &layer,
                    activation,
                    ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
                )
                .unwrap();
            run.gpu.linear_backward_input(&layer, &d_pre, &params, Some((activation, &x)), &mut d_x).unwrap();
            run.keep(&[&y, &d_x]);
            run.gpu.activation_backward(activation, batch * out_features, &d_pre, &d_pre, &mut y).unwrap();
            run.keep(&[&y]);
        }
        run.gpu.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x).unwrap();
        run.gpu.linear_backward_params(&layer, &d_pre, &x, &mut grads).unwrap();
        run.keep(&[&d_x, &grads]);
    }
}

fn nonfinite(run: &mut Run<'_>) {
    for len in [1000, 70_001] {
        let mut data = run.draw.floats(len, 1.0);
        (data[len / 2], data[len - 1]) = (f32::NAN, f32::INFINITY);
        let x = run.gpu.upload_floats(&data).unwrap();
        let mut control = run.gpu.upload_words(&control::INITIAL).unwrap();
        run.gpu.find_nonfinite(&[Watched { tensor: 3, len, x: &x }], &mut control).unwrap();
        run.keep_words(&control);
        let mut control = run.gpu.upload_words(&control::INITIAL).unwrap();
        let both = [1, 2].map(|tensor| Watched { tensor, len: len / 2 * tensor as usize, x: &x });
        run.gpu.find_nonfinite(&both, &mut control).unwrap();
        run.keep_words(&control);
        let flags = run.gpu.upload_words(&run.draw.flags(len, 0.5)).unwrap();
        for unless in [Unless::Words(&flags), Unless::Floats(&x)] {
            let mut control = run.gpu.upload_words(&control::INITIAL).unwrap();
            run.gpu.find_nonfinite_unless(&Watched { tensor: 3, len, x: &x }, &unless, &mut control).unwrap();
            run.keep_words(&control);
        }
    }
}

fn normalize(run: &mut Run<'_>) {
    for len in [301, 20_001] {
        let op = Normalize { len, vectors: 1, offset: 1, stride: 3, ddof: 1, epsilon: 1e-8, epsilon_mode: EpsilonMode::AddToStd };
        let mut x = run.floats(2 + 3 * (len - 1));
        let (mut moments, mut stats) = (run.output(Normalize::MOMENTS), run.output(2 * stat::COLUMNS));
        run.gpu.normalize(&op, &mut x, &mut moments).unwrap();
        let (values, returns) = (run.floats(len), run.floats(len));
        run.gpu.explained_variance(len, &values, &returns, &mut stats, 1).unwrap();
        run.keep(&[&x, &moments, &stats]);
    }
}

fn optimizer(run: &mut Run<'_>) {
    for len in [301, 40_001] {
        let [mut params, grads, mut m] = [0; 3].map(|_| run.floats(len));
        let squares: Vec<f32> = run.draw.floats(len, 0.1).iter().map(|x| x * x).collect();
        let mut v = run.gpu.upload_floats(&squares).unwrap();
        let rows = [[0.0; schedule::COLUMNS], schedule::row(1e-3, 0.9, 0.999, 7)].concat();
        let schedule = run.gpu.upload_floats(&rows).unwrap();
        let mut stats = run.output(3 * stat::COLUMNS);
        let mut control = run.gpu.upload_words(&control::INITIAL).unwrap();
        let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 2 };
        let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.999, 1e-5, 0.01);
        let adam = Adam { len, beta1, beta2, epsilon, weight_decay, decoupled: true, schedule_row: 1, stats_row: 2 };
        run.gpu.gradient_norm(&norm, &grads, &mut stats).unwrap();
        run.gpu
            .adam_step(
                &adam,
                AdamOperands {
                    params: &mut params,
                    grads: &grads,
                    m: &mut m,
                    v: &mut v,
                    schedule: &schedule,
                    stats: &stats,
                    control: &mut control,
                },
            )
            .unwrap();
        run.keep(&[&params, &m, &v, &stats]);
        run.keep_words(&control);
    }
}

fn categorical(run: &mut Run<'_>) {
    // One invocation a row, and a workgroup a row.
    for (batch, width) in [(77, 5), (9, 131)] {
        let op = Categorical { batch, actions: width };
        let [logits, q_logits] = &[run.floats(batch * width), run.floats(batch * width)];
        let mask = run.flags(batch * width);
        let actions = &run.hostile_words(batch, width as u32);
        let [d_logp, d_entropy] = &[0; 2].map(|_| run.floats(batch));
        let uniforms: Vec<f32> = (0..batch + 3).map(|i| i as f32 / (batch + 3) as f32).collect();
        let uniforms = &run.gpu.upload_floats(&uniforms).unwrap();
        let [log_probs, probs, d_logits] = &mut [0; 3].map(|_| run.output(batch * width));
        let [logsumexp, logp, entropy] = &mut [0; 3].map(|_| run.output(batch));
        let drawn_logp = &mut run.output(batch + 3);
        let [mode, drawn] = &mut [batch, batch + 3].map(|n| run.gpu.alloc_words(n).unwrap());
        for mask in [None, Some(&mask)] {
            let operands = CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode };
            run.gpu.categorical_distribution(&op, operands).unwrap();
            let operands = CategoricalEvaluateOperands { logits, mask, actions, logp, entropy };
            run.gpu.categorical_evaluate(&op, operands).unwrap();
            let operands = CategoricalSampleOperands { logits, mask, uniforms, offset: 3, actions: drawn, logp: drawn_logp };
            run.gpu.categorical_sample(&op, operands).unwrap();
            let operands = CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits };
            run.gpu.categorical_backward(&op, operands).unwrap();
            run.keep(&[log_probs, probs, logsumexp, logp, entropy, drawn_logp, d_logits]);
            run.keep_words(mode);
            run.keep_words(drawn);
            let operands = CategoricalKlOperands { p_logits: logits, q_logits, mask, kl: entropy };
            run.gpu.categorical_kl(&op, operands).unwrap();
            let operands = CategoricalKlBackwardOperands { p_logits: logits, q_logits, mask, d_kl: d_logp, d_logits };
            run.gpu.categorical_kl_backward(&op, KlArgument::Q, operands).unwrap();
            run.keep(&[entropy, d_logits]);
        }
    }
}

fn gaussian(run: &mut Run<'_>) {
    let (batch, dim) = (131, 3);
    for state_dependent_std in [false, true] {
        let op = Gaussian { batch, dim, state_dependent_std, log_std_offset: 2 };
        let [mean, q_mean, x] = &[0; 3].map(|_| run.floats(batch * dim));
        let [log_std, q_log_std] = &[0; 2].map(|_| run.floats(2 + op.log_std_len()));
        let [d_logp, d_entropy] = &[0; 2].map(|_| run.floats(batch));
        let noise = &run.floats((batch + 4) * dim);
        let [drawn, drawn_logp] = &mut [run.output((batch + 4) * dim), run.output(batch + 4)];
        let [logp, entropy] = &mut [0; 2].map(|_| run.output(batch));
        let [d_mean, d_log_std] = &mut [run.output(batch * dim), run.output(1 + op.log_std_len())];
        let operands = GaussianEvaluateOperands { mean, log_std, actions: x, logp, entropy };
        run.gpu.gaussian_evaluate(&op, operands).unwrap();
        let operands = GaussianSampleOperands { mean, log_std, noise, offset: 4, actions: drawn, logp: drawn_logp };
        run.gpu.gaussian_sample(&op, operands).unwrap();
        let (actions, d_log_std_offset) = (x, 1);
        let operands =
            GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
        run.gpu.gaussian_backward(&op, operands).unwrap();
        run.keep(&[logp, entropy, drawn, drawn_logp, d_mean, d_log_std]);
        let (p_mean, p_log_std, d_kl) = (mean, log_std, d_logp);
        let operands = GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl: logp };
        run.gpu.gaussian_kl(&op, operands).unwrap();
        let operands = GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std };
        run.gpu.gaussian_kl_backward(&op, KlArgument::P, operands).unwrap();
        run.keep(&[logp, d_mean, d_log_std]);
        let squashed = SquashedGaussian { gaussian: op, low: -2.0, high: 1.0 };
        let [actions, log_det] = &mut [0; 2].map(|_| run.output(batch * dim));
        let operands = SquashedEvaluateOperands { mean, log_std, u: x, actions, log_det, logp };
        run.gpu.squashed_gaussian_evaluate(&squashed, operands).unwrap();
        let operands = SquashedBackwardOperands { mean, log_std, u: x, d_logp, d_mean, d_log_std };
        run.gpu.squashed_gaussian_backward(&squashed, true, operands).unwrap();
        run.keep(&[actions, log_det, logp, d_mean, d_log_std]);
    }
}

fn random(run: &mut Run<'_>) {
    let op = RandomStream { len: 1001, seed: 5, stream: 7 };
    let (mut uniform, mut normal) = (run.output(op.len), run.output(op.len));
    let mut permutation = run.gpu.alloc_words(2 * op.len + 3).unwrap();
    run.gpu.random_uniform(&op, &mut uniform).unwrap();
    run.gpu.random_normal(&op, &mut normal).unwrap();
    run.gpu.random_permutations(&op, 2, &mut permutation, 3).unwrap();
    run.keep(&[&uniform, &normal]);
    run.keep_words(&permutation);
}

const LOSS: Surrogate = Surrogate {
    batch: 101,
    clip_low: 0.2,
    clip_high: 0.2,
    dual_clip: None,
    vf_coef: 0.5,
    ent_coef: 0.01,
    kl_coef: 0.1,
    value_loss: ValueLoss::Clipped { clip: 0.2 },
    stats_row: 1,
};

fn surrogate_by_tile(run: &mut Run<'_>) {
    run.gpu.variant = Variant::Fast;
    surrogate(run);
}

fn surrogate(run: &mut Run<'_>) {
    let batch = 301;
    let op = Surrogate { batch, ..LOSS };
    let [values, samples] = &[run.floats(batch), run.floats(batch * sample::COLUMNS)];
    let [d_values, stats] = &mut [run.output(batch), run.output(2 * stat::COLUMNS)];
    let [logp, entropy] = &[0; 2].map(|_| run.floats(batch));
    let [terms, d_logp] = &mut [run.output(batch * term::COLUMNS), run.output(batch)];
    let operands = SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats };
    run.gpu.surrogate(&op, operands).unwrap();
    run.keep(&[terms, d_logp, d_values, stats]);
    for width in [3, 21, 130] {
        let policy = Categorical { batch, actions: width };
        let (logits, mask) = (&run.floats(batch * width), run.flags(batch * width));
        let actions = &run.hostile_words(batch, width as u32);
        let d_logits = &mut run.output(batch * width);
        for mask in [None, Some(&mask)] {
            let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
            run.gpu.surrogate_categorical(&op, &policy, operands).unwrap();
            run.keep(&[d_logits, d_values, stats]);
        }
        let policy = Gaussian { batch, dim: width, state_dependent_std: false, log_std_offset: 2 };
        let [mean, actions, log_std] = &[batch * width, batch * width, 2 + width].map(|n| run.floats(n));
        let [d_mean, d_log_std] = &mut [run.output(batch * width), run.output(1 + width)];
        let d_log_std_offset = 1;
        let operands =
            GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats };
        run.gpu.surrogate_gaussian(&op, &policy, operands).unwrap();
        run.keep(&[d_mean, d_log_std, d_values, stats]);
    }
    let mut control = run.gpu.upload_words(&control::INITIAL).unwrap();
    run.gpu.stop_on_kl(-1.0, 1, stats, &mut control).unwrap();
    run.keep_words(&control);
}

/// One adapter, opened with bounds checks and without.
struct Opened {
    checked: Gpu,
    unchecked: Gpu,
}

impl Opened {
    fn in_precision(precision: Precision) -> Option<Self> {
        let checked = common::gpu_with(precision)?;
        let mut unchecked = Gpu::open_unchecked(&Selection::Best, precision).unwrap();
        unchecked.context.set_autotune(Autotune::Off);
        unchecked.variant = checked.variant;
        Some(Self { checked, unchecked })
    }
}

fn bits(gpu: &mut Gpu, operation: Operation) -> Vec<u32> {
    (gpu.variant, gpu.product) = (Variant::Auto, None);
    let mut run = Run { gpu, draw: Draw::new(11), bits: Vec::new() };
    operation(&mut run);
    run.bits
}

/// What `operation` computes has the same bits with bounds checks, without, and without those of the driver.
#[track_caller]
fn assert_same(name: &str, opened: &mut Opened, operation: Operation) {
    opened.checked.context.set_bounds_checks(true);
    let checked = bits(&mut opened.checked, operation);
    opened.checked.context.set_bounds_checks(false);
    for unchecked in [bits(&mut opened.checked, operation), bits(&mut opened.unchecked, operation)] {
        assert!(!checked.is_empty() && checked.len() == unchecked.len(), "{name}");
        let first = checked.iter().zip(&unchecked).position(|(a, b)| a != b);
        assert_eq!(first, None, "{name}: {:08x?}", first.map(|i| (checked[i], unchecked[i])));
    }
}

#[test]
fn without_bounds_checks_every_proven_shader_computes_the_same_bits() {
    let needs_tensor_cores = |shader: &Shader| shader.name.starts_with("linear/tensor_core");
    let proven = shaders().into_iter().map(|info| info.shader).filter(|shader| shader.indices == Indices::Proven);
    let proven = proven.filter(|shader| !needs_tensor_cores(shader));
    let proven: Vec<Shader> = proven.collect();
    let (names, covered): (Vec<_>, Vec<_>) = (proven.iter().map(|s| s.name).collect(), OPERATIONS.iter().map(|o| o.0).collect());
    assert_eq!(names, covered, "an operation for each proven shader");
    let Some(mut opened) = Opened::in_precision(Precision::F32) else { return };
    assert!(proven.iter().all(|shader| !opened.unchecked.context.checks_bounds(shader)));
    for (name, operation) in OPERATIONS {
        assert_same(name, &mut opened, *operation);
    }
}

#[test]
fn without_bounds_checks_tensor_cores_compute_the_same_bits() {
    for precision in ON_TENSOR_CORES {
        if common::gpu_on_tensor_cores(precision).is_none() {
            return;
        }
        let mut opened = Opened::in_precision(precision).unwrap();
        assert_same("linear", &mut opened, linear_on_tensor_cores);
        assert_eq!(
            [&mut opened.checked, &mut opened.unchecked].map(Gpu::take_used_precision),
            [precision; 2],
            "they were in use"
        );
    }
    let mut opened = Opened::in_precision(Precision::F16TensorCore).unwrap();
    assert_same("tensor_core_peak", &mut opened, |run| {
        let mut operands = run.gpu.operands(Units::TensorCores).unwrap();
        run.gpu.arithmetic(Units::TensorCores, &mut operands).unwrap();
        run.keep(&[&operands[2]]);
        assert_eq!(run.gpu.deviation(Units::TensorCores, &operands).unwrap(), 0.0, "all sums are exact");
        operands[2] = run.output(operands[2].len() - 1);
        assert!(run.gpu.arithmetic(Units::TensorCores, &mut operands).is_err());
    });
}

#[test]
fn peaks_compute_the_same_bits_and_refuse_buffers_too_short() {
    let Some(mut opened) = Opened::in_precision(Precision::F32) else { return };
    assert_same("peaks", &mut opened, |run| {
        let (source, mut target) = (run.floats(4 * 5001), run.output(4 * 5001));
        run.gpu.copy_fast(&source, &mut target).unwrap();
        let mut operands = run.gpu.operands(Units::F32).unwrap();
        run.gpu.arithmetic(Units::F32, &mut operands).unwrap();
        run.keep(&[&target, &operands[2]]);
        operands[2] = run.output(operands[2].len() - 1);
        assert!(run.gpu.arithmetic(Units::F32, &mut operands).is_err());
        let mut short = run.output(4 * 5001 - 1);
        assert!(run.gpu.copy_fast(&source, &mut short).is_err());
    });
}

#[test]
fn a_context_opened_unchecked_refuses_what_needs_them() {
    let Some(Opened { mut unchecked, .. }) = Opened::in_precision(Precision::F32) else { return };
    let source = unchecked.upload_words(&[1, 2, 3, 4]).unwrap();
    let indices = unchecked.upload_words(&[1, 0]).unwrap();
    let mut target = unchecked.alloc_words(4).unwrap();
    let gather = Gather { count: 2, width: 2, rows: 2, start: 0 };
    let mut gathered = |gpu: &mut Gpu| {
        gpu.gather_words(&gather, &source, &indices, &mut target)?;
        gpu.read_words(&target, 0, 4)
    };
    assert_eq!(gathered(&mut unchecked).unwrap(), [3, 4, 1, 2]);
    let ways: [fn(&mut Context); 3] = [
        |context| context.set_bounds_checks(true),
        |context| context.set_guards(true),
        |context| context.replace_shader("gather", common::shader("gather").to_owned()),
    ];
    for ask in ways {
        ask(&mut unchecked.context);
        let error = gathered(&mut unchecked).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidValue { argument, .. } if argument.contains("gather") || argument.contains("poison")),
            "{error}"
        );
        unchecked.context.set_bounds_checks(false);
        unchecked.context.set_guards(false);
    }
}

#[test]
fn only_proven_shaders_as_they_stand_go_unchecked() {
    if gpu().is_none() {
        return;
    }
    let mut gpu = Gpu::open(&Selection::Best).unwrap();
    let gather = shaders().into_iter().find(|info| info.shader.name == "gather").unwrap().shader;
    let unproven = Shader { indices: Indices::Checked, ..gather };
    assert_eq!(gpu.context.checks_bounds(&gather), cfg!(debug_assertions), "checked in builds with debug assertions alone");
    let unproven_is_run = |gpu: &mut Gpu| {
        gpu.context.replace_shader("gather", gather.source.to_owned());
        let (source, indices) = (gpu.upload_words(&[1, 2]).unwrap(), gpu.upload_words(&[1, 0]).unwrap());
        let mut target = gpu.alloc_words(2).unwrap();
        gpu.gather_words(&Gather { count: 2, width: 1, rows: 2, start: 0 }, &source, &indices, &mut target).is_ok()
    };
    assert!(unproven_is_run(&mut Gpu::open(&Selection::Best).unwrap()), "an ordinary device can check");
    assert!(
        !unproven_is_run(&mut Gpu::open_unchecked(&Selection::Best, Precision::F32).unwrap()),
        "one is opened unchecked by request"
    );
    gpu.context.set_bounds_checks(true);
    assert!(gpu.context.checks_bounds(&gather));
    gpu.context.set_bounds_checks(false);
    assert!(!gpu.context.checks_bounds(&gather));
    assert!(gpu.context.checks_bounds(&unproven), "nobody has proven it");
    gpu.context.set_guards(true);
    assert!(gpu.context.checks_bounds(&gather), "guard regions are there to find faults");
    gpu.context.set_guards(false);
    gpu.context.replace_shader("gather", gather.source.to_owned());
    assert!(gpu.context.checks_bounds(&gather), "another text has no proof");
}
