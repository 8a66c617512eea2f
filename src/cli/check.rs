//! `ppo-kernels check`: case files (problems with solutions), computed and compared.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ppo_kernels::backend::{Backend, Cpu};
use ppo_kernels::cases::{Allowance, CaseFile, CaseReport, Element, TensorReport, case_name, check};
use ppo_kernels::{Error, Result};
use serde::Serialize;

use super::backend::{PrecisionArgs, open_gpu, refuse_adapter, refuse_precision};
use super::run_folder::write_whole;
use super::{Outcome, output};

/// Failed tensors listed without `--all`; an early failure makes later ones fail.
const FAILURES_LISTED: usize = 5;

/// Run case files: compute every `out.` and `grad.` tensor, and compare it with the file's.
///
/// A tensor's relative error in the norm may be the tolerance, or ten times PyTorch's error in
/// single precision, if the file names it. For a solution of zeros, the largest absolute error
/// counts, with a tenth of the tolerance. cpu-f64 uses only the tolerance. Failed tensors are
/// listed in the order of computation, each with its worst element. Exits 1 after a failed tensor,
/// an unknown kind, or an unusable file.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Backend to check
    #[arg(long, value_enum, default_value = "gpu")]
    backend: CheckedBackend,
    /// The first adapter whose name contains NAME, or its number in the list of `adapters`
    /// [default: the best, software ones included]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Relative error allowed [default: 1e-5, with cpu-f64 1e-6]
    #[arg(long, value_name = "E", value_parser = tolerance)]
    tolerance: Option<f64>,
    /// List every tensor, not only the first five failures
    #[arg(long)]
    all: bool,
    /// Print a line of JSON for each file
    #[arg(long)]
    json: bool,
    /// Write results to DIR/<case>.safetensors, under the names of the case file
    #[arg(long, value_name = "DIR")]
    outputs: Option<PathBuf>,
    /// Case files and folders of them (*.safetensors, not nested)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

