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
use ppo_kernels::cases::{CaseReport, check_file};
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
        match check_file(backend, &path) {
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
    for variant in [Variant::Plain, Variant::Fast] {
        let Some(mut gpu) = common::gpu() else { return };
        gpu.variant = variant;
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
            "actor_critic",
            "let ratio = exp_of(log_ratio);",
            "let ratio = 1.0 + log_ratio;",
            "update_single_step",
            "grad.first.actor.W0",
        ),
        ("actor_critic", "log_ratio + residuals.x", "log_ratio", "update_single_step", "out.steps.pg_loss"),
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
        common::plant_fault(&mut gpu, shader, from, to);
        let report = check_file(&mut gpu, &path_of(case)).unwrap();
        assert!(!report.passed(), "{shader}: the fault went unnoticed in {case}");
        assert!(failed_tensors(&report).contains(&tensor), "{shader}: {tensor} is not in {:?}", failed_tensors(&report));
    }
}
