//! Samples: allowed, as frequent as they are likely, and the same wherever they are drawn.

use ppo_kernels::backend::{Cpu, PolicyOps, RandomOps};
use ppo_kernels::kernels::policy::{Categorical, CategoricalSampleOperands, Gaussian, GaussianSampleOperands};
use ppo_kernels::kernels::random::RandomStream;

use crate::inputs::{Normals, Rows, assert_within};
use crate::{common, on_every_backend};

on_every_backend!(
    draws_actions_as_often_as_they_are_likely,
    draws_the_action_whose_stretch_holds_the_number,
    draws_no_action_of_probability_zero,
    surprise_averages_to_the_entropy,
    gaussian_samples_have_their_moments,
    same_numbers_give_the_same_bits,
    writes_nothing_before_its_offset,
);

fn uniforms<B: RandomOps>(backend: &mut B, len: usize, seed: u64) -> Vec<f64> {
    let mut out = backend.alloc_floats(len).unwrap();
    backend.random_uniform(&RandomStream { len, seed, stream: 5 }, &mut out).unwrap();
    backend.read_f64(&out, 0, len).unwrap()
}

fn normals<B: RandomOps>(backend: &mut B, len: usize, seed: u64) -> Vec<f64> {
    let mut out = backend.alloc_floats(len).unwrap();
    backend.random_normal(&RandomStream { len, seed, stream: 6 }, &mut out).unwrap();
    backend.read_f64(&out, 0, len).unwrap()
}

/// `n` copies of one drawn row, with uniform numbers of their own. Every seventh action is masked.
fn copies<B: RandomOps>(backend: &mut B, n: usize, actions: usize, seed: u64) -> Rows {
    let one = Rows::drawn(seed, 1, actions, 1.0, false);
    let mask: Vec<u32> = (0..n * actions).map(|i| u32::from(i % actions % 7 != 2)).collect();
    let mut rows = Rows::of(actions, &one.logits.repeat(n)).masked_by(&mask);
    rows.uniforms = uniforms(backend, n, seed);
    rows
}

/// Whether `found` is within four standard errors of `expected`.
fn plausible(found: f64, expected: f64, standard_error: f64) -> bool {
    (found - expected).abs() <= 4.0 * standard_error
}

fn draws_actions_as_often_as_they_are_likely<B: PolicyOps + RandomOps>(backend: &mut B) {
    for (n, actions) in [(40_000, 5), (20_000, 70)] {
        let rows = copies(backend, n, actions, 50);
        let probs = Rows { mask: rows.mask.clone().map(|m| m[..actions].to_vec()), ..Rows::of(actions, &rows.logits[..actions]) }
            .distribution(backend)
            .unwrap()
            .probs;
        let (drawn, _) = rows.sample(backend, 0).unwrap();
        let mut counts = vec![0u32; actions];
        for action in drawn {
            counts[action as usize] += 1;
        }
        for (a, (&count, &p)) in counts.iter().zip(&probs).enumerate() {
            let frequency = f64::from(count) / n as f64;
            assert!(plausible(frequency, p, (p * (1.0 - p) / n as f64).sqrt()), "action {a}: {frequency}, probability {p}");
            assert!(count == 0 || a % 7 != 2, "action {a} is masked");
        }
    }
}

fn draws_the_action_whose_stretch_holds_the_number<B: PolicyOps>(backend: &mut B) {
    // Probabilities 1/8, 1/2, (masked), 1/4, 1/8, by logits that are logarithms of them up to a constant.
    let ln_2 = std::f64::consts::LN_2;
    let row = [0.0, 2.0 * ln_2, 9.0, ln_2, 0.0];
    let numbers = [0.0, 0.12, 0.13, 0.62, 0.63, 0.87, 0.88, 0.999];
    let mut rows = Rows::of(5, &row.repeat(numbers.len())).masked_by(&[1, 1, 0, 1, 1].repeat(numbers.len()));
    rows.uniforms = numbers.to_vec();
    let (drawn, logp) = rows.sample(backend, 1).unwrap();
    assert_eq!(drawn, [0, 0, 1, 1, 3, 3, 4, 4]);
    let expected = [3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0].map(|halvings| -halvings * ln_2);
    assert_within(backend, &logp, &expected, &rows.bounds()[0].log_probs());
}

