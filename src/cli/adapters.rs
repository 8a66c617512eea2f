//! `ppo-kernels adapters`: the adapters and their features.

use comfy_table::Table;
use ppo_kernels::Result;
use ppo_kernels::gpu::{AdapterSummary, Autotune, adapters};
use ppo_kernels::wgpu::{CooperativeMatrixProperties, DeviceType};

use super::backend::before_adapters;
use super::{Outcome, output};

/// List the adapters that can run compute shaders, best first. Exits 1 if there is none.
#[derive(Debug, clap::Args)]
pub struct AdaptersArgs {}

pub fn run(_: &AdaptersArgs) -> Result<Outcome> {
    before_adapters()?;
    let found = adapters();
    if found.is_empty() {
        output::line("no adapter can run compute shaders here; `train` uses the CPU backend")?;
        return Ok(Outcome::Negative);
    }
    output::line(&table(&found).to_string())?;
    output::line(
        "`--adapter NAME` selects the first adapter whose name contains NAME, `--adapter 0` the first listed; without it, `train` uses no software adapter.",
    )?;
    output::line(&cached(&Autotune::from_environment()))?;
    Ok(Outcome::Success)
}

fn cached(autotune: &Autotune) -> String {
    match autotune {
        Autotune::Off => "PPO_KERNELS_AUTOTUNE=off: kernels are not timed, and nothing is cached.".to_owned(),
        Autotune::InMemory => "There is no folder for choices and pipelines; set PPO_KERNELS_CACHE_DIR to one.".to_owned(),
        Autotune::OnDisk(folder) => format!("Choices made by timing, and compiled pipelines, are cached in {}", folder.display()),
    }
}

fn table(found: &[AdapterSummary]) -> Table {
    let mut table = output::table(&["", "name", "kind", "API", "driver", "features", "limits"]);
    for (number, adapter) in found.iter().enumerate() {
        let info = &adapter.info;
        table.add_row([
            number.to_string(),
            info.name.clone(),
            kind(info.device_type).to_owned(),
            info.backend.to_string(),
            format!("{}\n{}", info.driver, info.driver_info).trim().to_owned(),
            features(adapter),
            limits(&adapter.limits),
        ]);
    }
    table
}

fn kind(device_type: DeviceType) -> &'static str {
    match device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "other",
    }
}

fn features(adapter: &AdapterSummary) -> String {
    let lines = adapter.features.iter().map(|(name, has)| format!("{} {name}", if *has { "+" } else { "-" }));
    lines.chain(adapter.cooperative_matrices.iter().map(matrix)).collect::<Vec<_>>().join("\n")
}

/// Rows × columns × depth of a tensor core's product, and the types of operands and sums.
fn matrix(matrix: &CooperativeMatrixProperties) -> String {
    let (operands, sums) = (format!("{:?}", matrix.ab_type), format!("{:?}", matrix.cr_type));
    let [m, n, k] = [matrix.m_size, matrix.n_size, matrix.k_size];
    format!("  {m}x{n}x{k} {}->{}", operands.to_lowercase(), sums.to_lowercase())
}

fn limits(limits: &ppo_kernels::wgpu::Limits) -> String {
    [
        format!("buffer {}", bytes(limits.max_buffer_size)),
        format!("binding {}", bytes(limits.max_storage_buffer_binding_size)),
        format!("workgroup {} invocations", limits.max_compute_invocations_per_workgroup),
        format!("workgroup memory {}", bytes(u64::from(limits.max_compute_workgroup_storage_size))),
    ]
    .join("\n")
}

/// A size with a binary unit, rounded down.
fn bytes(size: u64) -> String {
    match size {
        s if s >= 1 << 30 => format!("{} GiB", s >> 30),
        s if s >= 1 << 20 => format!("{} MiB", s >> 20),
        s => format!("{} KiB", s >> 10),
    }
}
