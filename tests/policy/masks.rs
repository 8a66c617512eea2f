//! Actions that may not be taken, and actions that are none.

use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, CrossCheck, SurrogateOps, Variant};
use ppo_kernels::kernels::policy::{Categorical, KlArgument};
use ppo_kernels::kernels::surrogate::{CategoricalOperands, Surrogate, ValueLoss};
use ppo_kernels::layout::{sample, stat};

use crate::inputs::{Rows, assert_within, upload};
use crate::{common, on_every_backend};

on_every_backend!(
    masked_actions_take_no_part,
    masked_logits_are_not_looked_at,
    a_single_valid_action_is_certain,
    a_row_without_a_valid_action_is_all_zeros,
    a_masked_action_has_no_gradient_of_its_own,
    an_action_that_is_no_index_gives_nan,
    fused_objective_treats_actions_alike,
);

/// The same rows, with masked actions scattered among those of `rows`, whose logits are `hidden`.
fn scatter(rows: &Rows, hidden: f64) -> (Rows, Vec<usize>) {
    let (batch, actions) = (rows.op.batch, rows.op.actions);
    let wider = 2 * actions + 1;
    let mut scattered = Rows::of(wider, &vec![hidden; batch * wider]);
    (scattered.d_logp, scattered.d_entropy) = (rows.d_logp.clone(), rows.d_entropy.clone());
    (scattered.d_kl, scattered.uniforms) = (rows.d_kl.clone(), rows.uniforms.clone());
    scattered.q_logits.fill(hidden);
    let mut mask = vec![0; batch * wider];
    let places: Vec<usize> = (0..batch * actions).map(|i| i / actions * wider + 2 * (i % actions) + 1).collect();
    for (i, &place) in places.iter().enumerate() {
        // Any number but 0 is valid.
        mask[place] = if i % 2 == 0 { 1 } else { u32::MAX };
        (scattered.logits[place], scattered.q_logits[place]) = (rows.logits[i], rows.q_logits[i]);
    }
    scattered.actions = rows.actions.iter().map(|a| 2 * a + 1).collect();
    (scattered.masked_by(&mask), places)
}

/// Those at `places`; all others have to be 0.
#[track_caller]
fn gathered(values: &[f64], places: &[usize]) -> Vec<f64> {
    for (i, &value) in values.iter().enumerate() {
        assert!(value == 0.0 || places.contains(&i), "masked element {i} is {value}");
    }
    places.iter().map(|&place| values[place]).collect()
}

fn take_no_part<B: SurrogateOps>(backend: &mut B, hidden: f64) {
    // On both sides of 64 actions, where rows begin to be shared.
    for actions in [5, 40] {
        let rows = Rows::drawn(30, 70, actions, 2.0, false);
        let (scattered, places) = scatter(&rows, hidden);
        let [p, q] = scattered.bounds();

        let (found, plain) = (scattered.distribution(backend).unwrap(), rows.distribution(backend).unwrap());
        let log_probs = gathered(&found.log_probs, &places);
        assert_within(backend, &log_probs, &plain.log_probs, &p.log_probs());
        assert_within(backend, &gathered(&found.probs, &places), &plain.probs, &p.probs());
        assert_within(backend, &found.logsumexp, &plain.logsumexp, &p.logsumexp());
        assert_eq!(found.mode, plain.mode.iter().map(|a| 2 * a + 1).collect::<Vec<_>>());

        let ((logp, entropy), (plain_logp, plain_entropy)) =
            (scattered.evaluate(backend).unwrap(), rows.evaluate(backend).unwrap());
        assert_within(backend, &logp, &plain_logp, &p.log_probs());
        assert_within(backend, &entropy, &plain_entropy, &p.entropies());

        let (drawn, logp) = scattered.sample(backend, 0).unwrap();
        assert!(drawn.iter().all(|a| a % 2 == 1), "{drawn:?}");
        let drawn_log_probs: Vec<f64> =
            drawn.iter().enumerate().map(|(i, &a)| found.log_probs[i * scattered.op.actions + a as usize]).collect();
        assert_within(backend, &logp, &drawn_log_probs, &p.log_probs());

        let tolerance = p.backward(actions, &rows.d_logp, &rows.d_entropy);
        let gradient = gathered(&scattered.backward(backend).unwrap(), &places);
        let plain = rows.backward(backend).unwrap();
        assert_within(backend, &gradient, &plain, &tolerance);

        let (kl, plain_kl) = (scattered.kl(backend).unwrap(), rows.kl(backend).unwrap());
        assert_within(backend, &kl, &plain_kl, &p.kl(&q));
        for argument in [KlArgument::P, KlArgument::Q] {
            let gradient = gathered(&scattered.kl_backward(backend, argument).unwrap(), &places);
            let plain = rows.kl_backward(backend, argument).unwrap();
            assert_within(backend, &gradient, &plain, &p.kl_backward(&q, actions, &rows.d_kl));
        }
    }
}

