//! The adapters of this machine, and the choice of one.

use super::wait;
use crate::error::{Error, Result};

/// Which adapter to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// A discrete GPU, else an integrated one; never a software adapter.
    Hardware,
    /// The best: discrete, integrated, virtual, software, in that order; D3D12 after other APIs.
    Best,
    /// The first whose name contains this text; upper and lower case are equal.
    Named(String),
    /// The one at this index of [`adapters`], which tells adapters of one name apart.
    Numbered(usize),
    /// An index of [`adapters`] if the text is a number in range, else a part of the name.
    NumberedOrNamed(String),
}

/// An adapter, its features and its limits.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// Name, driver, kind and API.
    pub info: wgpu::AdapterInfo,
    /// Optional features that this crate can use, and whether the adapter has each.
    pub features: Vec<(&'static str, bool)>,
    /// Sizes and types of the matrices that its tensor cores multiply.
    pub cooperative_matrices: Vec<wgpu::CooperativeMatrixProperties>,
    /// The adapter's limits.
    pub limits: wgpu::Limits,
}

/// Matrices that a subgroup multiplies together: f16 operands, f32 sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CooperativeMatrix {
    /// Rows and columns of operands and sums: 8 or 16.
    pub size: u32,
    /// Invocations of a subgroup.
    pub subgroup_size: u32,
}

impl CooperativeMatrix {
    /// Features that a device needs for these products.
    pub const FEATURES: wgpu::Features =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

    /// The largest that `adapter` has, or the reason why it has none.
    pub(crate) fn of(adapter: &wgpu::Adapter) -> std::result::Result<Self, String> {
        let info = adapter.get_info();
        let lacking = Self::FEATURES - adapter.features();
        if !lacking.is_empty() {
            let names: Vec<_> = lacking.iter_names().map(|(name, _)| name).collect();
            return Err(format!("{} has no {}", info.name, names.join(", ")));
        }
        let (f16, f32) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
        let found = adapter.cooperative_matrix_properties();
        let has = |&size: &u32| {
            let is_square = |m: &wgpu::CooperativeMatrixProperties| [m.m_size, m.n_size, m.k_size] == [size; 3];
            found.iter().any(|m| is_square(m) && (m.ab_type, m.cr_type) == (f16, f32))
        };
        let size = [16, 8].into_iter().find(has);
        let size = size.ok_or_else(|| format!("{} has no cooperative matrices that multiply f16 into f32", info.name))?;
        Ok(Self { size, subgroup_size: subgroup_size(&info)? })
    }
}

/// The size of all subgroups, or the reason why there is no single one.
fn subgroup_size(info: &wgpu::AdapterInfo) -> std::result::Result<u32, String> {
    // wgpu reports 4 to 64 for every Metal device; Apple's own have 32.
    if info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple") {
        return Ok(32);
    }
    if info.subgroup_min_size != info.subgroup_max_size {
        let sizes = format!("{} to {}", info.subgroup_min_size, info.subgroup_max_size);
        return Err(format!("{} has subgroups of {sizes} invocations; tensor cores need a single size", info.name));
    }
    Ok(info.subgroup_max_size)
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
        Self {
            info: adapter.get_info(),
            features,
            cooperative_matrices: adapter.cooperative_matrix_properties(),
            limits: adapter.limits(),
        }
    }
}

/// wgpu's environment variables (`WGPU_BACKEND`, `WGPU_VALIDATION`, …) configure it.
fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor.with_env())
}

/// Sorts by kind. Windows lists a GPU twice; D3D12's compiler may fail on our shaders.
fn preference(info: &wgpu::AdapterInfo) -> (u8, bool) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    (kind, info.backend == wgpu::Backend::Dx12)
}

fn usable() -> Vec<wgpu::Adapter> {
    let mut found = wait::enumerate_adapters(&instance());
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    found.sort_by_key(|a| preference(&a.get_info()));
    found
}

/// All adapters that can run compute shaders, best first.
pub fn adapters() -> Vec<AdapterSummary> {
    usable().iter().map(AdapterSummary::of).collect()
}

pub(crate) fn select(selection: &Selection) -> Result<wgpu::Adapter> {
    let found = usable();
    let names = found.iter().map(|a| a.get_info().name).collect();
    let count = found.len();
    let is_named = |a: &wgpu::Adapter, name: &str| a.get_info().name.to_lowercase().contains(&name.to_lowercase());
    let fits = |(place, a): &(usize, wgpu::Adapter)| match selection {
        Selection::Hardware => {
            matches!(a.get_info().device_type, wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::IntegratedGpu)
        }
        Selection::Best => true,
        Selection::Named(name) => is_named(a, name),
        Selection::Numbered(number) => place == number,
        Selection::NumberedOrNamed(text) => match text.parse::<usize>() {
            Ok(number) if number < count => *place == number,
            _ => is_named(a, text),
        },
    };
    found.into_iter().enumerate().find(fits).map(|(_, adapter)| adapter).ok_or_else(|| Error::NoAdapter {
        wanted: match selection {
            Selection::Hardware => "a discrete or integrated GPU".to_owned(),
            Selection::Best => "compute shaders".to_owned(),
            Selection::Named(name) | Selection::NumberedOrNamed(name) => format!("the name {name:?}"),
            Selection::Numbered(number) => format!("the number {number}"),
        },
        found: names,
    })
}
