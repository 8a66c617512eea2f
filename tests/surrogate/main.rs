//! PPO's objective, its gradient and its statistics.

mod agreement;
#[path = "../common/mod.rs"]
mod common;
mod contract;
mod inputs;

use ppo_kernels::backend::{Cpu, SurrogateOps};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::*;
use ppo_kernels::layout::{control, stat, stop, term};

on_every_backend!(
    gives_the_clipped_losses_of_rlax,
    gives_the_terms_of_one_sample,
    a_ratio_on_the_edge_of_its_clip_counts_as_inside,
    a_clipped_ratio_gets_no_gradient,
    the_dual_clip_bounds_the_loss_of_bad_actions,
    a_value_on_the_edge_of_its_clip_counts_as_inside,
    two_equal_squares_share_the_gradient,
    huber_is_smooth_l1,
    k3_keeps_its_digits_for_small_log_ratios,
    a_kl_penalty_that_does_not_count_stays_out_even_if_infinite,
    an_advantage_of_zero_has_no_loss_however_large_the_ratio,
    a_term_whose_coefficient_is_zero_stays_out_even_if_infinite,
    the_kl_of_an_infinite_log_ratio_is_infinite_and_not_nan,
    a_sample_without_gradient_adds_none_however_far_its_action,
    averages_a_million_samples,
    a_certain_action_keeps_its_entropy,
    masked_actions_take_no_part,
    an_action_that_is_no_index_gives_nan,
    a_value_that_is_nan_shows_in_loss_and_gradient,
    writes_its_own_columns_and_elements_only,
    stops_on_kl_above_the_threshold,
);

/// No clipping, no entropy, no penalty.
const PLAIN: Surrogate = Surrogate {
    batch: 1,
    clip_low: f64::INFINITY,
    clip_high: f64::INFINITY,
    dual_clip: None,
    vf_coef: 1.0,
    ent_coef: 0.0,
    kl_coef: 0.0,
    value_loss: ValueLoss::Mse,
    stats_row: 0,
};
const CLIPPED: Surrogate = Surrogate {
    clip_low: 0.2,
    clip_high: 0.2,
    value_loss: ValueLoss::Clipped { clip: 0.2 },
    vf_coef: 0.5,
    ent_coef: 0.01,
    ..PLAIN
};

/// What the elementwise operation gives.
#[derive(Debug, PartialEq)]
struct Outputs {
    terms: Vec<f64>,
    d_logp: Vec<f64>,
    d_values: Vec<f64>,
    stats: Vec<f64>,
}

/// Rows are (logp, value, old_logp, advantage, return, old_value); entropies are 1.
fn elementwise<B: SurrogateOps>(backend: &mut B, op: &Surrogate, rows: &[[f32; 6]]) -> Outputs {
    let op = Surrogate { batch: rows.len(), ..*op };
    let column = |c: usize| rows.iter().map(|row| row[c]).collect::<Vec<f32>>();
    let samples = rows.iter().flat_map(|row| row[2..].to_vec()).collect();
    let inputs = [column(0), vec![1.0; rows.len()], column(1), samples];
    let [logp, entropy, values, samples] = &inputs.map(|data| backend.upload_floats(&data).unwrap());
    let outputs = [rows.len() * term::COLUMNS, rows.len(), rows.len(), stat::COLUMNS];
    let [terms, d_logp, d_values, stats] = &mut outputs.map(|n| backend.upload_floats(&vec![0.0; n]).unwrap());
    backend.surrogate(&op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats }).unwrap();
    Outputs {
        terms: backend.read_f64(terms, 0, rows.len() * term::COLUMNS).unwrap(),
        d_logp: backend.read_f64(d_logp, 0, rows.len()).unwrap(),
        d_values: backend.read_f64(d_values, 0, rows.len()).unwrap(),
        stats: backend.read_f64(stats, 0, stat::COLUMNS).unwrap(),
    }
}

/// One sample with this log-ratio and advantage, and a value loss of 0.
fn with_ratio<B: SurrogateOps>(backend: &mut B, op: &Surrogate, log_ratio: f32, advantage: f32) -> Outputs {
    elementwise(backend, op, &[[log_ratio, 0.0, 0.0, advantage, 0.0, 0.0]])
}

