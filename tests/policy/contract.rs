//! Typed errors that name the argument.

use ppo_kernels::backend::{Cpu, PolicyOps};
use ppo_kernels::kernels::policy::{
    Categorical, CategoricalBackwardOperands, CategoricalDistributionOperands, CategoricalEvaluateOperands,
    CategoricalKlBackwardOperands, CategoricalKlOperands, CategoricalSampleOperands, Gaussian, GaussianBackwardOperands,
    GaussianEvaluateOperands, GaussianKlBackwardOperands, GaussianKlOperands, GaussianSampleOperands, KlArgument,
    SquashedBackwardOperands, SquashedEvaluateOperands, SquashedGaussian,
};
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
            let [logits, mut log_probs, mut probs, mut logsumexp] = floats(n);
            let (mask, mut mode) = (words(n[4]), words(n[5]));
            cpu.categorical_distribution(
                &ROWS,
                CategoricalDistributionOperands {
                    logits: &logits,
                    mask: Some(&mask),
                    log_probs: &mut log_probs,
                    probs: &mut probs,
                    logsumexp: &mut logsumexp,
                    mode: &mut mode,
                },
            )
        },
    ),
    ("categorical_evaluate", &[("logits", 6), ("logp", 2), ("entropy", 2), ("mask", 6), ("actions", 2)], |cpu, n| {
        let [logits, mut logp, mut entropy] = floats(n);
        cpu.categorical_evaluate(
            &ROWS,
            CategoricalEvaluateOperands {
                logits: &logits,
                mask: Some(&words(n[3])),
                actions: &words(n[4]),
                logp: &mut logp,
                entropy: &mut entropy,
            },
        )
    }),
    ("categorical_sample", &[("logits", 6), ("uniforms", 5), ("logp", 5), ("mask", 6), ("actions", 5)], |cpu, n| {
        let [logits, uniforms, mut logp] = floats(n);
        cpu.categorical_sample(
            &ROWS,
            CategoricalSampleOperands {
                logits: &logits,
                mask: Some(&words(n[3])),
                uniforms: &uniforms,
                offset: 3,
                actions: &mut words(n[4]),
                logp: &mut logp,
            },
        )
    }),
    (
        "categorical_backward",
        &[("logits", 6), ("d_logp", 2), ("d_entropy", 2), ("d_logits", 6), ("mask", 6), ("actions", 2)],
        |cpu, n| {
            let [logits, d_logp, d_entropy, mut d_logits] = floats(n);
            let (mask, actions) = (words(n[4]), words(n[5]));
            cpu.categorical_backward(
                &ROWS,
                CategoricalBackwardOperands {
                    logits: &logits,
                    mask: Some(&mask),
                    actions: &actions,
                    d_logp: &d_logp,
                    d_entropy: &d_entropy,
                    d_logits: &mut d_logits,
                },
            )
        },
    ),
    ("categorical_kl", &[("p_logits", 6), ("q_logits", 6), ("kl", 2), ("mask", 6)], |cpu, n| {
        let [p, q, mut kl] = floats(n);
        cpu.categorical_kl(&ROWS, CategoricalKlOperands { p_logits: &p, q_logits: &q, mask: Some(&words(n[3])), kl: &mut kl })
    }),
    ("categorical_kl_backward", &[("p_logits", 6), ("q_logits", 6), ("d_kl", 2), ("d_logits", 6), ("mask", 6)], |cpu, n| {
        let [p, q, d_kl, mut d_logits] = floats(n);
        cpu.categorical_kl_backward(
            &ROWS,
            KlArgument::Q,
            CategoricalKlBackwardOperands {
                p_logits: &p,
                q_logits: &q,
                mask: Some(&words(n[4])),
                d_kl: &d_kl,
                d_logits: &mut d_logits,
            },
        )
    }),
    ("gaussian_evaluate", &[("mean", 6), ("log_std", 5), ("actions", 6), ("logp", 2), ("entropy", 2)], |cpu, n| {
        let [mean, log_std, actions, mut logp, mut entropy] = floats(n);
        cpu.gaussian_evaluate(
            &SHARED,
            GaussianEvaluateOperands {
                mean: &mean,
                log_std: &log_std,
                actions: &actions,
                logp: &mut logp,
                entropy: &mut entropy,
            },
        )
    }),
    ("gaussian_sample", &[("mean", 6), ("log_std", 8), ("noise", 15), ("actions", 15), ("logp", 5)], |cpu, n| {
        let [mean, log_std, noise, mut actions, mut logp] = floats(n);
        cpu.gaussian_sample(
            &OWN,
            GaussianSampleOperands {
                mean: &mean,
                log_std: &log_std,
                noise: &noise,
                offset: 3,
                actions: &mut actions,
                logp: &mut logp,
            },
        )
    }),
    (
        "gaussian_backward",
        &[("mean", 6), ("log_std", 5), ("actions", 6), ("d_logp", 2), ("d_entropy", 2), ("d_mean", 6), ("d_log_std", 4)],
        |cpu, n| {
            let [mean, log_std, actions, d_logp, d_entropy, mut d_mean, mut d_log_std] = floats(n);
            cpu.gaussian_backward(
                &SHARED,
                GaussianBackwardOperands {
                    mean: &mean,
                    log_std: &log_std,
                    actions: &actions,
                    d_logp: &d_logp,
                    d_entropy: &d_entropy,
                    d_mean: &mut d_mean,
                    d_log_std: &mut d_log_std,
                    d_log_std_offset: 1,
                },
            )
        },
    ),
    ("gaussian_kl", &[("p_mean", 6), ("p_log_std", 5), ("q_mean", 6), ("q_log_std", 5), ("kl", 2)], |cpu, n| {
        let [p_mean, p_log_std, q_mean, q_log_std, mut kl] = floats(n);
        cpu.gaussian_kl(
            &SHARED,
            GaussianKlOperands { p_mean: &p_mean, p_log_std: &p_log_std, q_mean: &q_mean, q_log_std: &q_log_std, kl: &mut kl },
        )
    }),
    (
        "gaussian_kl_backward",
        &[("p_mean", 6), ("p_log_std", 8), ("q_mean", 6), ("q_log_std", 8), ("d_kl", 2), ("d_mean", 6), ("d_log_std", 6)],
        |cpu, n| {
            let [p_mean, p_log_std, q_mean, q_log_std, d_kl, mut d_mean, mut d_log_std] = floats(n);
            let argument = KlArgument::P;
            cpu.gaussian_kl_backward(
                &OWN,
                argument,
                GaussianKlBackwardOperands {
                    p_mean: &p_mean,
                    p_log_std: &p_log_std,
                    q_mean: &q_mean,
                    q_log_std: &q_log_std,
                    d_kl: &d_kl,
                    d_mean: &mut d_mean,
                    d_log_std: &mut d_log_std,
                },
            )
        },
    ),
    (
        "squashed_gaussian_evaluate",
        &[("mean", 6), ("log_std", 8), ("u", 6), ("actions", 6), ("log_det", 6), ("logp", 2)],
        |cpu, n| {
            let [mean, log_std, u, mut actions, mut log_det, mut logp] = floats(n);
            cpu.squashed_gaussian_evaluate(
                &SQUASHED,
                SquashedEvaluateOperands {
                    mean: &mean,
                    log_std: &log_std,
                    u: &u,
                    actions: &mut actions,
                    log_det: &mut log_det,
                    logp: &mut logp,
                },
            )
        },
    ),
    (
        "squashed_gaussian_backward",
        &[("mean", 6), ("log_std", 8), ("u", 6), ("d_logp", 2), ("d_mean", 6), ("d_log_std", 6)],
        |cpu, n| {
            let [mean, log_std, u, d_logp, mut d_mean, mut d_log_std] = floats(n);
            cpu.squashed_gaussian_backward(
                &SQUASHED,
                true,
                SquashedBackwardOperands {
                    mean: &mean,
                    log_std: &log_std,
                    u: &u,
                    d_logp: &d_logp,
                    d_mean: &mut d_mean,
                    d_log_std: &mut d_log_std,
                },
            )
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
        let logits = backend.upload_floats(&[0.0; 6]).unwrap();
        let (actions, mut logp, mut entropy) =
            (backend.upload_words(&[0; 2]).unwrap(), backend.alloc_floats(2).unwrap(), backend.alloc_floats(2).unwrap());
        let result = backend.categorical_evaluate(
            &op,
            CategoricalEvaluateOperands {
                logits: &logits,
                mask: None,
                actions: &actions,
                logp: &mut logp,
                entropy: &mut entropy,
            },
        );
        assert_eq!(named_argument(result), argument, "{op:?}");
        let uniforms = backend.upload_floats(&[0.5; 2]).unwrap();
        let mut drawn = backend.alloc_words(2).unwrap();
        let result = backend.categorical_sample(
            &op,
            CategoricalSampleOperands {
                logits: &logits,
                mask: None,
                uniforms: &uniforms,
                offset: 0,
                actions: &mut drawn,
                logp: &mut logp,
            },
        );
        assert_eq!(named_argument(result), argument, "{op:?}");
    }
    let logits = backend.upload_floats(&[0.0; 6]).unwrap();
    let uniforms = backend.upload_floats(&[0.5; 2]).unwrap();
    let (mut drawn, mut logp) = (backend.alloc_words(2).unwrap(), backend.alloc_floats(2).unwrap());
    for offset in [usize::MAX, u32::MAX as usize] {
        let result = backend.categorical_sample(
            &rows.op,
            CategoricalSampleOperands {
                logits: &logits,
                mask: None,
                uniforms: &uniforms,
                offset,
                actions: &mut drawn,
                logp: &mut logp,
            },
        );
        assert_eq!(named_argument(result), "offset");
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
        let mean = backend.upload_floats(&[0.0; 6]).unwrap();
        let log_std = backend.upload_floats(&[0.0; 5]).unwrap();
        let (mut logp, mut entropy) = (backend.alloc_floats(2).unwrap(), backend.alloc_floats(2).unwrap());
        let result = backend.gaussian_evaluate(
            &op,
            GaussianEvaluateOperands { mean: &mean, log_std: &log_std, actions: &mean, logp: &mut logp, entropy: &mut entropy },
        );
        assert_eq!(named_argument(result), argument, "{op:?}");
    }
    let mean = backend.upload_floats(&[0.0; 6]).unwrap();
    let log_std = backend.upload_floats(&[0.0; 5]).unwrap();
    let narrow = backend.upload_floats(&[0.0; 2]).unwrap();
    let [mut d_mean, mut d_log_std] = [6, 3].map(|n| backend.alloc_floats(n).unwrap());
    for (offset, argument) in [(1, "d_log_std"), (usize::MAX, "d_log_std_offset")] {
        let result = backend.gaussian_backward(
            &fits.op,
            GaussianBackwardOperands {
                mean: &mean,
                log_std: &log_std,
                actions: &mean,
                d_logp: &narrow,
                d_entropy: &narrow,
                d_mean: &mut d_mean,
                d_log_std: &mut d_log_std,
                d_log_std_offset: offset,
            },
        );
        assert_eq!(named_argument(result), argument);
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