fn draws_no_action_of_probability_zero<B: PolicyOps>(backend: &mut B) {
    // At both ends of the unit interval, where rounding may leave nothing but the first or the last action.
    for actions in [6, 11, 29, 64, 66, 300] {
        let batch = 500;
        let mut rows = Rows::drawn(51, batch, actions, 1.0, false);
        for row in rows.logits.chunks_mut(actions) {
            (row[0], row[1], row[actions - 2], row[actions - 1]) = (-1e4, -1e4, -1e4, -1e4);
        }
        for u in [0.0, 2f64.powi(-24), 1.0 - 2f64.powi(-24)] {
            rows.uniforms = vec![u; batch];
            let (drawn, logp) = rows.sample(backend, 0).unwrap();
            for (action, logp) in drawn.iter().zip(logp) {
                assert!(logp > -1e3, "{u}: action {action} of {actions} with log-probability {logp}");
            }
        }
    }
}

fn surprise_averages_to_the_entropy<B: PolicyOps + RandomOps>(backend: &mut B) {
    for (n, actions) in [(40_000, 5), (20_000, 70)] {
        let rows = copies(backend, n, actions, 52);
        let (_, logp) = rows.sample(backend, 0).unwrap();
        let (_, entropy) = rows.evaluate(backend).unwrap();
        let mean = -logp.iter().sum::<f64>() / n as f64;
        let variance = logp.iter().map(|l| (l + mean).powi(2)).sum::<f64>() / n as f64;
        assert!(plausible(mean, entropy[0], (variance / n as f64).sqrt()), "{mean}, entropy {}", entropy[0]);
    }
    let n = 40_000;
    let mut gaussian = Normals::of(&vec![0.75; 2 * n], &[-0.5, 0.25], &[0.0]);
    gaussian.x = normals(backend, 2 * n, 52);
    let (actions, logp) = gaussian.sample(backend, 0).unwrap();
    let (_, entropy) = Normals { x: actions, ..gaussian }.evaluate(backend).unwrap();
    let mean = -logp.iter().sum::<f64>() / n as f64;
    // −logp is half a chi-squared number with two degrees of freedom and a constant: of variance 1.
    assert!(plausible(mean, entropy[0], (1.0 / n as f64).sqrt()), "{mean}, entropy {}", entropy[0]);
}

fn gaussian_samples_have_their_moments<B: PolicyOps + RandomOps>(backend: &mut B) {
    let n = 40_000;
    let (means, log_stds) = ([0.75, -2.0], [-0.5f64, 0.25]);
    let mut gaussian = Normals::of(&means.repeat(n), &log_stds, &[0.0]);
    gaussian.x = normals(backend, 2 * n, 53);
    let (actions, logp) = gaussian.sample(backend, 4).unwrap();
    let root = (n as f64).sqrt();
    let standard: Vec<f64> = actions.iter().enumerate().map(|(i, a)| (a - means[i % 2]) / log_stds[i % 2].exp()).collect();
    for d in 0..2 {
        let mean = standard.iter().skip(d).step_by(2).sum::<f64>() / n as f64;
        let variance = standard.iter().skip(d).step_by(2).map(|z| z * z).sum::<f64>() / n as f64;
        assert!(plausible(mean, 0.0, 1.0 / root), "{d}: mean {mean}");
        assert!(plausible(variance, 1.0, 2f64.sqrt() / root), "{d}: variance {variance}");
    }
    let covariance = standard.chunks(2).map(|z| z[0] * z[1]).sum::<f64>() / n as f64;
    assert!(plausible(covariance, 0.0, 1.0 / root), "covariance {covariance}");

    // The density of a sample is that of the action: rounding the action moves z by u·(|mean|/σ + |z|), beside the contract's own error.
    let evaluated = Normals { x: actions, ..gaussian.clone() };
    let (again, _) = evaluated.evaluate(backend).unwrap();
    let own = evaluated.op.logp_tolerance(&evaluated.mean, &evaluated.log_std, &evaluated.x);
    let sampled = evaluated.op.sample_tolerance(&gaussian.mean, &gaussian.log_std, &gaussian.x);
    let bound = |row: usize| {
        let moved = |d: usize| gaussian.x[2 * row + d].abs() * sampled.allowed(2 * row + d, 0.0) / log_stds[d].exp();
        2.0 * own.allowed(row, 0.0) + moved(0) + moved(1)
    };
    let bounds = ppo_kernels::tolerance::Tolerance::PerElement((0..n).map(bound).collect());
    assert_within(backend, &again, &logp, &bounds);
}

