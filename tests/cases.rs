//! Case files: the public ones pass on every backend, and whatever is wrong with a file or a kernel is said, never survived in silence.

mod common;
#[path = "cases_check/draft.rs"]
mod draft;
#[path = "cases_check/hostile.rs"]
mod hostile;
#[path = "cases_check/program.rs"]
mod program;

use std::path::{Path, PathBuf};

use draft::{Draft, KINDS, SMALL, failed_tensors, path_of, public};
use ppo_kernels::backend::{Backend, Variant};
use ppo_kernels::cases::{Allowance, CaseReport, check_file};
use ppo_kernels::kernels::actor_critic::Form;
use safetensors::tensor::Dtype;

/// The public cases, and those in the folder that `PPO_KERNELS_CASES` names. Trajectories of environments are for their own tests.
fn all_cases() -> Vec<PathBuf> {
    let folders = [Some(public()), std::env::var_os("PPO_KERNELS_CASES").map(PathBuf::from)];
    let entries = folders.into_iter().flatten().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| is_kernel_case(path)).collect();
    cases.sort_unstable();
    cases
}

fn is_kernel_case(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.ends_with(".safetensors") && !name.starts_with("env_")
}

fn failures(report: &CaseReport) -> Vec<String> {
    let failed = report.tensors.iter().filter(|tensor| !tensor.passed);
    failed.map(|tensor| format!("{}: {}: {:e}, allowed {:e}", report.case, tensor.name, tensor.error, tensor.allowed)).collect()
}

