//! Which adapters there are, and the choice of one.

use crate::error::{Error, Result};

/// Which adapter to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// A discrete, else an integrated GPU; software adapters are refused.
    Hardware,
    /// The best there is: discrete, integrated, virtual, software, in that order.
    Best,
    /// The first whose name contains this text, without regard to case.
    Named(String),
}

/// What one adapter is and can do.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// Name, driver, kind and API.
    pub info: wgpu::AdapterInfo,
    /// Optional features this crate has a use for, with whether the adapter has them.
    pub features: Vec<(&'static str, bool)>,
    /// The adapter's limits.
    pub limits: wgpu::Limits,
}

impl AdapterSummary {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let has = adapter.features();
        let features = vec![
            ("subgroup", has.contains(wgpu::Features::SUBGROUP)),
            ("f16", has.contains(wgpu::Features::SHADER_F16)),
            ("timestamps", has.contains(wgpu::Features::TIMESTAMP_QUERY)),
            ("pipeline-cache", has.contains(wgpu::Features::PIPELINE_CACHE)),
            ("cooperative-matrix", has.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)),
        ];
        Self { info: adapter.get_info(), features, limits: adapter.limits() }
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

fn preference(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn usable() -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    found.sort_by_key(|a| preference(a.get_info().device_type));
    found
}

/// All adapters that can run compute shaders, best first.
pub fn adapters() -> Vec<AdapterSummary> {
    usable().iter().map(AdapterSummary::of).collect()
}

pub(crate) fn select(selection: &Selection) -> Result<wgpu::Adapter> {
    let found = usable();
    let names = found.iter().map(|a| a.get_info().name).collect();
    let fits = |a: &wgpu::Adapter| match selection {
        Selection::Hardware => {
            matches!(a.get_info().device_type, wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::IntegratedGpu)
        }
        Selection::Best => true,
        Selection::Named(name) => a.get_info().name.to_lowercase().contains(&name.to_lowercase()),
    };
    found.into_iter().find(fits).ok_or_else(|| Error::NoAdapter {
        wanted: match selection {
            Selection::Hardware => "a discrete or integrated GPU".to_owned(),
            Selection::Best => "compute shaders".to_owned(),
            Selection::Named(name) => format!("the name {name:?}"),
        },
        found: names,
    })
}
