//! Faults planted in the form by tile, or in any form, have to be noticed.

use ppo_kernels::backend::{Backend, Cpu, Gpu, TrainState};
use ppo_kernels::kernels::actor_critic::Form;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::layout::{control, stop};

use crate::common::{self, relative_error};
use crate::problem::{ACTED, Outcome, Problem, TENSOR, Way, first_difference};

/// A text, what it becomes, and the first tensor that is wrong.
type Fault = (&'static str, &'static str, &'static str);

const FAULTS: [Fault; 32] = [
    ("written.squares += gradient * gradient;", "", "norm"),
    ("coef = max_grad_norm / divisor;", "coef = 1.0;", "factor"),
    ("params.adam_epsilon,", "0.0,", "params"),
    ("(bitcast<u32>(gradient) & EXPONENT) == EXPONENT", "index == 1u", "control"),
    ("stage_value_sum(local, loss);", "", "stats"),
    ("z * z - 1.0", "z * z", "grads"),
    ("store_element(at.first + 2u, third);", "", "params"),
    ("m[index] = element.m;", "", "m"),
    ("v[index] = element.v;", "", "v"),
    ("bias += gradient;", "", "grads"),
    ("= activate_all(y);", "= y;", "grads"),
    ("* derivatives(sh_kept[own])", "", "grads"),
    ("low.x * w.a", "low.x * w.b", "grads"),
    ("value_terms(logit(0u), sample", "value_terms(0.0, sample", "grads of the critic"),
    ("params.first_index + index", "index", "grads"),
    ("params.first_sample + index", "index", "grads"),
    ("actions[sh_rows[s]", "actions[s", "grads"),
    ("d < params.width; d += SAMPLE_LANES", "d < 1u; d += SAMPLE_LANES", "grads"),
    ("exp_parts(-own_log_std)", "exp_parts(own_log_std)", "grads"),
    ("store_d_logit(o, 0.0);", "", "grads"),
    ("(a + b) + (c + d)", "(a + b) + c", "grads"),
    ("select(vec4<f32>(), read, t < tiles)", "read", "grads"),
    ("((e + f) + (g + h))", "(e + (g + h))", "grads"),
    ("let is_one = group < params.square_groups;", "let is_one = true;", "norm"),
    ("times(d_logp, sh_outputs[s * OUTPUTS", "times(0.0, sh_outputs[s * OUTPUTS", "grads of log_std"),
    ("column - SUMS, sum - params.ent_coef", "column - SUMS, sum - 100.0 * params.ent_coef", "grads of log_std"),
    ("select(0.0, read, row < params.partial_rows)", "read", "stats"),
    ("row = local / SUMS; row", "row = 1u + local / SUMS; row", "grads of log_std"),
    ("own_partial += sh_sums", "own_partial = sh_sums", "stats"),
    ("together(sh_written[local], sh_written[local + half])", "together(sh_written[local], sh_written[local])", "norm"),
    ("odd * sh_kept[one + k + 1u]", "odd", "grads"),
    ("vector * 4u * at.y + row", "vector * 4u * at.y", "grads"),
];

/// On an adapter whose minibatch steps go in tiles. What is not written must not be what the run before left there.
fn gpu() -> Option<Gpu> {
    let mut gpu = common::gpu()?;
    gpu.fused_form = Some(Form::ByTile);
    gpu.context.set_guards(true);
    Some(gpu)
}

fn plant(gpu: &mut Gpu, from: &str, to: &str) {
    common::plant_fault(gpu, "actor_critic/by_tile", from, to);
}

#[test]
fn a_planted_fault_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    for (from, to, tensor) in FAULTS {
        plant(&mut gpu, from, to);
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert!(difference.as_deref().is_some_and(|found| found.starts_with(tensor)), "{from}: {difference:?}");
    }
}

/// The forms, the names of their shaders, and what keeps a stopped step from storing.
const FORMS: [(Form, &str, &str, &str); 2] =
    [(Form::ByTile, "actor_critic/by_tile", "if stopped ||", "if"), (Form::ByLayer, "actor_critic/by_layer", "&& !stopped", "")];

#[test]
fn a_fault_of_a_stopped_step_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem { max_kl: Some(0.0), ..Problem::new(65, &[5, 16], 3, Activation::Tanh, false) };
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap();
    for (form, shader, guard, without) in FORMS {
        gpu.fused_form = Some(form);
        for (from, to, tensor) in [
            (guard, without, "params"),
            ("had_stopped || is_beyond ||", "had_stopped ||", "control"),
            ("    if is_beyond {", "    if false {", "control"),
        ] {
            common::plant_fault(&mut gpu, shader, from, to);
            let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
            assert!(difference.as_deref().is_some_and(|found| found.starts_with(tensor)), "{form:?}, {from}: {difference:?}");
        }
    }
}