#[track_caller]
fn assert_close(x: f64, expected: f64, relative: f64) {
    assert!((x - expected).abs() <= relative * expected.abs(), "{x:e}, expected {expected:e}");
}

fn gives_the_clipped_losses_of_rlax<B: SurrogateOps>(backend: &mut B) {
    // rlax/_src/policy_gradients_test.py, ClippedSurrogatePGLossTest.
    let logits = [1.0, 1.0, 1.0, 2.0, 0.0, 0.0, -1.0, -2.0, -3.0];
    let old_logits = [[1.0f64, 1.0, 1.0], [2.0, 0.0, 0.0], [-3.0, -2.0, -1.0]];
    let actions = [0, 1, 2];
    for (sign, expected) in [(1.0, -0.17117467), (-1.0, 0.19333333)] {
        let mut samples = Vec::new();
        for ((old_logits, action), advantage) in old_logits.iter().zip(actions).zip([0.3, 0.2, 0.1]) {
            let old_logp = old_logits[action as usize] - old_logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            samples.extend([old_logp as f32, sign * advantage, 0.0, 0.0]);
        }
        let op = Surrogate { clip_low: 0.2, clip_high: 0.2, ..PLAIN };
        let (stats, ..) = categorical(backend, &op, 3, &logits, None, &actions, &[0.0; 3], &samples).unwrap();
        // Within their tolerance of 1e-4: by hand the first is -(0.3 + 0.2 + 0.1 e^-2)/3 = -0.171178.
        let loss = stats[stat::PG_LOSS];
        assert!((loss - expected).abs() < 1e-5, "{loss}");
    }
}

fn gives_the_terms_of_one_sample<B: SurrogateOps>(backend: &mut B) {
    // ratio e^0.5 = 1.6487 beyond 1.2, advantage 2; value 1 moved by 0.5, return 3.
    let op = Surrogate { kl_coef: 0.1, ..CLIPPED };
    let out = elementwise(backend, &op, &[[-0.5, 1.0, -1.0, 2.0, 3.0, 0.5]]);
    let ratio = 0.5f64.exp();
    let v_loss = 0.5 * 2.3f64 * 2.3;
    for (column, expected) in [
        (term::LOG_RATIO, 0.5),
        (term::RATIO, ratio),
        (term::CLIPPED_RATIO, 1.2),
        (term::PG_LOSS, -2.4),
        (term::CLIPPED_VALUE, 0.7),
        (term::V_LOSS, v_loss),
    ] {
        assert_close(out.terms[column], expected, 1e-6);
    }
    let penalty = (-0.5f64).exp() - 0.5;
    for (column, expected) in [
        (stat::LOSS, -2.4 - 0.01 + 0.5 * v_loss + 0.1 * penalty),
        (stat::PG_LOSS, -2.4),
        (stat::V_LOSS, v_loss),
        (stat::ENTROPY, 1.0),
        (stat::OLD_APPROX_KL, -0.5),
        (stat::APPROX_KL, ratio - 1.5),
        (stat::CLIPFRAC, 1.0),
        (stat::KL_PENALTY, penalty),
    ] {
        assert_close(out.stats[column], expected, 1e-6);
    }
    assert_close(out.d_logp[0], 0.1 * (1.0 - (-0.5f64).exp()), 1e-6);
    assert_eq!(out.d_values[0], 0.0, "the clipped square is the larger, and has no slope");
}

fn a_ratio_on_the_edge_of_its_clip_counts_as_inside<B: SurrogateOps>(backend: &mut B) {
    // A clip of 0 puts both edges at 1, which e^0 is exactly.
    let op = Surrogate { clip_low: 0.0, clip_high: 0.0, ..PLAIN };
    for advantage in [2.0, -2.0] {
        let out = with_ratio(backend, &op, 0.0, advantage);
        assert_eq!(out.d_logp[0], -f64::from(advantage));
        assert_eq!(out.stats[stat::CLIPFRAC], 0.0);
    }
}

