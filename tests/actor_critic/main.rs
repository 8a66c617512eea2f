//! The gradient of a whole minibatch, in tiles of samples, against the composition of single operations.

mod by_layer;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod problem;

use ppo_kernels::Error;
use ppo_kernels::backend::{
    ActorCriticOps, Backend, Cpu, CrossCheck, Drawn, Gpu, Head, Memory, Parameters, RolloutRows, Rows, Trace, TrainState, Variant,
};
use ppo_kernels::kernels::actor_critic::{ActorCritic, Form};
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::kernels::surrogate::Surrogate;
use ppo_kernels::layout::{control, sample, stop};

use common::relative_error;
use problem::{ACTED, Problem, Way, first_difference, problems};

#[test]
fn tiles_give_what_the_single_operations_give() {
    for problem in problems() {
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        let batch = problem.op.batch;
        for (what, outcome, tolerance) in [
            ("f64", problem.solve(&mut Cpu::<f64>::new(), Way::Whole), 1e-12),
            ("f32", problem.solve(&mut Cpu::<f32>::new(), Way::Whole), 2e-5),
            ("f64, as a step", problem.solve(&mut Cpu::<f64>::new(), Way::Step), 1e-12),
        ] {
            let difference = first_difference(&outcome.unwrap(), &expected, tolerance);
            assert_eq!(difference, None, "{what}, batch {batch}, categorical {}", problem.categorical);
        }
    }
}

#[test]
fn the_adapter_passes_the_cross_check() {
    for problem in problems().filter(|problem| problem.op.batch < 200) {
        let Some(mut both) = common::checked() else { return };
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        let outcome = problem.solve::<CrossCheck<Gpu, Cpu<f64>>>(&mut both, Way::Step).unwrap();
        assert_eq!(first_difference(&outcome, &expected, 1e-4), None, "batch {}", problem.op.batch);
    }
}

/// The composition, and every form.
const VARIANTS: [(Variant, Option<Form>); 3] =
    [(Variant::Plain, None), (Variant::Fast, Some(Form::ByTile)), (Variant::Auto, Some(Form::ByLayer))];

/// With every variant, in fresh memory full of NaN.
#[test]
fn the_adapter_gives_what_the_single_operations_give() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for problem in problems() {
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        for (variant, form) in VARIANTS {
            (gpu.variant, gpu.fused_form) = (variant, form);
            gpu.context.release();
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            let difference = first_difference(&outcome, &expected, 1e-4);
            assert_eq!(
                difference, None,
                "{variant:?}, {form:?}, batch {}, categorical {}",
                problem.op.batch, problem.categorical
            );
        }
    }
}

/// Beside others, a sample whose ratio overflows and whose advantage is 0.
#[test]
fn no_form_multiplies_zero_by_infinity() {
    let Some(mut gpu) = common::gpu() else { return };
    for categorical in [true, false] {
        for vf_coef in [0.5, 0.0] {
            let mut problem = Problem::new(33, &[3, 7], 3, Activation::Tanh, categorical);
            (problem.op.vf_coef, problem.op.kl_coef) = (vf_coef, 0.0);
            problem.samples[4 * 5..][..2].copy_from_slice(&[-200.0, 0.0]);
            if vf_coef == 0.0 {
                // Its error is beyond f32.
                problem.samples[4 * 7 + sample::RETURN] = f32::MAX;
            }
            let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
            let check = |what: &str, outcome: &problem::Outcome| {
                for ((name, expected), (_, found)) in expected.iter().zip(outcome) {
                    // Of the statistics, those of the loss: KL is infinite, or a very large number in double precision.
                    let (found, expected) = match *name {
                        "stats" => (&found[..2], &expected[..2]),
                        _ => (&found[..], &expected[..]),
                    };
                    let error = if found == expected { 0.0 } else { relative_error(found, expected) };
                    assert!(error <= 1e-4, "{what}, categorical {categorical}, vf_coef {vf_coef}: {name}: {error:e}");
                }
            };
            check("cpu", &problem.solve(&mut Cpu::<f32>::new(), Way::Step).unwrap());
            for (variant, form) in VARIANTS {
                (gpu.variant, gpu.fused_form) = (variant, form);
                gpu.context.release();
                check(&format!("{variant:?}, {form:?}"), &problem.solve(&mut gpu, Way::Step).unwrap());
            }
        }
    }
}

/// Into the middle of buffers, as a rollout has them. No uniform number of these is where an action's probability ends, so all agree on them.
#[test]
fn acting_gives_what_the_single_operations_give() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for problem in problems() {
        let expected = problem.act(&mut Cpu::<f64>::new()).unwrap();
        for (variant, form) in VARIANTS {
            (gpu.variant, gpu.fused_form) = (variant, form);
            gpu.context.release();
            let acted = problem.act(&mut gpu).unwrap();
            for (tensor, (a, b)) in ACTED.iter().zip(acted.iter().zip(&expected)) {
                let error = relative_error(a, b);
                assert!(error <= 1e-5, "{variant:?}, {form:?}, batch {}: {tensor}: {error:e}", problem.op.batch);
            }
        }
    }
}

