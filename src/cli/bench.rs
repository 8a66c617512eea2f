//! `ppo-kernels bench`: how fast every kernel and four whole updates are, beside what the adapter can do at best.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use ppo_kernels::backend::Gpu;
use ppo_kernels::bench::{Benchmarked, Effort, Finding, Options, Peaks, Record, names, run as run_benches, sweep as sweeps};
use ppo_kernels::{Error, Result};
use serde_json::{Value, json};

use super::backend::{BackendArgs, Opened};
use super::run_folder::{utc, write_whole};
use super::{Outcome, output, roofline, sweep};

/// Time every kernel and four whole PPO updates. Results are checked against double precision before they are timed.
///
/// Peaks (a copy, and arithmetic on registers or a matrix product) are measured in the same run; `% of peak` is the share of what
/// they allow a kernel with its operations and bytes. Wall time from the call until the result can be used, median and 10-90 % quantiles;
/// on a GPU with timestamp queries also its own time, without the host's and without waiting for a submission to begin.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(flatten)]
    backend: BackendArgs,
    /// Only benches whose name contains one of these, separated by commas
    #[arg(long, value_name = "PATTERN", default_value = "")]
    only: String,
    /// Also write all figures and the machine's description to OUT
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Also draw operations a second over operations a byte, under the roofline of the measured peaks; of a sweep, time over size
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,
    /// Small shapes and few samples: enough to see that everything runs
    #[arg(long)]
    quick: bool,
    /// Instead vary one size at a time: a minibatch's samples, the networks' width, the rollout's length
    #[arg(long)]
    sweep: bool,
}

/// Runs the benches, prints the table and writes the files.
pub fn run(args: &BenchArgs) -> Result<Outcome> {
    refuse_other_names(args)?;
    match args.backend.open()? {
        Opened::Cpu(cpu) => measure(cpu, args, &json!({ "name": "CPU" })),
        Opened::Gpu(gpu) => {
            let adapter = describe_adapter(&gpu);
            measure(gpu, args, &adapter)
        }
        Opened::CrossCheck(_) => Err(Error::InvalidValue {
            argument: "backend".to_owned(),
            expected: "auto, gpu or cpu: everything that is timed is checked first anyway".to_owned(),
            actual: "cross-check".to_owned(),
        }),
    }
}

fn options(args: &BenchArgs) -> Options {
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    Options { only: args.only.clone(), effort, small: args.quick }
}

/// A pattern for what only the other kind of run has: said before anything is opened or measured, and in fewer words than all names.
fn refuse_other_names(args: &BenchArgs) -> Result<()> {
    let options = options(args);
    let (benches, sizes) = (names(&options), sweeps::names(&options));
    let (here, there) = if args.sweep { (sizes, benches) } else { (benches, sizes) };
    if options.fits(&here) || !options.fits(&there) {
        return Ok(());
    }
    let expected = if args.sweep { "part of a name `sweep/AXIS/SIZE` with --sweep" } else { "--sweep beside it" };
    Err(Error::InvalidValue { argument: "only".to_owned(), expected: expected.to_owned(), actual: args.only.clone() })
}

fn describe_adapter(gpu: &Gpu) -> Value {
    let info = gpu.context.adapter_info();
    json!({
        "name": info.name,
        "kind": format!("{:?}", info.device_type),
        "api": info.backend.to_string(),
        "driver": info.driver,
        "driver_info": info.driver_info,
    })
}

fn measure<B: Benchmarked>(backend: B, args: &BenchArgs, adapter: &Value) -> Result<Outcome> {
    let device = backend.describe();
    output::line(&device)?;
    let mut findings = Vec::new();
    let mut report = |finding| {
        tell(&finding);
        findings.push(finding);
    };
    let run = if args.sweep { sweeps::run } else { run_benches };
    let (_, peaks) = run(backend, &options(args), &mut report)?;
    output::line(&table(&findings))?;
    output::line(&format!(
        "peaks of this run: {:.0} GFLOP/s{}; {:.0} GB/s up to {:.0} MB, {:.0} GB/s beyond",
        peaks.gflops,
        peaks.tensor_gflops.map_or(String::new(), |gflops| format!(", {gflops:.0} on tensor cores")),
        peaks.copies[0].gbps,
        peaks.copies[0].bytes / 1e6,
        peaks.copies[1].gbps
    ))?;
    if let Some(path) = &args.json {
        write_json(path, args, adapter, &peaks, &findings)?;
    }
    if let Some(path) = &args.plot {
        let draw = if args.sweep { sweep::draw } else { roofline::draw };
        write_whole(path, draw(&findings, &peaks, &device).as_bytes())?;
    }
    Ok(Outcome::Success)
}

fn tell(finding: &Finding) {
    match finding {
        Finding::Timed(record) => output::note(&format!("{}: {}", record.bench, duration(record.median_s))),
        Finding::Skipped { bench, skipped, .. } => output::note(&format!("{bench}: skipped: {skipped}")),
    }
}

