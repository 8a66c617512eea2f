//! The form for large networks, and for all on software adapters.

use ppo_kernels::backend::{Cpu, Gpu, Precision};
use ppo_kernels::gpu::Context;
use ppo_kernels::kernels::actor_critic::Form;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::layout::{control, stop};
use ppo_kernels::wgpu;

use crate::common;
use crate::problem::{Outcome, Problem, TENSOR, Way, first_difference};

fn gpu() -> Option<Gpu> {
    let mut gpu = common::gpu()?;
    gpu.fused_form = Some(Form::ByLayer);
    // What is not written must not be what the run before left there.
    gpu.context.set_guards(true);
    Some(gpu)
}

/// The other form does not take them: their activations need what is before them, or they are too deep, or too wide.
fn problems() -> [Problem; 5] {
    // More parameters than 1024 workgroups of 1024 take; small, so that ratios stay near 1.
    let largest = Problem::new(3, &[3, 1000, 900], 2, Activation::Elu, false);
    let params = largest.params.iter().map(|x| 0.1 * x).collect();
    [
        Problem::new(33, &[5, 16], 3, Activation::GeluErf, false),
        // Six stretches of 256 samples, the last of 21.
        Problem::new(1301, &[5, 7, 9], 2, Activation::Silu, true),
        Problem { first_sample: 16, ..Problem::new(515, &[3, 8, 9, 10, 11, 12], 4, Activation::Tanh, false) },
        Problem::new(65, &[40, 300, 300], 1, Activation::Relu, true),
        Problem { first_sample: 32, params, ..largest },
    ]
}

/// What does not fit the form asked for is composed of single operations.
const COMPOSED: Option<Form> = Some(Form::ByTile);

#[test]
fn large_networks_give_what_the_single_operations_give() {
    let Some(mut gpu) = gpu() else { return };
    for (i, problem) in problems().iter().enumerate() {
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        gpu.context.release();
        let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
        assert_eq!(first_difference(&outcome, &expected, 1e-4), None, "{i}");
        let outcome = problem.take_steps(&mut gpu, 2, |_, _, _| Ok(())).unwrap();
        let of_two = problem.take_steps(&mut Cpu::<f64>::new(), 2, |_, _, _| Ok(())).unwrap();
        assert_eq!(first_difference(&outcome, &of_two, 1e-4), None, "two, {i}");
    }
}

/// Sums go in the same order, so the gradient has the same bits; norms do not.
#[test]
fn gradients_have_the_bits_of_single_operations() {
    let Some(mut gpu) = gpu() else { return };
    for problem in problems() {
        let by_layer = problem.solve(&mut gpu, Way::Step).unwrap();
        gpu.fused_form = COMPOSED;
        let composed = problem.solve(&mut gpu, Way::Step).unwrap();
        gpu.fused_form = Some(Form::ByLayer);
        expect_bits_of_gradients(&by_layer, &composed);
    }
}

#[track_caller]
fn expect_bits_of_gradients(by_layer: &Outcome, composed: &Outcome) {
    for ((name, a), (_, b)) in by_layer.iter().zip(composed).filter(|((name, _), _)| name.starts_with("grads")) {
        assert!(a == b && (!a.is_empty() || *name == "grads of log_std"), "{name}");
    }
}

#[test]
fn a_planted_fault_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problems = problems();
    let expected = problems.each_ref().map(|problem| problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap());
    for (from, to, problem, tensor) in [
        ("((sum + parts[i]) + parts[i + sums.y])", "(sum + parts[i])", 1, "grads"),
        ("sum += parts[first + split * sums.y];", "", 1, "grads"),
        ("if sums.z == 0u {", "if sums.z < 2u {", 1, ""),
        ("if sums.z == 0u {", "if sums.z < 7u {", 1, "grads"),
        ("let first = sums.w + element;", "let first = element;", 1, "grads"),
        ("grads[parameter] = gradient;", "", 1, "grads"),
        ("place.z + row", "place.z", 1, "grads"),
        ("place.y + row * (place.x - 1u)", "place.y + row * place.x", 1, "grads"),
        ("index >= params.sums[next].x", "index > params.sums[next].x", 1, "grads"),
        ("(index - sums.x) * params.rounds", "(index - sums.x)", 3, "norm"),
        ("let element = first + round * WORKGROUP_SIZE;", "let element = first;", 3, "norm"),
        ("squares += gradient * gradient;", "", 0, "norm"),
        ("sh_squares[local] += sh_squares[local + half];", "", 3, "norm"),
        ("k += WORKGROUP_SIZE", "k += 4u * WORKGROUP_SIZE", 4, "norm"),
        ("params.adam_epsilon,", "0.0,", 0, "params"),
        ("m[i] = stepped.m;", "", 0, "m"),
        ("v[i] = stepped.v;", "", 0, "v"),
        ("clip.coef * gradient", "gradient", 0, "params"),
        ("coef = max_grad_norm / divisor;", "coef = 1.0;", 0, "factor"),
        ("atomicAdd(&control[STEPS_DONE], 1u);", "", 0, "control"),
        ("let row = params.schedule_row * SCHEDULE_COLUMNS;", "let row = 0u;", 0, "params"),
    ] {
        common::plant_fault(&mut gpu, "actor_critic/by_layer", from, to);
        gpu.context.release();
        let outcome = problems[problem].solve(&mut gpu, Way::Step).unwrap();
        let difference = first_difference(&outcome, &expected[problem], 1e-4);
        match tensor {
            // Nothing has one part: this must be no fault.
            "" => assert_eq!(difference, None, "{to}"),
            _ => assert!(difference.as_deref().is_some_and(|found| found.starts_with(tensor)), "{from}: {difference:?}"),
        }
    }
}

