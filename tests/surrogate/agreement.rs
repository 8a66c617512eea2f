//! Fused forms against their composition, gradients against differences, and planted faults.

use ppo_kernels::backend::{Cpu, SurrogateOps, Variant};
use ppo_kernels::kernels::policy::{Categorical, Gaussian};
use ppo_kernels::kernels::surrogate::{CategoricalOperands, GaussianOperands, Surrogate, SurrogateOperands, ValueLoss};
use ppo_kernels::layout::{stat, term};

use crate::common::{self, check_gradient, checked, expect_mismatch, plant, relative_error};
use crate::inputs::Inputs;
use crate::{CLIPPED, PLAIN};

/// Every kind of value loss, with and without clip, dual clip and KL penalty.
fn variants() -> Vec<Surrogate> {
    let huber = ValueLoss::Huber { delta: 0.7 };
    vec![
        CLIPPED,
        PLAIN,
        Surrogate { clip_low: 0.1, clip_high: 0.3, dual_clip: Some(1.5), kl_coef: 0.3, value_loss: huber, ..CLIPPED },
        Surrogate { clip_high: f64::INFINITY, kl_coef: 2.0, ent_coef: -0.5, ..CLIPPED },
    ]
}

/// What suits the adapter, and the fast variant: by tile, whatever the adapter.
const FUSED: [Variant; 2] = [Variant::Auto, Variant::Fast];

#[test]
fn fused_is_the_composition_of_evaluate_surrogate_and_backward() {
    fn check<B: SurrogateOps>(backend: &mut B, tolerance: f64) {
        for (op, masked) in variants().into_iter().zip([false, true, true, false]) {
            let inputs = Inputs::new(60, 70, 5, 1.0).near_categorical(masked);
            let fused = inputs.categorical(backend, &op, masked).unwrap();
            let composed = inputs.composed_categorical(backend, &op, masked).unwrap();
            for (fused, composed) in fused.iter().zip(&composed) {
                assert!(relative_error(fused, composed) <= tolerance, "{op:?}: {fused:?} {composed:?}");
            }
            for state_dependent_std in [false, true] {
                let inputs = Inputs::new(61, 70, 5, 1.0).near_gaussian(state_dependent_std);
                let fused = inputs.gaussian(backend, &op, state_dependent_std).unwrap();
                let composed = inputs.composed_gaussian(backend, &op, state_dependent_std).unwrap();
                for (fused, composed) in fused.iter().zip(&composed) {
                    assert!(relative_error(fused, composed) <= tolerance, "{op:?}: {fused:?} {composed:?}");
                }
            }
        }
    }
    check(&mut Cpu::<f64>::new(), 1e-13);
    check(&mut Cpu::<f32>::new(), 2e-5);
    if let Some(mut gpu) = common::gpu() {
        check(&mut gpu, 2e-5);
    }
}

