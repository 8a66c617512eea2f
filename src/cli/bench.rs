//! `ppo-kernels bench`: speed of every kernel and four whole updates, beside the adapter's peaks.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use ppo_kernels::backend::Gpu;
use ppo_kernels::bench::{Benchmarked, Effort, Finding, Options, Peaks, Record, names, run as run_benches, sweep as sweeps};
use ppo_kernels::{Error, Result};
use serde_json::{Value, json};

use super::backend::{BackendArgs, Opened};
use super::interrupt::Interrupt;
use super::run_folder::{require_writable, utc, write_whole};
use super::{Outcome, output, roofline, sweep};

/// Time every kernel and four whole PPO updates, after checking results against double precision.
///
/// Each run measures peaks: a copy, and arithmetic on registers or a matrix product. `% of peak`
/// compares a kernel with the time that the peaks allow for its operations and bytes. Wall time
/// lasts from the call until the result is usable: median and 10-90 % quantiles. GPU time comes
/// from timestamp queries, without the host and the queue.
///
/// A wrong result is not timed, and the exit code is 1. Ctrl-C ends the run after the current
/// bench, prints and writes the results so far, and exits 130.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(flatten)]
    backend: BackendArgs,
    /// Only benches whose name contains one of these, separated by commas
    #[arg(long, value_name = "PATTERN", default_value = "")]
    only: String,
    /// Also write all figures and the machine's description to OUT, after each bench
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Also draw a roofline chart; of a sweep, time over size
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,
    /// Small shapes and few samples, to see that everything runs
    #[arg(long)]
    quick: bool,
    /// Instead vary one size at a time: samples of a minibatch, network width, rollout length
    #[arg(long)]
    sweep: bool,
}

pub fn run(args: &BenchArgs) -> Result<Outcome> {
    refuse_other_names(args)?;
    args.json.iter().chain(&args.plot).try_for_each(|path| require_writable(path))?;
    if let Some(path) = args.plot.as_ref().filter(|_| args.plot == args.json) {
        return Err(Error::Conflict {
            argument: format!("--plot {}", path.display()),
            other: "--json, which names that file too".to_owned(),
            remedy: "pass another file to one of them".to_owned(),
        });
    }
    match args.backend.open()? {
        Opened::Cpu(cpu) => measure(cpu, args, &json!({ "name": "CPU" })),
        Opened::Gpu(gpu) => {
            let adapter = describe_adapter(&gpu);
            measure(gpu, args, &adapter)
        }
        Opened::CrossCheck(_) => Err(Error::Conflict {
            argument: "--backend cross-check".to_owned(),
            other: "bench, which checks results before it times them".to_owned(),
            remedy: "pass --backend auto, gpu or cpu".to_owned(),
        }),
    }
}

fn options(args: &BenchArgs) -> Options {
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    Options { only: args.only.clone(), effort, small: args.quick }
}

/// Refuses a pattern that fits only the other kind of run, before the measurement and briefly.
fn refuse_other_names(args: &BenchArgs) -> Result<()> {
    let options = options(args);
    let (benches, sizes) = (names(&options), sweeps::names(&options));
    let (here, there) = if args.sweep { (sizes, benches) } else { (benches, sizes) };
    if options.fits(&here) || !options.fits(&there) {
        return Ok(());
    }
    let (other, remedy) = if args.sweep {
        ("--sweep", "pass part of a name sweep/AXIS/SIZE, or leave out --sweep")
    } else {
        ("a run without --sweep", "pass --sweep too")
    };
    Err(Error::Conflict { argument: format!("--only {}", args.only), other: other.to_owned(), remedy: remedy.to_owned() })
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
    let interrupt = Interrupt::listen("finishing this bench, then writing the results")?;
    let device = backend.describe();
    output::line(&device)?;
    let mut report = Report { args, meta: describe_run(args, adapter), device, findings: Vec::new() };
    let mut take = |finding| {
        tell(&finding);
        report.findings.push(finding);
        // A warning suffices: the last write decides.
        if let Err(error) = report.write_json(false) {
            output::note(&format!("warning: {error}"));
        }
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let run = if args.sweep { sweeps::run } else { run_benches };
    let ended = run(backend, &options(args), &mut take).map(drop);
    report.finish(ended, interrupt.requested())
}

/// A run's findings so far, and their outputs.
struct Report<'a> {
    args: &'a BenchArgs,
    /// Machine and run, for the JSON.
    meta: Value,
    device: String,
    findings: Vec<Finding>,
}

