//! Every gradient against central differences, in f64.

use ppo_kernels::backend::Cpu;
use ppo_kernels::kernels::policy::KlArgument;

use crate::common::check_gradient;
use crate::inputs::{Normals, Rows};

const STEP: f64 = 1e-6;
/// Truncation of order STEP², and rounding of order 10⁻¹⁶/STEP, with losses of size 10 and less.
const TOLERANCE: f64 = 2e-8;

fn weighted(values: &[f64], weights: &[f64]) -> f64 {
    assert_eq!(values.len(), weights.len());
    values.iter().zip(weights).map(|(v, w)| v * w).sum()
}

/// Rows in which every drawn action may be taken, and a masked one in the others.
fn rows(seed: u64, masked: bool) -> Rows {
    let mut rows = Rows::drawn(seed, 7, 5, 1.0, masked);
    if let Some(mask) = &mut rows.mask {
        for (i, &action) in rows.actions.iter().enumerate().skip(1) {
            mask[i * 5 + action as usize] = 1;
        }
        mask[rows.actions[0] as usize] = 0;
    }
    rows
}

#[test]
fn of_categorical_log_probabilities_and_entropies() {
    let mut cpu = Cpu::<f64>::new();
    for masked in [false, true] {
        for (l, e) in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let mut rows = rows(40, masked);
            rows.d_logp.iter_mut().for_each(|d| *d *= l);
            rows.d_entropy.iter_mut().for_each(|d| *d *= e);
            let gradient = rows.backward(&mut cpu).unwrap();
            check_gradient("logits", &rows.logits.clone(), &gradient, STEP, TOLERANCE, |logits| {
                let (logp, entropy) = Rows { logits: logits.to_vec(), ..rows.clone() }.evaluate(&mut cpu).unwrap();
                weighted(&logp, &rows.d_logp) + weighted(&entropy, &rows.d_entropy)
            });
        }
    }
}

#[test]
fn of_categorical_divergences() {
    let mut cpu = Cpu::<f64>::new();
    for masked in [false, true] {
        let rows = rows(41, masked);
        let gradient = rows.kl_backward(&mut cpu, KlArgument::P).unwrap();
        check_gradient("p_logits", &rows.logits, &gradient, STEP, TOLERANCE, |logits| {
            weighted(&Rows { logits: logits.to_vec(), ..rows.clone() }.kl(&mut cpu).unwrap(), &rows.d_kl)
        });
        let gradient = rows.kl_backward(&mut cpu, KlArgument::Q).unwrap();
        check_gradient("q_logits", &rows.q_logits, &gradient, STEP, TOLERANCE, |logits| {
            weighted(&Rows { q_logits: logits.to_vec(), ..rows.clone() }.kl(&mut cpu).unwrap(), &rows.d_kl)
        });
    }
}

/// Log-stds start at their beginning, so that differences of all elements mean something.
fn normals(seed: u64, state_dependent_std: bool) -> Normals {
    let mut normals = Normals::drawn(seed, 6, 3, state_dependent_std);
    normals.log_std.drain(..normals.op.log_std_offset);
    normals.q_log_std.drain(..normals.op.log_std_offset);
    normals.op.log_std_offset = 0;
    normals
}

/// Checks (d_mean, d_log_std) of p.
#[track_caller]
fn check_both(normals: &Normals, (d_mean, d_log_std): (Vec<f64>, Vec<f64>), mut loss: impl FnMut(&Normals) -> f64) {
    check_gradient("mean", &normals.mean, &d_mean, STEP, TOLERANCE, |mean| {
        loss(&Normals { mean: mean.to_vec(), ..normals.clone() })
    });
    check_gradient("log_std", &normals.log_std, &d_log_std, STEP, TOLERANCE, |log_std| {
        loss(&Normals { log_std: log_std.to_vec(), ..normals.clone() })
    });
}

#[test]
fn of_gaussian_log_probabilities_and_entropies() {
    let mut cpu = Cpu::<f64>::new();
    for state_dependent_std in [false, true] {
        let normals = normals(42, state_dependent_std);
        let gradient = normals.backward(&mut cpu).unwrap();
        check_both(&normals, gradient, |normals| {
            let (logp, entropy) = normals.evaluate(&mut cpu).unwrap();
            weighted(&logp, &normals.d_logp) + weighted(&entropy, &normals.d_entropy)
        });
    }
}

#[test]
fn of_gaussian_divergences() {
    let mut cpu = Cpu::<f64>::new();
    for state_dependent_std in [false, true] {
        let normals = normals(43, state_dependent_std);
        let gradient = normals.kl_backward(&mut cpu, KlArgument::P).unwrap();
        check_both(&normals, gradient, |normals| weighted(&normals.kl(&mut cpu).unwrap(), &normals.d_kl));

        let (d_mean, d_log_std) = normals.kl_backward(&mut cpu, KlArgument::Q).unwrap();
        let mut loss = |normals: Normals| weighted(&normals.kl(&mut cpu).unwrap(), &normals.d_kl);
        check_gradient("q_mean", &normals.q_mean, &d_mean, STEP, TOLERANCE, |q_mean| {
            loss(Normals { q_mean: q_mean.to_vec(), ..normals.clone() })
        });
        check_gradient("q_log_std", &normals.q_log_std, &d_log_std, STEP, TOLERANCE, |q_log_std| {
            loss(Normals { q_log_std: q_log_std.to_vec(), ..normals.clone() })
        });
    }
}

#[test]
fn of_squashed_log_probabilities_for_u_that_stands_still() {
    let mut cpu = Cpu::<f64>::new();
    for state_dependent_std in [false, true] {
        let normals = normals(44, state_dependent_std);
        let gradient = normals.squashed_backward(&mut cpu, false).unwrap();
        check_both(&normals, gradient, |normals| {
            let [.., logp] = normals.squashed_evaluate(&mut cpu).unwrap();
            weighted(&logp, &normals.d_logp)
        });
    }
}

#[test]
fn of_squashed_log_probabilities_for_u_that_moves() {
    let mut cpu = Cpu::<f64>::new();
    for state_dependent_std in [false, true] {
        let mut normals = normals(45, state_dependent_std);
        // u = mean + e^s·noise, by the kernel that samples.
        let noise = normals.clone();
        let mut moved = |normals: &Normals| Normals { x: noise.x.clone(), ..normals.clone() }.sample(&mut cpu, 0).unwrap().0;
        normals.x = moved(&normals);
        let gradient = normals.squashed_backward(&mut Cpu::<f64>::new(), true).unwrap();
        check_both(&normals, gradient, |normals| {
            let u = moved(normals);
            let [.., logp] = Normals { x: u, ..normals.clone() }.squashed_evaluate(&mut Cpu::<f64>::new()).unwrap();
            weighted(&logp, &normals.d_logp)
        });
    }
}