/// A step has to leave the packed copy as it leaves the parameters: the next one reads it.
#[test]
fn a_fault_in_packing_between_steps_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.take_steps(&mut Cpu::<f64>::new(), 2, |_, _, _| Ok(())).unwrap();
    let mut difference = |from: &str, to: &str| {
        plant(&mut gpu, from, to);
        first_difference(&problem.take_steps(&mut gpu, 2, |_, _, _| Ok(())).unwrap(), &expected, 1e-4)
    };
    let store = "packed[at.place] = of_parameters(";
    assert_eq!(difference(store, store), None);
    for wrong in ["packed[at.place] = 0.5 * of_parameters(", "packed[i] = of_parameters(", "_ = of_parameters("] {
        assert!(difference(store, wrong).is_some_and(|found| found.starts_with("grads")), "{wrong}");
    }
}

/// What an earlier step stopped stays as it was.
#[test]
fn a_fault_after_a_stop_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    fn stopped<B: Backend>(problem: &Problem, backend: &mut B) -> Outcome {
        let stop = |_, backend: &mut B, state: &mut TrainState<B::Floats, B::Words>| {
            backend.write_words(&mut state.control, control::STOP, &[stop::TARGET_KL])
        };
        problem.take_steps(backend, 1, stop).unwrap()
    }
    let expected = stopped(&problem, &mut Cpu::<f64>::new());
    for (form, shader, ..) in FORMS {
        gpu.fused_form = Some(form);
        assert_eq!(first_difference(&stopped(&problem, &mut gpu), &expected, 1e-4), None, "{form:?}");
        let from = "let had_stopped = atomicLoad(&control[STOP]) != 0u;";
        common::plant_fault(&mut gpu, shader, from, "let had_stopped = atomicLoad(&control[STOP]) == 77u;");
        assert!(first_difference(&stopped(&problem, &mut gpu), &expected, 1e-4).is_some(), "{form:?}");
    }
}

/// What is added to a tile before is left behind, or what was in memory before is not.
#[test]
fn a_fault_of_a_workgroups_later_tiles_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(2049, &[3, 7], 2, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let mut difference = |from: &str, to: &str| {
        plant(&mut gpu, from, to);
        gpu.context.release();
        first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4)
    };
    assert_eq!(difference("if is_first {", "if is_first {"), None);
    assert!(difference("if is_first {", "if true {").is_some_and(|found| found.starts_with("grads")));
    assert!(difference("if is_first {", "if false {").is_some_and(|found| found.starts_with("grads")));
}

/// Eighteen invocations copy all of what the others copy again: a network's 138 vectors take eight of each.
#[test]
fn a_fault_in_copying_weights_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(65, &[5, 16, 16], 3, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let by_eighteen = [
        ("const COPY_LANES = TILE_LANES;", "const COPY_LANES = 18u;"),
        ("fetch_weights(local);", "fetch_weights(local % 18u);"),
        ("copy_weights(local, fetched);", "copy_weights(local % 18u, fetched);"),
    ];
    let source = by_eighteen
        .iter()
        .fold(common::shader("actor_critic/by_tile").to_owned(), |source, (from, to)| common::plant(&source, from, to));
    let mut difference = |source: String| {
        gpu.context.replace_shader("actor_critic/by_tile", source);
        first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4)
    };
    assert_eq!(difference(source.clone()), None);
    for vector in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let wrong = common::plant(&source, &format!("fetched.{vector})"), "vec4<f32>())");
        assert!(difference(wrong).is_some_and(|found| found.starts_with("grads")), "{vector}");
    }
}

/// Of networks that only some adapters have the workgroup memory for, and of some that none has: there it makes no difference.
#[test]
fn networks_go_in_tiles_where_they_fit() {
    let Some(mut gpu) = gpu() else { return };
    let most = gpu.context.limits().max_compute_workgroup_storage_size;
    for (batch, widths, outputs, categorical, needed) in [
        (10, &[105, 64, 64][..], 8, true, 16 << 10),
        (10, &[105, 64, 64], 3, false, 16 << 10),
        (9, &[348, 64, 64], 17, true, 24 << 10),
        (17, &[27, 128, 128], 8, true, 24 << 10),
        (9, &[3, 16], 160, true, 24 << 10),
        (9, &[3, 16], 161, true, u32::MAX),
        (9, &[8, 300, 300], 2, true, u32::MAX),
    ] {
        let problem = Problem::new(batch, widths, outputs, Activation::Tanh, categorical);
        let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
        gpu.context.replace_shader("actor_critic/by_tile", common::shader("actor_critic/by_tile").to_owned());
        assert_eq!(first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4), None, "{widths:?}");
        plant(&mut gpu, "bias += gradient;", "");
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert_eq!(difference.is_some(), needed <= most, "{widths:?} and {outputs}: {difference:?}");
    }
}

