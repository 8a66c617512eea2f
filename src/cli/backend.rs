//! Which backend a command runs on.

use clap::ValueEnum;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, Precision};
use ppo_kernels::gpu::{Selection, adapters};
use ppo_kernels::wgpu::Backends;
use ppo_kernels::{Error, Result};

use super::output;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// A discrete, else an integrated GPU; the CPU where there is none
    Auto,
    /// The best adapter there is, software ones included
    Gpu,
    /// Natively in f32
    Cpu,
    /// Every operation on the GPU and in double precision on the CPU, compared
    CrossCheck,
}

/// `--backend` and `--adapter`.
#[derive(Debug, clap::Args)]
pub struct BackendArgs {
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// The first adapter whose name contains NAME, or its number in the list that `adapters` prints; means `--backend gpu` unless that says
    /// cross-check
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    #[command(flatten)]
    pub precision: PrecisionArgs,
}

/// `--precision`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PrecisionArgs {
    /// What a GPU computes matrix products in
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
}

impl PrecisionArgs {
    /// The flag, for another process of this program.
    pub fn as_args(self) -> [String; 2] {
        let value = self.precision.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        ["--precision".to_owned(), value]
    }
}

/// An open backend.
#[derive(Debug)]
pub enum Opened {
    /// WGSL kernels.
    Gpu(Gpu),
    /// The CPU backend.
    Cpu(Cpu<f32>),
    /// Both, compared.
    CrossCheck(CrossCheck<Gpu, Cpu<f64>>),
}

impl BackendArgs {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// No such adapter; `--adapter` with the CPU backend.
    pub fn open(&self) -> Result<Opened> {
        let gpu = || open_gpu(&self.adapter, self.precision);
        match (self.backend, &self.adapter) {
            (BackendChoice::Cpu, adapter) => Ok(Opened::Cpu(open_cpu(adapter, self.precision)?)),
            (BackendChoice::CrossCheck, _) => Ok(Opened::CrossCheck(CrossCheck::new(gpu()?, Cpu::new()))),
            (BackendChoice::Gpu, _) | (BackendChoice::Auto, Some(_)) => Ok(Opened::Gpu(gpu()?)),
            (BackendChoice::Auto, None) => hardware_or_cpu(self.precision),
        }
    }
}

/// The adapter of that number or name, or the best. A number that no adapter has may be part of a name.
///
/// # Errors
/// As [`require_known_apis`].
pub fn selection(adapter: &Option<String>) -> Result<Selection> {
    require_known_apis()?;
    let Some(name) = adapter else { return Ok(Selection::Best) };
    let number = name.parse().ok().filter(|&number: &usize| number < adapters().len());
    Ok(number.map_or_else(|| Selection::Named(name.clone()), Selection::Numbered))
}

/// wgpu leaves out the names in `WGPU_BACKEND` that it does not know, and then finds no adapter, or another than was meant.
///
/// # Errors
/// [`Error::InvalidValue`] for such a name.
pub fn require_known_apis() -> Result<()> {
    let Ok(names) = std::env::var("WGPU_BACKEND") else { return Ok(()) };
    match names.split(',').find(|name| Backends::from_comma_list(name).is_empty()) {
        None => Ok(()),
        Some(unknown) => Err(Error::InvalidValue {
            argument: "WGPU_BACKEND".to_owned(),
            expected: "some of vulkan, dx12 and metal, separated by commas".to_owned(),
            actual: format!("{unknown:?}"),
        }),
    }
}

/// The adapter of that number or name, or the best.
pub fn open_gpu(adapter: &Option<String>, PrecisionArgs { precision }: PrecisionArgs) -> Result<Gpu> {
    Gpu::open_with_precision(&selection(adapter)?, precision)
}

/// The CPU backend, which has no adapter to choose and no tensor cores.
pub fn open_cpu(adapter: &Option<String>, precision: PrecisionArgs) -> Result<Cpu<f32>> {
    refuse_adapter(adapter)?;
    refuse_precision(precision)?;
    Ok(Cpu::new())
}

/// There are no tensor cores on the CPU.
pub fn refuse_precision(PrecisionArgs { precision }: PrecisionArgs) -> Result<()> {
    match precision {
        Precision::F32 => Ok(()),
        Precision::F16TensorCore | Precision::F16x3TensorCore => Err(Error::InvalidValue {
            argument: "precision".to_owned(),
            expected: "f32 with a CPU backend".to_owned(),
            actual: precision.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned()),
        }),
    }
}

/// There is no adapter to choose on the CPU.
pub fn refuse_adapter(adapter: &Option<String>) -> Result<()> {
    match adapter {
        None => Ok(()),
        Some(name) => Err(Error::InvalidValue {
            argument: "adapter".to_owned(),
            expected: "none with a CPU backend".to_owned(),
            actual: name.clone(),
        }),
    }
}

fn hardware_or_cpu(precision: PrecisionArgs) -> Result<Opened> {
    require_known_apis()?;
    match Gpu::open_with_precision(&Selection::Hardware, precision.precision) {
        Ok(gpu) => Ok(Opened::Gpu(gpu)),
        Err(error) => {
            let products = if precision.precision == Precision::F32 { "" } else { ", matrix products in f32" };
            output::note(&format!("{error}; using the CPU backend{products} (--backend gpu takes software adapters too)"));
            Ok(Opened::Cpu(Cpu::new()))
        }
    }
}