fn a_clipped_ratio_gets_no_gradient<B: SurrogateOps>(backend: &mut B) {
    let op = Surrogate { clip_low: 0.1, clip_high: 0.3, ..PLAIN };
    // Only where the clip makes the loss larger does it count: a good action that is likelier, a bad one that is less likely.
    for (log_ratio, advantage, loss, gradient) in [
        (0.4f32, 1.0f32, -1.3, 0.0),
        (0.4, -1.0, 0.4f64.exp(), 0.4f64.exp()),
        (0.2, 1.0, -(0.2f64.exp()), -(0.2f64.exp())),
        (-0.2, -1.0, 0.9, 0.0),
        (-0.2, 1.0, -((-0.2f64).exp()), -((-0.2f64).exp())),
        (-0.05, -1.0, (-0.05f64).exp(), (-0.05f64).exp()),
        (0.4, 0.0, 0.0, 0.0),
        // Beyond f32: what the clip removes must not become 0 times infinity.
        (200.0, 1.0, -1.3, 0.0),
    ] {
        let out = with_ratio(backend, &op, log_ratio, advantage);
        assert!((out.stats[stat::PG_LOSS] - loss).abs() <= 1e-6, "{log_ratio} {advantage}: {}", out.stats[stat::PG_LOSS]);
        assert!((out.d_logp[0] - gradient).abs() <= 1e-6, "{log_ratio} {advantage}: {}", out.d_logp[0]);
    }
}

fn the_dual_clip_bounds_the_loss_of_bad_actions<B: SurrogateOps>(backend: &mut B) {
    let op = Surrogate { dual_clip: Some(3.0), clip_low: 0.2, clip_high: 0.2, ..PLAIN };
    for (log_ratio, advantage, loss, gradient) in [
        (2.0f32, -1.5f32, 4.5, 0.0),
        (1.0, -1.5, 1.5 * 1f64.exp(), 1.5 * 1f64.exp()),
        (2.0, 1.5, -1.8, 0.0),
        (200.0, -1.5, 4.5, 0.0),
    ] {
        let out = with_ratio(backend, &op, log_ratio, advantage);
        assert!((out.stats[stat::PG_LOSS] - loss).abs() <= 3e-6, "{log_ratio} {advantage}: {}", out.stats[stat::PG_LOSS]);
        assert!((out.d_logp[0] - gradient).abs() <= 3e-6, "{log_ratio} {advantage}: {}", out.d_logp[0]);
    }
}

#[test]
fn two_equal_sides_of_the_dual_clip_share_the_gradient() {
    let op = Surrogate { dual_clip: Some(1f64.exp()), ..PLAIN };
    let out = with_ratio(&mut Cpu::<f64>::new(), &op, 1.0, -1.0);
    assert_eq!(out.d_logp[0], 0.5 * 1f64.exp());
}

#[test]
fn an_infinite_ratio_is_not_hidden() {
    let check = |out: Outputs| assert_eq!(out.stats[stat::PG_LOSS], f64::INFINITY);
    check(with_ratio(&mut Cpu::<f32>::new(), &CLIPPED, 200.0, -1.0));
    if let Some(mut gpu) = common::gpu() {
        check(with_ratio(&mut gpu, &CLIPPED, 200.0, -1.0));
    }
}

fn a_value_on_the_edge_of_its_clip_counts_as_inside<B: SurrogateOps>(backend: &mut B) {
    let op = Surrogate { value_loss: ValueLoss::Clipped { clip: 0.5 }, ..PLAIN };
    for value in [0.5, -0.5] {
        let out = elementwise(backend, &op, &[[0.0, value, 0.0, 0.0, 2.0, 0.0]]);
        assert_eq!(out.d_values[0], f64::from(value) - 2.0);
    }
    // Beyond it the larger square decides: towards the return the clipped one, which has no slope, away from it the other.
    let out = elementwise(backend, &op, &[[0.0, 0.75, 0.0, 0.0, 2.0, 0.0], [0.0, 0.75, 0.0, 0.0, -2.0, 0.0]]);
    assert_eq!(out.d_values, [0.0, 0.5 * 2.75]);
}

fn two_equal_squares_share_the_gradient<B: SurrogateOps>(backend: &mut B) {
    let op = Surrogate { value_loss: ValueLoss::Clipped { clip: 0.5 }, ..PLAIN };
    let out = elementwise(backend, &op, &[[0.0, 1.0, 0.0, 0.0, 0.75, 0.0]]);
    assert_eq!((out.d_values[0], out.terms[term::V_LOSS]), (0.5 * 0.25, 0.5 * 0.0625));
}

