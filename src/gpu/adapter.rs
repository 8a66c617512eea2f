//! Which adapters there are, and the choice of one.

use super::wait;
use crate::error::{Error, Result};

/// Which adapter to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// A discrete, else an integrated GPU; software adapters are refused.
    Hardware,
    /// The best there is: discrete, integrated, virtual, software, in that order, and not by D3D12 where there is another way.
    Best,
    /// The first whose name contains this text, without regard to case.
    Named(String),
    /// The one at this place of [`adapters`], from 0: tells equal ones apart.
    Numbered(usize),
    /// The one at this place of [`adapters`] if the text is a number that has one, else the first whose name contains the text.
    NumberedOrNamed(String),
}

/// What one adapter is and can do.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// Name, driver, kind and API.
    pub info: wgpu::AdapterInfo,
    /// Optional features this crate has a use for, with whether the adapter has them.
    pub features: Vec<(&'static str, bool)>,
    /// Sizes and types of the matrices that its tensor cores multiply.
    pub cooperative_matrices: Vec<wgpu::CooperativeMatrixProperties>,
    /// The adapter's limits.
    pub limits: wgpu::Limits,
}

/// Matrices that a subgroup multiplies together: f16 operands, f32 sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CooperativeMatrix {
    /// Rows and columns of all three: 8 or 16.
    pub size: u32,
    /// Invocations of a subgroup.
    pub subgroup_size: u32,
}

impl CooperativeMatrix {
    /// What a device needs to multiply them.
    pub const FEATURES: wgpu::Features =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

    /// The largest that `adapter` has, or what it lacks.
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
        let size = size.ok_or_else(|| format!("{} multiplies no square matrices of f16 to f32", info.name))?;
        Ok(Self { size, subgroup_size: subgroup_size(&info)? })
    }
}

/// The one size of subgroups, or why there is none.
fn subgroup_size(info: &wgpu::AdapterInfo) -> std::result::Result<u32, String> {
    // wgpu says 4 to 64 of all that has Metal; of Apple's own it is 32.
    if info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple") {
        return Ok(32);
    }
    if info.subgroup_min_size != info.subgroup_max_size {
        let sizes = format!("{} to {}", info.subgroup_min_size, info.subgroup_max_size);
        return Err(format!("{} has subgroups of {sizes} invocations, where one size is needed", info.name));
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

/// As wgpu's variables have it (`WGPU_BACKEND`, `WGPU_VALIDATION`, …).
fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor.with_env())
}

/// The kind of device first. On Windows a GPU is there twice; D3D12 may come with a compiler that is not up to our shaders.
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