/// Both forms where they are asked for; where none is, tiles on hardware alone.
#[test]
fn the_form_is_the_one_asked_for_or_the_adapters() {
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let usual = if gpu.context.is_software() { Form::ByLayer } else { Form::ByTile };
    for (form, shader, note) in [
        (Form::ByTile, "actor_critic/by_tile", "written.squares += gradient * gradient;"),
        (Form::ByLayer, "actor_critic/by_layer", "squares += gradient * gradient;"),
    ] {
        common::plant_fault(&mut gpu, shader, note, "");
        for wanted in [None, Some(Form::ByTile), Some(Form::ByLayer)] {
            gpu.fused_form = wanted;
            let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
            assert_eq!(difference.is_some(), wanted.unwrap_or(usual) == form, "{wanted:?}, fault in {shader}: {difference:?}");
        }
        gpu.context.replace_shader(shader, common::shader(shader).to_owned());
    }
}

/// A packed copy must not outlive what it was made of, nor serve a policy of another kind.
#[test]
fn parameters_that_change_are_packed_anew() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::ByTile);
    let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, false);
    let other = Problem { params: problem.params.iter().map(|x| 0.5 - x).collect(), ..problem.clone() };
    let discrete = Problem { categorical: true, ..problem.clone() };
    let x = gpu.upload_floats(&problem.observations).unwrap();
    let mut params = Parameters::new(gpu.upload_floats(&problem.params).unwrap());
    let mut values = gpu.alloc_floats(33).unwrap();
    let mut run = |gpu: &mut Gpu, problem: &Problem, params: &mut Parameters<_>| {
        let noise = gpu.upload_floats(&[0.5; 99]).unwrap();
        let [mut logp, mut vectors] = [33, 99].map(|len| gpu.alloc_floats(len).unwrap());
        let mut actions = gpu.alloc_words(33).unwrap();
        let mut traces = [&problem.networks.actor, &problem.networks.critic].map(|layers| Trace::new(gpu, layers, 33).unwrap());
        let drawn = match problem.head(&(), &()) {
            Head::Categorical(op, ()) => Drawn::Categorical(op, &mut actions),
            Head::Gaussian(op, ()) => Drawn::Gaussian(op, &mut vectors),
        };
        let rows = RolloutRows { first: 0, noise: &noise, drawn, logp: &mut logp, values: &mut values };
        let x = Rows { buffer: &x, offset: 0, count: 33 };
        gpu.act(&problem.networks, params, &x, rows, &mut traces).unwrap();
        [gpu.read_f64(&values, 0, 33).unwrap(), gpu.read_f64(&logp, 0, 33).unwrap()]
    };
    let fresh = |gpu: &mut Gpu, problem: &Problem| Parameters::new(gpu.upload_floats(&problem.params).unwrap());
    let mut expected = fresh(&mut gpu, &problem);
    let first = run(&mut gpu, &problem, &mut expected);
    assert_eq!(run(&mut gpu, &problem, &mut params), first);
    assert_eq!(run(&mut gpu, &problem, &mut params), first);
    gpu.write_floats(params.flat_mut(), 0, &other.params).unwrap();
    let mut expected = fresh(&mut gpu, &other);
    let second = run(&mut gpu, &other, &mut expected);
    assert_ne!(first, second);
    assert_eq!(run(&mut gpu, &other, &mut params), second);
    // First without log-std, then with it.
    let mut params = fresh(&mut gpu, &problem);
    run(&mut gpu, &discrete, &mut params);
    assert_eq!(run(&mut gpu, &problem, &mut params), first);
}

/// A copy that steps have changed holds the bits that a new one would.
#[test]
fn parameters_packed_anew_between_steps_change_no_bit() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::ByTile);
    gpu.context.set_guards(true);
    for problem in problems().filter(|problem| problem.op.batch < 200) {
        gpu.context.release();
        let kept = problem.take_steps(&mut gpu, 3, |_, _, _| Ok(())).unwrap();
        let forget = |_, _: &mut Gpu, state: &mut TrainState<_, _>| {
            state.params.flat_mut();
            Ok(())
        };
        let anew = problem.take_steps(&mut gpu, 3, forget).unwrap();
        assert_eq!(kept, anew, "batch {}", problem.op.batch);
    }
}

/// A learner whose minibatches are of different sizes may go from one kernel to another.
#[test]
fn steps_may_go_by_one_form_after_another() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.context.set_guards(true);
    for categorical in [true, false] {
        let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, categorical);
        let expected = problem.take_steps(&mut Cpu::<f64>::new(), 4, |_, _, _| Ok(())).unwrap();
        for order in [[1, 0, 2, 1], [2, 1, 2, 0], [1, 1, 2, 1]] {
            let outcome = problem.take_steps(&mut gpu, 4, |i, gpu, _| {
                (gpu.variant, gpu.fused_form) = VARIANTS[order[i]];
                Ok(())
            });
            assert_eq!(first_difference(&outcome.unwrap(), &expected, 1e-4), None, "{order:?}");
        }
    }
}

