//! `ppo-kernels verify`: checks every kernel and variant against double precision.

use clap::ValueEnum;
use comfy_table::Table;
use ppo_kernels::Result;
use ppo_kernels::backend::{Gpu, Memory, Worst};
use ppo_kernels::verify::{KERNELS, KernelReport, Options, run as run_verify, variants};

use super::backend::{PrecisionArgs, open_cpu, selection};
use super::planted_faults::PlantedFaultsArgs;
use super::{Outcome, output};

/// Misses listed; a broken driver has thousands.
const MISSES_LISTED: usize = 20;

/// Run every kernel and variant on random shapes against double precision. Needs no files.
///
/// Always includes edge sizes (1, workgroups and tiles and their neighbours, more than 65 535
/// workgroups) and sizes of 0, which must be refused. Outputs start as NaN between guard regions.
/// Exits 1 on any miss.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Backend to verify
    #[arg(long, value_enum, default_value = "gpu")]
    pub backend: VerifiedBackend,
    /// The first adapter whose name contains NAME, or its number in the list of `adapters`
    /// [default: the best, software ones included]
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Random shapes of each operation, besides the edge sizes
    #[arg(long, value_name = "N", default_value_t = Options::default().cases)]
    pub cases: usize,
    /// Seed of shapes and inputs, and of planted faults
    #[arg(long, value_name = "S", default_value_t = Options::default().seed)]
    pub seed: u64,
    /// Print a row for each output of each operation
    #[arg(long)]
    operations: bool,
    #[command(flatten)]
    planted_faults: PlantedFaultsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifiedBackend {
    /// The WGSL kernels
    Gpu,
    /// The CPU backend in f32
    Cpu,
}

/// A variant's name, and the report of a kernel.
type Labelled = (&'static str, KernelReport);

pub fn run(args: &VerifyArgs) -> Result<Outcome> {
    let options = Options { cases: args.cases, seed: args.seed, ..Options::default() };
    if let Some(outcome) = args.planted_faults.run(args, &options) {
        return outcome;
    }
    let reports = match args.backend {
        VerifiedBackend::Gpu => verify_gpu(args, &options)?,
        VerifiedBackend::Cpu => {
            let cpu = open_cpu(&args.adapter, args.precision)?;
            announce(&cpu, args)?;
            label("native", run_verify(cpu, &options, |report| tell("native", report))?.1)
        }
    };
    let table = if args.operations { table_of_operations(&reports) } else { table_of_kernels(&reports) };
    output::line(&table.to_string())?;
    print_verdict(&reports)
}

fn announce(backend: &impl Memory, args: &VerifyArgs) -> Result<()> {
    output::line(&format!(
        "{} against CPU (f64), {} random shapes an operation, seed {}",
        backend.describe(),
        args.cases,
        args.seed
    ))
}

fn label(variant: &'static str, reports: Vec<KernelReport>) -> Vec<Labelled> {
    reports.into_iter().map(|report| (variant, report)).collect()
}

fn tell(variant: &str, report: &KernelReport) {
    let verdict = if report.misses.is_empty() { "ok".to_owned() } else { format!("{} misses", report.misses.len()) };
    let seconds = report.elapsed.as_secs_f64();
    output::note(&format!("{} ({variant}): {} cases, {verdict}, {seconds:.1} s", report.kernel, report.cases));
}

fn verify_gpu(args: &VerifyArgs, options: &Options) -> Result<Vec<Labelled>> {
    let mut gpu = Gpu::open_checked(&selection(&args.adapter)?, args.precision.precision)?;
    announce(&gpu, args)?;
    gpu.context.set_guards(true);
    let mut reports = Vec::new();
    for &kernel in KERNELS {
        for variant in variants(kernel) {
            variant.choose(&mut gpu);
            let options = Options { kernels: vec![kernel], ..options.clone() };
            let (back, found) = run_verify(gpu, &options, |report| tell(variant.name, report))?;
            reports.extend(label(variant.name, found));
            gpu = back;
        }
    }
    Ok(reports)
}

fn numbers(worst: &Worst) -> [String; 2] {
    [format!("{:.1e}", worst.error), if worst.error == 0.0 { "-".to_owned() } else { format!("{:.1e}", worst.allowed) }]
}

fn verdict(ok: bool) -> String {
    if ok { "ok" } else { "MISS" }.to_owned()
}

fn table_of_kernels(reports: &[Labelled]) -> Table {
    let mut table = output::table(&["kernel", "variant", "cases", "worst error", "allowed", "in", ""]);
    for (variant, report) in reports {
        let (error, allowed, place) = match report.worst() {
            Some(worst) => {
                let [error, allowed] = numbers(&worst.worst);
                (error, allowed, format!("{}: {}", worst.operation, worst.tensor))
            }
            None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let (cases, ok) = (report.cases.to_string(), verdict(report.misses.is_empty()));
        table.add_row([report.kernel.to_owned(), (*variant).to_owned(), cases, error, allowed, place, ok]);
    }
    table
}

fn table_of_operations(reports: &[Labelled]) -> Table {
    let mut table = output::table(&["kernel", "variant", "operation", "output", "elements", "worst error", "allowed", ""]);
    for (variant, report) in reports {
        for tensor in &report.tensors {
            let [error, allowed] = numbers(&tensor.worst);
            let missed = report.misses.iter().any(|miss| miss.concerns(tensor.operation, tensor.tensor));
            table.add_row([
                report.kernel.to_owned(),
                (*variant).to_owned(),
                tensor.operation.to_owned(),
                tensor.tensor.to_owned(),
                tensor.worst.compared.to_string(),
                error,
                allowed,
                verdict(!missed),
            ]);
        }
    }
    table
}

fn print_verdict(reports: &[Labelled]) -> Result<Outcome> {
    let cases: usize = reports.iter().map(|(_, report)| report.cases).sum();
    let misses: Vec<String> = reports
        .iter()
        .flat_map(|(variant, report)| report.misses.iter().map(move |miss| format!("{} ({variant}): {miss}", report.kernel)))
        .collect();
    if misses.is_empty() {
        output::line(&format!("{cases} cases, all within their tolerances"))?;
        return Ok(Outcome::Success);
    }
    misses.iter().take(MISSES_LISTED).try_for_each(|miss| output::line(miss))?;
    if misses.len() > MISSES_LISTED {
        output::line(&format!("and {} more", misses.len() - MISSES_LISTED))?;
    }
    output::line(&format!("{} of {cases} cases missed", misses.len()))?;
    Ok(Outcome::Negative)
}