/// Of more dimensions than are summed at once, in memory full of NaN where nothing was written.
#[test]
fn a_fault_in_the_sums_for_log_std_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(65, &[5, 16], 11, Activation::Tanh, false);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    for (from, to) in [
        ("first < params.partial_width; first += SUMS", "first < 2u * SUMS; first += SUMS"),
        ("let column = first + local % SUMS;", "let column = min(first, SUMS) + local % SUMS;"),
        ("params.log_std_offset + column - SUMS, sum", "params.log_std_offset + local, sum"),
        ("if local < params.partial_width {", "if local < 2u * SUMS {"),
    ] {
        plant(&mut gpu, from, to);
        gpu.context.release();
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert!(difference.as_deref().is_some_and(|found| found.starts_with("grads of log_std")), "{from}: {difference:?}");
    }
}

#[test]
fn a_planted_fault_of_acting_is_noticed() {
    let Some(mut gpu) = gpu() else { return };
    for (categorical, from, to, wrong) in [
        (true, "params.observations_offset + ", "", "head"),
        (true, "values[row] = ", "values[row + 1u] = ", "values"),
        (true, "output[i * params.width + a] = logit(a);", "output[i * params.width + a] = logit(0u);", "head"),
        (true, "noise[row] * sum", "noise[0] * sum", "actions"),
        (true, "!is_found && cumulative > wanted", "cumulative > wanted", "actions"),
        (true, "- log_of(sum)", "", "logp"),
        (false, "exp_of(log_std) * z", "z", "vectors"),
        (false, "0.5 * z * z + log_std", "0.5 * z * z", "logp"),
    ] {
        let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, categorical);
        let expected = problem.act(&mut Cpu::<f64>::new()).unwrap();
        let text = common::shader("actor_critic/by_tile");
        let end = text.find("fn tiles_gradient").unwrap();
        gpu.context.replace_shader("actor_critic/by_tile", common::plant(&text[..end], from, to) + &text[end..]);
        let acted = problem.act(&mut gpu).unwrap();
        let found = (0..5).find(|&i| !(relative_error(&acted[i], &expected[i]) <= 1e-5));
        assert_eq!(found.map(|i| ACTED[i]), Some(wrong), "{from}");
    }
}

/// Padding of the observation's vectors has to be 0: weights of 0 times infinity would spread.
#[test]
fn an_infinite_observation_is_no_weights_gradient_but_its_own() {
    let Some(mut gpu) = common::gpu() else { return };
    let mut problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, true);
    problem.observations[5 * 32 + 4] = f32::INFINITY;
    let reported = |outcome: Outcome| outcome.into_iter().find(|(name, _)| *name == "control").unwrap().1;
    let expected = reported(problem.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap());
    assert_eq!(expected[control::BAD_ELEMENT], 4.0);
    for form in [Form::ByLayer, Form::ByTile] {
        gpu.fused_form = Some(form);
        assert_eq!(reported(problem.solve(&mut gpu, Way::Step).unwrap()), expected, "{form:?}");
    }
    plant(&mut gpu, "select(vec4<f32>(), read, at < vec4<u32>(params.observation_size))", "read");
    assert_ne!(reported(problem.solve(&mut gpu, Way::Step).unwrap()), expected);
}

/// Every element in turn, of either network and of the log-std: the first one is reported, and what was reported before stays.
#[test]
fn a_gradient_that_is_not_finite_is_reported() {
    let Some(mut gpu) = gpu() else { return };
    let problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, false);
    let parameters = problem.params.len();
    let note = "written.squares += gradient * gradient;\n    let is_bad = (bitcast<u32>(gradient)";
    for (first, second) in [(0, 1), (parameters - 1, parameters - 1), (parameters - 5, parameters - 2), (7, 200)] {
        // A NaN and an infinity, by bits, as the compiler may assume there are none.
        let planted = format!(
            "var bad = gradient;\n    if index == {second}u {{ bad = bitcast<f32>(params.rows * 0u + 0x7fc00000u); }}\n    \
             if index == {first}u {{ bad = bitcast<f32>(params.rows * 0u + 0xff800000u); }}\n    written.squares += bad * bad;\n    \
             let is_bad = (bitcast<u32>(bad)"
        );
        plant(&mut gpu, note, &planted);
        let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
        let control = &outcome.iter().find(|(name, _)| *name == "control").unwrap().1;
        let expected = [(control::STOP, stop::NON_FINITE), (control::BAD_TENSOR, TENSOR), (control::BAD_ELEMENT, first as u32)];
        let found = expected.iter().all(|&(word, value)| control[word] == f64::from(value));
        assert!(found, "{first}, {second}: {control:?}");
    }
}