/// As they are written anew before a next step, or not: moments at any time, parameters through what says so.
#[test]
fn a_state_written_between_steps_is_what_the_next_one_starts_from() {
    fn take<B: Backend>(backend: &mut B, problem: &Problem) -> problem::Outcome {
        let half: Vec<f32> = problem.params.iter().map(|x| 0.5 * x).collect();
        let change = |i: usize, backend: &mut B, state: &mut TrainState<B::Floats, B::Words>| match i {
            1 => backend.write_floats(&mut state.m, 0, &[0.01; 7]),
            2 => backend.write_floats(&mut state.v, 3, &[0.02; 5]),
            3 => backend.write_floats(state.params.flat_mut(), 0, &half),
            _ => Ok(()),
        };
        problem.take_steps(backend, 4, change).unwrap()
    }
    let Some(mut gpu) = common::gpu() else { return };
    let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, false);
    let expected = take(&mut Cpu::<f64>::new(), &problem);
    for (variant, form) in VARIANTS {
        (gpu.variant, gpu.fused_form) = (variant, form);
        assert_eq!(first_difference(&take(&mut gpu, &problem), &expected, 1e-4), None, "{variant:?}, {form:?}");
    }
}

/// The step itself does not count any more, but its statistics do.
#[test]
fn a_step_beyond_the_kl_limit_changes_no_parameter() {
    let Some(mut gpu) = common::gpu() else { return };
    for (max_kl, stopped) in [(0.0, true), (100.0, false)] {
        let problem = Problem { max_kl: Some(max_kl), ..Problem::new(33, &[5, 16], 3, Activation::Tanh, true) };
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap();
        let of = |name: &str| &expected.iter().find(|(tensor, _)| *tensor == name).unwrap().1;
        let initial: Vec<f64> = problem.params.iter().map(|&x| f64::from(x)).collect();
        assert_eq!(of("control")[control::STOP] == f64::from(stop::TARGET_KL), stopped);
        assert_eq!(*of("params") == initial, stopped);
        assert!(of("norm")[0] > 0.0);
        for (variant, form) in VARIANTS {
            (gpu.variant, gpu.fused_form) = (variant, form);
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            assert_eq!(first_difference(&outcome, &expected, 1e-4), None, "{variant:?}, {form:?}, {max_kl}");
            let outcome = problem.take_steps(&mut gpu, 2, |_, _, _| Ok(())).unwrap();
            let of_two = problem.take_steps(&mut Cpu::<f64>::new(), 2, |_, _, _| Ok(())).unwrap();
            assert_eq!(first_difference(&outcome, &of_two, 1e-4), None, "two, {variant:?}, {form:?}, {max_kl}");
        }
    }
}

#[test]
fn networks_of_another_depth_than_the_trace_are_refused() {
    fn check<B: Backend>(backend: &mut B) {
        assert!(matches!(Trace::new(backend, &[], 3), Err(Error::Shape { argument, .. }) if argument == "layers"));
        let mut deeper = Problem::new(3, &[5, 8], 2, Activation::Tanh, true);
        let actor = deeper.networks.actor.clone();
        deeper.depths = Some(ActorCritic { actor: actor[..1].to_vec(), critic: deeper.networks.critic.clone() });
        for way in [Way::Composed, Way::Whole, Way::Step] {
            let result = deeper.solve(backend, way).map(drop);
            assert!(matches!(result, Err(Error::Shape { argument, .. }) if argument == "layers"));
        }
    }
    check(&mut Cpu::<f32>::new());
    if let Some(mut gpu) = common::gpu() {
        check(&mut gpu);
    }
}

#[test]
fn another_loss_is_noticed() {
    let problem = Problem::new(129, &[5, 16], 3, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let op = Surrogate { ent_coef: 0.011, ..problem.op };
    let outcome = Problem { op, ..problem }.solve(&mut Cpu::<f64>::new(), Way::Whole).unwrap();
    assert!(first_difference(&outcome, &expected, 1e-12).is_some_and(|difference| difference.starts_with("grads")));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let problem = Problem::new(1025, &[17, 64, 64], 6, Activation::Tanh, false);
    let solve = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem.solve(&mut Cpu::<f32>::new(), Way::Whole).unwrap())
    };
    assert_eq!(solve(1), solve(3));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let shorter = |change: fn(&mut Problem), expected: &str| {
        for categorical in [true, false] {
            let mut problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, categorical);
            change(&mut problem);
            match problem.solve(&mut Cpu::<f32>::new(), Way::Whole) {
                Err(Error::Shape { argument, .. } | Error::InvalidValue { argument, .. }) => assert_eq!(argument, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    };
    shorter(|problem| problem.observations.truncate(164), "x");
    shorter(|problem| problem.samples.truncate(131), "samples");
    shorter(|problem| problem.params.truncate(20), "params");
    shorter(|problem| problem.op.vf_coef = -1.0, "vf_coef");
    shorter(|problem| (problem.actions.truncate(32), problem.vectors.truncate(98)).0, "actions");
}