fn huber_is_smooth_l1<B: SurrogateOps>(backend: &mut B) {
    // torch.nn.functional.smooth_l1_loss(x, 0, beta=2) for x = 1, 2, -3: 0.25, 1, 2; its slopes 0.5, 1, -1.
    let op = Surrogate { value_loss: ValueLoss::Huber { delta: 2.0 }, ..PLAIN };
    let rows = [1.0, 2.0, -3.0, 0.0].map(|value| [0.0, value, 0.0, 0.0, 0.0, 0.0]);
    let out = elementwise(backend, &op, &rows);
    let losses: Vec<f64> = out.terms.chunks(term::COLUMNS).map(|row| row[term::V_LOSS]).collect();
    assert_eq!(losses, [0.25, 1.0, 2.0, 0.0]);
    assert_eq!(out.d_values, [0.125, 0.25, -0.25, 0.0]);
}

fn k3_keeps_its_digits_for_small_log_ratios<B: SurrogateOps>(backend: &mut B) {
    for log_ratio in [1e-6f32, -1e-5, 1e-4, -1e-3, 0.03, -0.5, 0.9, 1.5, -4.0] {
        let x = f64::from(log_ratio);
        // exp(x) - 1 - x itself loses digits in f64 too, but not as many; below 1e-3 two terms of its series say more.
        let residual = |x: f64| if x.abs() < 2e-3 { x * x / 2.0 * (1.0 + x / 3.0 + x * x / 12.0) } else { x.exp() - 1.0 - x };
        let out = with_ratio(backend, &Surrogate { kl_coef: 1.0, ..PLAIN }, log_ratio, 0.0);
        assert_close(out.stats[stat::APPROX_KL], residual(x), 4e-6);
        assert_close(out.stats[stat::KL_PENALTY], residual(-x), 4e-6);
        assert_close(out.d_logp[0], -(-x).exp_m1(), 4e-6);
    }
    assert_eq!(with_ratio(backend, &PLAIN, 0.0, 1.0).stats[stat::APPROX_KL], 0.0);
}

fn a_kl_penalty_that_does_not_count_stays_out_even_if_infinite<B: SurrogateOps>(backend: &mut B) {
    let out = with_ratio(backend, &PLAIN, -200.0, 1.0);
    assert!(out.stats[stat::KL_PENALTY] > 1e38);
    assert!(out.stats[stat::LOSS].abs() < 1e-30 && out.d_logp[0].abs() < 1e-30, "{out:?}");
}

fn an_advantage_of_zero_has_no_loss_however_large_the_ratio<B: SurrogateOps>(backend: &mut B) {
    // e^200 is beyond f32, e^1000 beyond f64; the second sample's loss is -1 * 0.5.
    for log_ratio in [200.0, 1000.0] {
        for dual_clip in [None, Some(3.0)] {
            let op = Surrogate { dual_clip, value_loss: ValueLoss::Mse, ..CLIPPED };
            let rows = [[log_ratio, 0.0, 0.0, 0.0, 0.0, 0.0], [0.5f32.ln(), 0.0, 0.0, 1.0, 0.0, 0.0]];
            let out = elementwise(backend, &op, &rows);
            assert_eq!((out.terms[term::PG_LOSS], out.d_logp[0]), (0.0, 0.0), "{log_ratio}");
            assert_close(out.stats[stat::PG_LOSS], -0.25, 1e-6);
            assert_close(out.stats[stat::LOSS], -0.25 - 0.01, 1e-6);
            assert_close(out.d_logp[1], -0.25, 1e-6);
        }
    }
    // What is no number is not overlooked.
    let out = with_ratio(backend, &PLAIN, f32::NAN, 0.0);
    assert!(out.stats[stat::LOSS].is_nan() && out.d_logp[0].is_nan(), "{out:?}");
}

