//! A kernel's description for the device layer: shader, parameters, grid.

/// A WGSL file, specialised by `override` constants, never by editing its text.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    /// The kernel's name.
    pub name: &'static str,
    /// The file's text.
    pub source: &'static str,
    /// Whether it may run without bounds checks.
    pub indices: Indices,
}

/// Number and name of every buffer of group 0 in a WGSL text, which alone defines them.
pub fn bindings(source: &str) -> impl Iterator<Item = (u32, &str)> {
    source.lines().filter_map(|line| {
        let (number, rest) = line.trim_start().strip_prefix("@group(0) @binding(")?.split_once(')')?;
        let (declared, _) = rest.split_once(':')?;
        Some((number.parse().ok()?, declared.rsplit([' ', '>']).next()?))
    })
}

/// What is known of a shader's indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indices {
    /// Each index into an array or a vector is in bounds, in every entry point and specialisation
    /// and for every input. This includes operands that `select` discards. The shader clamps or
    /// compares each index that comes from data. Its header gives the proof, at `Preconditions`.
    Proven,
    /// Not proven.
    Checked,
}

/// A field of a shader's parameter struct; a test compares Rust's layout with naga's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name in Rust and WGSL.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
}

/// A shader's uniform at binding 0.
pub trait ShaderParams: bytemuck::Pod {
    /// Name in the WGSL file.
    const NAME: &'static str;
    /// Fields in order.
    const FIELDS: &'static [Field];
}

/// Declares a `#[repr(C)]` parameter struct with the names of the WGSL struct.
macro_rules! shader_params {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $(pub $field: $type,)+ }
        impl $crate::gpu::ShaderParams for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::gpu::Field] = &[
                $($crate::gpu::Field { name: stringify!($field), offset: std::mem::offset_of!($name, $field) },)+
            ];
        }
    };
}
pub(crate) use shader_params;

/// Number of workgroups. A dimension holds at most 65 535; shaders compute their linear index as
/// `workgroup_id.x + workgroup_id.y * num_workgroups.x` and skip indices past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// `n` workgroups, in two dimensions where needed.
    Linear(usize),
    /// Columns, rows and layers of workgroups, each within the adapter's limit.
    Xyz(usize, usize, usize),
}

impl Grid {
    /// Workgroups of `workgroup_size` invocations for `n` invocations.
    pub fn covering(n: usize, workgroup_size: usize) -> Self {
        Grid::Linear(n.div_ceil(workgroup_size))
    }
}