impl Report<'_> {
    /// Prints and writes the findings, whatever ended the run; returns the first error.
    fn finish(&self, ended: Result<()>, interrupted: bool) -> Result<Outcome> {
        if self.findings.is_empty() {
            return ended.map(|()| outcome(&self.findings, interrupted));
        }
        let written = self.write_json(ended.is_ok() && !interrupted);
        let drawn = self.draw();
        let printed = self.print(interrupted);
        ended.and(written).and(drawn).and(printed)?;
        Ok(outcome(&self.findings, interrupted))
    }

    fn print(&self, interrupted: bool) -> Result<()> {
        output::line(&table(&self.findings))?;
        if let Some(peaks) = Peaks::among(&self.findings) {
            output::line(&format!(
                "peaks of this run: {:.0} GFLOP/s{}; {:.0} GB/s up to {:.0} MB, {:.0} GB/s beyond",
                peaks.gflops,
                peaks.tensor_gflops.map_or(String::new(), |gflops| format!(", {gflops:.0} on tensor cores")),
                peaks.copies[0].gbps,
                peaks.copies[0].bytes / 1e6,
                peaks.copies[1].gbps
            ))?;
        }
        for finding in &self.findings {
            if let Finding::Failed { bench, failed, .. } = finding {
                output::line(&format!("{bench}: failed: {failed}"))?;
            }
        }
        if interrupted { output::line("interrupted: benches not listed were not measured") } else { Ok(()) }
    }

    /// `complete` marks the last write.
    fn write_json(&self, complete: bool) -> Result<()> {
        let Some(path) = &self.args.json else { return Ok(()) };
        let mut meta = self.meta.clone();
        meta["complete"] = complete.into();
        meta["peaks"] = Peaks::among(&self.findings).map_or(Value::Null, |peaks| {
            json!({
                "gflops": peaks.gflops,
                "tensor_gflops": peaks.tensor_gflops,
                "gbps_cached": peaks.copies[0].gbps,
                "gbps": peaks.copies[1].gbps,
            })
        });
        write_whole(path, format!("{:#}\n", json!({ "meta": meta, "records": self.findings })).as_bytes())
    }

    fn draw(&self) -> Result<()> {
        let Some(path) = &self.args.plot else { return Ok(()) };
        let Some(peaks) = Peaks::among(&self.findings) else {
            output::note(&format!("no {}: not all peaks were measured", path.display()));
            return Ok(());
        };
        let draw = if self.args.sweep { sweep::draw } else { roofline::draw };
        write_whole(path, draw(&self.findings, &peaks, &self.device).as_bytes())
    }
}

fn outcome(findings: &[Finding], interrupted: bool) -> Outcome {
    if interrupted {
        Outcome::Interrupted
    } else if findings.iter().any(|finding| matches!(finding, Finding::Failed { .. })) {
        Outcome::Negative
    } else {
        Outcome::Success
    }
}

fn tell(finding: &Finding) {
    output::note(&match finding {
        Finding::Timed(record) => format!("{}: {}", record.bench, duration(record.median_s)),
        Finding::Skipped { bench, skipped, .. } => format!("{bench}: skipped: {skipped}"),
        Finding::Failed { bench, failed, .. } => format!("{bench}: failed: {failed}"),
    });
}

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

fn row_without_figures<'a>(bench: &'a str, why: &'a str, columns: usize) -> Vec<&'a str> {
    let mut row = vec!["-"; columns];
    (row[0], row[1]) = (bench, why);
    row
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
            Finding::Skipped { bench, .. } => table.add_row(row_without_figures(bench, "skipped", header.len())),
            Finding::Failed { bench, .. } => table.add_row(row_without_figures(bench, "failed", header.len())),
        };
    }
    table.to_string()
}

fn describe_run(args: &BenchArgs, adapter: &Value) -> Value {
    json!({
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
    })
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit of the working directory if it is this project's, with `-dirty` after changes.
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
    fn what_failed_is_in_the_table_without_figures_and_decides_the_exit_code() {
        let failed = Finding::Failed {
            bench: "wrong".to_owned(),
            framework: "ppo-kernels",
            device: String::new(),
            failed: "by far".to_owned(),
        };
        let findings = [record(None), failed];
        let table = table(&findings);
        assert!(table.lines().any(|line| line.contains("wrong") && line.contains("failed") && !line.contains("ms")), "{table}");
        assert_eq!(outcome(&findings, false), Outcome::Negative);
        assert_eq!(outcome(&findings, true), Outcome::Interrupted);
        assert_eq!(outcome(&findings[..1], false), Outcome::Success);
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
