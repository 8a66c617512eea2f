//! The benchmark program: its JSON, its checks, its refusals. Nothing here depends on how fast anything is.

mod common;

use std::ops::ControlFlow;
use std::process::{Command, Output};

use common::gpu;
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, Gpu};
use ppo_kernels::bench::{Bandwidth, Effort, Finding, Options, Peaks, Report, TENSOR_CORES, names, run, sweep};
use ppo_kernels::gpu::adapters;
use serde_json::Value;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppo-kernels"));
    command.arg("bench").args(arguments).env_remove("RUST_LOG").env("PPO_KERNELS_AUTOTUNE", "off");
    command
}

fn bench(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
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
fn figures_and_picture_cannot_be_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figures");
    let path = path.to_str().unwrap();
    let output = bench(&["--quick", "--backend", "cpu", "--only", "gae/", "--json", path, "--plot", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("conflicts with --json, which names that file too; pass another file")
    );
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
    assert_eq!(meta["complete"], true);
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

/// Three products for one leave a third.
#[test]
fn a_record_is_measured_against_the_peak_of_what_multiplied() {
    let copy = Bandwidth { bytes: 1.0, gbps: 1.0 };
    let peaks = Peaks { gflops: 50.0, tensor_gflops: Some(600.0), copies: [copy; 2] };
    let without = Peaks { tensor_gflops: None, ..peaks };
    for (variant, gflops) in [("default", 50.0), (TENSOR_CORES[0], 600.0), (TENSOR_CORES[1], 200.0)] {
        assert_eq!((peaks.of(variant).gflops, without.of(variant).gflops), (gflops, 50.0), "{variant}");
    }
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
    run(gpu, &options("gae/T128_N8,update/i_cartpole"), &mut |finding| {
        let Finding::Timed(record) = finding else { panic!("{finding:?}") };
        records.push(record);
        ControlFlow::Continue(())
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
    assert!(String::from_utf8_lossy(&output.stderr).contains("pass --backend auto, gpu or cpu"));
}

type Run<B> = fn(B, &Options, &mut Report<'_>) -> ppo_kernels::Result<B>;

/// What was timed besides peaks, and the one bench that failed, with its reason.
fn with_fault(
    run: Run<Gpu>,
    shaders: &[&'static str],
    from: &str,
    to: &str,
    only: &str,
) -> Option<(Vec<String>, String, String)> {
    let mut gpu = gpu()?;
    shaders.iter().for_each(|shader| common::plant_fault(&mut gpu, shader, from, to));
    let (mut timed, mut wrong) = (Vec::new(), Vec::new());
    run(gpu, &options(only), &mut |finding| {
        match finding {
            Finding::Timed(record) if record.bench.starts_with("limits/") => {}
            Finding::Timed(record) => timed.push(record.bench),
            Finding::Failed { bench, failed, .. } => wrong.push((bench, failed)),
            Finding::Skipped { .. } => panic!("{finding:?}"),
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(wrong.len(), 1, "{wrong:?}; right: {timed:?}");
    let (bench, failed) = wrong.remove(0);
    Some((timed, bench, failed))
}

#[test]
fn a_wrong_kernel_is_named_and_not_timed_and_the_others_are() {
    let (from, to) = ("source_row(row) * params.width + column", "source_row(row) * params.width");
    let Some((timed, bench, message)) = with_fault(run, &["gather"], from, to, "gather/R98304,optimizer/P20000") else { return };
    assert_eq!(bench, "gather/R98304_W48_C24576");
    assert!(message.starts_with("gather_floats: target["), "{message}");
    assert_eq!(timed, ["optimizer/P20000"]);
}

#[test]
fn a_wrong_update_is_named_and_not_timed() {
    let shaders = ["actor_critic/by_tile", "actor_critic/by_layer"];
    let fault = with_fault(run, &shaders, "- adam.step_size *", "+ adam.step_size *", "update/i_cartpole");
    let Some((timed, bench, message)) = fault else { return };
    assert_eq!((timed, bench.as_str()), (vec![], "update/i_cartpole"));
    assert!(message.contains("double precision"), "{message}");
}

#[test]
fn a_run_ends_after_the_finding_at_which_it_is_told_to() {
    let runs: [(&str, Run<Cpu<f32>>); 3] = [("limits/copy_128MiB", run), ("gae/T128_N8", run), ("sweep/batch/64", sweep::run)];
    for (last, run) in runs {
        let mut names = Vec::new();
        let mut until_then = |finding| {
            let Finding::Timed(record) = finding else { panic!("{finding:?}") };
            names.push(record.bench);
            if names.last().unwrap() == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let only = "gae/T128_N8,gather,update/i_cartpole,sweep/batch";
        run(Cpu::new(), &options(only), &mut until_then).unwrap();
        assert_eq!(names.last().map(String::as_str), Some(last));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let [file, nowhere] = ["figures", "none/figures"].map(|name| folder.path().join(name));
    let [file, nowhere] = [&file, &nowhere].map(|path| path.to_str().unwrap());
    for flags in [["--json", nowhere, "--plot", file], ["--json", file, "--plot", nowhere]] {
        let output = bench(&[&["--backend", "cpu", "--quick"], flags.as_slice()].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(nowhere) && !errors.contains("limits/"), "{errors}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left there");
    }
}

/// Reads until a line contains `text`.
#[track_caller]
fn wait_for(text: &str, from: &mut impl std::io::BufRead) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(from.read_line(&mut line).unwrap(), 0, "ended without {text}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_has_written_each_finding_and_ends_with_all_there_is() {
    use std::io::{BufReader, Read};

    let kinds = [("-INT", None, names(&options(""))), ("-TERM", Some("--sweep"), sweep::names(&options("")))];
    for (name, mode, all) in kinds {
        let folder = tempfile::tempdir().unwrap();
        let (json, picture) = (folder.path().join("out.json"), folder.path().join("out.svg"));
        let mut command = program(&["--backend", "cpu", "--quick"]);
        command.args(mode).arg("--json").arg(&json).arg("--plot").arg(&picture);
        let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let report = || serde_json::from_slice::<Value>(&std::fs::read(&json).unwrap()).unwrap();
        let mut notes = BufReader::new(child.stderr.take().unwrap());
        wait_for("limits/arithmetic", &mut notes);
        let early = report();
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
        wait_for("interrupted", &mut notes);
        notes.read_to_string(&mut String::new()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{name}");
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in ["limits/arithmetic", "peaks of this run", "interrupted"] {
            assert!(table.contains(word), "no {word} in {table}");
        }
        let late = report();
        let count = |report: &Value| report["records"].as_array().unwrap().len();
        assert!(count(&early) >= 2 && count(&late) >= 3 && count(&late) < all.len(), "{late}");
        assert_eq!((&early["meta"]["complete"], &late["meta"]["complete"]), (&false.into(), &false.into()));
        positive(&late["meta"]["peaks"], "gbps");
        assert!(std::fs::read_to_string(&picture).unwrap().starts_with("<svg"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside the files");
    }
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
    let mut report = |finding| {
        let Finding::Timed(record) = finding else { panic!("{finding:?}") };
        timed.push(record.bench);
        ControlFlow::Continue(())
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
    refused(
        &["--backend", "cpu", "--only", "sweep/batch"],
        "--only sweep/batch conflicts with a run without --sweep; pass --sweep too",
    );
    refused(
        &["--backend", "cpu", "--sweep", "--only", "gae/"],
        "--only gae/ conflicts with --sweep; pass part of a name sweep/AXIS/SIZE",
    );
    refused(&["--backend", "cpu", "--sweep", "--only", "depth"], "--only is depth; pass part of one of ");
}

#[test]
fn a_wrong_gradient_is_named_and_not_timed_and_the_next_size_is_tried() {
    let (from, to) = ("times(params.vf_coef, slope)", "-times(params.vf_coef, slope)");
    // One or the other, by what the adapter is.
    let shaders = ["surrogate", "actor_critic/by_tile"];
    let Some((timed, bench, message)) = with_fault(sweep::run, &shaders, from, to, "sweep/batch/64,horizon/16") else { return };
    assert_eq!((timed, bench.as_str()), (vec!["sweep/horizon/16".to_owned()], "sweep/batch/64"));
    assert!(message.starts_with("gradient of critic.") && message.contains("double precision"), "{message}");
}