fn every_public_case_passes<B: Backend>(backend: &mut B) {
    let (mut failed, mut kinds) = (Vec::new(), Vec::new());
    for path in all_cases() {
        match check_file(backend, &path, &Allowance::SINGLE) {
            Ok(report) => {
                failed.extend(failures(&report));
                assert_eq!(report.outputs.len(), report.tensors.len(), "{}", report.case);
                kinds.push(report.kind);
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, KINDS);
}

on_every_backend!(every_public_case_passes);

#[test]
fn every_public_case_passes_with_every_variant() {
    for (variant, form) in [(Variant::Plain, None), (Variant::Fast, Some(Form::ByTile)), (Variant::Fast, Some(Form::ByLayer))] {
        let Some(mut gpu) = common::gpu() else { return };
        (gpu.variant, gpu.fused_form) = (variant, form);
        every_public_case_passes(&mut gpu);
    }
}

#[test]
fn the_small_cases_are_of_all_kinds() {
    let mut kinds: Vec<String> = SMALL.iter().map(|case| Draft::of(case).metadata["kind"].clone()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, KINDS);
}

#[test]
fn an_output_beyond_the_rule_is_named_and_within_it_passes() {
    for case in SMALL {
        let draft = Draft::of(case);
        let report = draft.check().unwrap();
        for tensor in &report.tensors {
            if draft.tensors[&tensor.name].0 != Dtype::F64 {
                continue;
            }
            let values = draft.floats(&tensor.name);
            let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
            let relative = norm > 0.0 && draft.metadata.contains_key(&format!("f32err:{}", tensor.name));
            let unit = tensor.allowed * if relative { norm } else { 1.0 };
            for (size, passes) in [(1.2, false), (-1.2, false), (0.5, true), (f64::NAN, false), (f64::INFINITY, false)] {
                let mut perturbed = draft.clone();
                let mut values = values.clone();
                let last = values.len() - 1;
                values[last] += size * unit;
                perturbed.set_floats(&tensor.name, &values);
                // A file without a relative yardstick is compared absolutely; the solution must not turn into one that has none.
                let report = perturbed.check().unwrap();
                let expected: &[&str] = if passes { &[] } else { &[&tensor.name] };
                assert_eq!(failed_tensors(&report), expected, "{case}: {} moved by {size}", tensor.name);
                assert_eq!(report.passed(), passes);
                if !passes {
                    assert_eq!(report.worst().unwrap().name, tensor.name);
                }
            }
        }
    }
}

#[test]
fn a_file_without_yardsticks_is_compared_relative_to_its_solution() {
    let mut draft = Draft::of("adam_adamw");
    draft.metadata.retain(|name, _| !name.starts_with("f32"));
    assert!(draft.check().unwrap().passed());
    // Second moments are small: by their absolute error much would pass.
    let doubled: Vec<f64> = draft.floats("out.v3.2").iter().map(|value| 2.0 * value).collect();
    draft.set_floats("out.v3.2", &doubled);
    let report = draft.check().unwrap();
    assert_eq!(failed_tensors(&report), ["out.v3.2"]);
    assert!((report.worst().unwrap().error - 0.5).abs() < 1e-6, "{:?}", report.worst());
}

#[test]
fn inputs_that_only_other_solutions_need_may_be_missing() {
    for (case, inputs, solutions) in [
        ("gae_02_T5_N3_g0.99_l0.95", &["dones", "next_done", "next_value"][..], &["advantages", "returns", "delta"][..]),
        ("gae_02_T5_N3_g0.99_l0.95", &["terminated", "truncated", "next_values"], &["cleanrl_advantages", "cleanrl_returns"]),
        ("gae_02_T5_N3_g0.99_l0.95", &["dones", "next_done", "next_value", "next_values", "values"], &["reward_to_go"]),
        ("categorical_B7_A2_s1", &["q_logits", "w"], &["log_probs", "probs", "logp", "entropy", "mode"]),
        ("gaussian_B7_D3_shared_std", &["q_mean", "q_logstd", "w"], &["logp", "entropy", "logp_per_dim"]),
        ("squashed_gaussian_B7_D1_s1", &["noise", "w"], &["action", "action_scaled", "logp", "logp_scaled", "log_det"]),
        ("adv_norm_B33_m5_s2", &["w"], &["mean", "std", "normalised", "std_population", "normalised_population"]),
    ] {
        let mut draft = Draft::of(case);
        let kept = |name: &str| match name.strip_prefix("in.") {
            Some(input) => !inputs.contains(&input.trim_end_matches(".f32")),
            None => solutions.iter().any(|solution| name.strip_prefix("out.") == Some(solution)),
        };
        draft.tensors.retain(|name, _| kept(name));
        let report = draft.check().unwrap();
        assert!(report.passed() && report.tensors.len() == solutions.len(), "{case}: {:?}", failed_tensors(&report));
    }
}

fn set_f32s(draft: &mut Draft, name: &str, shape: Vec<usize>, values: &[f64]) {
    let bytes = values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect();
    draft.tensors.insert(format!("in.{name}.f32"), (Dtype::F32, shape, bytes));
    draft.tensors.remove(&format!("in.{name}"));
}

#[track_caller]
fn expect_same_outputs(a: &CaseReport, b: &CaseReport) {
    for (name, tensor) in &a.outputs {
        let error = common::relative_error(&tensor.values.to_f64(), &b.outputs[name].values.to_f64());
        assert!(error <= 1e-5, "{name}: {error}");
    }
}

#[test]
fn hyper_parameters_beyond_those_of_the_kind_are_in_config() {
    let mut of_population = Draft::of("ppo_loss_categorical_B33_A2");
    of_population.metadata.insert("config".to_owned(), r#"{"norm_adv_ddof": 0, "norm_adv_epsilon": 1e-3}"#.to_owned());
    let found = of_population.check().unwrap();
    assert!(failed_tensors(&found).contains(&"out.pg_loss"), "{:?}", failed_tensors(&found));

    let mut normalised = Draft::of("ppo_loss_categorical_B33_A2");
    let advantages = normalised.floats("in.advantages");
    let mean = advantages.iter().sum::<f64>() / 33.0;
    let std = (advantages.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 33.0).sqrt();
    let advantages: Vec<f64> = advantages.iter().map(|a| (a - mean) / (std + 1e-3)).collect();
    set_f32s(&mut normalised, "advantages", vec![33], &advantages);
    normalised.metadata.insert("normalise_advantages".to_owned(), "0".to_owned());
    expect_same_outputs(&found, &normalised.check().unwrap());
}

#[test]
fn an_update_may_have_its_ends_by_transition() {
    let by_start = Draft::of("update_single_step");
    let [steps, envs] = by_start.tensors["in.dones"].1[..] else { panic!("not [T, N]") };
    let starts = |name: &str| by_start.floats(&format!("in.{name}"));
    let next = |of_steps: &str, last: &str| [&starts(of_steps)[envs..], &starts(last)].concat();
    let mut by_transition = by_start.clone();
    by_transition.tensors.retain(|name, _| !["in.dones", "in.next_done", "in.next_value"].iter().any(|n| name.starts_with(n)));
    by_transition.metadata.insert("config".to_owned(), r#"{"bootstrap_truncated": true}"#.to_owned());
    set_f32s(&mut by_transition, "next_values", vec![steps, envs], &next("old_values", "next_value"));
    let terminated: Vec<u8> = next("dones", "next_done").iter().map(|&done| done as u8).collect();
    assert!(terminated.contains(&1));
    let flags = |flags: Vec<u8>| (Dtype::U8, vec![steps, envs], flags);
    by_transition.tensors.insert("in.truncated".to_owned(), flags(vec![0; steps * envs]));
    by_transition.tensors.insert("in.terminated".to_owned(), flags(terminated.clone()));
    let report = by_transition.check().unwrap();
    assert!(report.passed(), "{:?}", failed_tensors(&report));
    assert_eq!(report.unused, ["attempt"]);

    // The same ends as truncations, which keep the value of the state reached.
    by_transition.tensors.insert("in.truncated".to_owned(), flags(terminated));
    by_transition.tensors.insert("in.terminated".to_owned(), flags(vec![0; steps * envs]));
    assert_eq!(failed_tensors(&by_transition.check().unwrap())[0], "out.advantages");
}

#[test]
fn a_bound_may_be_infinite() {
    for text in ["inf", "none", "None"] {
        let mut draft = Draft::of("adam_clip_active");
        draft.metadata.insert("max_norm".to_owned(), text.to_owned());
        let report = draft.check().unwrap();
        assert_eq!(report.outputs["out.coefs"].values.to_f64(), [1.0; 6]);
        assert!(failed_tensors(&report).contains(&"out.coefs"));
    }
}

#[test]
fn a_wrong_mode_is_named() {
    let mut draft = Draft::of("categorical_B7_A2_s1");
    let data = &mut draft.tensors.get_mut("out.mode").unwrap().2;
    data[0] ^= 1;
    assert_eq!(failed_tensors(&draft.check().unwrap()), ["out.mode"]);
}

#[test]
fn a_planted_fault_fails_and_names_what_it_spoils() {
    for (shader, from, to, case, tensor) in [
        ("linear", "return 1.0 - s * s;", "return 1.0 - s;", "activations", "grad.tanh"),
        ("linear", "return 1.0 - s * s;", "return 1.0 - s;", "mlp_tanh_B1_3x17x2", "grad.pre0"),
        ("advantage", "params.gamma * bootstrap", "bootstrap", "gae_02_T5_N3_g0.99_l0.95", "out.delta"),
        ("surrogate", "* params.one_over_batch", "", "value_loss_B7_c0.2", "grad.values_huber"),
        (
            "actor_critic/by_tile",
            "let ratio = exp_of(log_ratio);",
            "let ratio = 1.0 + log_ratio;",
            "update_single_step",
            "grad.first.actor.W0",
        ),
        ("actor_critic/by_tile", "log_ratio + residuals.x", "log_ratio", "update_single_step", "out.steps.pg_loss"),
        (
            "policy/gaussian",
            "let inverse = exp_of(-s);",
            "let inverse = exp_of(s);",
            "gaussian_B7_D3_shared_std",
            "grad.mean_of_logp",
        ),
        ("optimizer", "adam.beta2 * old.v", "adam.beta1 * old.v", "adam_adamw", "out.v1.0"),
        ("gather", "indices[params.start + i]", "indices[0]", "update_single_step", "grad.first.actor.W0"),
    ] {
        let Some(mut gpu) = common::gpu() else { return };
        gpu.fused_form = Some(Form::ByTile);
        common::plant_fault(&mut gpu, shader, from, to);
        let report = check_file(&mut gpu, &path_of(case), &Allowance::SINGLE).unwrap();
        assert!(!report.passed(), "{shader}: the fault went unnoticed in {case}");
        assert!(failed_tensors(&report).contains(&tensor), "{shader}: {tensor} is not in {:?}", failed_tensors(&report));
    }
}
