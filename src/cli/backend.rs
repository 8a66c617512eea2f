//! Which backend a command runs on.

use clap::ValueEnum;
use ppo_kernels::backend::{Cpu, CrossCheck, Gpu};
use ppo_kernels::gpu::Selection;
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
    /// The first adapter whose name contains NAME; means `--backend gpu` unless that says cross-check
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
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
        match (self.backend, &self.adapter) {
            (BackendChoice::Cpu, adapter) => Ok(Opened::Cpu(open_cpu(adapter)?)),
            (BackendChoice::CrossCheck, adapter) => Ok(Opened::CrossCheck(CrossCheck::new(open_gpu(adapter)?, Cpu::new()))),
            (BackendChoice::Gpu, adapter) => Ok(Opened::Gpu(open_gpu(adapter)?)),
            (BackendChoice::Auto, adapter @ Some(_)) => Ok(Opened::Gpu(open_gpu(adapter)?)),
            (BackendChoice::Auto, None) => Ok(hardware_or_cpu()),
        }
    }
}

/// The adapter of that name, or the best.
pub fn open_gpu(adapter: &Option<String>) -> Result<Gpu> {
    Gpu::open(&adapter.clone().map_or(Selection::Best, Selection::Named))
}

/// The CPU backend, which has no adapter to choose.
pub fn open_cpu(adapter: &Option<String>) -> Result<Cpu<f32>> {
    refuse_adapter(adapter)?;
    Ok(Cpu::new())
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

fn hardware_or_cpu() -> Opened {
    match Gpu::open(&Selection::Hardware) {
        Ok(gpu) => Opened::Gpu(gpu),
        Err(error) => {
            output::note(&format!("{error}; using the CPU backend (--backend gpu takes software adapters too)"));
            Opened::Cpu(Cpu::new())
        }
    }
}