fn a_term_whose_coefficient_is_zero_stays_out_even_if_infinite<B: SurrogateOps>(backend: &mut B) {
    // An error of 6e38 is beyond f32, and its square twice over; so is e^200 in the KL penalty.
    for value_loss in [ValueLoss::Mse, ValueLoss::Clipped { clip: 0.2 }, ValueLoss::Huber { delta: 1.0 }] {
        let op = Surrogate { vf_coef: 0.0, value_loss, ..PLAIN };
        let out = elementwise(backend, &op, &[[-200.0, 3e38, 0.0, 1.0, -3e38, 0.0]]);
        // Of the policy e^-200 is left, in double precision.
        assert!(out.stats[stat::LOSS].abs() < 1e-80 && out.d_values[0] == 0.0, "{value_loss:?}: {out:?}");
    }
    let [logp, values, samples] = &[&[0.0][..], &[0.0], &[0.0, 1.0, 0.0, 0.0]].map(|data| backend.upload_floats(data).unwrap());
    let entropy = &backend.upload_floats(&[f32::INFINITY]).unwrap();
    let [terms, d_logp, d_values, stats] =
        &mut [term::COLUMNS, 1, 1, stat::COLUMNS].map(|len| backend.alloc_floats(len).unwrap());
    let operands = SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats };
    backend.surrogate(&PLAIN, operands).unwrap();
    assert_eq!(backend.read_f64(stats, stat::LOSS, 1).unwrap(), [-1.0]);
}

fn the_kl_of_an_infinite_log_ratio_is_infinite_and_not_nan<B: SurrogateOps>(backend: &mut B) {
    // Rows are (logp, _, old_logp, ..).
    let above = elementwise(backend, &PLAIN, &[[0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0]]);
    assert_eq!((above.stats[stat::APPROX_KL], above.stats[stat::LOSS]), (f64::INFINITY, 0.0), "{above:?}");
    let below = elementwise(backend, &PLAIN, &[[f32::NEG_INFINITY, 0.0, 0.0, 1.0, 0.0, 0.0]]);
    assert_eq!((below.stats[stat::APPROX_KL], below.stats[stat::KL_PENALTY]), (f64::INFINITY, f64::INFINITY), "{below:?}");
    assert_eq!((below.stats[stat::LOSS], below.d_logp[0]), (0.0, 0.0), "{below:?}");
}

/// Two samples in two dimensions: the first's action is so far away that its square is beyond f32, and its advantage is 0.
fn a_sample_without_gradient_adds_none_however_far_its_action<B: SurrogateOps>(backend: &mut B) {
    let policy = Gaussian { batch: 2, dim: 2, state_dependent_std: false, log_std_offset: 0 };
    let old_logp = -std::f32::consts::TAU.ln() - 0.5 * 4.25;
    let packed = [-1.0, 0.0, 0.0, 0.0, old_logp, 1.0, 0.0, 0.0];
    let inputs = [&[0.0; 4][..], &[0.0; 2], &[1e30, 0.0, 2.0, 0.5], &[0.0; 2], &packed];
    let [mean, log_std, actions, values, samples] = &inputs.map(|data| backend.upload_floats(data).unwrap());
    let [d_mean, d_log_std, d_values, stats] = &mut [4, 2, 2, stat::COLUMNS].map(|len| backend.alloc_floats(len).unwrap());
    let (op, d_log_std_offset) = (Surrogate { batch: 2, ..PLAIN }, 0);
    let operands =
        GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats };
    backend.surrogate_gaussian(&op, &policy, operands).unwrap();
    // d_logp of the second is -1/2.
    for (found, expected) in [
        (backend.read_f64(d_mean, 0, 4).unwrap(), &[0.0, 0.0, -1.0, -0.25][..]),
        (backend.read_f64(d_log_std, 0, 2).unwrap(), &[-1.5, 0.375]),
    ] {
        assert!(found.iter().zip(expected).all(|(x, e)| (x - e).abs() < 1e-5), "{found:?}, expected {expected:?}");
    }
}

/// Rows as they lie, and by tile.
#[test]
fn no_variant_multiplies_zero_by_infinity() {
    let Some(mut gpu) = common::gpu() else { return };
    for variant in [ppo_kernels::backend::Variant::Plain, ppo_kernels::backend::Variant::Fast] {
        gpu.variant = variant;
        a_sample_without_gradient_adds_none_however_far_its_action(&mut gpu);
    }
}

fn averages_a_million_samples<B: SurrogateOps>(backend: &mut B) {
    let rows = vec![[0.25, 0.1, 0.0, -1.0, 0.0, 0.0]; 1_000_003];
    let out = elementwise(backend, &CLIPPED, &rows);
    for (column, expected) in [
        (stat::PG_LOSS, 0.25f64.exp()),
        (stat::V_LOSS, 0.005),
        (stat::ENTROPY, 1.0),
        (stat::OLD_APPROX_KL, -0.25),
        (stat::CLIPFRAC, 1.0),
    ] {
        assert_close(out.stats[column], expected, 2e-6);
    }
}