fn same_numbers_give_the_same_bits<B: PolicyOps + RandomOps>(backend: &mut B) {
    let mut categorical = |seed| copies(backend, 1000, 70, seed).sample(backend, 0).unwrap();
    assert_eq!(categorical(54), categorical(54));
    assert_ne!(categorical(54).0, categorical(55).0);
    let mut gaussian = |seed| {
        let mut gaussian = Normals::drawn(54, 500, 3, true);
        gaussian.x = normals(backend, 1500, seed);
        gaussian.sample(backend, 0).unwrap()
    };
    assert_eq!(gaussian(54), gaussian(54));
    assert_ne!(gaussian(54), gaussian(55));
}

fn writes_nothing_before_its_offset<B: PolicyOps>(backend: &mut B) {
    // Rows 2 and 3 of 5.
    let (mask, uniforms) = (None, &backend.upload_floats(&[0.9, 0.9, 0.1, 0.9, 0.1]).unwrap());
    let op = Categorical { batch: 2, actions: 2 };
    let (logits, offset) = (&backend.upload_floats(&[0.0; 4]).unwrap(), 2);
    let (actions, logp) = (&mut backend.upload_words(&[7; 5]).unwrap(), &mut backend.upload_floats(&[7.0; 5]).unwrap());
    let operands = CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp };
    backend.categorical_sample(&op, operands).unwrap();
    assert_eq!(backend.read_words(actions, 0, 5).unwrap(), [7, 7, 0, 1, 7]);
    let logp = backend.read_f64(logp, 0, 5).unwrap();
    assert_eq!(logp.iter().map(|&l| l == 7.0).collect::<Vec<_>>(), [true, true, false, false, true]);

    let op = Gaussian { batch: 2, dim: 2, state_dependent_std: false, log_std_offset: 0 };
    let (mean, log_std) = (&backend.upload_floats(&[1.0, 2.0, 3.0, 4.0]).unwrap(), &backend.upload_floats(&[0.0; 2]).unwrap());
    let noise = &backend.upload_floats(&[9.0, 9.0, 9.0, 9.0, 0.5, 0.5, -0.5, -0.5, 9.0, 9.0]).unwrap();
    let (actions, logp) = (&mut backend.upload_floats(&[7.0; 10]).unwrap(), &mut backend.upload_floats(&[7.0; 5]).unwrap());
    backend.gaussian_sample(&op, GaussianSampleOperands { mean, log_std, noise, offset, actions, logp }).unwrap();
    assert_eq!(backend.read_f64(actions, 0, 10).unwrap(), [7.0, 7.0, 7.0, 7.0, 1.5, 2.5, 2.5, 3.5, 7.0, 7.0]);
    let logp = backend.read_f64(logp, 0, 5).unwrap();
    assert_eq!(logp.iter().map(|&l| l == 7.0).collect::<Vec<_>>(), [true, true, false, false, true]);
}

/// The actions that every backend has to draw: those whose stretch holds the number by more than all rounding.
#[test]
fn backends_draw_the_same_actions() {
    for (batch, actions, masked) in [(20_000, 6, true), (4000, 70, false), (500, 1025, true)] {
        let rows = Rows::drawn(56, batch, actions, 2.0, masked);
        let probs = rows.distribution(&mut Cpu::<f64>::new()).unwrap().probs;
        let reach = rows.bounds()[0].cumulative();
        let (expected, _) = rows.sample(&mut Cpu::<f64>::new(), 0).unwrap();
        let clear = |i: usize| {
            let row = &probs[i * actions..(i + 1) * actions];
            let after = row.iter().scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            });
            after.into_iter().all(|border| (border - rows.uniforms[i]).abs() > reach)
        };
        let clear: Vec<usize> = (0..batch).filter(|&i| clear(i)).collect();
        assert!(clear.len() * 100 > batch * 95, "{} of {batch} are clear", clear.len());
        let check = |drawn: Vec<u32>| clear.iter().for_each(|&i| assert_eq!(drawn[i], expected[i], "row {i}"));
        check(rows.sample(&mut Cpu::<f32>::new(), 0).unwrap().0);
        if let Some(mut gpu) = common::gpu() {
            check(rows.sample(&mut gpu, 0).unwrap().0);
        }
    }
}