/// Central differences of the loss in each input, at the numbers of `inputs` with f64 steps.
#[test]
fn gradients_are_those_of_the_loss() {
    let (batch, width) = (9, 4);
    for (k, op) in variants().into_iter().enumerate() {
        let op = Surrogate { batch, ..op };
        let loss_of = |stats: &[f64]| stats[stat::LOSS];
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let mut cpu = Cpu::<f64>::new();

        for masked in [false, true] {
            let inputs = Inputs::new(40 + k as u64, batch, width, 1.0).near_categorical(masked);
            let mask = masked.then_some(&inputs.mask);
            let policy = Categorical { batch, actions: width };
            let mut run = |logits: &[f64], values: &[f64]| {
                let [d_logits, d_values, stats] = &mut [batch * width, batch, stat::COLUMNS].map(|n| vec![0.0; n]);
                let (logits, values, samples) = (&logits.to_vec(), &values.to_vec(), &wide(&inputs.samples));
                let actions = &inputs.actions;
                let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
                cpu.surrogate_categorical(&op, &policy, operands).unwrap();
                [stats, d_logits, d_values].map(std::mem::take)
            };
            let (logits, values) = (wide(&inputs.head), wide(&inputs.values));
            let [_, d_logits, d_values] = run(&logits, &values);
            check_gradient("logits", &logits, &d_logits, 1e-6, 1e-7, |logits| loss_of(&run(logits, &values)[0]));
            check_gradient("values", &values, &d_values, 1e-6, 1e-7, |values| loss_of(&run(&logits, values)[0]));
        }

        for state_dependent_std in [false, true] {
            let inputs = Inputs::new(50 + k as u64, batch, width, 1.0).near_gaussian(state_dependent_std);
            let policy = Gaussian { batch, dim: width, state_dependent_std, log_std_offset: 0 };
            let log_stds = if state_dependent_std { batch * width } else { width };
            let mut run = |mean: &[f64], log_std: &[f64], values: &[f64]| {
                let lens = [batch * width, log_stds, batch, stat::COLUMNS];
                let [d_mean, d_log_std, d_values, stats] = &mut lens.map(|n| vec![0.0; n]);
                let (mean, log_std, values) = (&mean.to_vec(), &log_std.to_vec(), &values.to_vec());
                let (actions, samples, d_log_std_offset) = (&wide(&inputs.gaussian_actions), &wide(&inputs.samples), 0);
                let operands = GaussianOperands {
                    mean,
                    log_std,
                    actions,
                    values,
                    samples,
                    d_mean,
                    d_log_std,
                    d_log_std_offset,
                    d_values,
                    stats,
                };
                cpu.surrogate_gaussian(&op, &policy, operands).unwrap();
                [stats, d_mean, d_log_std, d_values].map(std::mem::take)
            };
            let (mean, log_std, values) = (wide(&inputs.head), wide(&inputs.log_std[..log_stds]), wide(&inputs.values));
            let [_, d_mean, d_log_std, d_values] = run(&mean, &log_std, &values);
            check_gradient("mean", &mean, &d_mean, 1e-6, 1e-7, |mean| loss_of(&run(mean, &log_std, &values)[0]));
            check_gradient("log_std", &log_std, &d_log_std, 1e-6, 1e-7, |log_std| loss_of(&run(&mean, log_std, &values)[0]));
            check_gradient("values", &values, &d_values, 1e-6, 1e-7, |values| loss_of(&run(&mean, &log_std, values)[0]));
        }
    }
}

#[test]
fn sums_are_the_same_bits_twice() {
    fn check<B: SurrogateOps>(backend: &mut B) {
        let inputs = Inputs::new(6, 20_001, 5, 1.0).near_categorical(true);
        let mut once = || inputs.categorical(backend, &CLIPPED, true).unwrap();
        assert_eq!(once(), once());
        let inputs = Inputs::new(6, 20_001, 5, 1.0).near_gaussian(false);
        let mut once = || inputs.gaussian(backend, &CLIPPED, false).unwrap();
        assert_eq!(once(), once());
    }
    check(&mut Cpu::<f32>::new());
    check(&mut Cpu::<f64>::new());
    if let Some(mut gpu) = common::gpu() {
        for variant in FUSED {
            gpu.variant = variant;
            check(&mut gpu);
        }
    }
}

