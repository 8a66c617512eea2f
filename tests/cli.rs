//! The program as a user meets it: flags, exit codes, files.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Two updates of a small network on the CPU.
const TINY: &str = "train --backend cpu --total-timesteps 256 --num-envs 2 --num-steps 64 --update-epochs 1 --hidden 8,8";
/// As long as it takes, unless somebody stops it.
const ENDLESS: &str =
    "train --backend cpu --total-timesteps 1000000000 --num-envs 2 --num-steps 64 --hidden 8,8 --target-return inf";

fn program(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppo-kernels"));
    command.args(arguments.split_whitespace()).env_remove("RUST_LOG").env("PPO_KERNELS_AUTOTUNE", "off");
    command
}

fn run(arguments: &str) -> Output {
    program(arguments).output().unwrap()
}

fn train_into(folder: &Path, arguments: &str) -> Output {
    program(arguments).arg("--output").arg(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn expect_code(output: &Output, code: i32) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn tensor_cores_are_not_to_be_had_on_a_cpu() {
    for arguments in [
        "train --backend cpu",
        "bench --quick --backend cpu",
        "verify --backend cpu",
        "check --backend cpu none.safetensors",
        "check --backend cpu-f64 none.safetensors",
    ] {
        for precision in ["f16-tensor-core", "f16x3-tensor-core"] {
            let output = run(&format!("{arguments} --precision {precision}"));
            expect_code(&output, 1);
            let errors = text(&output.stderr);
            let expected = format!("--precision {precision} conflicts with a CPU backend; pass --backend gpu, or leave it out\n");
            assert!(errors.contains(&expected), "{arguments}: {errors}");
        }
    }
}

#[test]
fn an_unchecked_device_is_not_to_be_had_on_a_cpu() {
    for arguments in ["train --backend cpu", "bench --quick --backend cpu"] {
        let output = run(&format!("{arguments} --unchecked"));
        expect_code(&output, 1);
        let errors = text(&output.stderr);
        assert!(errors.contains("--unchecked conflicts with a CPU backend; pass --backend gpu"), "{arguments}: {errors}");
    }
}

/// The one run folder in `output`.
#[track_caller]
fn run_folder(output: &Path) -> PathBuf {
    let folders: Vec<PathBuf> = std::fs::read_dir(output).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

/// Checks that a run left its four files, whole; returns the rows of its metrics by column name.
#[track_caller]
fn expect_files(folder: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["version"], env!("CARGO_PKG_VERSION"));
    serde_json::from_value::<ppo_kernels::ppo::Config>(config["config"].clone()).unwrap();

    let picture = std::fs::read_to_string(folder.join("learning_curve.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");

    let policy = std::fs::read(folder.join("policy.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&policy).unwrap();
    let run: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["run"]).unwrap();
    let env: ppo_kernels::env::EnvId = run["env"].as_str().unwrap().parse().unwrap();
    assert_eq!((&run["activation"], env.name()), (&"tanh".into(), config["env"].as_str().unwrap()));
    let policy = safetensors::SafeTensors::deserialize(&policy).unwrap();
    let mut names = policy.names();
    names.sort_unstable();
    for name in ["actor.W0", "actor.b0", "actor.W2", "critic.W0", "critic.b2"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }

    let mut left: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, ["config.json", "learning_curve.svg", "metrics.csv", "policy.safetensors"]);
    let rows = csv::Reader::from_path(folder.join("metrics.csv")).unwrap().into_deserialize();
    let rows: Vec<std::collections::HashMap<String, String>> = rows.collect::<Result<_, _>>().unwrap();
    if let Some(last) = rows.last() {
        assert_eq!(run["global_step"].to_string(), last["global_step"]);
        assert_eq!(run["mean_return"].as_f64(), last["mean_return"].parse().ok());
        let target = config["target_return"].as_f64().unwrap_or(f64::INFINITY);
        let is_solved = run["mean_return"].as_f64() >= Some(target) && last["episodes"].parse::<u64>().unwrap() >= 100;
        assert_eq!(run["solved"], is_solved);
    }
    rows
}

#[test]
fn help_names_commands_flags_and_exit_codes() {
    let output = run("--help");
    expect_code(&output, 0);
    for word in ["train", "verify", "adapters", "130", "Exit codes"] {
        assert!(text(&output.stdout).contains(word), "{word}");
    }
    let output = run("train --help");
    expect_code(&output, 0);
    for word in [
        "--env",
        "--num-envs",
        "--gae-lambda",
        "--clip-vloss",
        "--target-kl",
        "--output",
        "cross-check",
        "mountain-car-continuous",
    ] {
        assert!(text(&output.stdout).contains(word), "{word}");
    }
}

#[test]
fn a_command_line_that_cannot_be_parsed_exits_2_and_says_what_would_do() {
    for (arguments, hint) in [
        ("", "Usage"),
        ("fly", "fly"),
        ("train --gamma much", "--gamma"),
        ("train --env pong", "cartpole"),
        ("train --preset best", "cleanrl"),
        ("train --backend tpu", "cross-check"),
        ("train --activation swish", "silu"),
    ] {
        let output = run(arguments);
        expect_code(&output, 2);
        assert!(text(&output.stderr).contains(hint), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_value_out_of_range_is_named_before_anything_is_written() {
    for (flags, expected) in [
        ("--gamma 1.5", "--gamma is 1.5; pass a number in [0.0, 1.0]"),
        ("--gamma -0.5", "--gamma is -0.5; pass a number in [0.0, 1.0]"),
        ("--num-envs 0", "--num-envs is 0; pass a size from 1 to 4294967295"),
        ("--num-minibatches 100000", "--num-minibatches is 100000; pass at most --num-envs x --num-steps = 512"),
        ("--learning-rate NaN", "--learning-rate is NaN; pass a number in [0.0, "),
        ("--total-timesteps 10", "--total-timesteps is 10; pass at least --num-envs x --num-steps = 512"),
        ("--target-return NaN", "--target-return is NaN; pass a number"),
        ("--huber-delta 1", "--huber-delta conflicts with --clip-vloss; pass --clip-vloss false"),
        ("--adapter any", "--adapter any conflicts with a CPU backend; pass --backend gpu, or leave it out"),
    ] {
        for command in ["train --backend cpu", "train --backend cpu --print-config"] {
            if flags == "--adapter any" && command.ends_with("--print-config") {
                continue; // which opens no backend
            }
            let output = tempfile::tempdir().unwrap();
            let result = train_into(output.path(), &format!("{command} {flags}"));
            expect_code(&result, 1);
            let errors = text(&result.stderr);
            assert!(errors.starts_with(&format!("error: {expected}")), "{flags}: {errors}");
            assert_eq!(std::fs::read_dir(output.path()).unwrap().count(), 0, "{flags}");
        }
    }
}

/// The values come from the presets: pendulum discounts by 0.9, all the others by 0.99.
#[test]
fn help_shows_each_hyper_parameters_default() {
    let help = text(&run("train --help").stdout);
    for (flag, expected) in [
        ("--gamma <X>", "Discount [cleanrl, cleanrl-continuous, sb3 0.99; pendulum 0.9]"),
        ("--kl-stop <HOW>", "[cleanrl, cleanrl-continuous, pendulum after-epoch; sb3 before-step]"),
        ("--hidden <WIDTHS>", "[default: 64,64]"),
        ("--target-kl <X>", "[default: none]"),
        ("--seed <SEED>", "[default: 1]"),
    ] {
        let after = help.split_once(flag).unwrap_or_else(|| panic!("{flag} is not in\n{help}")).1;
        let words = after.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = words.find(" --").unwrap_or(words.len());
        assert!(words[..end].contains(expected), "{flag}: {}", &words[..end]);
    }
}

#[test]
fn print_config_prints_what_config_json_would_hold() {
    let output = tempfile::tempdir().unwrap();
    let flags = format!("{TINY} --preset sb3 --max-grad-norm inf --target-return inf");
    let printed = train_into(output.path(), &format!("{flags} --print-config"));
    expect_code(&printed, 0);
    assert_eq!(std::fs::read_dir(output.path()).unwrap().count(), 0, "nothing is written");
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();

    expect_code(&train_into(output.path(), &flags), 3);
    let written = std::fs::read(run_folder(output.path()).join("config.json")).unwrap();
    let mut written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert!(written.as_object_mut().unwrap().remove("backend").is_some());
    assert_eq!(printed, written);
}

/// Mesa's layer makes libwayland complain, unless the program sees to it.
#[cfg(target_os = "linux")]
#[test]
fn without_a_runtime_folder_no_driver_complains_of_it() {
    let output = tempfile::tempdir().unwrap();
    for arguments in [TINY.replace("--backend cpu", "--backend auto"), "adapters".to_owned()] {
        let output_flag: &[&std::ffi::OsStr] =
            if arguments == "adapters" { &[] } else { &["--output".as_ref(), output.path().as_os_str()] };
        for folder in [None, Some(""), Some("relative")] {
            let mut command = program(&arguments);
            command.args(output_flag).env_remove("XDG_RUNTIME_DIR").envs(folder.map(|folder| ("XDG_RUNTIME_DIR", folder)));
            let result = command.output().unwrap();
            assert!(!text(&result.stderr).contains("XDG_RUNTIME_DIR"), "{folder:?}: {}", text(&result.stderr));
            assert!(!result.stdout.is_empty(), "it has run");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_host_has_no_memory_for_is_an_error() {
    let output = tempfile::tempdir().unwrap();
    for (flags, what) in [
        ("--num-envs 400000000 --num-steps 1 --total-timesteps 400000000", "observations of --num-envs environments"),
        ("--hidden 30000,30000", "parameters"),
    ] {
        let train = format!("ulimit -v 3000000; exec {} train --backend cpu {flags}", env!("CARGO_BIN_EXE_ppo-kernels"));
        let result = Command::new("sh").args(["-c", &train]).current_dir(output.path()).output().unwrap();
        expect_code(&result, 1);
        let errors = text(&result.stderr);
        assert!(errors.contains("out of memory: ") && errors.contains(what), "{errors}");
        assert!(errors.ends_with("; pass smaller --num-envs, --num-steps or --hidden\n"), "{errors}");
    }
}

#[test]
fn an_adapter_that_does_not_exist_is_an_error_that_names_it() {
    for command in
        ["train --adapter nosuchadapter", "verify --adapter nosuchadapter", "verify --backend cpu --adapter nosuchadapter"]
    {
        let output = tempfile::tempdir().unwrap();
        let result = program(command).current_dir(output.path()).output().unwrap();
        expect_code(&result, 1);
        assert!(text(&result.stderr).contains("nosuchadapter"), "{}", text(&result.stderr));
    }
}

#[test]
fn a_name_in_wgpu_backend_that_nobody_knows_is_an_error_that_lists_those_that_exist() {
    let output = tempfile::tempdir().unwrap();
    for command in ["adapters", "train", "verify", "bench --backend gpu", "check --backend gpu none.safetensors"] {
        let mut command = program(command);
        let result = command.env("WGPU_BACKEND", "vulkan,bogus").current_dir(output.path()).output().unwrap();
        expect_code(&result, 1);
        let errors = text(&result.stderr);
        assert!(errors.contains("WGPU_BACKEND is \"bogus\"; set it to some of vulkan, dx12 and metal"), "{errors}");
    }
    expect_code(&program("verify --backend cpu --cases 0").env("WGPU_BACKEND", "bogus").output().unwrap(), 0);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_found_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "in the way").unwrap();
    let result = train_into(&file.join("runs"), ENDLESS);
    expect_code(&result, 1);
    assert!(text(&result.stderr).contains("a file"), "{}", text(&result.stderr));
}

#[test]
fn running_out_of_timesteps_exits_3_and_leaves_everything() {
    let output = tempfile::tempdir().unwrap();
    let result = train_into(output.path(), &format!("{TINY} --seed 7"));
    expect_code(&result, 3);
    assert!(text(&result.stdout).contains("out of timesteps"), "{}", text(&result.stdout));
    let folder = run_folder(output.path());
    assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("cartpole-7-"), "{}", folder.display());
    let rows = expect_files(&folder);
    assert_eq!(rows.len(), 2);
    for (row, step) in rows.iter().zip(["128", "256"]) {
        assert_eq!(row["global_step"], step);
        for column in
            ["loss", "pg_loss", "v_loss", "entropy", "approx_kl", "clipfrac", "grad_norm", "explained_variance", "learning_rate"]
        {
            assert!(row[column].parse::<f64>().unwrap().is_finite(), "{column}: {}", row[column]);
        }
    }
}

#[test]
fn reaching_the_target_exits_0() {
    let output = tempfile::tempdir().unwrap();
    let result = train_into(output.path(), &format!("{ENDLESS} --target-return 5").replace("--target-return inf", ""));
    expect_code(&result, 0);
    assert!(text(&result.stdout).contains("solved"), "{}", text(&result.stdout));
    let rows = expect_files(&run_folder(output.path()));
    let episodes: u64 = rows.last().unwrap()["episodes"].parse().unwrap();
    assert!(episodes >= 100, "solved after {episodes} episodes, at least 100 count");
}

#[test]
fn an_update_that_fails_exits_1_names_the_tensor_and_leaves_everything() {
    let output = tempfile::tempdir().unwrap();
    // Beyond f32: the first minibatch makes the parameters huge, the second has infinite gradients.
    let result = train_into(output.path(), &format!("{TINY} --learning-rate 1e38"));
    expect_code(&result, 1);
    assert!(text(&result.stderr).contains("is not finite"), "{}", text(&result.stderr));
    assert_eq!(expect_files(&run_folder(output.path())).len(), 0);
}

#[test]
fn every_environment_trains() {
    for env in ["cartpole", "acrobot", "pendulum", "mountain-car-continuous"] {
        let output = tempfile::tempdir().unwrap();
        let result = train_into(output.path(), &format!("{TINY} --env {env}"));
        expect_code(&result, 3);
        assert_eq!(expect_files(&run_folder(output.path())).len(), 2, "{env}");
    }
}

#[test]
fn the_same_seed_gives_the_same_numbers_bit_for_bit() {
    let train = |seed: u64| {
        let output = tempfile::tempdir().unwrap();
        expect_code(&train_into(output.path(), &format!("{TINY} --seed {seed}")), 3);
        let folder = run_folder(output.path());
        ["metrics.csv", "policy.safetensors", "learning_curve.svg"].map(|file| std::fs::read(folder.join(file)).unwrap())
    };
    let first = train(3);
    assert!(first == train(3), "two runs with seed 3 differ");
    assert!(first != train(4), "seeds 3 and 4 give the same run");
}

#[test]
fn a_preset_and_the_flags_over_it_end_up_in_config_json() {
    let output = tempfile::tempdir().unwrap();
    let flags =
        "--preset sb3 --gamma 0.9 --num-envs 2 --num-steps 64 --num-minibatches 2 --update-epochs 1 --total-timesteps 128";
    let infinite = "--target-return inf --max-grad-norm inf";
    expect_code(&train_into(output.path(), &format!("train --backend cpu {flags} {infinite}")), 3);
    let config = std::fs::read(run_folder(output.path()).join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["preset"], &config["env"]), (&"sb3".into(), &"cartpole".into()));
    assert_eq!((&config["config"]["gamma"], &config["config"]["bootstrap_truncated"]), (&0.9.into(), &true.into()));
    assert_eq!((&config["target_return"], &config["config"]["max_grad_norm"]), (&"inf".into(), &"inf".into()));
    assert!(config["backend"].as_str().unwrap().contains("CPU"), "{config}");
}

#[test]
fn without_a_hardware_gpu_auto_says_so_on_one_line_and_trains() {
    let output = tempfile::tempdir().unwrap();
    let result = train_into(output.path(), &TINY.replace("--backend cpu", "--backend auto"));
    expect_code(&result, 3);
    let lines = text(&result.stderr).lines().filter(|line| line.contains("using the CPU backend")).count();
    let on_cpu = text(&result.stdout).contains("on CPU");
    assert_eq!(lines, usize::from(on_cpu), "{}", text(&result.stderr));
}

#[test]
fn trains_on_an_adapter_and_cross_checked() {
    let Some(_) = common::gpu() else { return };
    for backend in ["gpu", "cross-check"] {
        let output = tempfile::tempdir().unwrap();
        let result = train_into(output.path(), &TINY.replace("--backend cpu", &format!("--backend {backend}")));
        expect_code(&result, 3);
        expect_files(&run_folder(output.path()));
    }
}

/// Starts a run that does not end by itself, and waits until it trains.
fn started(output: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = program(ENDLESS);
    let mut child = command.arg("--output").arg(output).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("steps/s") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "ended before it trained");
    }
    (child, stdout)
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupt_finishes_the_update_saves_and_exits_130() {
    for name in ["-INT", "-TERM"] {
        let output = tempfile::tempdir().unwrap();
        let (mut child, mut stdout) = started(output.path());
        signal(&child, name);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}");
        assert!(rest.contains("interrupted"), "{rest}");
        let rows = expect_files(&run_folder(output.path()));
        assert!(!rows.is_empty());
    }
}

#[cfg(unix)]
#[test]
fn a_reader_who_leaves_does_not_end_the_training() {
    let output = tempfile::tempdir().unwrap();
    let (mut child, stdout) = started(output.path());
    drop(stdout);
    // A line is due every two seconds.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(child.try_wait().unwrap().is_none(), "still training");
    signal(&child, "-INT");
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    expect_files(&run_folder(output.path()));
}

#[test]
fn adapters_are_listed_with_what_they_can_do() {
    let Some(gpu) = common::gpu() else { return };
    let output = run("adapters");
    expect_code(&output, 0);
    let listed = text(&output.stdout);
    for word in [gpu.context.name(), "kind", "driver", "iB", "f16"] {
        assert!(listed.contains(word), "{word} is not in\n{listed}");
    }
}

#[test]
fn an_adapter_is_known_by_its_number_in_the_list_too() {
    let Some(gpu) = common::gpu() else { return };
    let check = |adapter: &str| {
        let mut command = program("check --adapter");
        command.arg(adapter).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/activations.safetensors")).output().unwrap()
    };
    let number = ppo_kernels::gpu::adapters().iter().position(|adapter| adapter.info.name == gpu.context.name()).unwrap();
    let found = check(&number.to_string());
    expect_code(&found, 0);
    assert!(text(&found.stdout).contains(gpu.context.name()), "{}", text(&found.stdout));
    // No adapter has this number, so it is looked for in their names.
    let missing = check("98765");
    expect_code(&missing, 1);
    assert!(text(&missing.stderr).contains("the name \"98765\""), "{}", text(&missing.stderr));
}

#[test]
fn adapters_say_where_choices_are_cached() {
    if common::gpu().is_none() {
        return;
    }
    let listed = |switch: &str, folder: &Path| {
        let mut command = program("adapters");
        command.env("PPO_KERNELS_AUTOTUNE", switch).env("PPO_KERNELS_CACHE_DIR", folder);
        text(&command.output().unwrap().stdout)
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cache");
    assert!(listed("on", &folder).contains(folder.to_str().unwrap()));
    let off = listed("off", &folder);
    assert!(off.contains("PPO_KERNELS_AUTOTUNE=off") && !off.contains(folder.to_str().unwrap()), "{off}");
    assert!(!folder.exists(), "looking makes no folder");
}

#[test]
fn where_there_is_no_adapter_the_list_says_so_and_exits_1() {
    let nothing = "/nonexistent";
    let mut command = program("adapters");
    for variable in ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"] {
        command.env(variable, nothing);
    }
    let output = command.output().unwrap();
    if cfg!(target_os = "linux") {
        expect_code(&output, 1);
        assert!(text(&output.stdout).contains("no adapter"), "{}", text(&output.stdout));
    }
}

#[test]
fn verify_passes_on_the_cpu_backend_and_prints_a_table() {
    let output = run("verify --backend cpu --cases 1");
    expect_code(&output, 0);
    let table = text(&output.stdout);
    for word in ppo_kernels::verify::KERNELS.iter().chain(&["worst error", "allowed", "within their tolerances"]) {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
}

#[test]
fn planted_faults_are_noticed_and_only_they() {
    let Some(_) = common::gpu() else { return };
    let faults = ppo_kernels::verify::faults::faults();
    let find = |shader: &str, place: &str| {
        faults.iter().find(|fault| fault.shader == shader && fault.place == place).unwrap_or_else(|| panic!("no {place}"))
    };
    let harmful = find("gather", "target_rows[element] = source[source_row(row) * params.width «+» column];");
    let harmless = find("optimizer", "if limited && divisor «>» max_grad_norm {");
    assert!(harmless.explanation().is_some());
    for (plant, last) in [
        ("gather".to_owned(), "unnoticed"),
        (format!("gather@{}", harmful.start()), "missed gather_floats: "),
        (format!("optimizer@{}", harmless.start()), "unnoticed"),
    ] {
        let output = run(&format!("verify --plant {plant}"));
        expect_code(&output, 0);
        let lines = text(&output.stdout);
        assert!(lines.lines().last().is_some_and(|line| line.starts_with(last)), "{plant}: {lines}");
    }
    expect_code(&run("verify --plant gather@1"), 1);
}

#[test]
fn planted_faults_are_drawn_counted_and_reported() {
    let Some(_) = common::gpu() else { return };
    let output = run("verify --planted-faults 2 --seed 3 --jobs 1");
    let lines = text(&output.stdout);
    assert!(lines.contains(" of 2 planted faults noticed, "), "{lines}");
    let unnoticed = lines.contains("\nunnoticed: ");
    expect_code(&output, i32::from(unnoticed));
    let refused = run("verify --planted-faults 2 --backend cpu");
    expect_code(&refused, 1);
    assert!(text(&refused.stderr).contains("backend: expected gpu"));
}
