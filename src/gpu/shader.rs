//! What a kernel tells the device layer about itself.

/// A WGSL file, as it stands on disk. Specialised by `override` constants, never by editing its text.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    /// The kernel's name: the stem of its five files.
    pub name: &'static str,
    /// The file's text.
    pub source: &'static str,
    /// Whether it may run without bounds checks.
    pub indices: Indices,
}

/// Number and name of every buffer of group 0 in a WGSL text: names stand once, in the shader, and bindings are asked for by them.
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
    /// Every index into an array or a vector, in storage, workgroup or private memory, is below the length that the Rust contract has
    /// checked or the shader declares: in every entry point and specialisation, for every input that a caller can pass, hostile index
    /// buffers included, and also where the value read goes unused (`select` reads both of its operands). An index made of data counts
    /// only where the shader clamps or compares it first. The argument stands in the shader's header, at `Preconditions`.
    Proven,
    /// Nobody has shown that.
    Checked,
}

/// One field of a shader's parameter struct, for the test that compares Rust's layout with naga's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name, the same in both languages.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
}

/// A parameter struct that a shader reads as its uniform at binding 0.
pub trait ShaderParams: bytemuck::Pod {
    /// Name of the struct in the WGSL file.
    const NAME: &'static str;
    /// Its fields in order.
    const FIELDS: &'static [Field];
}

/// Declares a `#[repr(C)]` parameter struct with the same name and fields as in WGSL.
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

/// How many workgroups to start. One dimension counts at most 65 535, so more are folded into two; shaders find their linear
/// index as `workgroup_id.x + workgroup_id.y * num_workgroups.x` and ignore those past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// `n` workgroups, folded into two dimensions where needed.
    Linear(usize),
    /// Columns, rows and layers of workgroups, each within the adapter's limit a dimension.
    Xyz(usize, usize, usize),
}

impl Grid {
    /// Enough workgroups of `workgroup_size` invocations for `n` invocations.
    pub fn covering(n: usize, workgroup_size: usize) -> Self {
        Grid::Linear(n.div_ceil(workgroup_size))
    }
}
