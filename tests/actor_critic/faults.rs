//! Faults planted in the shaders have to be noticed.

use ppo_kernels::backend::{Cpu, Gpu};
use ppo_kernels::kernels::actor_critic::Form;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::layout::{control, stop};

use crate::common::{self, relative_error};
use crate::problem::{ACTED, Outcome, Problem, TENSOR, Way, first_difference};

/// A text, what it becomes, and the first tensor that is wrong.
type Fault = (&'static str, &'static str, &'static str);

/// Of what all forms share.
const FAULTS: [Fault; 6] = [
    ("written.squares += gradient * gradient;", "", "norm"),
    ("coef = max_grad_norm / divisor;", "coef = 1.0;", "factor"),
    ("params.adam_epsilon,", "0.0,", "params"),
    ("(bitcast<u32>(gradient) & EXPONENT) == EXPONENT", "index == 1u", "control"),
    ("stage_value_sum(local, loss);", "", "stats"),
    ("z * z - 1.0", "z * z", "grads"),
];

const FAULTS_BY_SAMPLE: [Fault; 25] = [
    ("params.packed_vectors - params.packed_log_std", "0u", "grads of log_std"),
    ("beyond(params.width, first), gradient", "4u, gradient", "norm"),
    ("flat_grads[at.first + c] = grad[c];", "flat_grads[at.first + c] = grad[0u];", "grads"),
    ("m[at.first + c] = first_moment[c];", "m[at.first + c] = second_moment[c];", "m"),
    ("v[at.first + c] = second_moment[c];", "v[at.first + c] = first_moment[c];", "v"),
    ("packed[WINDOW + i] = first_moment;", "packed[WINDOW + i] = second_moment;", "params"),
    ("packed[2u * WINDOW + i] = second_moment;", "", "params"),
    ("first.m, second.m, third.m", "first.m, second.m, second.m", "m"),
    ("first.v, second.v, third.v", "first.v, second.v, second.v", "v"),
    ("(*tile).biases[outputs] += d;", "", "grads"),
    ("select(0u, 2u, more)", "0u", "grads"),
    ("y = Units(activate_all(units.low), activate_all(units.high));", "", "grads"),
    ("value_terms(logit(0u), sample", "value_terms(0.0, sample", "grads of the critic"),
    ("sample_of(workgroup.x, local, 1u)", "sample_of(workgroup.x, local, 0u)", "grads"),
    ("is_second = s == 1u;", "is_second = false;", "grads"),
    ("select(first_kept[i], second_kept[i], is_second)", "first_kept[i]", "grads"),
    ("add_products(&other, w, second_kept", "add_products(&other, w, first_kept", "grads"),
    ("add_transposed(&other, w, second_kept", "add_transposed(&other, w, first_kept", "grads"),
    ("derive(&second_kept, below + k, other);", "", "grads"),
    ("indices[params.first_index + ", "indices[", "grads"),
    ("params.first_sample + sample_index", "sample_index", "grads"),
    ("actions[source_row", "actions[sample_index", "grads"),
    ("sh_written[block + own_of_block]", "sh_written[0]", "norm"),
    ("sum.squares += bitcast<f32>(word_of_block(bitcast<u32>(own.squares), i));", "", "norm"),
    ("column < select(0u, SUMS, group == 0u)", "column < select(0u, SUMS, group == 1u)", "stats"),
];

const FAULTS_BY_TILE: [Fault; 26] = [
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
    ("d_logp == 0.0);", "true);", "grads of log_std"),
    ("column - SUMS, sum - params.ent_coef", "column - SUMS, sum - 100.0 * params.ent_coef", "grads of log_std"),
    ("select(0.0, read, row < params.partial_rows)", "read", "stats"),
    ("row = local / SUMS; row", "row = 1u + local / SUMS; row", "grads of log_std"),
    ("own_partial += sh_sums", "own_partial = sh_sums", "stats"),
    ("together(sh_written[local], sh_written[local + half])", "together(sh_written[local], sh_written[local])", "norm"),
    ("odd * sh_kept[one + k + 1u]", "odd", "grads"),
    ("column_vector * 4u * at.y + row", "column_vector * 4u * at.y", "grads"),
];

#[test]
fn a_planted_fault_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    // What is not written must not be what the run before left there.
    gpu.context.set_guards(true);
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let of_form = [(Form::BySubgroup, &FAULTS_BY_SAMPLE[..]), (Form::ByTile, &FAULTS_BY_TILE[..])];
    for (form, faults) in of_form {
        gpu.fused_form = Some(form);
        for (from, to, tensor) in FAULTS.iter().chain(faults) {
            plant_in_forms(&mut gpu, form, from, to);
            let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
            assert!(difference.as_deref().is_some_and(|found| found.starts_with(tensor)), "{form:?}, {from}: {difference:?}");
        }
    }
}