fn masked_actions_take_no_part<B: SurrogateOps>(backend: &mut B) {
    // Likelier than any other, if they counted.
    take_no_part(backend, 50.0);
}

fn masked_logits_are_not_looked_at<B: SurrogateOps>(backend: &mut B) {
    take_no_part(backend, f64::NAN);
    take_no_part(backend, f64::NEG_INFINITY);
}

fn a_single_valid_action_is_certain<B: SurrogateOps>(backend: &mut B) {
    for actions in [3, 70] {
        for only in [0, 1, actions - 1] {
            let mut rows = Rows::drawn(31, 4, actions, 30.0, false);
            let flags: Vec<u32> = (0..4 * actions).map(|i| u32::from(i % actions == only)).collect();
            rows = rows.masked_by(&flags);
            rows.actions = vec![only as u32; 4];
            rows.uniforms = vec![2f64.powi(-24), 0.25, 0.75, 1.0 - 2f64.powi(-24)];
            assert_eq!(rows.distribution(backend).unwrap().probs, flags.iter().map(|&f| f64::from(f)).collect::<Vec<_>>());
            assert_eq!(rows.distribution(backend).unwrap().mode, rows.actions);
            assert_eq!(rows.evaluate(backend).unwrap(), (vec![0.0; 4], vec![0.0; 4]));
            assert_eq!(rows.sample(backend, 2).unwrap(), (rows.actions.clone(), vec![0.0; 4]));
            assert_eq!(rows.backward(backend).unwrap(), vec![0.0; 4 * actions]);
            assert_eq!(rows.kl(backend).unwrap(), [0.0; 4]);
            for argument in [KlArgument::P, KlArgument::Q] {
                assert_eq!(rows.kl_backward(backend, argument).unwrap(), vec![0.0; 4 * actions]);
            }
        }
    }
}

fn a_row_without_a_valid_action_is_all_zeros<B: SurrogateOps>(backend: &mut B) {
    for actions in [1, 3, 70] {
        // A row between two that have actions.
        let mask: Vec<u32> = (0..3 * actions).map(|i| u32::from(i / actions != 1)).collect();
        let rows = Rows::drawn(32, 3, actions, 2.0, false).masked_by(&mask);
        let middle = |values: &[f64]| values[actions..2 * actions].to_vec();
        let zeros = vec![0.0; actions];
        let found = rows.distribution(backend).unwrap();
        assert_eq!((middle(&found.log_probs), middle(&found.probs)), (zeros.clone(), zeros.clone()));
        assert_eq!((found.logsumexp[1], found.mode[1]), (0.0, 0));
        let (logp, entropy) = rows.evaluate(backend).unwrap();
        assert_eq!((logp[1], entropy[1]), (0.0, 0.0));
        let (drawn, logp) = rows.sample(backend, 1).unwrap();
        assert_eq!((drawn[1], logp[1]), (0, 0.0));
        assert_eq!(middle(&rows.backward(backend).unwrap()), zeros);
        assert_eq!(rows.kl(backend).unwrap()[1], 0.0);
        for argument in [KlArgument::P, KlArgument::Q] {
            assert_eq!(middle(&rows.kl_backward(backend, argument).unwrap()), zeros);
        }
    }
}

fn a_masked_action_has_no_gradient_of_its_own<B: SurrogateOps>(backend: &mut B) {
    let rows = Rows { actions: vec![1], ..Rows::of(3, &[0.5, 0.0, -0.5]).masked_by(&[1, 0, 1]) };
    assert_eq!(rows.evaluate(backend).unwrap().0, [0.0]);
    // What is left is that of the entropy, whatever d_logp.
    let of_entropy = Rows { actions: vec![0], d_logp: vec![0.0], ..rows.clone() };
    assert_eq!(rows.backward(backend).unwrap(), of_entropy.backward(backend).unwrap());
    assert!(of_entropy.backward(backend).unwrap()[0] != 0.0);
}

fn an_action_that_is_no_index_gives_nan<B: SurrogateOps>(backend: &mut B) {
    for actions in [3, 70] {
        for wrong in [actions as u32, u32::MAX] {
            // Between two rows that stay what they are.
            let right = Rows { actions: vec![0; 3], ..Rows::drawn(33, 3, actions, 1.0, false) };
            let rows = Rows { actions: vec![0, wrong, 0], ..right.clone() };
            let ((logp, entropy), (right_logp, right_entropy)) =
                (rows.evaluate(backend).unwrap(), right.evaluate(backend).unwrap());
            assert!(logp[1].is_nan());
            assert_eq!((logp[0], logp[2], entropy), (right_logp[0], right_logp[2], right_entropy));
            let (gradient, right) = (rows.backward(backend).unwrap(), right.backward(backend).unwrap());
            for (i, (found, right)) in gradient.iter().zip(right).enumerate() {
                assert!(if i / actions == 1 { found.is_nan() } else { *found == right }, "{i}: {found} {right}");
            }
        }
    }
}

