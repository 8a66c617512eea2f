//! Negative controls: a fault planted in each entry point is caught, in the operation that runs it.

use ppo_kernels::Result;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu};
use ppo_kernels::kernels::policy::KlArgument;

use crate::common::{checked, expect_mismatch, plant, shader};
use crate::inputs::{Normals, Rows};

type Both = CrossCheck<Gpu, Cpu<f64>>;

/// One operation of the backend by name.
fn categorical(both: &mut Both, rows: &Rows, operation: &str) -> Result<()> {
    match operation {
        "categorical_distribution" => rows.distribution(both).map(|_| ()),
        "categorical_evaluate" => rows.evaluate(both).map(|_| ()),
        "categorical_sample" => rows.sample(both, 3).map(|_| ()),
        "categorical_backward" => rows.backward(both).map(|_| ()),
        "categorical_kl" => rows.kl(both).map(|_| ()),
        _ => [KlArgument::P, KlArgument::Q].into_iter().try_for_each(|argument| rows.kl_backward(both, argument).map(|_| ())),
    }
}

fn gaussian(both: &mut Both, normals: &Normals, operation: &str) -> Result<()> {
    match operation {
        "gaussian_evaluate" => normals.evaluate(both).map(|_| ()),
        "gaussian_sample" => normals.sample(both, 3).map(|_| ()),
        "gaussian_backward" => normals.backward(both).map(|_| ()),
        "gaussian_kl" => normals.kl(both).map(|_| ()),
        "gaussian_kl_backward" => {
            [KlArgument::P, KlArgument::Q].into_iter().try_for_each(|argument| normals.kl_backward(both, argument).map(|_| ()))
        }
        "squashed_gaussian_evaluate" => normals.squashed_evaluate(both).map(|_| ()),
        _ => [false, true].into_iter().try_for_each(|moves| normals.squashed_backward(both, moves).map(|_| ())),
    }
}

/// Rows for one invocation each, or, of 70 actions, for 64.
fn rows(actions: usize) -> Rows {
    Rows::drawn(60, 100, actions, 1.0, true)
}

#[test]
fn wrong_categorical_kernels_are_caught() {
    let Some(mut both) = checked() else { return };
    let source = shader("policy/categorical");
    // (actions, operation, tensor, from, to)
    for (actions, operation, tensor, from, to) in [
        (6, "categorical_distribution", "log_probs", "log_probs[base + a] = log_p;", "log_probs[base + a] = log_p + 1e-4;"),
        (6, "categorical_distribution", "probs", "exp_of(log_p), is_valid", "exp_of(log_p), true"),
        (
            6,
            "categorical_distribution",
            "logsumexp",
            "sums.maximum + sums.log_sum, sums.sum > 0.0",
            "sums.log_sum, sums.sum > 0.0",
        ),
        (70, "categorical_distribution", "mode", "first_best = min(first_best, a)", "first_best = min(first_best, at.lane)"),
        (
            70,
            "categorical_distribution",
            "log_probs",
            "sh_floats[mine] += sh_floats[mine + step]",
            "sh_floats[mine] += sh_floats[mine]",
        ),
        (6, "categorical_evaluate", "logp", "actions[at.row], sums);", "actions[at.row / 2u], sums);"),
        (6, "categorical_evaluate", "logp", "n * 2.12194440e-4", "n * 2.2e-4"),
        (
            6,
            "categorical_evaluate",
            "logp",
            "select(0.0, log_prob(logits[element], sums), valid(element))",
            "log_prob(logits[element], sums)",
        ),
        (6, "categorical_evaluate", "entropy", "share -= exp_of(log_p) * log_p", "share -= exp_of(log_p) * log_p * 1.001"),
        (70, "categorical_evaluate", "entropy", "entropy[at.row] = h;", "entropy[at.row] = h * 0.999;"),
        (6, "categorical_sample", "actions", "cumulative > wanted", "cumulative > wanted + 0.01"),
        (70, "categorical_sample", "actions", "lane < at.lane; lane += 1u", "lane + 1u < at.lane; lane += 1u"),
        (6, "categorical_sample", "actions", "let wanted = uniforms[params.offset + at.row]", "let wanted = uniforms[at.row]"),
        (
            6,
            "categorical_sample",
            "logp",
            "logp[params.offset + at.row] = select(action_log_prob",
            "logp[params.offset + at.row] = select(-1.0 + action_log_prob",
        ),
        (6, "categorical_backward", "d_logits", "p * (log_p + h)", "p * (log_p - h)"),
        (70, "categorical_backward", "d_logits", "select(0.0, 1.0, a == action)", "select(0.0, 1.0, a == action + 1u)"),
        (6, "categorical_backward", "d_logits", "} else if !valid(base + action) {", "} else if false {"),
        (
            6,
            "categorical_kl",
            "kl",
            "exp_of(log_p) * (log_p - log_prob(q_logits[base + a], q))",
            "exp_of(log_p) * (log_p - log_prob(q_logits[base + a], p))",
        ),
        (70, "categorical_kl", "kl", "kl_out[at.row] = value;", "kl_out[at.row] = value + 1e-3;"),
        (6, "categorical_kl_backward", "d_logits", "(log_p - log_q - value)", "(log_p - log_q)"),
        (70, "categorical_kl_backward", "d_logits", "exp_of(log_q) - exp_of(log_p), WITH", "exp_of(log_p) - exp_of(log_q), WITH"),
    ] {
        both.a.context.replace_shader("policy/categorical", plant(source, from, to));
        let caught = expect_mismatch(categorical(&mut both, &rows(actions), operation));
        assert_eq!((caught.operation, caught.tensor), (operation, tensor), "{from}");
    }
}