/// What reads one copy and writes another has to copy what does not change.
#[test]
fn a_fault_of_a_stopped_step_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::BySubgroup);
    gpu.context.set_guards(true);
    let problem = Problem { max_kl: Some(0.0), ..Problem::new(65, &[5, 16], 3, Activation::Tanh, false) };
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap();
    for (from, to, tensor) in [
        ("select(param, old_param, stopped)", "param", "params"),
        ("fourth.m), old_m, stopped)", "fourth.m), old_m, false)", "m"),
        ("fourth.v), old_v, stopped)", "fourth.v), old_v, false)", "v"),
    ] {
        plant_in_forms(&mut gpu, Form::BySubgroup, from, to);
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert!(difference.as_deref().is_some_and(|found| found.starts_with(tensor)), "{from}: {difference:?}");
    }
}

/// What is added to a tile before is left behind, or what was in memory before is not.
#[test]
fn a_fault_of_a_workgroups_later_tiles_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::ByTile);
    let problem = Problem::new(2049, &[3, 7], 2, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let mut difference = |from: &str, to: &str| {
        plant_in_forms(&mut gpu, Form::ByTile, from, to);
        gpu.context.set_guards(true);
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
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::ByTile);
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
fn networks_too_large_for_the_forms_by_sample_go_in_tiles() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::ByTile);
    gpu.context.set_guards(true);
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
        plant_in_forms(&mut gpu, Form::ByTile, "bias += gradient;", "");
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert_eq!(difference.is_some(), needed <= most, "{widths:?} and {outputs}: {difference:?}");
    }
}

/// Of more dimensions than are summed at once, in memory full of NaN where nothing was written.
#[test]
fn a_fault_in_the_sums_for_log_std_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::BySubgroup);
    gpu.context.set_guards(true);
    let problem = Problem::new(65, &[5, 16], 11, Activation::Tanh, false);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    for (from, to) in [
        ("min(first + LOG_STD_BLOCK, dimensions)", "min(LOG_STD_BLOCK, dimensions)"),
        ("(d - first) * WORKGROUP_SIZE + k", "k"),
        ("params.partial_rows / 2u", "params.partial_rows"),
    ] {
        plant_in_forms(&mut gpu, Form::BySubgroup, from, to);
        gpu.context.release();
        let difference = first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4);
        assert!(difference.as_deref().is_some_and(|found| found.starts_with("grads of log_std")), "{from}: {difference:?}");
    }
}

/// Into what runs where `form` is asked for.
fn plant_in_forms(gpu: &mut Gpu, form: Form, from: &str, to: &str) {
    let names: &[_] = if form == Form::ByTile { &["actor_critic/by_tile"] } else { &FORMS };
    for name in names {
        gpu.context.replace_shader(name, common::plant(common::shader(name), from, to));
    }
}

#[test]
fn a_planted_fault_of_acting_is_noticed() {
    let Some(mut gpu) = common::gpu() else { return };
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
        for (form, names, end) in [
            (Form::BySubgroup, &FORMS[..], "fn samples_gradient"),
            (Form::ByTile, &["actor_critic/by_tile"], "fn tiles_gradient"),
        ] {
            gpu.fused_form = Some(form);
            for shader in names {
                let text = common::shader(shader);
                let end = text.find(end).unwrap();
                gpu.context.replace_shader(shader, common::plant(&text[..end], from, to) + &text[end..]);
            }
            let acted = problem.act(&mut gpu).unwrap();
            let found = (0..5).find(|&i| !(relative_error(&acted[i], &expected[i]) <= 1e-5));
            assert_eq!(found.map(|i| ACTED[i]), Some(wrong), "{form:?}, {from}");
        }
    }
}

/// The names of the shader's forms that take samples one by one.
const FORMS: [&str; 2] = ["actor_critic", "actor_critic/by_subgroup"];

