//! `ppo-kernels check` as a user meets it.

use std::process::{Command, Output};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::common;
use crate::draft::{Draft, path_of, public};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ppo-kernels"))
        .arg("check")
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("PPO_KERNELS_AUTOTUNE", "off")
        .output()
        .unwrap()
}

#[track_caller]
fn expect_code(output: &Output, code: i32) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stdout.into_owned()
}

fn arguments(case: &str) -> String {
    path_of(case).to_str().unwrap().to_owned()
}

fn lines(stdout: &str) -> Vec<serde_json::Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_program_says_one_line_a_file_and_a_summary() {
    let [a, b] = [arguments("gae_02_T5_N3_g0.99_l0.95"), arguments("activations")];
    let stdout = expect_code(&program(&["--backend", "cpu", &a, &b]), 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    let first = format!("ok   {a} (gae): 7 tensors, worst out.");
    assert!(lines[0].starts_with(&first), "{stdout}");
    assert_eq!(lines[2], "2 of 2 cases passed on CPU (f32)");
    expect_code(&program(&[]), 2);
    expect_code(&program(&["--backend", "abacus", &a]), 2);
    expect_code(&program(&["--backend", "cpu-f64", "--adapter", "any", &a]), 1);
}

#[test]
fn a_folder_stands_for_the_case_files_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder_name = folder.path().to_str().unwrap();
    let stdout = expect_code(&program(&["--backend", "cpu", folder_name]), 1);
    assert!(stdout.contains("is a folder without a case file") && stdout.contains("0 of 1"), "{stdout}");
    for case in ["update_single_step", "activations"] {
        std::fs::copy(path_of(case), folder.path().join(format!("{case}.safetensors"))).unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "no case").unwrap();
    std::fs::create_dir(folder.path().join("more.safetensors")).unwrap();
    let stdout = expect_code(&program(&["--backend", "cpu", folder_name, &arguments("activations")]), 0);
    let paths: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("ok   ")?.split(' ').next()).collect();
    let [first, second] = ["activations", "update_single_step"].map(|case| folder.path().join(format!("{case}.safetensors")));
    assert_eq!(paths, [first.to_str().unwrap(), second.to_str().unwrap(), &arguments("activations")], "{stdout}");
    // Outputs must not replace what a folder stands for either.
    let stdout = expect_code(&program(&["--backend", "cpu", "--outputs", folder_name, folder_name]), 1);
    assert_eq!(stdout.matches("is a case file, which outputs must not replace").count(), 2, "{stdout}");
}

#[test]
fn json_has_one_line_a_file_on_every_backend() {
    let files = [arguments("update_single_step"), arguments("activations")];
    let mut backends = vec!["cpu", "cpu-f64"];
    backends.extend(common::gpu().map(|_| "gpu"));
    for backend in backends {
        let lines = lines(&expect_code(&program(&["--json", "--backend", backend, &files[0], &files[1]]), 0));
        assert_eq!(lines.len(), 2);
        let line = &lines[0];
        let mut keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["adapter", "backend", "case", "kind", "listed", "passed", "path", "tensors", "unused", "worst"]);
        assert_eq!((&line["path"], &line["listed"]), (&files[0].as_str().into(), &serde_json::json!([])));
        assert_eq!((&line["case"], &line["kind"]), (&"update_single_step".into(), &"ppo_update".into()));
        assert_eq!((&line["backend"], &line["passed"]), (&backend.into(), &true.into()));
        assert!(!line["adapter"].as_str().unwrap().is_empty());
        let worst = &line["worst"];
        assert!(worst["tensor"].is_string() && worst["error"].as_f64().unwrap() <= worst["allowed"].as_f64().unwrap(), "{line}");
        let expected = Draft::of("update_single_step").names(&["out.", "grad."]).len();
        assert_eq!(line["tensors"], expected);
    }
}

