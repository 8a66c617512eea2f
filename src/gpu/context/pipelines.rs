//! Shader modules and compute pipelines, made at the first dispatch that needs them.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::Context;
use crate::error::{Error, Result};
use crate::gpu::shader::{Indices, Shader, bindings};
use crate::gpu::wait;

#[derive(PartialEq, Eq, Hash)]
struct PipelineKey {
    shader: &'static str,
    checked: bool,
    entry: &'static str,
    constants: SmallVec<[(&'static str, u64); 8]>,
}

#[derive(Default)]
pub(super) struct Pipelines {
    /// Texts that replace shaders', by name.
    replaced: HashMap<&'static str, String>,
    /// By name, and whether with bounds checks.
    modules: HashMap<(&'static str, bool), wgpu::ShaderModule>,
    indices: HashMap<PipelineKey, usize>,
    /// By shader: numbers and names of its buffers.
    bindings: HashMap<&'static str, Vec<(u32, &'static str)>>,
    pub(super) made: Vec<wgpu::ComputePipeline>,
}

impl Pipelines {
    /// The number of the buffer that a shader calls `name`. A text that replaces it keeps its bindings.
    pub(super) fn binding(&mut self, shader: Shader, name: &str) -> Result<u32> {
        let known = self.bindings.entry(shader.name).or_insert_with(|| bindings(shader.source).collect());
        let found = known.iter().find(|(_, known)| *known == name);
        found.map(|(number, _)| *number).ok_or_else(|| Error::Device(format!("{} has no buffer {name}", shader.name)))
    }
}

impl Context {
    /// Replaces the text of the shader called `name`, for experiments and for tests that plant a fault.
    pub fn replace_shader(&mut self, name: &'static str, source: String) {
        self.pipelines.replaced.insert(name, source);
        self.pipelines.modules.retain(|&(shader, _), _| shader != name);
        self.pipelines.indices.retain(|key, _| key.shader != name);
    }

    /// Whether shaders recorded from now on check their indices even where those are [proven](Indices::Proven) to be in bounds. A context that was
    /// [opened](super::OpenOptions) unchecked refuses to record shaders with bounds checks.
    pub fn set_bounds_checks(&mut self, bounds_checks: bool) {
        self.bounds_checks = bounds_checks;
    }

    /// Whether `shader` would now be compiled with bounds checks: unless its indices are proven and checks are off. A text that replaced
    /// the shader's has no proof, and a fault that guard regions are there to find would be undefined behaviour without checks.
    pub fn checks_bounds(&self, shader: &Shader) -> bool {
        let is_proven = shader.indices == Indices::Proven && !self.pipelines.replaced.contains_key(shader.name);
        self.bounds_checks || self.guards || !is_proven
    }

    /// Whether pipelines and choices of a shader may be cached: not where faults are looked for.
    pub(in crate::gpu) fn may_cache(&self, shader: &'static str) -> bool {
        !(self.bounds_checks || self.guards || self.pipelines.replaced.contains_key(shader) || self.cache.is_off())
    }

    /// The index in [`Pipelines::made`].
    pub(super) fn pipeline(&mut self, shader: Shader, entry: &'static str, constants: &[(&'static str, f64)]) -> Result<usize> {
        let checked = self.checks_bounds(&shader);
        let key = PipelineKey {
            shader: shader.name,
            checked,
            entry,
            constants: constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
        };
        if let Some(&index) = self.pipelines.indices.get(&key) {
            return Ok(index);
        }
        if checked && !self.can_check_bounds {
            let wanted = "proven indices, its own text and no guard regions, or a context opened with bounds checks";
            return Err(Error::value(format!("shader {}", shader.name), wanted, "a context opened without"));
        }
        if self.dry_run.is_some() {
            let index = self.pipelines.indices.len();
            self.pipelines.indices.insert(key, index);
            return Ok(index);
        }
        let may_cache = self.may_cache(shader.name);
        let Self { device, pipelines: Pipelines { replaced, modules, indices, made, .. }, cache, .. } = self;
        let (pipeline, error) = wait::with_error_scope(device, wgpu::ErrorFilter::Validation, || {
            let module = modules.entry((shader.name, checked)).or_insert_with(|| {
                let source = replaced.get(shader.name).map_or(shader.source, String::as_str);
                compile(device, shader.name, source, checked)
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module,
                entry_point: Some(entry),
                // Kernels write what they read.
                compilation_options: wgpu::PipelineCompilationOptions { constants, zero_initialize_workgroup_memory: false },
                cache: may_cache.then(|| cache.pipelines(device)).flatten(),
            })
        });
        if let Some(error) = error {
            modules.remove(&(shader.name, checked));
            self.require_alive()?;
            return Err(Error::Device(format!("{}::{entry}: {error}", shader.name)));
        }
        made.push(pipeline);
        indices.insert(key, made.len() - 1);
        Ok(made.len() - 1)
    }
}

/// Compiles without naga's loop counters: every loop of ours counts up to a number the host has set, and the counters once made a kernel
/// a hundred times slower. Bounds checks are left out only where [`Context::checks_bounds`] says so. A divisor of zero stays checked.
#[allow(unsafe_code)]
fn compile(device: &wgpu::Device, label: &str, source: &str, bounds_checks: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(source.into()) };
    let checks = wgpu::ShaderRuntimeChecks { bounds_checks, force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: loop bounding guards against endless loops, and no loop of ours is one. Bounds checks guard against indices beyond an array;
    // where they are left out, the text is our own, its header says why there are none, and only our kernels dispatch it, each after it
    // has checked the lengths of its buffers.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