/// Loss, d_logits and d_values of a categorical head.
fn categorical<B: SurrogateOps>(
    backend: &mut B,
    op: &Surrogate,
    actions_per_row: usize,
    logits: &[f32],
    mask: Option<&[u32]>,
    actions: &[u32],
    values: &[f32],
    samples: &[f32],
) -> ppo_kernels::Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let op = Surrogate { batch: actions.len(), ..*op };
    let policy = Categorical { batch: actions.len(), actions: actions_per_row };
    let [n, batch] = [logits.len(), actions.len()];
    let mask = mask.map(|mask| backend.upload_words(mask)).transpose()?;
    let (mask, actions) = (mask.as_ref(), &backend.upload_words(actions)?);
    let (logits, values) = (&backend.upload_floats(logits)?, &backend.upload_floats(values)?);
    let (samples, stats) = (&backend.upload_floats(samples)?, &mut backend.upload_floats(&[0.0; stat::COLUMNS])?);
    let (d_logits, d_values) = (&mut backend.alloc_floats(n)?, &mut backend.alloc_floats(batch)?);
    let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
    backend.surrogate_categorical(&op, &policy, operands)?;
    Ok((backend.read_f64(stats, 0, stat::COLUMNS)?, backend.read_f64(d_logits, 0, n)?, backend.read_f64(d_values, 0, batch)?))
}

fn a_certain_action_keeps_its_entropy<B: SurrogateOps>(backend: &mut B) {
    // p = 1 - 2e^-20: log(1 + 2e^-20) is 0 where 1 + 2e^-20 is rounded to f32.
    let rest = 2.0 * (-20f64).exp();
    let (stats, d_logits, _) =
        categorical(backend, &PLAIN, 3, &[20.0, 0.0, 0.0], None, &[0], &[0.0], &[0.0, 1.0, 0.0, 0.0]).unwrap();
    assert_close(stats[stat::ENTROPY], rest.ln_1p() + 20.0 * rest / (1.0 + rest), 1e-5);
    assert_close(stats[stat::OLD_APPROX_KL], rest.ln_1p(), 1e-5);
    assert_close(d_logits[1], 0.5 * rest, 1e-5);
}

fn masked_actions_take_no_part<B: SurrogateOps>(backend: &mut B) {
    let op = Surrogate { ent_coef: 0.1, ..PLAIN };
    let sample = [-0.7, 1.0, 0.0, 0.0];
    let (stats, d_logits, _) = categorical(backend, &op, 2, &[0.3, -0.4], None, &[1], &[0.0], &sample).unwrap();
    let masked = categorical(backend, &op, 4, &[9.0, 0.3, f32::NAN, -0.4], Some(&[0, 1, 0, 1]), &[3], &[0.0], &sample).unwrap();
    assert_eq!(stats, masked.0);
    assert_eq!(masked.1, [0.0, d_logits[0], 0.0, d_logits[1]]);
    let never = f32::NEG_INFINITY;
    let masked = categorical(backend, &op, 4, &[never, 0.3, never, -0.4], None, &[3], &[0.0], &sample).unwrap();
    assert_eq!((stats, masked.1), (masked.0, vec![0.0, d_logits[0], 0.0, d_logits[1]]), "masked by their logits");
    let (stats, d_logits, _) = categorical(backend, &op, 2, &[0.3, -0.4], Some(&[0, 0]), &[1], &[0.0], &sample).unwrap();
    assert_eq!((stats[stat::ENTROPY], d_logits), (0.0, vec![0.0, 0.0]), "a row without a valid action");
    let lost = [-0.7, f32::NAN, 0.0, 0.0];
    let (_, d_logits, _) =
        categorical(backend, &op, 4, &[9.0, 0.3, 0.1, -0.4], Some(&[0, 1, 0, 1]), &[3], &[0.0], &lost).unwrap();
    assert_eq!(d_logits.iter().map(|d| d.is_nan()).collect::<Vec<_>>(), [false, true, false, true], "{d_logits:?}");
    assert_eq!((d_logits[0], d_logits[2]), (0.0, 0.0), "a NaN goes where actions are valid");
}