#[test]
fn what_is_wrong_with_a_file_does_not_keep_the_others_from_being_checked() {
    let [folder, empty] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(format!("{name}.safetensors"));
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut wrong = Draft::of("activations");
    let values: Vec<f64> = wrong.floats("out.silu").iter().map(|value| value + 1.0).collect();
    wrong.set_floats("out.silu", &values);
    let mut unknown = Draft::of("activations");
    unknown.metadata.insert("kind".to_owned(), "telepathy".to_owned());
    let mut uncomputed = Draft::of("activations");
    uncomputed.tensors.insert("out.wisdom".to_owned(), (Dtype::F64, vec![1], vec![0; 8]));
    let files = [
        write("wrong", &wrong.bytes()),
        write("unknown", &unknown.bytes()),
        write("garbage", b"garbage"),
        folder.path().join("absent.safetensors").to_str().unwrap().to_owned(),
        empty.path().to_str().unwrap().to_owned(),
        write("uncomputed", &uncomputed.bytes()),
        arguments("activations"),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let lines = lines(&expect_code(&program(&[&["--json", "--backend", "cpu"], &files[..]].concat()), 1));
    let passed: Vec<bool> = lines.iter().map(|line| line["passed"].as_bool().unwrap()).collect();
    assert_eq!(passed, [false, false, false, false, false, false, true]);
    assert_eq!((&lines[0]["worst"]["tensor"], &lines[0]["error"]), (&"out.silu".into(), &serde_json::Value::Null));
    assert_eq!(lines[1]["kind"], "telepathy");
    for line in &lines[1..5] {
        assert!(line["error"].is_string() && line["worst"].is_null() && line["tensors"] == 0, "{line}");
    }
    assert_eq!((&lines[2]["case"], &lines[2]["kind"]), (&"garbage".into(), &serde_json::Value::Null));
    assert_eq!((&lines[5]["worst"]["tensor"], &lines[5]["worst"]["error"]), (&"out.wisdom".into(), &serde_json::Value::Null));

    let stdout = expect_code(&program(&[&["--backend", "cpu"], &files[..]].concat()), 1);
    let failed = |file: &str| format!("FAIL {file}");
    for text in [
        &*failed(&format!("{} (activations): 1 of 14 tensors differ", files[0])),
        "FAIL out.silu: ",
        &failed(&format!("{}: ", files[2])),
        "FAIL out.wisdom: no result",
        "1 of 7 cases passed",
    ] {
        assert!(stdout.contains(text), "no {text:?} in\n{stdout}");
    }
}

#[test]
fn a_failure_is_told_in_the_order_of_computing_with_the_element_that_is_furthest_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("planted.safetensors");
    let path = file.to_str().unwrap();
    let mut draft = Draft::of("update_single_step");
    for name in
        ["out.returns", "out.adam_m.actor.W0", "grad.first.actor.b0", "out.first.logp", "out.delta.actor.b0", "out.advantages"]
    {
        let mut values = draft.floats(name);
        values[1] = 7.5;
        if name == "out.returns" {
            values[0] += 0.5;
        }
        draft.set_floats(name, &values);
    }
    std::fs::write(&file, draft.bytes()).unwrap();
    let stdout = expect_code(&program(&["--backend", "cpu", path]), 1);
    let listed: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("     FAIL ")?.split(':').next()).collect();
    let first = ["out.advantages", "out.returns", "out.first.logp", "grad.first.actor.b0"];
    assert_eq!(listed, [&first[..], &["out.delta.actor.b0"]].concat(), "{stdout}");
    // The second of T·N in the second of N environments.
    assert!(
        stdout.contains("; off from [0, 0] on, [0, 1] is ")
            && stdout.contains("; [0, 1] is ")
            && stdout.contains(", expected 7.500000000e0"),
        "{stdout}"
    );
    assert!(stdout.contains("and 1 more tensors (--all lists them)") && stdout.contains("not used: attempt"), "{stdout}");
    let stdout = expect_code(&program(&["--backend", "cpu", "--all", path]), 1);
    let (failed, passed) = (stdout.matches("     FAIL ").count(), stdout.matches("     ok   ").count());
    assert_eq!((failed, failed + passed), (6, draft.names(&["out.", "grad."]).len()), "{stdout}");
    let line = &lines(&expect_code(&program(&["--backend", "cpu", "--json", path]), 1))[0];
    let of_advantages = &line["listed"][0];
    assert_eq!((line["listed"].as_array().unwrap().len(), &of_advantages["index"]), (6, &serde_json::json!([0, 1])));
    assert_eq!((&of_advantages["first"], &line["listed"][1]["first"]), (&serde_json::json!([0, 1]), &serde_json::json!([0, 0])));
    assert_eq!((&of_advantages["expected"], &line["unused"]), (&7.5.into(), &serde_json::json!(["attempt"])));
}