#[test]
fn a_wrong_kernel_is_caught() {
    let dual = Surrogate { dual_clip: Some(1.5), kl_coef: 0.3, ..CLIPPED };
    let huber = Surrogate { value_loss: ValueLoss::Huber { delta: 0.7 }, ..CLIPPED };
    // Rows of 50 go by rows on every adapter.
    let faults = [
        ("elementwise", CLIPPED, "ratio > params.ratio_high) ||", "ratio > 0.99 * params.ratio_high) ||"),
        ("elementwise", dual, "advantage < 0.0 && ratio >= params.dual_clip", "ratio >= params.dual_clip"),
        ("elementwise", dual, "log_ratio - kl_penalty", "log_ratio + kl_penalty"),
        ("elementwise", CLIPPED, "clipped_loss > v_loss", "clipped_loss < v_loss"),
        ("elementwise", huber, "0.5 * params.value_range", "params.value_range"),
        ("elementwise", CLIPPED, "segment < SEGMENTS", "segment < SEGMENTS - 1u"),
        ("elementwise", CLIPPED, "select(0.0, read, row < params.partial_rows)", "read"),
        ("categorical", CLIPPED, "row += 8u * FINISH_SEGMENTS", "row += 16u * FINISH_SEGMENTS"),
        ("categorical", CLIPPED, "partial_of(row + 7u * FINISH_SEGMENTS, column)", "0.0"),
        ("categorical", CLIPPED, "weighted -= z * exp_z", "weighted += z * exp_z"),
        ("categorical", CLIPPED, "lane < LANES", "lane + 1u < LANES"),
        ("categorical", CLIPPED, "* ((z - log_sum) + row_entropy)", "* (z - log_sum)"),
        ("categorical", CLIPPED, "mask[element] != 0u", "mask[element] == 0u"),
        ("gaussian", CLIPPED, "z * z - 1.0", "z * z"),
        ("gaussian", CLIPPED, "- params.ent_coef;", ";"),
        ("gaussian", CLIPPED, "k += sharers", "k += sharers + 1u"),
        ("gaussian", CLIPPED, "loss.d_logp * z * inverse_std", "loss.d_logp * z"),
    ];
    let by_tile = [
        (
            "categorical",
            CLIPPED,
            "first_row < params.batch; first_row += params.partial_rows * WORKGROUP_SIZE",
            "first_row < 1u; first_row++",
        ),
        ("categorical", CLIPPED, "min(element, last)", "min(element, last - 1u)"),
        ("categorical", CLIPPED, "(element - own_first)", "(element - own_first) / 2u"),
        ("categorical", CLIPPED, "= sh_tile[place_of(element)];", "= sh_tile[element];"),
        ("gaussian", CLIPPED, "row += sharers", "row += sharers + 1u"),
        ("gaussian", CLIPPED, "log_std_sum += times(sh_lanes[row]", "log_std_sum = times(sh_lanes[row]"),
        ("gaussian", CLIPPED, "sh_lanes[row] * z * inverse_std", "sh_lanes[row] * z"),
        ("gaussian", CLIPPED, "sharer < sharers", "sharer < 1u"),
        ("gaussian", CLIPPED, "vec4<f32>(exp_parts(-own_log_std), own", "vec4<f32>(exp_parts(own_log_std), own"),
    ];
    let by_rows = faults.map(|fault| ("surrogate", 50, Variant::Auto, fault));
    let by_tile = by_tile.map(|fault| ("surrogate/by_tile", 18, Variant::Fast, fault));
    for (shader, width, variant, (form, op, from, to)) in by_rows.into_iter().chain(by_tile) {
        let Some(mut both) = checked() else { return };
        both.a.variant = variant;
        both.a.context.replace_shader(shader, plant(common::shader(shader), from, to));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let inputs = Inputs::new(8, 20_000, width, 1.0);
            match form {
                "categorical" => inputs.near_categorical(true).categorical(&mut both, &op, true).map(|_| ()),
                "gaussian" => inputs.near_gaussian(false).gaussian(&mut both, &op, false).map(|_| ()),
                _ => elementwise_checked(&mut both, &op, &inputs),
            }
        }));
        let mismatch = expect_mismatch(caught.unwrap());
        let operation = if form == "elementwise" { "surrogate".to_owned() } else { format!("surrogate_{form}") };
        assert_eq!(mismatch.operation, operation, "{from}");
    }
}

fn elementwise_checked<B: SurrogateOps>(backend: &mut B, op: &Surrogate, inputs: &Inputs) -> ppo_kernels::Result<()> {
    let op = Surrogate { batch: inputs.batch, ..*op };
    let (logp, values) = (&backend.upload_floats(&vec![0.0; inputs.batch])?, &backend.upload_floats(&inputs.values)?);
    let (entropy, samples) = (logp, &backend.upload_floats(&inputs.samples)?);
    let (terms, stats) = (&mut backend.alloc_floats(inputs.batch * term::COLUMNS)?, &mut backend.alloc_floats(stat::COLUMNS)?);
    let (d_logp, d_values) = (&mut backend.alloc_floats(inputs.batch)?, &mut backend.alloc_floats(inputs.batch)?);
    backend.surrogate(&op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats })
}
