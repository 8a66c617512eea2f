//! The backend of a command.

use clap::ValueEnum;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, Precision};
use ppo_kernels::gpu::Selection;
use ppo_kernels::wgpu::Backends;
use ppo_kernels::{Error, Result};

use super::{driver, output};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// A discrete GPU, else an integrated one, else the CPU
    Auto,
    /// The best adapter, software ones included
    Gpu,
    /// The CPU in f32
    Cpu,
    /// Every operation on the GPU and on the CPU in f64, compared
    CrossCheck,
}

#[derive(Debug, clap::Args)]
pub struct BackendArgs {
    /// Backend to compute on
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// The first adapter whose name contains NAME, or its number in the list of `adapters`; implies
    /// `--backend gpu` without cross-check
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Turn off the driver's checks of buffer accesses (Vulkan's robustBufferAccess) on a GPU
    #[arg(long)]
    pub unchecked: bool,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PrecisionArgs {
    /// Precision of a GPU's matrix products
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
    /// GPU and oracle, compared.
    CrossCheck(CrossCheck<Gpu, Cpu<f64>>),
}

impl BackendArgs {
    /// Opens the backend, or fails without such an adapter and for GPU flags with the CPU backend.
    pub fn open(&self) -> Result<Opened> {
        let gpu = || self.open_gpu(&selection(&self.adapter)?);
        match (self.backend, &self.adapter) {
            (BackendChoice::Cpu, _) if self.unchecked => Err(refused_on_cpu("--unchecked".to_owned())),
            (BackendChoice::Cpu, adapter) => Ok(Opened::Cpu(open_cpu(adapter, self.precision)?)),
            (BackendChoice::CrossCheck, _) => Ok(Opened::CrossCheck(CrossCheck::new(gpu()?, Cpu::new()))),
            (BackendChoice::Gpu, _) | (BackendChoice::Auto, Some(_)) => Ok(Opened::Gpu(gpu()?)),
            (BackendChoice::Auto, None) => self.hardware_or_cpu(),
        }
    }

    fn open_gpu(&self, selection: &Selection) -> Result<Gpu> {
        let open = if self.unchecked { Gpu::open_unchecked } else { Gpu::open_with_precision };
        open(selection, self.precision.precision)
    }

    fn hardware_or_cpu(&self) -> Result<Opened> {
        before_adapters()?;
        match self.open_gpu(&Selection::Hardware) {
            Ok(gpu) => Ok(Opened::Gpu(gpu)),
            Err(error) => {
                let products = if self.precision.precision == Precision::F32 { "" } else { ", matrix products in f32" };
                output::note(&format!("{error}; using the CPU backend{products} (--backend gpu takes software adapters too)"));
                Ok(Opened::Cpu(Cpu::new()))
            }
        }
    }
}

/// The adapter of that number or name, or the best.
pub fn selection(adapter: &Option<String>) -> Result<Selection> {
    before_adapters()?;
    Ok(adapter.clone().map_or(Selection::Best, Selection::NumberedOrNamed))
}

/// Call before listing adapters: checks `WGPU_BACKEND` and silences the driver.
pub fn before_adapters() -> Result<()> {
    require_known_apis()?;
    driver::start_again_with_runtime_dir();
    Ok(())
}

/// Refuses unknown names in `WGPU_BACKEND`. wgpu ignores them and finds no adapter, or another.
fn require_known_apis() -> Result<()> {
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

/// The CPU backend, which has no adapters and no tensor cores.
pub fn open_cpu(adapter: &Option<String>, precision: PrecisionArgs) -> Result<Cpu<f32>> {
    refuse_adapter(adapter)?;
    refuse_precision(precision)?;
    Ok(Cpu::new())
}

pub fn refuse_precision(PrecisionArgs { precision }: PrecisionArgs) -> Result<()> {
    match precision {
        Precision::F32 => Ok(()),
        Precision::F16TensorCore | Precision::F16x3TensorCore => {
            let name = precision.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
            Err(refused_on_cpu(format!("--precision {name}")))
        }
    }
}

pub fn refuse_adapter(adapter: &Option<String>) -> Result<()> {
    match adapter {
        None => Ok(()),
        Some(name) => Err(refused_on_cpu(format!("--adapter {name}"))),
    }
}

fn refused_on_cpu(argument: String) -> Error {
    Error::Conflict { argument, other: "a CPU backend".to_owned(), remedy: "pass --backend gpu, or leave it out".to_owned() }
}