#[test]
fn double_precision_is_held_to_more_and_a_tolerance_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nearly.safetensors");
    let path = file.to_str().unwrap();
    let mut draft = Draft::of("activations");
    let values: Vec<f64> = draft.floats("out.silu").iter().map(|value| value * (1.0 + 5e-6)).collect();
    draft.set_floats("out.silu", &values);
    std::fs::write(&file, draft.bytes()).unwrap();
    for (arguments, code) in [
        (&["--backend", "cpu"][..], 0),
        (&["--backend", "cpu-f64"], 1),
        (&["--backend", "cpu-f64", "--tolerance", "1e-5"], 0),
        (&["--backend", "cpu", "--tolerance", "4e-6"], 1),
        (&["--backend", "cpu", "--tolerance", "NaN"], 2),
        (&["--backend", "cpu", "--tolerance", "-1"], 2),
    ] {
        expect_code(&program(&[arguments, &[path]].concat()), code);
    }
    // What single precision is allowed does not count in double.
    draft.metadata.insert("f32err:out.silu".to_owned(), "1e-3".to_owned());
    std::fs::write(&file, draft.bytes()).unwrap();
    expect_code(&program(&["--backend", "cpu", "--tolerance", "4e-6", path]), 0);
    expect_code(&program(&["--backend", "cpu-f64", path]), 1);
    let stdout = expect_code(&program(&["--backend", "cpu-f64", public().to_str().unwrap()]), 0);
    assert!(stdout.ends_with("99 of 99 cases passed on CPU (f64)\n"), "{stdout}");
}

#[test]
fn outputs_hold_what_was_computed_under_the_same_names() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = folder.path().join("new/outputs");
    let cases = ["categorical_B7_A2_s1", "update_single_step", "adam_adamw"];
    let files: Vec<String> = cases.iter().map(|case| arguments(case)).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    expect_code(&program(&[&["--backend", "cpu-f64", "--outputs", outputs.to_str().unwrap()], &files[..]].concat()), 0);
    for case in cases {
        let bytes = std::fs::read(outputs.join(format!("{case}.safetensors"))).unwrap();
        let written = SafeTensors::deserialize(&bytes).unwrap();
        let expected = Draft::of(case);
        let mut names: Vec<&str> = written.names();
        names.sort_unstable();
        let mut wanted = expected.names(&["out.", "grad."]);
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        for (name, view) in written.iter() {
            let (dtype, shape, data) = &expected.tensors[name];
            assert_eq!((view.dtype(), view.shape()), (*dtype, &shape[..]), "{name}");
            if *dtype == Dtype::I64 {
                assert_eq!(view.data(), data);
                continue;
            }
            let values: Vec<f64> = view.data().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
            let norm = expected.floats(name).iter().map(|value| value * value).sum::<f64>().sqrt();
            if norm > 0.0 {
                let error = common::relative_error(&values, &expected.floats(name));
                assert!(error <= 1e-5, "{case}: {name}: {error:e}");
            }
        }
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        assert_eq!((metadata["case"].as_str(), metadata["backend"].as_str()), (case, "cpu-f64"));
    }
    let left = std::fs::read_dir(&outputs).unwrap().count();
    assert_eq!(left, cases.len(), "nothing else is left in the folder");
}

#[test]
fn outputs_that_cannot_be_written_lose_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let [a, b] = [arguments("gae_02_T5_N3_g0.99_l0.95"), arguments("activations")];
    let output = program(&["--json", "--backend", "cpu", "--outputs", file.to_str().unwrap(), &a, &b]);
    let found = lines(&expect_code(&output, 1));
    assert_eq!(found.len(), 2);
    for line in &found {
        assert!(line["passed"] == true && line["error"].as_str().unwrap().contains("file"), "{line}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "in the way");

    // Two cases of one name, and outputs that would replace their own case.
    let copy = folder.path().join("activations.safetensors");
    std::fs::copy(path_of("activations"), &copy).unwrap();
    let (copy, outputs) = (copy.to_str().unwrap(), folder.path().join("outputs"));
    let output = program(&["--json", "--backend", "cpu", "--outputs", outputs.to_str().unwrap(), &b, copy]);
    let found = lines(&expect_code(&output, 1));
    assert!(found[0]["error"].is_null() && found[1]["error"].as_str().unwrap().contains("another case"), "{found:?}");
    let output = program(&["--json", "--backend", "cpu", "--outputs", folder.path().to_str().unwrap(), copy]);
    let found = lines(&expect_code(&output, 1));
    assert!(found[0]["error"].as_str().unwrap().contains("must not replace"), "{found:?}");
    assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(path_of("activations")).unwrap());
}