/// Where the adapter has any: layers of 16 and more go through them, in large stretches and in parts.
#[test]
fn layers_may_be_products_on_tensor_cores() {
    for (precision, tolerance) in [(Precision::F16x3TensorCore, 1e-4), (Precision::F16TensorCore, 1e-2)] {
        let Some(mut gpu) = common::gpu_on_tensor_cores(precision) else { return };
        for problem in [
            Problem::new(515, &[40, 64, 64], 3, Activation::Silu, true),
            Problem { first_sample: 16, ..Problem::new(65, &[16, 130, 33], 18, Activation::GeluErf, true) },
        ] {
            // Small, so that ratios stay near 1 and gradients within f16.
            let problem = Problem { params: problem.params.iter().map(|x| 0.3 * x).collect(), ..problem };
            let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
            let mut solve = |form| {
                gpu.fused_form = form;
                gpu.take_used_precision();
                let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
                assert_eq!(gpu.take_used_precision(), precision);
                outcome
            };
            let by_layer = solve(Some(Form::ByLayer));
            let difference = first_difference(&by_layer, &expected, tolerance);
            assert_eq!(difference, None, "{precision:?}");
            let is_rounded = first_difference(&by_layer, &expected, 1e-5).is_some();
            assert_eq!(is_rounded, precision == Precision::F16TensorCore);
            expect_bits_of_gradients(&by_layer, &solve(COMPOSED));
        }
    }
}

/// Parts of all layers at once, which single operations never need, may be more than the device allows.
#[test]
fn where_a_buffer_of_all_parts_is_too_large_single_operations_go_on() {
    if common::gpu().is_none() {
        return;
    }
    // Three stretches of some 17 600 parameters are 211 KB, activations 131.
    let problem = Problem::new(513, &[5, 64, 64, 64], 2, Activation::Silu, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    for (most, goes_by_layer) in [(180 << 10, false), (220 << 10, true)] {
        let required_limits =
            wgpu::Limits { max_buffer_size: most, max_storage_buffer_binding_size: most, ..wgpu::Limits::default() };
        let (device, queue) = common::callers_device(required_limits);
        let mut gpu = Gpu::on(Context::from_wgpu(device, queue, "small".to_owned()));
        gpu.fused_form = Some(Form::ByLayer);
        assert_eq!(first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4), None);
        common::plant_fault(&mut gpu, "actor_critic/by_layer", "grads[parameter] = gradient;", "");
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert_eq!(difference.is_some(), goes_by_layer, "{difference:?}");
    }
}

/// Every element in turn, of either network and of the log-std, in one part or several: the first one is reported.
#[test]
fn a_gradient_that_is_not_finite_is_reported() {
    let Some(mut gpu) = gpu() else { return };
    let reported = |outcome: &Outcome| {
        let control = &outcome.iter().find(|(name, _)| *name == "control").unwrap().1;
        assert_eq!((control[control::STOP], control[control::BAD_TENSOR]), (stop::NON_FINITE.into(), TENSOR.into()));
        control[control::BAD_ELEMENT]
    };
    let note = "squares += gradient * gradient;";
    for problem in &problems()[..3] {
        let last = problem.params.len() - if problem.categorical { problem.outputs } else { 0 } - 1;
        for (first, second) in [(0, 1), (last, last), (last - 5, last - 2), (7, 60)] {
            // A NaN and an infinity, by bits, as the compiler may assume there are none.
            let planted = format!(
                "if parameter == {second}u {{ gradient = bitcast<f32>(params.count * 0u + 0x7fc00000u); }}
                if parameter == {first}u {{ gradient = bitcast<f32>(params.count * 0u + 0xff800000u); }} {note}"
            );
            common::plant_fault(&mut gpu, "actor_critic/by_layer", note, &planted);
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            assert_eq!(reported(&outcome), f64::from(first as u32), "{first}, {second}");
        }
    }
    common::plant_fault(&mut gpu, "actor_critic/by_layer", "first_bad = min(first_bad, parameter);", "");
    let mut infinite = problems()[0].clone();
    infinite.observations[4] = f32::INFINITY;
    let expected = infinite.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap();
    assert!(first_difference(&infinite.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4).is_some());
}