fn tolerance(text: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|&e: &f64| e >= 0.0 && e.is_finite()).ok_or_else(|| "expected a finite number >= 0".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckedBackend {
    /// The WGSL kernels
    Gpu,
    /// The CPU backend in f32
    Cpu,
    /// The CPU backend in double precision
    CpuF64,
}

impl CheckedBackend {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A tensor and its error. Numbers that JSON lacks are null.
#[derive(Debug, Serialize)]
struct TensorLine<'a> {
    tensor: &'a str,
    error: f64,
    allowed: f64,
    passed: bool,
    /// Reason without a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<&'a str>,
    /// Index of the first wrong element.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<&'a [usize]>,
    /// Index of the worst element.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a [usize]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    computed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<f64>,
}

impl<'a> From<&'a TensorReport> for TensorLine<'a> {
    fn from(report: &'a TensorReport) -> Self {
        let furthest = report.furthest.as_ref();
        Self {
            tensor: &report.name,
            error: report.error,
            allowed: report.allowed,
            passed: report.passed,
            missing: report.missing.as_deref(),
            first: report.first.as_deref(),
            index: furthest.map(|element| &element.index[..]),
            computed: furthest.map(|element| element.computed),
            expected: furthest.map(|element| element.expected),
        }
    }
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    path: String,
    case: &'a str,
    /// null for an unreadable file.
    kind: Option<&'a str>,
    backend: &'a str,
    adapter: &'a str,
    /// Whether every tensor passed.
    passed: bool,
    worst: Option<TensorLine<'a>>,
    /// Number of tensors compared.
    tensors: usize,
    /// Failed tensors, with `--all` all, in the order of computation.
    listed: Vec<TensorLine<'a>>,
    /// Inputs and hyper-parameters that nothing used.
    unused: &'a [String],
    /// Error of the computation or of writing outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs all files, also after an unusable one.
pub fn run(args: &CheckArgs) -> Result<Outcome> {
    match args.backend {
        CheckedBackend::Gpu => {
            let mut gpu = open_gpu(&args.adapter, args.precision)?;
            let adapter = gpu.context.name().to_owned();
            Run::new(args, &adapter).all(&mut gpu)
        }
        CheckedBackend::Cpu => {
            refuse_adapter(&args.adapter)?;
            refuse_precision(args.precision)?;
            on_cpu(args, &mut Cpu::<f32>::new())
        }
        CheckedBackend::CpuF64 => {
            refuse_adapter(&args.adapter)?;
            refuse_precision(args.precision)?;
            on_cpu(args, &mut Cpu::<f64>::new())
        }
    }
}

fn on_cpu<B: Backend>(args: &CheckArgs, cpu: &mut B) -> Result<Outcome> {
    let adapter = cpu.describe();
    Run::new(args, &adapter).all(cpu)
}

/// The file, or a folder's files by name; the folder itself if it has none or is unreadable.
fn case_files(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> =
        entries.filter(|file| file.extension().is_some_and(|e| e == "safetensors") && !file.is_dir()).collect();
    files.sort();
    if files.is_empty() { vec![path.to_owned()] } else { files }
}

fn open(path: &Path) -> Result<CaseFile> {
    if path.is_dir() {
        std::fs::read_dir(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        return Err(Error::File { path: path.to_owned(), reason: "is a folder without a case file (*.safetensors)".to_owned() });
    }
    CaseFile::open(path)
}

struct Run<'a> {
    args: &'a CheckArgs,
    allowance: Allowance,
    backend: String,
    adapter: &'a str,
    /// Canonical paths of the files checked, which no output may replace.
    inputs: HashSet<PathBuf>,
    written: HashSet<PathBuf>,
}

impl<'a> Run<'a> {
    fn new(args: &'a CheckArgs, adapter: &'a str) -> Self {
        let usual = if args.backend == CheckedBackend::CpuF64 { Allowance::DOUBLE } else { Allowance::SINGLE };
        let allowance = Allowance { relative: args.tolerance.unwrap_or(usual.relative), ..usual };
        Self { args, allowance, backend: args.backend.name(), adapter, inputs: HashSet::new(), written: HashSet::new() }
    }

    fn all<B: Backend>(mut self, backend: &mut B) -> Result<Outcome> {
        let (mut passed, mut unwritten) = (0, 0);
        let files: Vec<PathBuf> = self.args.files.iter().flat_map(|path| case_files(path)).collect();
        self.inputs = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        for path in &files {
            let file = open(path);
            let kind = file.as_ref().ok().map(|file| file.kind().to_owned());
            let report = file.and_then(|file| check(backend, &file, &self.allowance));
            if report.is_err() {
                // The device's pending error belongs to this file, not to the next.
                let _ = backend.flush();
            }
            let not_written = report.as_ref().ok().and_then(|report| self.write(report).err());
            passed += usize::from(report.as_ref().is_ok_and(CaseReport::passed));
            unwritten += usize::from(not_written.is_some());
            self.tell(path, kind.as_deref(), &report, not_written.as_ref())?;
        }
        let files = files.len();
        if !self.args.json {
            let outputs = if unwritten == 0 { String::new() } else { format!(", outputs of {unwritten} not written") };
            output::line(&format!("{passed} of {files} cases passed on {}{outputs}", self.adapter))?;
        }
        Ok(if passed == files && unwritten == 0 { Outcome::Success } else { Outcome::Negative })
    }

    /// Writes the outputs, with `--outputs`.
    fn write(&mut self, report: &CaseReport) -> Result<()> {
        let Some(folder) = &self.args.outputs else { return Ok(()) };
        let path = folder.join(format!("{}.safetensors", report.case));
        if !self.written.insert(path.clone()) {
            return Err(Error::File {
                path,
                reason: "already holds the outputs of another case of this name; rename one case file".to_owned(),
            });
        }
        std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.clone(), source })?;
        if path.canonicalize().is_ok_and(|target| self.inputs.contains(&target)) {
            return Err(Error::File {
                path,
                reason: "is a case file, which outputs must not replace; pass another folder".to_owned(),
            });
        }
        write_whole(&path, &report.to_safetensors(&self.backend)?)
    }

    fn tell(&self, path: &Path, kind: Option<&str>, report: &Result<CaseReport>, not_written: Option<&Error>) -> Result<()> {
        if self.args.json { self.tell_json(path, kind, report, not_written) } else { self.tell_people(path, report, not_written) }
    }

    fn tell_json(&self, path: &Path, kind: Option<&str>, report: &Result<CaseReport>, not_written: Option<&Error>) -> Result<()> {
        let computed = report.as_ref().ok();
        let line = Line {
            path: path.display().to_string(),
            case: &case_name(path),
            kind,
            backend: &self.backend,
            adapter: self.adapter,
            passed: computed.is_some_and(CaseReport::passed),
            worst: computed.and_then(CaseReport::worst).map(TensorLine::from),
            tensors: computed.map_or(0, |report| report.tensors.len()),
            listed: computed.map_or(Vec::new(), |report| self.listed(report).map(TensorLine::from).collect()),
            unused: computed.map_or(&[], |report| &report.unused),
            error: report.as_ref().err().or(not_written).map(Error::to_string),
        };
        let text = serde_json::to_string(&line).map_err(|error| Error::Io { path: "stdout".into(), source: error.into() })?;
        output::line(&text)
    }

    fn listed<'b>(&self, report: &'b CaseReport) -> impl Iterator<Item = &'b TensorReport> {
        let all = self.args.all;
        report.tensors.iter().filter(move |tensor| all || !tensor.passed)
    }

    fn tell_people(&self, path: &Path, report: &Result<CaseReport>, not_written: Option<&Error>) -> Result<()> {
        let path = path.display();
        match report {
            // These errors name the file again.
            Err(Error::File { reason, .. }) => output::line(&format!("FAIL {path}: {reason}"))?,
            Err(Error::Io { source, .. }) => output::line(&format!("FAIL {path}: {source}"))?,
            Err(error) => output::line(&format!("FAIL {path}: {error}"))?,
            Ok(report) => {
                output::line(&format!("{} {path} ({}): {}", verdict(report.passed()), report.kind, summary(report)))?;
                let most = if self.args.all { usize::MAX } else { FAILURES_LISTED };
                let line = |tensor: &TensorReport| format!("     {} {}", verdict(tensor.passed), describe(tensor));
                self.listed(report).take(most).try_for_each(|tensor| output::line(&line(tensor)))?;
                let left = self.listed(report).skip(most).count();
                if left > 0 {
                    output::line(&format!("     and {left} more tensors (--all lists them)"))?;
                }
                if !report.unused.is_empty() && (self.args.all || !report.passed()) {
                    output::line(&format!("     not used: {}", report.unused.join(", ")))?;
                }
            }
        }
        not_written.map_or(Ok(()), |error| output::line(&format!("     not written: {error}")))
    }
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok  " } else { "FAIL" }
}

fn summary(report: &CaseReport) -> String {
    let (count, failed) = (report.tensors.len(), report.tensors.iter().filter(|tensor| !tensor.passed).count());
    match report.worst() {
        Some(worst) if failed == 0 => {
            format!("{count} tensors, worst {}: {:.1e} of {:.1e} allowed", worst.name, worst.error, worst.allowed)
        }
        _ => format!("{failed} of {count} tensors differ, in the order in which they are computed:"),
    }
}

fn describe(tensor: &TensorReport) -> String {
    if let Some(missing) = &tensor.missing {
        return format!("{}: {missing}", tensor.name);
    }
    let Some(Element { index, computed, expected }) = &tensor.furthest else {
        return format!("{}: {:.1e} of {:.1e} allowed", tensor.name, tensor.error, tensor.allowed);
    };
    let first = tensor
        .first
        .as_ref()
        .filter(|first| *first != index)
        .map_or_else(String::new, |first| format!("off from {first:?} on, "));
    let place = if index.is_empty() { String::new() } else { format!("{first}{index:?} is ") };
    format!(
        "{}: {:.1e} of {:.1e} allowed; {place}{computed:.9e}, expected {expected:.9e}",
        tensor.name, tensor.error, tensor.allowed
    )
}
