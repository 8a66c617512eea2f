//! Verification itself: it passes what is right, and names what is wrong.

mod common;

use common::{gpu, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, Gpu};
use ppo_kernels::kernels::actor_critic::Form;
use ppo_kernels::verify::{KERNELS, KernelReport, Options, run, variants};

fn few() -> Options {
    Options { cases: 2, seed: 5, many_workgroups: false, ..Options::default() }
}

fn guarded() -> Option<Gpu> {
    let mut gpu = gpu()?;
    gpu.context.set_guards(true);
    Some(gpu)
}

#[track_caller]
fn expect_no_miss(reports: &[KernelReport]) {
    let misses: Vec<String> = reports.iter().flat_map(|r| r.misses.iter().map(|miss| format!("{}: {miss}", r.kernel))).collect();
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}

/// The kernels with misses.
fn flagged(reports: &[KernelReport]) -> Vec<&'static str> {
    reports.iter().filter(|report| !report.misses.is_empty()).map(|report| report.kernel).collect()
}

/// Every variant of a kernel, at all edge sizes and a few random ones.
fn passes_on_the_adapter(kernel: &'static str) {
    let Some(mut gpu) = guarded() else { return };
    for variant in variants(kernel) {
        variant.choose(&mut gpu);
        let options = Options { many_workgroups: true, kernels: vec![kernel], ..few() };
        let (back, reports) = run(gpu, &options, |_| {}).unwrap();
        expect_no_miss(&reports);
        for report in &reports {
            let compared = report.tensors.iter().any(|tensor| tensor.worst.compared > 0);
            assert!(compared, "{} ({}) compared nothing", report.kernel, variant.name);
        }
        gpu = back;
    }
}

macro_rules! each_kernel_passes_on_the_adapter {
    ($($kernel:ident),+ $(,)?) => {
        mod on_the_adapter {
            $(#[test] fn $kernel() { super::passes_on_the_adapter(stringify!($kernel)) })+
            #[test] fn none_is_left_out() { assert_eq!([$(stringify!($kernel)),+], super::KERNELS) }
        }
    };
}
each_kernel_passes_on_the_adapter!(
    linear,
    advantage,
    policy,
    surrogate,
    actor_critic,
    normalize,
    optimizer,
    nonfinite,
    gather,
    random,
);

#[test]
fn the_cpu_backend_passes_at_single_precision() {
    let (_, reports) = run(Cpu::<f32>::new(), &few(), |_| {}).unwrap();
    expect_no_miss(&reports);
}

#[test]
fn a_planted_fault_is_flagged_in_exactly_its_kernel() {
    let faults = [
        ("linear", "linear", "return 1.0 - s * s;", "return 1.0 - s;"),
        ("advantage", "advantage", "params.gamma * bootstrap", "bootstrap"),
        ("policy", "policy/categorical", "share -= exp_of(log_p) * log_p", "share -= exp_of(log_p) * (log_p + 0.01)"),
        ("policy", "policy/gaussian", "0.5 * exp_minus_tangent(2.0", "0.5 * exp_minus_tangent(1.0"),
        ("surrogate", "surrogate", "select(above_low, params.ratio_high,", "select(above_low, params.ratio_low,"),
        ("actor_critic", "actor_critic/by_tile", "written.squares += gradient * gradient;", "written.squares += abs(gradient);"),
        ("normalize", "normalize", "/ f32(params.len - params.ddof)", "/ f32(params.len)"),
        ("optimizer", "optimizer", "adam.beta2 * old.v", "adam.beta1 * old.v"),
        ("nonfinite", "nonfinite", "control[BAD_ELEMENT], first)", "control[BAD_ELEMENT], first + 1u)"),
        ("gather", "gather", "indices[params.start + i]", "indices[i]"),
        ("random", "random", "0xbb67ae85u", "0xbb67ae87u"),
    ];
    assert_eq!(KERNELS.iter().find(|kernel| faults.iter().all(|fault| fault.0 != **kernel)), None, "a kernel without a fault");
    for (kernel, shader, from, to) in faults {
        let Some(mut gpu) = guarded() else { return };
        common::plant_fault(&mut gpu, shader, from, to);
        // The other form is made of other kernels, whose faults it has.
        gpu.fused_form = Some(Form::ByTile);
        let (_, reports) = run(gpu, &few(), |_| {}).unwrap();
        assert_eq!(flagged(&reports), [kernel]);
        let report = reports.iter().find(|report| report.kernel == kernel).unwrap();
        let worst = report.worst().unwrap();
        assert!(report.misses.iter().any(|miss| miss.concerns(worst.operation, worst.tensor)), "{worst:?}");
    }
}

#[test]
fn an_output_that_nobody_wrote_is_a_miss() {
    let Some(mut gpu) = guarded() else { return };
    let source = include_str!("../shaders/gather.wgsl");
    gpu.context.replace_shader(
        "gather",
        plant(source, "element >= params.count * params.width", "element + 1u >= params.count * params.width"),
    );
    let options = Options { kernels: vec!["gather"], ..few() };
    let (_, reports) = run(gpu, &options, |_| {}).unwrap();
    let tensor = reports[0].tensors.iter().find(|tensor| tensor.operation == "gather_floats").unwrap();
    assert!(
        tensor.worst.error.is_nan() && reports[0].misses.iter().any(|miss| miss.concerns("gather_floats", "target")),
        "{tensor:?}"
    );
}

#[test]
fn workgroup_memory_that_nobody_wrote_is_a_miss() {
    let Some(mut gpu) = guarded() else { return };
    let source = common::shader("surrogate");
    gpu.context.replace_shader("surrogate", plant(source, "stage_nothing(local);", ""));
    let options = Options { kernels: vec!["surrogate"], ..few() };
    let (_, reports) = run(gpu, &options, |_| {}).unwrap();
    let tensor = reports[0].tensors.iter().find(|t| (t.operation, t.tensor) == ("surrogate", "stats")).unwrap();
    // What another dispatch left there would be a number.
    assert!(
        tensor.worst.error.is_nan() && reports[0].misses.iter().any(|miss| miss.concerns("surrogate", "stats")),
        "{tensor:?}"
    );
}

#[test]
fn a_write_past_an_output_is_a_miss() {
    let Some(mut gpu) = guarded() else { return };
    let source = include_str!("../shaders/gather.wgsl");
    let wrong = "target_rows[element + 1u] = 7u;\n    target_rows[element] =";
    gpu.context.replace_shader("gather", plant(source, "target_rows[element] =", wrong));
    let options = Options { kernels: vec!["gather"], ..few() };
    let (_, reports) = run(gpu, &options, |_| {}).unwrap();
    assert!(reports[0].misses.iter().any(|miss| miss.to_string().contains("a kernel wrote element")), "{:?}", reports[0].misses);
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let options = Options { kernels: vec!["advantage", "gather"], ..few() };
    let tensors = |options: &Options| {
        let (_, reports) = run(Cpu::<f32>::new(), options, |_| {}).unwrap();
        reports.into_iter().flat_map(|report| report.tensors).collect::<Vec<_>>()
    };
    assert_eq!(tensors(&options), tensors(&options));
    assert_ne!(tensors(&options), tensors(&Options { seed: 6, ..options.clone() }));
}

#[test]
fn an_unknown_kernel_is_named() {
    let error = run(Cpu::<f32>::new(), &Options { kernels: vec!["warp"], ..few() }, |_| {}).unwrap_err();
    assert!(matches!(&error, Error::InvalidValue { actual, .. } if actual == "warp"), "{error}");
}
