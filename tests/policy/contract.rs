//! Typed errors that name the argument.

use ppo_kernels::backend::{Cpu, PolicyOps};
use ppo_kernels::kernels::policy::*;
use ppo_kernels::{Error, Result};

use crate::common;
use crate::inputs::{Normals, Rows};

#[track_caller]
fn named_argument(result: Result<()>) -> String {
    match result {
        Err(Error::Shape { argument, .. } | Error::InvalidValue { argument, .. }) => argument,
        other => panic!("{other:?}"),
    }
}

type Words = Vec<u32>;
type Floats = Vec<f32>;
/// Name, arguments with their lengths, and a call with other lengths.
type Operation = (&'static str, &'static [(&'static str, usize)], fn(&mut Cpu<f32>, &[usize]) -> Result<()>);

fn floats<const N: usize>(lens: &[usize]) -> [Floats; N] {
    std::array::from_fn(|i| vec![0.0; lens[i]])
}

fn words(len: usize) -> Words {
    vec![1; len]
}

const ROWS: Categorical = Categorical { batch: 2, actions: 3 };
/// With a log-std after two other numbers, and a gradient after one.
const SHARED: Gaussian = Gaussian { batch: 2, dim: 3, state_dependent_std: false, log_std_offset: 2 };
const OWN: Gaussian = Gaussian { state_dependent_std: true, ..SHARED };
const SQUASHED: SquashedGaussian = SquashedGaussian { gaussian: OWN, low: -1.0, high: 1.0 };

/// Every operation with its arguments' names and the lengths that just fit: floats first.
const OPERATIONS: &[Operation] = &[
    (
        "categorical_distribution",
        &[("logits", 6), ("log_probs", 6), ("probs", 6), ("logsumexp", 2), ("mask", 6), ("mode", 2)],
        |cpu, n| {
            let [logits, log_probs, probs, logsumexp] = &mut floats(n);
            let (mask, mode) = (Some(&words(n[4])), &mut words(n[5]));
            let operands = CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode };
            cpu.categorical_distribution(&ROWS, operands)
        },
    ),
    ("categorical_evaluate", &[("logits", 6), ("logp", 2), ("entropy", 2), ("mask", 6), ("actions", 2)], |cpu, n| {
        let [logits, logp, entropy] = &mut floats(n);
        let (mask, actions) = (Some(&words(n[3])), &words(n[4]));
        cpu.categorical_evaluate(&ROWS, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })
    }),
    ("categorical_sample", &[("logits", 6), ("uniforms", 5), ("logp", 5), ("mask", 6), ("actions", 5)], |cpu, n| {
        let [logits, uniforms, logp] = &mut floats(n);
        let (mask, actions) = (Some(&words(n[3])), &mut words(n[4]));
        cpu.categorical_sample(&ROWS, CategoricalSampleOperands { logits, mask, uniforms, offset: 3, actions, logp })
    }),
    (
        "categorical_backward",
        &[("logits", 6), ("d_logp", 2), ("d_entropy", 2), ("d_logits", 6), ("mask", 6), ("actions", 2)],
        |cpu, n| {
            let [logits, d_logp, d_entropy, d_logits] = &mut floats(n);
            let (mask, actions) = (Some(&words(n[4])), &words(n[5]));
            let operands = CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits };
            cpu.categorical_backward(&ROWS, operands)
        },
    ),
    ("categorical_kl", &[("p_logits", 6), ("q_logits", 6), ("kl", 2), ("mask", 6)], |cpu, n| {
        let ([p_logits, q_logits, kl], mask) = (&mut floats(n), Some(&words(n[3])));
        cpu.categorical_kl(&ROWS, CategoricalKlOperands { p_logits, q_logits, mask, kl })
    }),
    ("categorical_kl_backward", &[("p_logits", 6), ("q_logits", 6), ("d_kl", 2), ("d_logits", 6), ("mask", 6)], |cpu, n| {
        let ([p_logits, q_logits, d_kl, d_logits], mask) = (&mut floats(n), Some(&words(n[4])));
        let operands = CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits };
        cpu.categorical_kl_backward(&ROWS, KlArgument::Q, operands)
    }),
    ("gaussian_evaluate", &[("mean", 6), ("log_std", 5), ("actions", 6), ("logp", 2), ("entropy", 2)], |cpu, n| {
        let [mean, log_std, actions, logp, entropy] = &mut floats(n);
        cpu.gaussian_evaluate(&SHARED, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })
    }),
    ("gaussian_sample", &[("mean", 6), ("log_std", 8), ("noise", 15), ("actions", 15), ("logp", 5)], |cpu, n| {
        let [mean, log_std, noise, actions, logp] = &mut floats(n);
        cpu.gaussian_sample(&OWN, GaussianSampleOperands { mean, log_std, noise, offset: 3, actions, logp })
    }),
    (
        "gaussian_backward",
        &[("mean", 6), ("log_std", 5), ("actions", 6), ("d_logp", 2), ("d_entropy", 2), ("d_mean", 6), ("d_log_std", 4)],
        |cpu, n| {
            let [mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std] = &mut floats(n);
            let d_log_std_offset = 1;
            let operands =
                GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
            cpu.gaussian_backward(&SHARED, operands)
        },
    ),
    ("gaussian_kl", &[("p_mean", 6), ("p_log_std", 5), ("q_mean", 6), ("q_log_std", 5), ("kl", 2)], |cpu, n| {
        let [p_mean, p_log_std, q_mean, q_log_std, kl] = &mut floats(n);
        cpu.gaussian_kl(&SHARED, GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl })
    }),
    (
        "gaussian_kl_backward",
        &[("p_mean", 6), ("p_log_std", 8), ("q_mean", 6), ("q_log_std", 8), ("d_kl", 2), ("d_mean", 6), ("d_log_std", 6)],
        |cpu, n| {
            let [p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std] = &mut floats(n);
            let operands = GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std };
            cpu.gaussian_kl_backward(&OWN, KlArgument::P, operands)
        },
    ),
    (
        "squashed_gaussian_evaluate",
        &[("mean", 6), ("log_std", 8), ("u", 6), ("actions", 6), ("log_det", 6), ("logp", 2)],
        |cpu, n| {
            let [mean, log_std, u, actions, log_det, logp] = &mut floats(n);
            cpu.squashed_gaussian_evaluate(&SQUASHED, SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp })
        },
    ),
    (
        "squashed_gaussian_backward",
        &[("mean", 6), ("log_std", 8), ("u", 6), ("d_logp", 2), ("d_mean", 6), ("d_log_std", 6)],
        |cpu, n| {
            let [mean, log_std, u, d_logp, d_mean, d_log_std] = &mut floats(n);
            let operands = SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std };
            cpu.squashed_gaussian_backward(&SQUASHED, true, operands)
        },
    ),
];

