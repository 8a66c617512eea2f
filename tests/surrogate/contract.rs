//! Typed errors that name the argument.

use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, Memory, SurrogateOps};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::{Surrogate, ValueLoss};
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
        let one = cpu.upload_floats(&[0.0]).unwrap();
        let samples = cpu.upload_floats(&[0.0; sample::COLUMNS]).unwrap();
        let mut terms = cpu.alloc_floats(term::COLUMNS).unwrap();
        let mut stats = cpu.alloc_floats(stat::COLUMNS).unwrap();
        let (mut d_logp, mut d_values) = (one.clone(), one.clone());
        let result = cpu.surrogate(&op, &one, &one, &one, &samples, &mut terms, &mut d_logp, &mut d_values, &mut stats);
        assert_eq!(named_argument(result), argument, "{op:?}");
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
        let [head, actions, values, samples, mut d_head, mut d_values, mut stats] = lens.map(|len| vec![0.0f32; len]);
        let policy = Gaussian { batch, dim: width, state_dependent_std: false, log_std_offset: 0 };
        let (log_std, mut d_log_std) = (vec![0.0; 3], vec![0.0; 3]);
        let result = cpu.surrogate_gaussian(
            &op,
            &policy,
            &head,
            &log_std,
            &actions,
            &values,
            &samples,
            &mut d_head,
            &mut d_log_std,
            0,
            &mut d_values,
            &mut stats,
        );
        assert_eq!(named_argument(result), names[short].replace("head", "mean"));
        if names[short] != "actions" {
            let policy = Categorical { batch, actions: width };
            let result = cpu.surrogate_categorical(
                &op,
                &policy,
                &head,
                None,
                &vec![0; 2],
                &values,
                &samples,
                &mut d_head,
                &mut d_values,
                &mut stats,
            );
            assert_eq!(named_argument(result), names[short].replace("head", "logits"));
        }
    }

    let [head, values, samples] = [6, 2, 8].map(|len| vec![0.0f32; len]);
    let (mut d_head, mut d_values, mut stats) = (head.clone(), values.clone(), vec![0.0; stat::COLUMNS]);
    for (batch, actions, mask, words, argument) in [
        (3, 3, 6, 2, "policy.batch"),
        (2, 0, 6, 2, "actions per row"),
        (2, usize::MAX, 6, 2, "actions per row"),
        (2, 1 << 31, 6, 2, "logits"),
        (2, 3, 5, 2, "mask"),
        (2, 3, 6, 1, "actions"),
    ] {
        let policy = Categorical { batch, actions };
        let (mask, words) = (vec![1; mask], vec![0; words]);
        let result = cpu.surrogate_categorical(
            &op,
            &policy,
            &head,
            Some(&mask),
            &words,
            &values,
            &samples,
            &mut d_head,
            &mut d_values,
            &mut stats,
        );
        assert_eq!(named_argument(result), argument);
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
        let (log_std, mut d_log_std) = (vec![0.0; 4], vec![0.0; 4]);
        let result = cpu.surrogate_gaussian(
            &op,
            &policy,
            &head,
            &log_std,
            &head,
            &values,
            &samples,
            &mut d_head,
            &mut d_log_std,
            d_log_std_offset,
            &mut d_values,
            &mut stats,
        );
        assert_eq!(named_argument(result), argument, "{policy:?}");
    }

    let mut control = vec![0; control::WORDS];
    assert_eq!(named_argument(cpu.stop_on_kl(f64::NAN, 0, &stats, &mut control)), "threshold");
    assert_eq!(named_argument(cpu.stop_on_kl(0.1, 1, &stats, &mut control)), "stats");
    assert_eq!(named_argument(cpu.stop_on_kl(0.1, 0, &stats, &mut vec![0; 3])), "control");
}
