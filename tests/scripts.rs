//! The summary of scripts/measure-gpu, of a small recorded run.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn write(folder: &Path, name: &str, records: &Value) {
    let adapter = json!({ "name": "a card", "driver": "its driver", "driver_info": "1.2" });
    let meta = json!({ "adapter": adapter, "commit": "0123abc", "peaks": { "gflops": 1000.0, "gbps": 100.0 } });
    std::fs::write(folder.join(name), json!({ "meta": meta, "records": records }).to_string()).unwrap();
}

/// A run whose copies reach 100 GB/s (of 2^28 bytes) and 200 GB/s (of 2^25), and whose multiply-adds reach 1000 GFLOP/s.
fn record(folder: &Path, parts: &str) {
    let (small, large) = (f64::from(1 << 25), f64::from(1 << 28));
    std::fs::create_dir(folder.join("peers")).unwrap();
    std::fs::write(folder.join("parts.tsv"), parts).unwrap();
    write(
        folder,
        "bench-f32.json",
        &json!([
            { "bench": "limits/copy_16MiB", "bytes": small, "min_s": small / 200e9, "median_s": small / 100e9 },
            { "bench": "limits/copy_128MiB", "bytes": large, "min_s": large / 100e9, "median_s": large / 50e9 },
            { "bench": "limits/arithmetic", "flops": 1e9, "min_s": 1e-3, "median_s": 2e-3 },
            { "bench": "gae/T16_N65536", "bytes": 20e6, "median_s": 20e6 / 170e9 },
            { "bench": "gae/T1024_N1024", "bytes": 20e6, "median_s": 20e6 / 150e9 },
            { "bench": "loss_cat/A18_B1048576", "bytes": 1e9, "median_s": 1e9 / 71e9 },
            { "bench": "loss_gauss/A6_B1048576", "skipped": "a buffer too large" },
            { "bench": "mlp_fwd/B65536_128-1024-1024-32", "flops": 1e9, "median_s": 1e-3 / 0.61 },
        ]),
    );
    let timed = |bench: &str, framework: &str, variant: &str, precision: &str, median_s: f64| json!({ "bench": bench, "framework": framework, "variant": variant, "precision": precision, "median_s": median_s });
    write(
        &folder.join("peers"),
        "1.json",
        &json!([
            timed("update/i_cartpole", "ppo-kernels", "default", "f32", 1.0),
            timed("update/i_cartpole", "torch", "eager_cleanrl", "f32", 9.0),
            timed("update/i_cartpole", "torch", "compile_cudagraph", "f32", 2.9),
            timed("update/i_cartpole", "torch", "compile_cudagraph_tf32", "tf32", 0.1),
            timed("update/iii_isaac", "ppo-kernels", "f16-tensor-core", "f16", 1.0),
            timed("update/iii_isaac", "torch", "compile_cudagraph_bf16", "bf16", 1.5),
        ]),
    );
}

fn summarize(folder: &Path) -> Option<Output> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/measure_gpu_summary.py");
    let output = Command::new("python3").arg(script).arg(folder).output();
    if output.is_err() {
        eprintln!("without python3 nothing is tested");
    }
    output.ok()
}

#[test]
fn the_summary_says_which_aims_are_met_and_what_was_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), "adapters\tpassed\t1\t20\t\nverify\tout of time\t90\t100\t\nbench-f32\tpassed\t80\t110\t\n");
    let Some(output) = summarize(folder.path()) else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(folder.path().join("summary.md")).unwrap(), text);
    for line in [
        "a card, its driver 1.2; commit 0123abc; peaks 1000 GFLOP/s, 100 GB/s",
        "Parts: 2 passed (adapters, bench-f32); 0 failed; 1 out of time (verify).",
        "Aims: 4 met, 2 missed, 9 not measured.",
        "| update/i_cartpole, f32 | best f32 peer | 3.00 x | 2.90 x | MISSED; torch compile_cudagraph |",
        "| update/iii_isaac, f32 | best f32 peer | 1.20 x | – | ppo-kernels: not measured |",
        "| update/iii_isaac, f16 | best tf32 or bf16 peer | 1.00 x | 1.50 x | met; torch compile_cudagraph_bf16 |",
        "| gae/T16_N65536 | copy bandwidth | 80 % | 85 % | met |",
        "| gae/T1024_N1024 | copy bandwidth | 80 % | 75 % | MISSED |",
        "| loss_cat/A18_B1048576 | copy bandwidth | 70 % | 71 % | met |",
        "| loss_gauss/A6_B1048576 | copy bandwidth | 70 % | – | skipped: a buffer too large |",
        "| mlp_fwd/B65536_128-1024-1024-32, f32 | multiply-add peak | 60 % | 61 % | met |",
        "Without figures of jax: peers need numpy, torch, jax and optax in the Python that --python names.",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn a_part_that_failed_is_named_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), "verify\tfailed\t9\t100\texit status 1: 3 of 99 cases missed\n");
    let Some(output) = summarize(folder.path()) else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("1 failed (verify)") && text.contains("exit status 1: 3 of 99 cases missed"), "{text}");
}
