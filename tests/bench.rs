//! The benchmark program: its JSON, its checks, its refusals. Nothing here depends on how fast anything is.

mod common;

use std::process::{Command, Output};

use common::gpu;
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, Gpu};
use ppo_kernels::bench::{Effort, Finding, Options, Peaks, run, sweep};
use ppo_kernels::gpu::adapters;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppo-kernels"));
    command.arg("bench").args(arguments).env_remove("RUST_LOG").env("PPO_KERNELS_AUTOTUNE", "off").output().unwrap()
}

fn options(only: &str) -> Options {
    Options { only: only.to_owned(), effort: Effort::QUICK, small: true }
}

#[track_caller]
fn positive(record: &Value, key: &str) -> f64 {
    let value = record[key].as_f64().unwrap_or_else(|| panic!("no {key} in {record}"));
    assert!(value > 0.0 && value.is_finite(), "{key}: {record}");
    value
}

#[test]
fn json_has_the_machine_and_a_record_a_bench() {
    let folder = tempfile::tempdir().unwrap();
    let (json, picture) = (folder.path().join("out.json"), folder.path().join("roofline.svg"));
    let only = "gae/T128_N8,loss_cat/A2,mlp_fwdbwd/B64,update/i_cartpole";
    let [json_path, picture_path] = [&json, &picture].map(|path| path.to_str().unwrap());
    let output = bench(&["--backend", "cpu", "--quick", "--only", only, "--json", json_path, "--plot", picture_path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("gae/T128_N8") && table.contains("% of peak") && table.contains("peaks of this run"), "{table}");
    assert!(!table.contains("GPU"), "{table}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let meta = &report["meta"];
    assert_eq!(meta["versions"]["ppo-kernels"], env!("CARGO_PKG_VERSION"));
    assert_eq!(meta["adapter"]["name"], "CPU");
    assert!(meta["date"].is_string() && meta["cores"].as_u64() > Some(0), "{meta}");
    for peak in ["gflops", "gbps", "gbps_cached"] {
        positive(&meta["peaks"], peak);
    }
    let records = report["records"].as_array().unwrap();
    let names: Vec<&str> = records.iter().map(|record| record["bench"].as_str().unwrap()).collect();
    let peaks = ["limits/copy_16MiB", "limits/copy_128MiB", "limits/arithmetic"];
    let benches = ["mlp_fwdbwd/B64_4-64-64-2", "gae/T128_N8", "loss_cat/A2_B16384", "update/i_cartpole"];
    assert_eq!(names, [peaks.as_slice(), benches.as_slice()].concat());
    for record in records {
        assert_eq!(record["framework"], "ppo-kernels");
        assert_eq!(record["variant"], "default");
        assert_eq!(record["device"], "CPU (f32)");
        let [min, p10, median, p90] = ["min_s", "p10_s", "median_s", "p90_s"].map(|key| positive(record, key));
        assert!(min <= p10 && p10 <= median && median <= p90, "{record}");
        assert!(positive(record, "reps") >= 3.0 && positive(record, "inner") >= 1.0);
        assert!(record["gpu_s"].is_null() && record["encode_s"].is_null(), "a CPU records and submits nothing: {record}");
        let derived = record["derived"].as_object().unwrap();
        assert!(!derived.is_empty() && derived.values().all(|value| value.as_f64() > Some(0.0)), "{record}");
        assert!(!record["check"].as_object().unwrap().is_empty(), "nothing was checked: {record}");
    }
    let picture = std::fs::read_to_string(&picture).unwrap();
    assert!(picture.starts_with("<svg") && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    assert_eq!(picture.matches("<title>").count(), 3, "a dot for all that has operations and bytes");
}

#[test]
fn a_pattern_that_fits_nothing_lists_what_there_is() {
    match run(Cpu::<f32>::new(), &options("gea"), &mut |finding| panic!("{finding:?}")) {
        Err(Error::InvalidValue { argument, expected, actual }) => {
            assert_eq!((argument.as_str(), actual.as_str()), ("only", "gea"));
            for name in ["limits/arithmetic", "gae/T128_N8", "update/i_cartpole"] {
                assert!(expected.contains(name), "{expected}");
            }
        }
        other => panic!("{other:?}"),
    }
    let output = bench(&["--backend", "cpu", "--only", "gea"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gae/T8192_N64"));
}

#[test]
fn a_gpu_tells_its_own_time_and_the_hosts() {
    let Some(gpu) = gpu() else { return };
    let name = gpu.context.name().to_owned();
    let has_timestamps = adapters().iter().any(|a| a.info.name == name && a.features.contains(&("timestamps", true)));
    let mut records = Vec::new();
    run(gpu, &options("gae/T128_N8,update/i_cartpole"), &mut |finding| match finding {
        Finding::Timed(record) => records.push(record),
        Finding::Skipped { .. } => panic!("{finding:?}"),
    })
    .unwrap();
    assert_eq!(records.len(), 5, "{records:?}");
    for record in records {
        assert_eq!(record.gpu_s.is_some(), has_timestamps, "{record:?}");
        // In each sample both are part of the wall's time, and so are their medians.
        for seconds in record.gpu_s.into_iter().chain(record.encode_s) {
            assert!(seconds > 0.0 && seconds <= record.median_s, "{record:?}");
        }
        assert!(record.encode_s.is_some(), "{record:?}");
    }
}

#[test]
fn a_cross_check_is_not_timed() {
    let Some(_) = gpu() else { return };
    let output = bench(&["--backend", "cross-check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("backend: expected auto, gpu or cpu"));
}

type Run = fn(Gpu, &Options, &mut dyn FnMut(Finding)) -> ppo_kernels::Result<(Gpu, Peaks)>;

/// What was reported, and the bench and the message of the error.
fn with_fault(run: Run, shader: &'static str, from: &str, to: &str, only: &str) -> Option<(Vec<String>, String, String)> {
    let mut gpu = gpu()?;
    common::plant_fault(&mut gpu, shader, from, to);
    let mut timed = Vec::new();
    let outcome = run(gpu, &options(only), &mut |finding| match finding {
        Finding::Timed(record) => timed.push(record.bench),
        Finding::Skipped { .. } => {}
    });
    match outcome {
        Err(Error::Bench { bench, source }) => Some((timed, bench, source.to_string())),
        other => panic!("a planted fault went unnoticed: {other:?}"),
    }
}

#[test]
fn a_wrong_kernel_is_named_and_not_timed() {
    let fault =
        with_fault(run, "gather", "source_row(row) * params.width + column", "source_row(row) * params.width", "gather/R98304");
    let Some((timed, bench, message)) = fault else { return };
    assert_eq!(bench, "gather/R98304_W48_C24576");
    assert!(message.starts_with("gather_floats: target["), "{message}");
    assert!(timed.iter().all(|name| name.starts_with("limits/")), "{timed:?}");
}

#[test]
fn a_wrong_update_is_named_and_not_timed() {
    let fault = with_fault(run, "actor_critic", "- adam.step_size *", "+ adam.step_size *", "update/i_cartpole");
    let Some((timed, bench, message)) = fault else { return };
    assert_eq!(bench, "update/i_cartpole");
    assert!(message.contains("double precision"), "{message}");
    assert!(timed.iter().all(|name| name.starts_with("limits/")), "{timed:?}");
}

#[test]
fn a_sweep_has_a_record_a_size_and_a_panel_an_axis() {
    let folder = tempfile::tempdir().unwrap();
    let (json, picture) = (folder.path().join("sweep.json"), folder.path().join("sweep.svg"));
    let [json_path, picture_path] = [&json, &picture].map(|path| path.to_str().unwrap());
    let output = bench(&["--sweep", "--backend", "cpu", "--quick", "--json", json_path, "--plot", picture_path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("sweep/width/64"));

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["meta"]["sweep"], true);
    let records = report["records"].as_array().unwrap();
    let names: Vec<String> = records.iter().map(|record| record["bench"].as_str().unwrap().to_owned()).collect();
    let (peaks, sizes) = names.split_at(3);
    assert!(peaks.iter().all(|name| name.starts_with("limits/")), "{names:?}");
    assert_eq!(sizes, sweep::names(&options("")));
    for record in &records[3..] {
        for key in ["median_s", "p10_s", "p90_s", "flops", "bytes"] {
            positive(record, key);
        }
        assert!(positive(&record["derived"], "percent_of_peak") > 0.0);
        assert!(!record["check"].as_object().unwrap().is_empty(), "nothing was checked: {record}");
    }
    let picture = std::fs::read_to_string(&picture).unwrap();
    assert!(picture.starts_with("<svg") && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    assert_eq!(picture.matches("<title>").count(), sizes.len(), "a dot a size");
    for axis in ["samples of a minibatch", "units of a hidden layer", "steps of a rollout", "CPU (f32)"] {
        assert!(picture.contains(axis), "no {axis}");
    }
}

#[test]
fn a_pattern_chooses_sizes() {
    let mut timed = Vec::new();
    let mut report = |finding| match finding {
        Finding::Timed(record) => timed.push(record.bench),
        Finding::Skipped { .. } => panic!("{finding:?}"),
    };
    sweep::run(Cpu::<f32>::new(), &options("horizon/16,batch/64"), &mut report).unwrap();
    assert_eq!(timed.split_off(3), ["sweep/batch/64", "sweep/horizon/16"]);
}

#[test]
fn names_of_the_other_kind_of_run_are_refused_before_anything_is_measured() {
    let refused = |arguments: &[&str], expected: &str| {
        let output = bench(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(expected) && !errors.contains("limits/"), "{errors}");
    };
    refused(&["--backend", "cpu", "--only", "sweep/batch"], "only: expected --sweep beside it, got sweep/batch");
    refused(&["--backend", "cpu", "--sweep", "--only", "gae/"], "only: expected part of a name `sweep/AXIS/SIZE` with --sweep");
    refused(&["--backend", "cpu", "--sweep", "--only", "depth"], "sweep/horizon/65536, got depth");
}

#[test]
fn a_wrong_gradient_is_named_and_not_timed() {
    let fault = with_fault(sweep::run, "surrogate", "params.vf_coef * slope", "-params.vf_coef * slope", "sweep/batch/64");
    let Some((timed, bench, message)) = fault else { return };
    assert_eq!(bench, "sweep/batch/64");
    assert!(message.starts_with("gradient of critic.") && message.contains("double precision"), "{message}");
    assert!(timed.iter().all(|name| name.starts_with("limits/")), "{timed:?}");
}