#[test]
fn names_the_buffer_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    for (operation, arguments, run) in OPERATIONS {
        let fits: Vec<usize> = arguments.iter().map(|(_, len)| *len).collect();
        run(&mut cpu, &fits).unwrap_or_else(|error| panic!("{operation}: {error}"));
        for (i, (name, _)) in arguments.iter().enumerate() {
            let mut short = fits.clone();
            short[i] -= 1;
            assert_eq!(named_argument(run(&mut cpu, &short)), *name, "{operation}");
        }
    }
}

/// Sizes, offsets and intervals that make no sense, on a CPU and on the adapter.
fn refuses<B: PolicyOps>(backend: &mut B) {
    let rows = Rows::drawn(70, 2, 3, 1.0, false);
    for (op, argument) in [
        (Categorical { batch: 0, actions: 3 }, "batch"),
        (Categorical { batch: 2, actions: 0 }, "actions"),
        (Categorical { batch: 1 << 20, actions: 1 << 12 }, "logits"),
        (Categorical { batch: usize::MAX, actions: 3 }, "batch"),
    ] {
        // Buffers of their own size, for none of zero elements or of 2³² can be had.
        let (logits, mask) = (&backend.upload_floats(&[0.0; 6]).unwrap(), None);
        let [logp, entropy] = &mut [2, 2].map(|n| backend.alloc_floats(n).unwrap());
        let actions = &mut backend.upload_words(&[0; 2]).unwrap();
        let operands = CategoricalEvaluateOperands { logits, mask, actions, logp, entropy };
        assert_eq!(named_argument(backend.categorical_evaluate(&op, operands)), argument, "{op:?}");
        let operands = CategoricalSampleOperands { logits, mask, uniforms: entropy, offset: 0, actions, logp };
        assert_eq!(named_argument(backend.categorical_sample(&op, operands)), argument, "{op:?}");
    }
    let (logits, mask, uniforms) = (&backend.upload_floats(&[0.0; 6]).unwrap(), None, &backend.upload_floats(&[0.5; 2]).unwrap());
    let (actions, logp) = (&mut backend.alloc_words(2).unwrap(), &mut backend.alloc_floats(2).unwrap());
    for offset in [usize::MAX, u32::MAX as usize] {
        let operands = CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp };
        assert_eq!(named_argument(backend.categorical_sample(&rows.op, operands)), "offset");
    }

    let fits = Normals::drawn(71, 2, 3, false);
    for (op, argument) in [
        (Gaussian { batch: 0, ..fits.op }, "batch"),
        (Gaussian { dim: 0, ..fits.op }, "dim"),
        (Gaussian { batch: 1 << 20, dim: 1 << 12, ..fits.op }, "mean"),
        (Gaussian { log_std_offset: 3, ..fits.op }, "log_std"),
        (Gaussian { log_std_offset: usize::MAX, ..fits.op }, "log_std_offset"),
        (Gaussian { state_dependent_std: true, ..fits.op }, "log_std"),
    ] {
        let [mean, log_std, actions, logp, entropy] = &mut [6, 5, 6, 2, 2].map(|n| backend.alloc_floats(n).unwrap());
        let operands = GaussianEvaluateOperands { mean, log_std, actions, logp, entropy };
        assert_eq!(named_argument(backend.gaussian_evaluate(&op, operands)), argument, "{op:?}");
    }
    for (d_log_std_offset, argument) in [(1, "d_log_std"), (usize::MAX, "d_log_std_offset")] {
        let buffers = &mut [6, 5, 6, 2, 2, 6, 3].map(|n| backend.alloc_floats(n).unwrap());
        let [mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std] = buffers;
        let operands =
            GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
        assert_eq!(named_argument(backend.gaussian_backward(&fits.op, operands)), argument);
    }

    for (low, high, argument) in [
        (f64::NAN, 1.0, "low"),
        (f64::NEG_INFINITY, 1.0, "low"),
        (-1.0, f64::INFINITY, "high"),
        (1.0, 1.0, "high"),
        (2.0, 1.0, "high"),
    ] {
        let normals = Normals { low, high, ..fits.clone() };
        assert_eq!(named_argument(normals.squashed_evaluate(backend).map(|_| ())), argument);
        assert_eq!(named_argument(normals.squashed_backward(backend, true).map(|_| ())), argument);
    }
}

#[test]
fn refuses_what_makes_no_sense() {
    refuses(&mut Cpu::<f32>::new());
    refuses(&mut Cpu::<f64>::new());
    if let Some(mut gpu) = common::gpu() {
        refuses(&mut gpu);
    }
}