/// By each form, so that both are seen to run where both can.
#[test]
fn a_fault_planted_in_one_form_is_noticed_in_that_alone() {
    let Some(mut gpu) = common::gpu() else { return };
    let has_subgroups = gpu.context.adapter_info().subgroup_min_size >= 8;
    gpu.fused_form = Some(Form::BySubgroup);
    let problem = Problem::new(65, &[5, 16], 3, Activation::Tanh, false);
    let expected = problem.solve(&mut gpu, Way::Step).unwrap();
    for (shader, from, to, by_subgroup) in [
        (FORMS[0], "weights.vectors[first + 2u * stride]", "weights.vectors[first + stride]", false),
        (FORMS[1], "(own_of_block % 4u) * stride", "(own_of_block % 2u) * stride", true),
        (FORMS[1], "subgroupShuffle(own.w, i)", "own.w", true),
        (FORMS[1], "subgroupShuffle(own, i)", "own", true),
        (FORMS[1], "n * groups.x * VECTOR_LANES", "n * params.len", true),
        (FORMS[1], "sample < params.batch);", "true);", true),
    ] {
        gpu.context.replace_shader(shader, common::plant(common::shader(shader), from, to));
        for (allowed, faulty) in [(by_subgroup, true), (!by_subgroup, false)] {
            gpu.fused_form = Some(if allowed { Form::BySubgroup } else { Form::ByInvocation });
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            let runs_here = if has_subgroups { faulty } else { !by_subgroup };
            assert_eq!(outcome != expected, runs_here, "{shader}, {from}, subgroups allowed: {allowed}");
        }
        gpu.context.replace_shader(shader, common::shader(shader).to_owned());
    }
}

/// Of a minibatch that all but fills its windows, invocations past the end would write into the next one. Neither sample of theirs does.
#[test]
fn samples_past_the_end_leave_nothing_in_the_next_window() {
    let Some(mut gpu) = common::gpu() else { return };
    gpu.fused_form = Some(Form::BySubgroup);
    let problem = Problem::new(227, &[4, 72], 2, Activation::Tanh, true);
    let expected = problem.solve(&mut Cpu::<f64>::new(), Way::Composed).unwrap();
    let mut difference = |from: &str, to: &str| {
        plant_in_forms(&mut gpu, Form::BySubgroup, from, to);
        first_difference(&problem.solve(&mut gpu, Way::Step).unwrap(), &expected, 1e-4)
    };
    for guard in ["if i < params.batch {\n        for", "if other < params.batch {\n        for"] {
        assert_eq!(difference(guard, guard), None);
        let found = difference(guard, "if true {\n        for");
        assert!(found.as_deref().is_some_and(|found| found.starts_with("grads")), "{guard}: {found:?}");
    }
}

/// The output's gradient takes the place of the observation, of which nothing may be left: 0 times infinity would spread.
#[test]
fn an_infinite_observation_is_no_weights_gradient_but_its_own() {
    let Some(mut gpu) = common::gpu() else { return };
    let mut problem = Problem::new(33, &[5, 16], 3, Activation::Tanh, true);
    problem.observations[5 * 32 + 4] = f32::INFINITY;
    let reported = |outcome: Outcome| outcome.into_iter().find(|(name, _)| *name == "control").unwrap().1;
    let expected = reported(problem.solve(&mut Cpu::<f64>::new(), Way::Step).unwrap());
    assert_eq!(expected[control::BAD_ELEMENT], 4.0);
    for form in [Form::ByInvocation, Form::BySubgroup, Form::ByTile] {
        gpu.fused_form = Some(form);
        assert_eq!(reported(problem.solve(&mut gpu, Way::Step).unwrap()), expected, "{form:?}");
    }
    gpu.fused_form = Some(Form::BySubgroup);
    plant_in_forms(&mut gpu, Form::BySubgroup, "store_d_logit(k, 0.0);", "");
    assert_ne!(reported(problem.solve(&mut gpu, Way::Step).unwrap()), expected);
}

/// Every element in turn, of either network and of the log-std: the first one is reported, and what was reported before stays.
#[test]
fn a_gradient_that_is_not_finite_is_reported() {
    let Some(mut gpu) = common::gpu() else { return };
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
        for form in [Form::BySubgroup, Form::ByTile] {
            gpu.fused_form = Some(form);
            plant_in_forms(&mut gpu, form, note, &planted);
            let outcome = problem.solve(&mut gpu, Way::Step).unwrap();
            let control = &outcome.iter().find(|(name, _)| *name == "control").unwrap().1;
            let expected =
                [(control::STOP, stop::NON_FINITE), (control::BAD_TENSOR, TENSOR), (control::BAD_ELEMENT, first as u32)];
            let found = expected.iter().all(|&(word, value)| control[word] == f64::from(value));
            assert!(found, "{form:?}, {first}, {second}: {control:?}");
        }
    }
}