fn an_action_that_is_no_index_gives_nan<B: SurrogateOps>(backend: &mut B) {
    let (stats, ..) = categorical(backend, &PLAIN, 2, &[0.0; 2], None, &[2], &[0.0], &[0.0, 1.0, 0.0, 0.0]).unwrap();
    assert!(stats[stat::LOSS].is_nan());
}

fn a_value_that_is_nan_shows_in_loss_and_gradient<B: SurrogateOps>(backend: &mut B) {
    for value_loss in [ValueLoss::Mse, ValueLoss::Clipped { clip: 0.2 }, ValueLoss::Huber { delta: 1.0 }] {
        let op = Surrogate { value_loss, ..PLAIN };
        let sample = [-0.7, 1.0, 0.0, 0.0];
        let (stats, d_logits, d_values) = categorical(backend, &op, 2, &[0.0; 2], None, &[1], &[f32::NAN], &sample).unwrap();
        assert!(stats[stat::LOSS].is_nan() && d_values[0].is_nan(), "{value_loss:?}: {stats:?}, {d_values:?}");
        assert!(d_logits.iter().all(|d| d.is_finite()), "{value_loss:?}: {d_logits:?}");
    }
}

fn writes_its_own_columns_and_elements_only<B: SurrogateOps>(backend: &mut B) {
    let (batch, dim) = (3, 2);
    let policy = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 1 };
    let inputs = [&[0.0; 6][..], &[f32::NAN, 0.0, 0.0, f32::NAN], &[1.0; 6], &[0.0; 3], &[-1.0; 12]];
    let [mean, log_std, actions, values, samples] = &inputs.map(|data| backend.upload_floats(data).unwrap());
    let [d_mean, d_log_std, d_values, stats] =
        &mut [8, 5, 5, 3 * stat::COLUMNS].map(|len| backend.upload_floats(&vec![7.0; len]).unwrap());
    let (op, d_log_std_offset) = (Surrogate { batch, stats_row: 1, ..CLIPPED }, 2);
    let operands =
        GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats };
    backend.surrogate_gaussian(&op, &policy, operands).unwrap();
    let mut changed = |buffer: &B::Floats, len: usize| -> Vec<usize> {
        let numbers = backend.read_f64(buffer, 0, len).unwrap();
        assert!(numbers.iter().all(|x| x.is_finite()));
        (0..len).filter(|&i| numbers[i] != 7.0).collect()
    };
    assert_eq!(changed(d_mean, 8), [0, 1, 2, 3, 4, 5]);
    assert_eq!(changed(d_log_std, 5), [2, 3]);
    assert_eq!(changed(d_values, 5), [0, 1, 2]);
    let row = stat::COLUMNS;
    let columns = [0, 1, 2, 3, 4, 5, 6, stat::KL_PENALTY].map(|column| row + column);
    assert_eq!(changed(stats, 3 * row), columns);
}

fn stops_on_kl_above_the_threshold<B: SurrogateOps>(backend: &mut B) {
    let mut stats = vec![0.0; 2 * stat::COLUMNS];
    stats[stat::COLUMNS + stat::APPROX_KL] = 0.015;
    let stats = backend.upload_floats(&stats).unwrap();
    let mut control = backend.upload_words(&control::INITIAL).unwrap();
    // At 0.015 itself the number read back is not greater than the threshold, both being rounded to f32.
    for (threshold, row, expected) in [
        (0.01, 0, stop::NONE),
        (0.016, 1, stop::NONE),
        (0.015, 1, stop::NONE),
        (0.0149, 1, stop::TARGET_KL),
        (1.0, 1, stop::TARGET_KL),
    ] {
        backend.stop_on_kl(threshold, row, &stats, &mut control).unwrap();
        assert_eq!(backend.read_words(&control, 0, 4).unwrap(), [expected, 0, 0, u32::MAX], "{threshold}");
    }
    backend.write_words(&mut control, control::STOP, &[stop::NON_FINITE]).unwrap();
    backend.stop_on_kl(0.0, 1, &stats, &mut control).unwrap();
    assert_eq!(backend.read_words(&control, 0, 1).unwrap(), [stop::NON_FINITE], "the first reason stays");
}
