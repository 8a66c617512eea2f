//! Action distributions: categorical, Gaussian, tanh-squashed Gaussian.

#[path = "../common/mod.rs"]
mod common;
mod contract;
mod faults;
mod gradients;
mod inputs;
mod limits;
mod masks;
mod sampling;

use std::f64::consts::LN_2;

use inputs::{Normals, Rows, assert_within};
use ppo_kernels::backend::{Cpu, PolicyOps};
use ppo_kernels::kernels::policy::{Gaussian, KlArgument};

on_every_backend!(
    weights_of_one_two_three_give_sixths,
    a_certain_action_has_no_entropy,
    the_first_of_equally_likely_actions_is_the_mode,
    a_logit_that_is_nan_shows_in_its_whole_row,
    gives_the_density_of_a_normal_distribution,
    log_stds_are_read_from_their_offset,
    gives_the_divergence_of_two_normal_distributions,
    squashes_without_cancelling,
    squashed_actions_stay_in_their_interval,
    entropy_is_the_expected_surprise,
    a_distribution_does_not_diverge_from_itself,
    divergences_are_not_negative,
    a_sample_without_gradient_adds_none_however_far_its_action,
);

/// ½·log 2π.
const HALF_LOG_TWO_PI: f64 = 0.918_938_533_204_672_7;

/// The square of the first sample's distance is beyond f32, and its d_logp is 0.
fn a_sample_without_gradient_adds_none_however_far_its_action<B: PolicyOps>(backend: &mut B) {
    for state_dependent_std in [false, true] {
        let mut normals = Normals::of(&[0.0, 0.0], &[0.0], &[1e30, 2.0]);
        if state_dependent_std {
            normals.op.state_dependent_std = true;
            normals.log_std = vec![0.0; 2];
        }
        (normals.d_logp, normals.d_entropy) = (vec![0.0, 1.0], vec![0.0; 2]);
        let expected = if state_dependent_std { vec![0.0, 3.0] } else { vec![3.0] };
        for (what, (d_mean, d_log_std)) in
            [("Gaussian", normals.backward(backend).unwrap()), ("squashed", normals.squashed_backward(backend, false).unwrap())]
        {
            assert_eq!((d_mean, &d_log_std), (vec![0.0, 2.0], &expected), "{what}, {state_dependent_std}");
        }
    }
}

fn weights_of_one_two_three_give_sixths<B: PolicyOps>(backend: &mut B) {
    let weights = [1.0f64, 2.0, 3.0];
    let rows = Rows::of(3, &weights.map(f64::ln));
    let [p_bounds, q_bounds] = rows.bounds();
    let p = weights.map(|w| w / 6.0);
    let entropy = 6f64.ln() - (2.0 * LN_2 + 3.0 * 3f64.ln()) / 6.0;

    let found = rows.distribution(backend).unwrap();
    assert_within(backend, &found.log_probs, &p.map(f64::ln), &p_bounds.log_probs());
    assert_within(backend, &found.probs, &p, &p_bounds.probs());
    assert_within(backend, &found.logsumexp, &[6f64.ln()], &p_bounds.logsumexp());
    assert_eq!(found.mode, [2]);

    for (action, p) in p.into_iter().enumerate() {
        let (logp, h) = Rows { actions: vec![action as u32], ..rows.clone() }.evaluate(backend).unwrap();
        assert_within(backend, &logp, &[p.ln()], &p_bounds.log_probs());
        assert_within(backend, &h, &[entropy], &p_bounds.entropies());
    }

    // Against the uniform distribution: Σ p·log(3p) = log 3 − H.
    let kl = 3f64.ln() - entropy;
    let found = rows.kl(backend).unwrap();
    assert_within(backend, &found, &[kl], &p_bounds.kl(&q_bounds));
    let tolerance = p_bounds.kl_backward(&q_bounds, 3, &[1.0]);
    let found = rows.kl_backward(backend, KlArgument::P).unwrap();
    assert_within(backend, &found, &p.map(|p| p * ((3.0 * p).ln() - kl)), &tolerance);
    let found = rows.kl_backward(backend, KlArgument::Q).unwrap();
    assert_within(backend, &found, &p.map(|p| 1.0 / 3.0 - p), &tolerance);

    // Of log p[1], of H, and of 2·log p[1] − 3·H.
    for (d_logp, d_entropy) in [(1.0, 0.0), (0.0, 1.0), (2.0, -3.0)] {
        let rows = Rows { actions: vec![1], d_logp: vec![d_logp], d_entropy: vec![d_entropy], ..rows.clone() };
        let expected = [0, 1, 2].map(|a| {
            let taken = if a == 1 { 1.0 } else { 0.0 };
            d_logp * (taken - p[a]) - d_entropy * p[a] * (p[a].ln() + entropy)
        });
        let found = rows.backward(backend).unwrap();
        assert_within(backend, &found, &expected, &p_bounds.backward(3, &[d_logp], &[d_entropy]));
    }
}

