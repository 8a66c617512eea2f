//! Typed errors that name the argument.

use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, SurrogateOps};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::*;
use ppo_kernels::layout::{control, sample, stat, term};

use crate::CLIPPED;

#[test]
fn names_the_coefficient_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    for (op, argument) in [
        (Surrogate { batch: 0, ..CLIPPED }, "batch"),
        (Surrogate { batch: 2, ..CLIPPED }, "values"),
        (Surrogate { batch: 1 << 30, ..CLIPPED }, "terms"),
        (Surrogate { clip_low: -0.1, ..CLIPPED }, "clip_low"),
        (Surrogate { clip_high: f64::NAN, ..CLIPPED }, "clip_high"),
        (Surrogate { dual_clip: Some(1.0), ..CLIPPED }, "dual_clip"),
        (Surrogate { dual_clip: Some(f64::NAN), ..CLIPPED }, "dual_clip"),
        (Surrogate { vf_coef: -0.5, ..CLIPPED }, "vf_coef"),
        (Surrogate { ent_coef: f64::INFINITY, ..CLIPPED }, "ent_coef"),
        (Surrogate { kl_coef: f64::NAN, ..CLIPPED }, "kl_coef"),
        (Surrogate { value_loss: ValueLoss::Clipped { clip: 0.0 }, ..CLIPPED }, "value clip"),
        (Surrogate { value_loss: ValueLoss::Huber { delta: -1.0 }, ..CLIPPED }, "huber delta"),
        (Surrogate { stats_row: 1, ..CLIPPED }, "stats"),
        (Surrogate { stats_row: usize::MAX, ..CLIPPED }, "stats_row"),
    ] {
        let [logp, entropy, values, samples] = &[1, 1, 1, sample::COLUMNS].map(|n| vec![0.0; n]);
        let [terms, d_logp, d_values, stats] = &mut [term::COLUMNS, 1, 1, stat::COLUMNS].map(|n| vec![0.0; n]);
        let operands = SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats };
        assert_eq!(named_argument(cpu.surrogate(&op, operands)), argument, "{op:?}");
    }
}

#[track_caller]
fn named_argument(result: ppo_kernels::Result<()>) -> String {
    match result {
        Err(Error::Shape { argument, .. } | Error::InvalidValue { argument, .. }) => argument,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_the_buffer_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    let (batch, width) = (2, 3);
    let op = Surrogate { batch, ..CLIPPED };
    // logits or mean, actions, values, samples, gradient of the head, d_values, stats, and what the form has besides.
    let fits = [6, 6, 2, 8, 6, 2, stat::COLUMNS];
    let names = ["head", "actions", "values", "samples", "d_head", "d_values", "stats"];
    for short in 0..fits.len() {
        let mut lens = fits;
        lens[short] -= 1;
        let [head, actions, values, samples, d_head, d_values, stats] = &mut lens.map(|len| vec![0.0f32; len]);
        let policy = Gaussian { batch, dim: width, state_dependent_std: false, log_std_offset: 0 };
        let operands = GaussianOperands {
            mean: head,
            log_std: &vec![0.0; 3],
            actions,
            values,
            samples,
            d_mean: d_head,
            d_log_std: &mut vec![0.0; 3],
            d_log_std_offset: 0,
            d_values,
            stats,
        };
        assert_eq!(named_argument(cpu.surrogate_gaussian(&op, &policy, operands)), names[short].replace("head", "mean"));
        if names[short] != "actions" {
            let policy = Categorical { batch, actions: width };
            let (logits, mask, actions, d_logits) = (head, None, &vec![0; 2], d_head);
            let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
            let result = cpu.surrogate_categorical(&op, &policy, operands);
            assert_eq!(named_argument(result), names[short].replace("head", "logits"));
        }
    }

    let [head, values, samples] = &[6, 2, 8].map(|len| vec![0.0f32; len]);
    let [d_head, d_values, stats] = &mut [6, 2, stat::COLUMNS].map(|len| vec![0.0; len]);
    for (batch, actions, mask, words, argument) in [
        (3, 3, 6, 2, "policy.batch"),
        (2, 0, 6, 2, "actions per row"),
        (2, usize::MAX, 6, 2, "actions per row"),
        (2, 1 << 31, 6, 2, "logits"),
        (2, 3, 5, 2, "mask"),
        (2, 3, 6, 1, "actions"),
    ] {
        let policy = Categorical { batch, actions };
        let (logits, mask, actions, d_logits) = (head, Some(&vec![1; mask]), &vec![0; words], &mut *d_head);
        let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
        assert_eq!(named_argument(cpu.surrogate_categorical(&op, &policy, operands)), argument);
    }

    let fits = Gaussian { batch, dim: width, state_dependent_std: false, log_std_offset: 1 };
    for (policy, d_log_std_offset, argument) in [
        (Gaussian { batch: 1, ..fits }, 0, "policy.batch"),
        (Gaussian { dim: 0, ..fits }, 0, "dim"),
        (Gaussian { log_std_offset: 2, ..fits }, 0, "log_std"),
        (Gaussian { log_std_offset: usize::MAX, ..fits }, 0, "log_std"),
        (Gaussian { state_dependent_std: true, ..fits }, 0, "log_std"),
        (fits, 2, "d_log_std"),
    ] {
        let (mean, log_std, actions) = (head, &vec![0.0; 4], head);
        let (d_mean, d_log_std) = (&mut *d_head, &mut vec![0.0; 4]);
        let operands =
            GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats };
        assert_eq!(named_argument(cpu.surrogate_gaussian(&op, &policy, operands)), argument, "{policy:?}");
    }

    let mut control = vec![0; control::WORDS];
    assert_eq!(named_argument(cpu.stop_on_kl(f64::NAN, 0, stats, &mut control)), "threshold");
    assert_eq!(named_argument(cpu.stop_on_kl(0.1, 1, stats, &mut control)), "stats");
    assert_eq!(named_argument(cpu.stop_on_kl(0.1, 0, stats, &mut vec![0; 3])), "control");
}