#[test]
fn a_cross_check_names_actions_that_are_no_index() {
    let mut both = CrossCheck::new(Cpu::<f32>::new(), Cpu::<f64>::new());
    let rows = Rows { actions: vec![3], ..Rows::of(3, &[0.0; 3]) };
    for result in [rows.evaluate(&mut both).map(|_| ()), rows.backward(&mut both).map(|_| ())] {
        assert!(matches!(result, Err(Error::InvalidValue { argument, .. }) if argument == "actions"));
    }
}

/// The loss −ratio − 0.3·entropy of one row, as the objective sees it: logp, entropy, d_logits.
fn through_the_objective<B: SurrogateOps>(backend: &mut B, rows: &Rows, old_logp: f64) -> (f64, f64, Vec<f64>) {
    let op = Surrogate {
        batch: 1,
        clip_low: f64::INFINITY,
        clip_high: f64::INFINITY,
        dual_clip: None,
        vf_coef: 1.0,
        ent_coef: 0.3,
        kl_coef: 0.0,
        value_loss: ValueLoss::Mse,
        stats_row: 0,
    };
    let policy = Categorical { batch: 1, actions: rows.op.actions };
    let logits = &upload(backend, &rows.logits).unwrap();
    let mask = rows.mask.as_ref().map(|mask| backend.upload_words(mask).unwrap());
    let (mask, actions) = (mask.as_ref(), &backend.upload_words(&rows.actions).unwrap());
    let values = &upload(backend, &[0.0]).unwrap();
    let mut sample = [0.0; sample::COLUMNS];
    (sample[sample::OLD_LOGP], sample[sample::ADVANTAGE]) = (old_logp, 1.0);
    let samples = &upload(backend, &sample).unwrap();
    let [d_logits, d_values, stats] = &mut [rows.op.actions, 1, stat::COLUMNS].map(|n| backend.alloc_floats(n).unwrap());
    let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
    backend.surrogate_categorical(&op, &policy, operands).unwrap();
    let stats = backend.read_f64(stats, 0, stat::COLUMNS).unwrap();
    let d_logits = backend.read_f64(d_logits, 0, rows.op.actions).unwrap();
    (old_logp - stats[stat::OLD_APPROX_KL], stats[stat::ENTROPY], d_logits)
}

/// Masked actions, rows without valid ones and actions that are no index, as `evaluate` and `backward` have them.
fn fused_objective_treats_actions_alike<B: SurrogateOps>(backend: &mut B) {
    let old_logp = -0.5;
    for (mask, action) in
        [([1, 1, 1], 1), ([1, 0, 1], 0), ([1, 0, 1], 1), ([0, 1, 0], 1), ([0, 0, 0], 1), ([1, 1, 1], 3), ([1, 0, 1], u32::MAX)]
    {
        let mut rows = Rows::of(3, &[0.5, 0.25, -1.0]).masked_by(&mask);
        rows.actions = vec![action];
        let (logp, entropy) = rows.evaluate(backend).unwrap();
        // −ratio is the slope of the loss in logp.
        (rows.d_logp, rows.d_entropy) = (vec![-(logp[0] - old_logp).exp()], vec![-0.3]);
        let gradient = rows.backward(backend).unwrap();
        let (fused_logp, fused_entropy, fused_gradient) = through_the_objective(backend, &rows, old_logp);
        let bounds = rows.bounds()[0];
        if action < 3 {
            assert_within(backend, &[fused_logp], &logp, &bounds.log_probs());
            assert_within(backend, &[fused_entropy], &entropy, &bounds.entropies());
            // The ratio itself is off by what logp is, and by its exponential.
            let ratio = rows.d_logp[0].abs() * (1.0 + bounds.log_prob / ppo_kernels::tolerance::F32_ROUNDOFF / 20.0);
            assert_within(backend, &fused_gradient, &gradient, &bounds.backward(3, &[ratio], &[0.3]));
        } else {
            assert!(logp[0].is_nan() && fused_logp.is_nan());
            for (a, (found, plain)) in fused_gradient.iter().zip(&gradient).enumerate() {
                assert!(if rows.valid(a) { found.is_nan() && plain.is_nan() } else { (*found, *plain) == (0.0, 0.0) });
            }
        }
    }
}

#[test]
fn both_variants_of_the_objective_treat_actions_alike() {
    for variant in [Variant::Plain, Variant::Fast] {
        let Some(mut gpu) = common::gpu() else { return };
        gpu.variant = variant;
        fused_objective_treats_actions_alike(&mut gpu);
    }
}
