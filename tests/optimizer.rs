//! Global-norm clipping, Adam and AdamW.

mod common;

use common::{Draw, checked, expect_mismatch, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, Memory, OptimizerOps};
use ppo_kernels::kernels::optimizer::{Adam, GradientNorm};
use ppo_kernels::layout::{control, schedule, stat, stop};
use proptest::prelude::*;

on_every_backend!(
    clips_a_norm_beyond_the_limit,
    leaves_a_norm_within_the_limit_alone,
    an_infinite_limit_never_clips,
    takes_the_norm_of_ten_million_gradients,
    a_nan_gradient_makes_norm_and_factor_nan,
    writes_into_its_row_of_the_statistics_only,
    the_first_step_moves_by_the_learning_rate,
    takes_steps_as_torch_does,
    adds_weight_decay_to_the_gradient_or_beside_it,
    counts_its_steps_and_stops_when_told,
);

const NORM: GradientNorm = GradientNorm { len: 2, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
const ADAM: Adam =
    Adam { len: 1, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.0, decoupled: false, schedule_row: 0, stats_row: 0 };

/// Norm and factor.
fn norm<B: OptimizerOps>(backend: &mut B, op: GradientNorm, grads: &[f32]) -> [f64; 2] {
    let mut stats = backend.upload_floats(&[0.0; stat::COLUMNS]).unwrap();
    let grads = backend.upload_floats(grads).unwrap();
    backend.gradient_norm(&op, &grads, &mut stats).unwrap();
    let row = backend.read_f64(&stats, 0, stat::COLUMNS).unwrap();
    [row[stat::GRAD_NORM], row[stat::CLIP_COEF]]
}

fn close(x: f64, expected: f64) -> bool {
    (x - expected).abs() <= 1e-6 * expected.abs()
}

fn clips_a_norm_beyond_the_limit<B: OptimizerOps>(backend: &mut B) {
    let [norm, coef] = norm(backend, NORM, &[3.0, -4.0]);
    assert!(close(norm, 5.0) && close(coef, 0.5 / 5.000001), "{norm} {coef}");
}

fn leaves_a_norm_within_the_limit_alone<B: OptimizerOps>(backend: &mut B) {
    assert_eq!(norm(backend, NORM, &[0.3, -0.3])[1], 1.0);
    assert_eq!(norm(backend, NORM, &[0.0, 0.0]), [0.0, 1.0]);
    assert_eq!(norm(backend, GradientNorm { epsilon: 0.0, ..NORM }, &[0.0, 0.0]), [0.0, 1.0], "nothing divides by zero");
}

fn an_infinite_limit_never_clips<B: OptimizerOps>(backend: &mut B) {
    assert_eq!(norm(backend, GradientNorm { max_grad_norm: f64::INFINITY, ..NORM }, &[3e18, -4e18])[1], 1.0);
}

fn takes_the_norm_of_ten_million_gradients<B: OptimizerOps>(backend: &mut B) {
    // A plain f32 sum of these squares stops growing at 2^24 times the square, or is off by percents.
    let len = 10_000_000;
    let op = GradientNorm { len, ..NORM };
    let [constant, _] = norm(backend, op, &vec![0.1; len]);
    assert!(close(constant, f64::from(0.1f32) * (len as f64).sqrt()), "{constant}");
}

fn a_nan_gradient_makes_norm_and_factor_nan<B: OptimizerOps>(backend: &mut B) {
    for len in [2, 100_000] {
        let mut grads = vec![1.0; len];
        grads[len - 1] = f32::NAN;
        assert!(norm(backend, GradientNorm { len, ..NORM }, &grads).iter().all(|x| x.is_nan()));
    }
}

fn writes_into_its_row_of_the_statistics_only<B: OptimizerOps>(backend: &mut B) {
    let mut stats = backend.upload_floats(&[7.0; 3 * stat::COLUMNS]).unwrap();
    let grads = backend.upload_floats(&[3.0, 4.0, 100.0]).unwrap();
    backend.gradient_norm(&GradientNorm { stats_row: 1, ..NORM }, &grads, &mut stats).unwrap();
    let all = backend.read_f64(&stats, 0, 3 * stat::COLUMNS).unwrap();
    let changed: Vec<usize> = (0..all.len()).filter(|&i| all[i] != 7.0).collect();
    assert_eq!(changed, [stat::COLUMNS + stat::GRAD_NORM, stat::COLUMNS + stat::CLIP_COEF]);
}

/// Everything a step of Adam works on.
struct State<B: Memory> {
    params: B::Floats,
    grads: B::Floats,
    m: B::Floats,
    v: B::Floats,
    schedule: B::Floats,
    stats: B::Floats,
    control: B::Words,
}

impl<B: OptimizerOps> State<B> {
    fn new(backend: &mut B, params: &[f32], grads: &[f32], schedule: &[f32], coef: f32) -> Self {
        let zeros = vec![0.0; params.len()];
        let mut stats = [0.0; stat::COLUMNS];
        stats[stat::CLIP_COEF] = coef;
        Self {
            params: backend.upload_floats(params).unwrap(),
            grads: backend.upload_floats(grads).unwrap(),
            m: backend.upload_floats(&zeros).unwrap(),
            v: backend.upload_floats(&zeros).unwrap(),
            schedule: backend.upload_floats(schedule).unwrap(),
            stats: backend.upload_floats(&stats).unwrap(),
            control: backend.upload_words(&control::INITIAL).unwrap(),
        }
    }

    fn step(&mut self, backend: &mut B, op: &Adam) -> ppo_kernels::Result<()> {
        let Self { params, grads, m, v, schedule, stats, control } = self;
        backend.adam_step(op, params, grads, m, v, schedule, stats, control)
    }
}

fn the_first_step_moves_by_the_learning_rate<B: OptimizerOps>(backend: &mut B) {
    // m / (1 - beta1) = g and v / (1 - beta2) = g^2, so the first step is lr * g / (|g| + epsilon).
    let row = schedule::row(0.01, 0.9, 0.999, 1);
    let mut state = State::new(backend, &[1.0, 1.0, 1.0], &[2.0, -2e-3, 0.0], &row, 0.5);
    state.step(backend, &Adam { len: 3, ..ADAM }).unwrap();
    let params = backend.read_f64(&state.params, 0, 3).unwrap();
    for (param, expected) in params.iter().zip([1.0 - 0.01 / 1.00001, 1.0 + 0.01 * 1e-3 / (1e-3 + 1e-5), 1.0]) {
        assert!((param - expected).abs() <= 1.2e-7, "{param} {expected}");
    }
    let m = backend.read_f64(&state.m, 0, 3).unwrap();
    let v = backend.read_f64(&state.v, 0, 3).unwrap();
    assert!(close(m[0], 0.1) && close(m[1], -1e-4) && m[2] == 0.0, "{m:?}");
    assert!(close(v[0], 1e-3) && close(v[1], 1e-9) && v[2] == 0.0, "{v:?}: 1 - beta2 is not computed from a rounded beta2");
}

fn takes_steps_as_torch_does<B: OptimizerOps>(backend: &mut B) {
    // torch.optim.Adam([0.5, -1.5], lr=0.1, betas=(0.8, 0.9), eps=1e-3, float64), gradients [1, -2], [0.5, 3], [0, 0.25].
    let rows: Vec<f32> = (1..=3).flat_map(|t| schedule::row(0.1, 0.8, 0.9, t)).collect();
    let mut state = State::new(backend, &[0.5, -1.5], &[0.0, 0.0], &rows, 1.0);
    for (step, grads) in [[1.0, -2.0], [0.5, 3.0], [0.0, 0.25]].iter().enumerate() {
        backend.write_floats(&mut state.grads, 0, grads).unwrap();
        let op = Adam { len: 2, beta1: 0.8, beta2: 0.9, epsilon: 1e-3, schedule_row: step, ..ADAM };
        state.step(backend, &op).unwrap();
    }
    let params = backend.read_f64(&state.params, 0, 2).unwrap();
    for (param, expected) in params.iter().zip([0.23852863043709965, -1.4576002584804002]) {
        assert!((param - expected).abs() <= 5e-7, "{params:?}");
    }
}

fn adds_weight_decay_to_the_gradient_or_beside_it<B: OptimizerOps>(backend: &mut B) {
    let row = schedule::row(0.1, 0.9, 0.999, 1);
    for (decoupled, expected) in [(false, 2.0 - 0.1), (true, 2.0 - 0.1 * 0.5 * 2.0)] {
        let mut state = State::new(backend, &[2.0], &[0.0], &row, 1.0);
        state.step(backend, &Adam { epsilon: 1e-12, weight_decay: 0.5, decoupled, ..ADAM }).unwrap();
        let param = backend.read_f64(&state.params, 0, 1).unwrap()[0];
        assert!((param - expected).abs() < 3e-7, "{decoupled}: {param}");
    }
}

fn counts_its_steps_and_stops_when_told<B: OptimizerOps>(backend: &mut B) {
    let row = schedule::row(0.1, 0.9, 0.999, 1);
    let mut state = State::new(backend, &[1.0; 300], &[1.0; 300], &row, 1.0);
    let op = Adam { len: 300, ..ADAM };
    for _ in 0..3 {
        state.step(backend, &op).unwrap();
    }
    assert_eq!(backend.read_words(&state.control, 0, 4).unwrap(), [stop::NONE, 3, 0, u32::MAX]);
    backend.write_words(&mut state.control, control::STOP, &[stop::TARGET_KL]).unwrap();
    let before = [&state.params, &state.m, &state.v].map(|buffer| backend.read_f64(buffer, 0, 300).unwrap());
    state.step(backend, &op).unwrap();
    let after = [&state.params, &state.m, &state.v].map(|buffer| backend.read_f64(buffer, 0, 300).unwrap());
    assert_eq!(before, after);
    assert_eq!(backend.read_words(&state.control, 0, 4).unwrap(), [stop::TARGET_KL, 3, 0, u32::MAX]);
}

#[test]
fn norms_agree_with_the_twin_at_edge_sizes() {
    let Some(mut both) = checked() else { return };
    let mut draw = Draw::new(1);
    // Around one workgroup, one workgroup's share, the largest number of partial sums.
    for len in [1, 2, 255, 256, 257, 8191, 8192, 32_767, 32_768, 32_769, 36_865, 16 * 256 * 1024 + 1] {
        for scale in [1e-12, 1.0, 1e12] {
            let op = GradientNorm { len, stats_row: 1, ..NORM };
            let grads = both.upload_floats(&draw.floats(len, scale)).unwrap();
            let mut stats = both.upload_floats(&[0.0; 2 * stat::COLUMNS]).unwrap();
            both.gradient_norm(&op, &grads, &mut stats).unwrap();
        }
    }
    assert!(both.worst().values().all(|worst| worst.compared > 0));
}

fn check_steps(seed: u64, len: usize, op: Adam, grad_scale: f32, steps: usize) -> ppo_kernels::Result<()> {
    let Some(mut both) = checked() else { return Ok(()) };
    let mut draw = Draw::new(seed);
    let rows: Vec<f32> = (1..=steps as u64).flat_map(|t| schedule::row(1e-3, op.beta1, op.beta2, t)).collect();
    let mut state = State::new(&mut both, &draw.floats(len, 1.0), &vec![0.0; len], &rows, 0.37);
    for step in 0..steps {
        let mut grads = draw.floats(len, grad_scale);
        grads[draw.size(0..=len - 1)] = 0.0;
        both.write_floats(&mut state.grads, 0, &grads)?;
        state.step(&mut both, &Adam { len, schedule_row: step, ..op })?;
    }
    Ok(())
}

#[test]
fn steps_agree_with_the_twin_at_edge_sizes() {
    for (weight_decay, decoupled) in [(0.0, false), (0.1, false), (0.1, true)] {
        for len in [1, 255, 256, 257, 1001] {
            check_steps(len as u64, len, Adam { weight_decay, decoupled, ..ADAM }, 1.0, 4).unwrap();
        }
    }
    check_steps(1, 65_535 * 256 + 1, ADAM, 1.0, 1).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn steps_agree_with_the_twin_at_any_hyper_parameters(
        seed: u64, beta1 in 0.0..0.99999, beta2 in 0.0..0.99999, epsilon in 1e-10..1e-2f64, weight_decay in 0.0..1.0, decoupled: bool,
        exponent in -8.0f32..4.0,
    ) {
        let op = Adam { beta1, beta2, epsilon, weight_decay, decoupled, ..ADAM };
        check_steps(seed, 70, op, 10f32.powf(exponent), 3).unwrap();
    }
}

#[test]
fn norms_are_the_same_bits_twice() {
    let Some(mut gpu) = common::gpu() else { return };
    let grads = Draw::new(3).floats(1_000_003, 1.0);
    let op = GradientNorm { len: grads.len(), ..NORM };
    let first = norm(&mut gpu, op, &grads);
    assert_eq!(first, norm(&mut gpu, op, &grads));
    assert_eq!(norm(&mut Cpu::<f32>::new(), op, &grads), norm(&mut Cpu::<f32>::new(), op, &grads));
}

#[test]
fn a_grown_scratch_buffer_does_not_disturb_what_is_recorded() {
    let Some(mut gpu) = common::gpu() else { return };
    let mut stats = gpu.upload_floats(&[0.0; 2 * stat::COLUMNS]).unwrap();
    for (row, len) in [(0, 40_000), (1, 5_000_000)] {
        let grads = gpu.upload_floats(&vec![1.0; len]).unwrap();
        gpu.gradient_norm(&GradientNorm { len, stats_row: row, ..NORM }, &grads, &mut stats).unwrap();
    }
    let stats = gpu.read_f64(&stats, 0, 2 * stat::COLUMNS).unwrap();
    assert!(close(stats[stat::GRAD_NORM], 200.0) && close(stats[stat::COLUMNS + stat::GRAD_NORM], 5e6f64.sqrt()), "{stats:?}");
}

#[test]
fn a_wrong_norm_is_caught() {
    for (len, from, to) in [
        (300, "(norm_params.len - 1u - first)", "(norm_params.len - 45u - first)"),
        (300, "block_sum += g * g", "block_sum += abs(g)"),
        (300, "norm + epsilon", "norm"),
        (40_000, "k < norm_params.partials; k +=", "k < norm_params.partials - 1u; k +="),
        (40_000, "for (var k = 0u; k < SEGMENTS; k++)", "for (var k = 1u; k < SEGMENTS; k++)"),
    ] {
        let Some(mut both) = checked() else { return };
        both.a.context.replace_shader("optimizer", plant(common::shader("optimizer"), from, to));
        let grads = both.upload_floats(&Draw::new(4).floats(len, 1.0)).unwrap();
        let mut stats = both.upload_floats(&[0.0; stat::COLUMNS]).unwrap();
        let op = GradientNorm { len, epsilon: 1e-3, ..NORM };
        let mismatch = expect_mismatch(both.gradient_norm(&op, &grads, &mut stats));
        assert_eq!((mismatch.operation, mismatch.tensor), ("gradient_norm", "stats"), "{from}");
    }
}

#[test]
fn a_wrong_step_is_caught() {
    let faults = [
        ("coef * grads[i]", "grads[i]", "m"),
        ("clipped_grad + adam.l2 * old.param", "clipped_grad", "m"),
        ("adam.one_minus_beta1 * g;", "(1.0 - adam.beta2) * g;", "m"),
        ("adam.one_minus_beta2 * (g * g)", "adam.one_minus_beta2 * g", "v"),
        ("control[STEPS_DONE] += 1u", "control[STEPS_DONE] += 2u", "control"),
        ("+ adam.epsilon;", "+ 0.99 * adam.epsilon;", "params"),
        ("schedule[row + STEP_SIZE],", "schedule[row],", "params"),
        ("adam.inv_sqrt_bias_correction2 +", "1.0 +", "params"),
    ];
    for (from, to, tensor) in faults {
        let Some(mut both) = checked() else { return };
        both.a.context.replace_shader("optimizer", plant(common::shader("optimizer"), from, to));
        let mut draw = Draw::new(5);
        let row = schedule::row(1e-3, 0.9, 0.999, 1);
        let mut state = State::new(&mut both, &draw.floats(100, 1.0), &draw.floats(100, 1.0), &row, 0.5);
        let op = Adam { len: 100, weight_decay: 0.1, epsilon: 1e-3, ..ADAM };
        let mismatch = expect_mismatch(state.step(&mut both, &op));
        assert_eq!((mismatch.operation, mismatch.tensor), ("adam_step", tensor), "{from}");
    }
}

#[test]
fn norm_names_the_argument_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    let grads = cpu.upload_floats(&[0.0; 2]).unwrap();
    let mut stats = cpu.upload_floats(&[0.0; stat::COLUMNS]).unwrap();
    for (op, argument) in [
        (GradientNorm { len: 0, ..NORM }, "len"),
        (GradientNorm { len: 1 << 32, ..NORM }, "len"),
        (GradientNorm { len: 3, ..NORM }, "grads"),
        (GradientNorm { stats_row: 1, ..NORM }, "stats"),
        (GradientNorm { stats_row: usize::MAX, ..NORM }, "stats_row"),
        (GradientNorm { stats_row: 1 << 40, ..NORM }, "stats"),
        (GradientNorm { max_grad_norm: 0.0, ..NORM }, "max_grad_norm"),
        (GradientNorm { max_grad_norm: -1.0, ..NORM }, "max_grad_norm"),
        (GradientNorm { max_grad_norm: f64::NAN, ..NORM }, "max_grad_norm"),
        (GradientNorm { epsilon: f64::INFINITY, ..NORM }, "epsilon"),
        (GradientNorm { epsilon: -1e-9, ..NORM }, "epsilon"),
    ] {
        match cpu.gradient_norm(&op, &grads, &mut stats) {
            Err(Error::Shape { argument: named, .. } | Error::InvalidValue { argument: named, .. }) => {
                assert_eq!(named, argument, "{op:?}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
}

#[test]
fn step_names_the_argument_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    for (op, argument) in [
        (Adam { len: 0, ..ADAM }, "len"),
        (Adam { len: 2, ..ADAM }, "params"),
        (Adam { beta1: 1.0, ..ADAM }, "beta1"),
        (Adam { beta2: -0.1, ..ADAM }, "beta2"),
        (Adam { beta2: f64::NAN, ..ADAM }, "beta2"),
        (Adam { epsilon: f64::NAN, ..ADAM }, "epsilon"),
        (Adam { weight_decay: -1.0, ..ADAM }, "weight_decay"),
        (Adam { schedule_row: 1, ..ADAM }, "schedule"),
        (Adam { stats_row: usize::MAX, ..ADAM }, "stats_row"),
    ] {
        let row = schedule::row(0.1, 0.9, 0.999, 1);
        match State::new(&mut cpu, &[1.0], &[1.0], &row, 1.0).step(&mut cpu, &op) {
            Err(Error::Shape { argument: named, .. } | Error::InvalidValue { argument: named, .. }) => {
                assert_eq!(named, argument, "{op:?}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
    let row = schedule::row(0.1, 0.9, 0.999, 1);
    let mut state = State::new(&mut cpu, &[1.0], &[1.0], &row, 1.0);
    state.control = cpu.alloc_words(3).unwrap();
    assert!(matches!(state.step(&mut cpu, &ADAM), Err(Error::Shape { argument, .. }) if argument == "control"));
}