/// Three digits and a unit.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (1e3 * s, "ms"),
        s => (1e6 * s, "µs"),
    };
    let digits = if value >= 100.0 { 0 } else { 2 - value.max(1.0).log10() as usize };
    format!("{value:.digits$} {unit}")
}

fn rate(record: &Record) -> String {
    let rates = [("gflops", "GFLOP/s"), ("eff_gbps", "GB/s")];
    let found = rates.iter().filter_map(|(key, unit)| Some(format!("{:.1} {unit}", record.derived.get(key)?)));
    found.collect::<Vec<_>>().join(", ")
}

fn table(findings: &[Finding]) -> String {
    let any = |has: fn(&Record) -> bool| findings.iter().any(|finding| matches!(finding, Finding::Timed(record) if has(record)));
    let has_gpu_times = any(|record| record.gpu_s.is_some());
    let has_memory = any(|record| record.derived.contains_key("memory_bytes"));
    let mut header = vec!["bench", "median", "10-90 %"];
    header.extend(has_gpu_times.then_some("GPU"));
    header.extend(["rate", "% of peak"]);
    header.extend(has_memory.then_some("memory"));
    let mut table = output::table(&header);
    for finding in findings {
        match finding {
            Finding::Timed(record) => {
                let quantiles = format!("{} - {}", duration(record.p10_s), duration(record.p90_s));
                let mut row = vec![record.bench.clone(), duration(record.median_s), quantiles];
                if has_gpu_times {
                    row.push(record.gpu_s.map_or("-".to_owned(), duration));
                }
                row.push(rate(record));
                let percent = record.derived.get("percent_of_peak");
                row.push(percent.map_or("-".to_owned(), |percent| format!("{percent:.1}")));
                if has_memory {
                    let bytes = record.derived.get("memory_bytes");
                    row.push(bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MB", bytes / 1e6)));
                }
                table.add_row(row)
            }
            Finding::Skipped { bench, .. } => {
                let mut row = vec!["-"; header.len()];
                (row[0], row[1]) = (bench, "skipped");
                table.add_row(row)
            }
        };
    }
    table.to_string()
}

fn write_json(path: &Path, args: &BenchArgs, adapter: &Value, peaks: &Peaks, findings: &[Finding]) -> Result<()> {
    let report = json!({
        "meta": {
            "date": utc(SystemTime::now()),
            "cpu": cpu_model(),
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "adapter": adapter,
            "versions": { "ppo-kernels": env!("CARGO_PKG_VERSION") },
            "commit": commit(),
            "quick": args.quick,
            "sweep": args.sweep,
            "peaks": {
                "gflops": peaks.gflops,
                "tensor_gflops": peaks.tensor_gflops,
                "gbps_cached": peaks.copies[0].gbps,
                "gbps": peaks.copies[1].gbps,
            },
        },
        "records": findings,
    });
    write_whole(path, format!("{report:#}\n").as_bytes())
}

/// The processor's name, where the system tells.
fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit of the working directory, where that is a checkout of this project; `-dirty` behind it if something was changed.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).ok()?;
    manifest.lines().find(|line| *line == concat!("name = \"", env!("CARGO_PKG_NAME"), "\""))?;
    git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(gpu_s: Option<f64>) -> Finding {
        Finding::Timed(Box::new(Record {
            bench: "gae/T2_N1".to_owned(),
            variant: "default",
            framework: "ppo-kernels",
            device: String::new(),
            median_s: 2e-3,
            min_s: 1e-3,
            p10_s: 1e-3,
            p90_s: 3e-3,
            reps: 3,
            inner: 1,
            first_call_s: 1.0,
            gpu_s,
            encode_s: None,
            flops: 0.0,
            bytes: 0.0,
            derived: [].into(),
            check: [].into(),
        }))
    }

    #[test]
    fn the_gpus_time_has_a_column_only_where_somebody_has_measured_it() {
        let without = table(&[record(None)]);
        assert!(without.contains("2.00 ms") && !without.contains("GPU"), "{without}");
        let skipped = Finding::Skipped {
            bench: "huge".to_owned(),
            framework: "ppo-kernels",
            device: String::new(),
            skipped: String::new(),
        };
        let with = table(&[record(Some(1.5e-3)), record(None), skipped]);
        assert!(with.contains("GPU") && with.contains("1.50 ms") && with.contains("skipped"), "{with}");
    }

    #[test]
    fn memory_has_a_column_only_beside_whole_updates() {
        let mut update = record(None);
        if let Finding::Timed(record) = &mut update {
            record.derived.insert("memory_bytes", 12_345_678.0);
        }
        let with = table(&[record(None), update]);
        assert!(with.contains("memory") && with.contains("12.3 MB"), "{with}");
        assert!(!table(&[record(None)]).contains("memory"));
    }

    #[test]
    fn durations_have_three_digits() {
        let shown = [1.5e-6, 12.34e-6, 0.5e-6, 123.4e-6, 0.99999, 2.0, 61.4, 345.6].map(duration);
        assert_eq!(shown, ["1.50 µs", "12.3 µs", "0.50 µs", "123 µs", "1000 ms", "2.00 s", "61.4 s", "346 s"]);
    }
}