#[test]
fn wrong_gaussian_kernels_are_caught() {
    let Some(mut both) = checked() else { return };
    let source = shader("policy/gaussian");
    for (state_dependent_std, operation, tensor, from, to) in [
        (false, "gaussian_evaluate", "logp", "logp[row] = sum;\n    entropy", "logp[row] = sum + 1e-4;\n    entropy"),
        (true, "gaussian_evaluate", "logp", "select(d, row * params.dim + d, STATE_DEPENDENT)", "d"),
        (false, "gaussian_evaluate", "entropy", "h += s + (HALF_LOG_TWO_PI + 0.5)", "h += s + HALF_LOG_TWO_PI"),
        (false, "gaussian_sample", "actions", "exp_of(s) * x[at]", "exp_of(-s) * x[at]"),
        (false, "gaussian_sample", "actions", "n * 2.12194440e-4", "n * 2.2e-4"),
        (true, "gaussian_sample", "logp", "sum += log_density(x[at], s)", "sum += log_density(x[at], -s)"),
        (true, "gaussian_backward", "d_mean", "d_logp[row] * z * inverse", "d_logp[row] * z"),
        (true, "gaussian_backward", "d_log_std", "to_log_std + d_entropy[row]", "to_log_std - d_entropy[row]"),
        (false, "gaussian_backward", "d_log_std", "part < params.parts; part += 1u", "part + 1u < params.parts; part += 1u"),
        (false, "gaussian_backward", "d_log_std", "sum += parts[part * params.dim + d]", "sum += parts[part * params.dim]"),
        (false, "gaussian_kl", "kl", "+ 0.5 * z * z;\n    }\n    kl_out", "+ z * z;\n    }\n    kl_out"),
        (true, "gaussian_kl", "kl", "t * t * (0.5 + t", "t * t * (0.499 + t"),
        (true, "gaussian_kl_backward", "d_mean", "select(to_mean, -to_mean, WITH_RESPECT_TO_Q)", "to_mean"),
        (true, "gaussian_kl_backward", "d_log_std", "-variance_excess - z * z", "-variance_excess + z * z"),
        (
            false,
            "gaussian_kl_backward",
            "d_log_std",
            "d_log_std[part * params.dim + d] = sum",
            "d_log_std[part * params.dim + d] = -sum",
        ),
        (false, "squashed_gaussian_evaluate", "actions", "params.low + (params.high", "0.5 * params.low + (params.high"),
        (false, "squashed_gaussian_evaluate", "log_det", "t2 * (0.2 + t2", "t2 * (0.21 + t2"),
        (false, "squashed_gaussian_evaluate", "log_det", "LOG_TWO - abs(u)", "LOG_TWO - u"),
        (true, "squashed_gaussian_evaluate", "logp", "- squeezed - params.log_half_width", "- squeezed + params.log_half_width"),
        (true, "squashed_gaussian_backward", "d_mean", "select(z * inverse, slope, REPARAMETERISED)", "z * inverse"),
        (true, "squashed_gaussian_backward", "d_mean", "select(z * inverse, slope, REPARAMETERISED)", "slope"),
        (false, "squashed_gaussian_backward", "d_log_std", "slope * from_mean - 1.0", "slope * from_mean + 1.0"),
    ] {
        both.a.context.replace_shader("policy/gaussian", plant(source, from, to));
        let caught = expect_mismatch(gaussian(&mut both, &Normals::drawn(61, 100, 3, state_dependent_std), operation));
        assert_eq!((caught.operation, caught.tensor), (operation, tensor), "{from}");
    }
}

/// A write outside the rows that there are is seen by the guards, not by any number.
#[test]
fn a_kernel_that_writes_past_its_rows_is_caught() {
    let Some(mut both) = checked() else { return };
    let source = shader("policy/gaussian");
    both.a.context.replace_shader("policy/gaussian", plant(source, "if row >= params.batch {", "if row > params.batch {"));
    let result = gaussian(&mut both, &Normals::drawn(62, 63, 1, false), "gaussian_evaluate");
    assert!(matches!(&result, Err(ppo_kernels::Error::Device(_))), "{result:?}");
}
