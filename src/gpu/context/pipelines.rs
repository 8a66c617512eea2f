//! Shader modules and compute pipelines, created at their first dispatch.

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
    /// Replacement texts by shader name.
    replaced: HashMap<&'static str, String>,
    /// Keyed by name and bounds checks.
    modules: HashMap<(&'static str, bool), wgpu::ShaderModule>,
    indices: HashMap<PipelineKey, usize>,
    /// By shader: numbers and names of its buffers.
    bindings: HashMap<&'static str, Vec<(u32, &'static str)>>,
    pub(super) made: Vec<wgpu::ComputePipeline>,
}

impl Pipelines {
    /// The number of the buffer that a shader calls `name`. A text that replaces it keeps its
    /// bindings.
    pub(super) fn binding(&mut self, shader: Shader, name: &str) -> Result<u32> {
        let known = self.bindings.entry(shader.name).or_insert_with(|| bindings(shader.source).collect());
        let found = known.iter().find(|(_, known)| *known == name);
        found.map(|(number, _)| *number).ok_or_else(|| Error::Device(format!("{} has no buffer {name}", shader.name)))
    }
}

impl Context {
    /// Replaces the text of the shader `name`, for experiments and tests that plant a fault.
    pub fn replace_shader(&mut self, name: &'static str, source: String) {
        self.pipelines.replaced.insert(name, source);
        self.pipelines.modules.retain(|&(shader, _), _| shader != name);
        self.pipelines.indices.retain(|key, _| key.shader != name);
    }

    /// Turns bounds checks on or off, even for [proven](Indices::Proven) indices. A context
    /// [opened](super::OpenOptions) unchecked refuses to record shaders with bounds checks.
    pub fn set_bounds_checks(&mut self, bounds_checks: bool) {
        self.bounds_checks = bounds_checks;
    }

    /// Whether `shader` gets bounds checks: if they are on, if its indices are not proven or its
    /// text is replaced, and in guarded mode.
    pub fn checks_bounds(&self, shader: &Shader) -> bool {
        let is_proven = shader.indices == Indices::Proven && !self.pipelines.replaced.contains_key(shader.name);
        self.bounds_checks || self.guards || !is_proven
    }

    /// Whether pipelines and choices may be cached: not while looking for faults.
    pub(in crate::gpu) fn may_cache(&self, shader: &'static str) -> bool {
        !(self.bounds_checks || self.guards || self.pipelines.replaced.contains_key(shader) || self.cache.is_off())
    }

    /// Finds or makes a pipeline; returns its index in [`Pipelines::made`].
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
            let wanted = "proven indices, its own text and no guard regions, or a context opened with checks";
            return Err(Error::value(format!("shader {}", shader.name), wanted, "a context opened without checks"));
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
                // Kernels write workgroup memory before they read it.
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

/// Compiles without naga's loop counters, which once made a kernel a hundred times slower; the host
/// bounds our loops. Bounds checks follow [`Context::checks_bounds`]. Divisions stay checked.
#[allow(unsafe_code)]
fn compile(device: &wgpu::Device, label: &str, source: &str, bounds_checks: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(source.into()) };
    let checks = wgpu::ShaderRuntimeChecks { bounds_checks, force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: none of our loops is endless. Without bounds checks the text is our own, its header
    // proves its indices, and our kernels check the lengths of their buffers first.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
