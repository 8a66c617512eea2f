//! Each kernel's contract (shapes, parameters, limits, tolerance) and its binding to wgpu.

pub mod actor_critic;
pub mod advantage;
pub mod gather;
pub mod linear;
pub mod nonfinite;
pub mod normalize;
pub mod optimizer;
pub mod policy;
pub mod random;
pub mod surrogate;

/// Every shader file, for tests and tools that look at all of them.
#[cfg(feature = "gpu")]
pub fn shaders() -> Vec<ShaderInfo> {
    [
        actor_critic::SHADERS,
        advantage::SHADERS,
        gather::SHADERS,
        linear::SHADERS,
        nonfinite::SHADERS,
        normalize::SHADERS,
        optimizer::SHADERS,
        policy::SHADERS,
        random::SHADERS,
        surrogate::SHADERS,
    ]
    .concat()
}

/// A shader file with its parameter structs and all the specialisations in use.
#[cfg(feature = "gpu")]
#[derive(Debug, Clone, Copy)]
pub struct ShaderInfo {
    /// Name and text.
    pub shader: crate::gpu::Shader,
    /// Parameter structs: name in WGSL, size in bytes, fields.
    pub params: &'static [(&'static str, usize, &'static [crate::gpu::Field])],
    /// Entry points, each with every set of `override` constants it is built with.
    pub entries: &'static [(&'static str, &'static [Constants])],
}

/// Values of a pipeline's `override` constants, by name.
#[cfg(feature = "gpu")]
pub type Constants = &'static [(&'static str, f64)];