fn a_certain_action_has_no_entropy<B: PolicyOps>(backend: &mut B) {
    for extreme in [1e4, 3e38] {
        let rows = Rows::of(3, &[0.0, -extreme, -extreme, -extreme, 0.0, -extreme]);
        let (logp, entropy) = Rows { actions: vec![0, 1], ..rows.clone() }.evaluate(backend).unwrap();
        assert_eq!((logp, entropy), (vec![0.0; 2], vec![0.0; 2]));
        let found = rows.distribution(backend).unwrap();
        assert_eq!(found.probs, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(found.mode, [0, 1]);
    }
    // Far from zero but close together: the maximum is taken out before any exponential.
    for far in [1e4, -1e4] {
        let (logp, entropy) = Rows::of(2, &[far, far]).evaluate(backend).unwrap();
        let bounds = Rows::of(2, &[far, far]).bounds()[0];
        assert_within(backend, &logp, &[-LN_2], &bounds.log_probs());
        assert_within(backend, &entropy, &[LN_2], &bounds.entropies());
    }
}

fn the_first_of_equally_likely_actions_is_the_mode<B: PolicyOps>(backend: &mut B) {
    assert_eq!(Rows::of(4, &[1.0, 2.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0]).distribution(backend).unwrap().mode, [1, 0]);
    // Shared by 64 invocations: a later lane may find an earlier action.
    let mut logits = vec![0.0; 3 * 130];
    (logits[129], logits[64]) = (1.0, 1.0);
    (logits[130 + 127], logits[130 + 65]) = (2.0, 2.0);
    assert_eq!(Rows::of(130, &logits).distribution(backend).unwrap().mode, [64, 65, 0]);
}

fn a_logit_that_is_nan_shows_in_its_whole_row<B: PolicyOps>(backend: &mut B) {
    let nan = f64::NAN;
    let rows = Rows::of(3, &[0.5, nan, 0.0, nan, nan, nan, 1.0, 2.0, 3.0]);
    let is_nan = |x: &[f64]| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
    let bad_rows = [true, true, false];
    let found = rows.distribution(backend).unwrap();
    assert_eq!(is_nan(&found.logsumexp), bad_rows);
    assert_eq!(is_nan(&found.log_probs), [true, true, true, true, true, true, false, false, false]);
    let (logp, entropy) = rows.evaluate(backend).unwrap();
    assert_eq!((is_nan(&logp), is_nan(&entropy)), (bad_rows.to_vec(), bad_rows.to_vec()));
    let (actions, logp) = rows.sample(backend, 0).unwrap();
    assert_eq!(is_nan(&logp), bad_rows);
    assert!(actions.iter().all(|&a| a < 3), "{actions:?}");
}

fn gives_the_density_of_a_normal_distribution<B: PolicyOps>(backend: &mut B) {
    // −½·log 2π and −½ − ½·log 2π at 0 and at one standard deviation, both ways; ½·log 2πe of entropy.
    let standard = Normals::of(&[0.0; 3], &[0.0], &[0.0, 1.0, -1.0]);
    let (logp, entropy) = standard.evaluate(backend).unwrap();
    let expected = [-0.918_938_533_204_672_7, -1.418_938_533_204_672_7, -1.418_938_533_204_672_7];
    assert_within(backend, &logp, &expected, &standard.op.logp_tolerance(&standard.mean, &standard.log_std, &standard.x));
    assert_within(backend, &entropy, &[1.418_938_533_204_672_7; 3], &standard.op.entropy_tolerance(&standard.log_std));
    // z·e^−s and z² − 1, the latter summed over the batch of three, with three entropies.
    let (d_mean, d_log_std) = standard.backward(backend).unwrap();
    assert_eq!((d_mean, d_log_std), (vec![0.0, 1.0, -1.0], vec![-1.0 + 3.0]));

    // Two dimensions with s = ½ and −1½: z = (3 − 1)·e^−½ and (−2 + 1)·e^1½.
    let two = Normals::of(&[1.0, -1.0], &[0.5, -1.5], &[3.0, -2.0]);
    let (z, other) = (2.0 * (-0.5f64).exp(), -(1.5f64.exp()));
    let (logp, entropy) = two.evaluate(backend).unwrap();
    let expected = -0.5 * z * z - 0.5 * other * other + 1.0 - 2.0 * HALF_LOG_TWO_PI;
    assert_within(backend, &logp, &[expected], &two.op.logp_tolerance(&two.mean, &two.log_std, &two.x));
    assert_within(backend, &entropy, &[2.0 * HALF_LOG_TWO_PI + 1.0 - 1.0], &two.op.entropy_tolerance(&two.log_std));
    let (d_mean, d_log_std) = two.backward(backend).unwrap();
    let (to_mean, to_log_std) = two.op.backward_tolerance(&two.mean, &two.log_std, &two.x, &two.d_logp, &two.d_entropy);
    assert_within(backend, &d_mean, &[z * (-0.5f64).exp(), other * 1.5f64.exp()], &to_mean);
    assert_within(backend, &d_log_std, &[z * z, other * other], &to_log_std);

    // As noise, the same numbers are z themselves.
    let (actions, logp) = two.sample(backend, 0).unwrap();
    let tolerance = two.op.sample_tolerance(&two.mean, &two.log_std, &two.x);
    assert_within(backend, &actions, &[1.0 + 3.0 * 0.5f64.exp(), -1.0 - 2.0 * (-1.5f64).exp()], &tolerance);
    let expected = -0.5 * (9.0 + 4.0) + 1.0 - 2.0 * HALF_LOG_TWO_PI;
    let noise_alone = [3.0 * 0.5f64.exp(), -2.0 * (-1.5f64).exp()];
    assert_within(backend, &logp, &[expected], &two.op.logp_tolerance(&[0.0; 2], &two.log_std, &noise_alone));
}

fn log_stds_are_read_from_their_offset<B: PolicyOps>(backend: &mut B) {
    // One dimension, two rows; what lies before the log-stds would show.
    for (state_dependent_std, log_stds) in [(false, vec![1.0, 1.0]), (true, vec![1.0, -2.0])] {
        let mut normals = Normals::of(&[0.0; 2], &[0.0], &[0.0; 2]);
        normals.op = Gaussian { state_dependent_std, log_std_offset: 2, ..normals.op };
        normals.log_std = [&[f64::NAN; 2], &log_stds[..if state_dependent_std { 2 } else { 1 }]].concat();
        let (logp, _) = normals.evaluate(backend).unwrap();
        let expected: Vec<f64> = log_stds.iter().map(|s| -s - HALF_LOG_TWO_PI).collect();
        assert_within(backend, &logp, &expected, &normals.op.logp_tolerance(&normals.mean, &normals.log_std, &normals.x));
    }
}

fn gives_the_divergence_of_two_normal_distributions<B: PolicyOps>(backend: &mut B) {
    // From N(0, 1): of N(1, 1) ½, of N(0, 2²) −log 2 + 2 − ½; of their product in two dimensions the sum.
    let divergence_of_two = 2.0 - 0.5 - LN_2;
    for (mean, log_std, expected) in [
        (vec![1.0], vec![0.0], 0.5),
        (vec![0.0], vec![LN_2], divergence_of_two),
        (vec![1.0, 0.0], vec![0.0, LN_2], 0.5 + divergence_of_two),
    ] {
        let p = Normals::of(&mean, &log_std, &mean);
        let found = p.kl(backend).unwrap();
        let tolerance = p.op.kl_tolerance([&p.mean, &p.log_std, &p.q_mean, &p.q_log_std]);
        // Rounding log 2 moves e^(2·log 2) by 8 times as much, half of which counts.
        assert_within(
            backend,
            &found,
            &[expected],
            &ppo_kernels::tolerance::Tolerance::Uniform {
                abs: tolerance.allowed(0, expected) + 4.0 * ppo_kernels::tolerance::F32_ROUNDOFF,
                rel: 0.0,
            },
        );
    }
    // The textbook's log(σq/σp) + (σp² + Δ²)/2σq² − ½, where p and q both are something else.
    let mut both = Normals::of(&[1.0], &[0.5], &[0.0]);
    (both.q_mean, both.q_log_std) = (vec![-0.5], vec![-0.25]);
    let expected = -0.25 - 0.5 + (1f64.exp() + 2.25) / (2.0 * (-0.5f64).exp()) - 0.5;
    let found = both.kl(backend).unwrap();
    let distributions = [&both.mean[..], &both.log_std, &both.q_mean, &both.q_log_std];
    assert_within(backend, &found, &[expected], &both.op.kl_tolerance(distributions));
    let (to_mean, to_log_std) = both.op.kl_backward_tolerance(distributions, &both.d_kl);
    let mean_slope = 1.5 * 0.5f64.exp();
    let (d_mean, d_log_std) = both.kl_backward(backend, KlArgument::P).unwrap();
    assert_within(backend, &d_mean, &[mean_slope], &to_mean);
    assert_within(backend, &d_log_std, &[1.5f64.exp() - 1.0], &to_log_std);
    let (d_mean, d_log_std) = both.kl_backward(backend, KlArgument::Q).unwrap();
    assert_within(backend, &d_mean, &[-mean_slope], &to_mean);
    assert_within(backend, &d_log_std, &[1.0 - (1f64.exp() + 2.25) * 0.5f64.exp()], &to_log_std);

    // Log-stds nearly the same: t² of e^t − 1 − t with t = 2⁻¹², where the difference itself would leave no digit of f32.
    let near = Normals::of(&[0.0], &[2f64.powi(-13)], &[0.0]);
    let t = 2f64.powi(-12);
    let (found, expected) = (near.kl(backend).unwrap()[0], 0.25 * t * t * (1.0 + t / 3.0));
    assert!((found / expected - 1.0).abs() < 16.0 * ppo_kernels::tolerance::F32_ROUNDOFF, "{found:e}, expected {expected:e}");
}

fn squashes_without_cancelling<B: PolicyOps>(backend: &mut B) {
    // log(1 − tanh²u) directly where f64 can, 2(log 2 − |u|) beyond.
    let u = [0.0, 0.5, -0.5, 1e-3, -3.0, 20.0, -20.0, 60.0, -1e4];
    let expected_log_det = u.map(|u: f64| match u.abs() {
        far if far > 19.0 => 2.0 * (LN_2 - far),
        _ => (1.0 - u.tanh().powi(2)).ln(),
    });
    let mut normals = Normals::of(&u, &[0.0], &u);
    (normals.low, normals.high) = (-2.0, 4.0);
    let op = normals.squashed();
    let [actions, log_det, logp] = normals.squashed_evaluate(backend).unwrap();
    assert_within(backend, &log_det, &expected_log_det, &op.log_det_tolerance(&u));
    assert_within(backend, &actions, &u.map(|u| 1.0 + 3.0 * u.tanh()), &op.actions_tolerance());
    assert_eq!(actions[0], 1.0);
    // At z = 0 what remains is the constant, the squashing and the stretching by 3.
    let expected = expected_log_det.map(|log_det| -HALF_LOG_TWO_PI - log_det - 3f64.ln());
    assert_within(backend, &logp, &expected, &op.logp_tolerance(&normals.mean, &normals.log_std, &u));

    // Moving with the mean, only the squashing has a slope: 2·tanh u, and z = 0 leaves −1 for each log-std.
    let (d_mean, d_log_std) = normals.squashed_backward(backend, true).unwrap();
    let (to_mean, to_log_std) = op.backward_tolerance(true, &normals.mean, &normals.log_std, &u, &normals.d_logp);
    assert_within(backend, &d_mean, &u.map(|u| 2.0 * u.tanh()), &to_mean);
    assert_within(backend, &d_log_std, &[-(u.len() as f64)], &to_log_std);
}

fn squashed_actions_stay_in_their_interval<B: PolicyOps>(backend: &mut B) {
    // Ends with no exact difference: low + (high − low) may round to above high.
    let mut draw = common::Draw::new(20);
    for (one, other) in draw.floats(400, 1.0).into_iter().zip(draw.floats(400, 3.0)) {
        let (low, high) = (one.min(other), one.max(other));
        let mut normals = Normals::of(&[0.0; 6], &[0.0], &[-1e4, -12.0, -6.0, 6.0, 12.0, 1e4]);
        (normals.low, normals.high) = (f64::from(low), f64::from(high));
        let [actions, ..] = normals.squashed_evaluate(backend).unwrap();
        assert!(actions.iter().all(|a| (normals.low..=normals.high).contains(a)), "{low} to {high}: {actions:?}");
    }
}

fn entropy_is_the_expected_surprise<B: PolicyOps>(backend: &mut B) {
    for (actions, scale) in [(5, 1.0), (5, 8.0), (200, 2.0)] {
        for masked in [false, true] {
            let rows = Rows::drawn(21, 20, actions, scale, masked);
            let bounds = rows.bounds()[0];
            let (_, entropy) = rows.evaluate(backend).unwrap();
            let found = rows.distribution(backend).unwrap();
            let surprise = |row: usize| -> f64 {
                let elements = row * actions..(row + 1) * actions;
                elements.map(|i| -found.probs[i] * found.log_probs[i]).sum()
            };
            assert_within(backend, &entropy, &(0..20).map(surprise).collect::<Vec<_>>(), &bounds.entropies());
            let total = |row: usize| found.probs[row * actions..(row + 1) * actions].iter().sum::<f64>();
            let any = |row: usize| (row * actions..(row + 1) * actions).any(|i| rows.valid(i));
            let expected: Vec<f64> = (0..20).map(|row| if any(row) { 1.0 } else { 0.0 }).collect();
            assert_within(backend, &(0..20).map(total).collect::<Vec<_>>(), &expected, &bounds.probs());
        }
    }
}

fn a_distribution_does_not_diverge_from_itself<B: PolicyOps>(backend: &mut B) {
    for (actions, masked) in [(6, false), (6, true), (70, true)] {
        let mut rows = Rows::drawn(22, 65, actions, 3.0, masked);
        rows.q_logits = rows.logits.clone();
        assert_eq!(rows.kl(backend).unwrap(), vec![0.0; 65]);
        for argument in [KlArgument::P, KlArgument::Q] {
            assert_eq!(rows.kl_backward(backend, argument).unwrap(), vec![0.0; 65 * actions]);
        }
    }
    for state_dependent_std in [false, true] {
        let mut normals = Normals::drawn(23, 65, 3, state_dependent_std);
        (normals.q_mean, normals.q_log_std) = (normals.mean.clone(), normals.log_std.clone());
        assert_eq!(normals.kl(backend).unwrap(), vec![0.0; 65]);
        for argument in [KlArgument::P, KlArgument::Q] {
            let (d_mean, d_log_std) = normals.kl_backward(backend, argument).unwrap();
            assert!(d_mean.iter().chain(&d_log_std).all(|&d| d == 0.0));
        }
    }
}

fn divergences_are_not_negative<B: PolicyOps>(backend: &mut B) {
    let unit = inputs::roundoff(backend) / ppo_kernels::tolerance::F32_ROUNDOFF;
    for distance in [1e-4, 1e-2, 1.0] {
        for masked in [false, true] {
            let mut rows = Rows::drawn(24, 200, 7, 1.0, masked);
            for (q, p) in rows.q_logits.iter_mut().zip(&rows.logits) {
                *q = f64::from((p + distance * *q) as f32);
            }
            // Terms of both signs: a sum near zero may come out negative, by no more than its bound.
            let [p, q] = rows.bounds();
            let kl = rows.kl(backend).unwrap();
            assert!(kl.iter().all(|&kl| kl >= -unit * p.kl(&q).allowed(0, 0.0)), "{kl:?}");
        }
        // Of Gaussians no term is negative.
        let mut normals = Normals::drawn(25, 200, 3, true);
        for (q, p) in normals.q_mean.iter_mut().zip(&normals.mean).chain(normals.q_log_std.iter_mut().zip(&normals.log_std)) {
            *q = f64::from((p + distance * *q) as f32);
        }
        assert!(normals.kl(backend).unwrap().iter().all(|&kl| kl > 0.0));
    }
}

/// The same numbers in f64, where a different way of writing a term would show in the last digits.
#[test]
fn reverse_divergence_swaps_the_roles() {
    let mut cpu = Cpu::<f64>::new();
    let normals = Normals::drawn(26, 9, 4, true);
    let mut swapped = normals.clone();
    std::mem::swap(&mut swapped.mean, &mut swapped.q_mean);
    std::mem::swap(&mut swapped.log_std, &mut swapped.q_log_std);
    // KL(p ‖ q) + KL(q ‖ p) = Σ ½(σp² + Δ²)/σq² + ½(σq² + Δ²)/σp² − 1.
    let sum: Vec<f64> = normals.kl(&mut cpu).unwrap().iter().zip(swapped.kl(&mut cpu).unwrap()).map(|(a, b)| a + b).collect();
    for (row, found) in sum.into_iter().enumerate() {
        let term = |d: usize| {
            let i = row * 4 + d;
            let (p, q) = ((2.0 * normals.log_std[2 + i]).exp(), (2.0 * normals.q_log_std[2 + i]).exp());
            let squared = (normals.mean[i] - normals.q_mean[i]).powi(2);
            0.5 * (p + squared) / q + 0.5 * (q + squared) / p - 1.0
        };
        let expected: f64 = (0..4).map(term).sum();
        assert!((found / expected - 1.0).abs() < 1e-13, "{found} {expected}");
    }
}
