//! What the tests of all kernels share.
#![allow(dead_code)] // each test file uses its part

use ppo_kernels::backend::{Cpu, CrossCheck, Gpu, Precision, Variant};
use ppo_kernels::gpu::{Autotune, Selection};
use ppo_kernels::{Error, Mismatch, wgpu};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The best adapter there is. Without one the test fails, unless `PPO_KERNELS_NO_GPU=1` waives it; then it counts itself in the file that
/// `PPO_KERNELS_WAIVED` names. Shaders check their bounds, whatever the profile; with `PPO_KERNELS_UNCHECKED=1` they do not.
/// Nothing is tuned: tests take as long as they take, and write nothing into the user's folders.
pub fn gpu() -> Option<Gpu> {
    gpu_with(Precision::F32)
}

/// As [`gpu`], with large matrix products in `precision`, if the adapter can.
pub fn gpu_with(precision: Precision) -> Option<Gpu> {
    if std::env::var_os("PPO_KERNELS_NO_GPU").is_some_and(|v| v == "1") {
        if let Some(path) = std::env::var_os("PPO_KERNELS_WAIVED") {
            use std::io::Write;
            let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
            log.and_then(|mut file| writeln!(file, "{}", std::thread::current().name().unwrap_or("?"))).unwrap();
        }
        return None;
    }
    match Gpu::open_checked(&Selection::Best, precision) {
        Ok(mut gpu) => {
            gpu.context.set_bounds_checks(std::env::var_os("PPO_KERNELS_UNCHECKED").is_none_or(|v| v != "1"));
            gpu.context.set_autotune(Autotune::Off);
            Some(gpu)
        }
        Err(error) => panic!("{error}. Run ./scripts/test, which installs a software adapter, or set PPO_KERNELS_NO_GPU=1"),
    }
}

/// The precisions of tensor cores.
pub const ON_TENSOR_CORES: [Precision; 2] = [Precision::F16TensorCore, Precision::F16x3TensorCore];

/// The best adapter with all its matrix products on tensor cores; none, and a line that says so, where it has no such thing. One that has them and
/// does not pass its self-test fails the test.
pub fn gpu_on_tensor_cores(precision: Precision) -> Option<Gpu> {
    let mut gpu = gpu_with(precision)?;
    if let Err(reason) = gpu.context.cooperative_matrix() {
        println!("skipped, no tensor cores: {reason}");
        return None;
    }
    assert_eq!(gpu.precision(), precision, "the self-test failed");
    gpu.variant = Variant::Fast;
    Some(gpu)
}

/// Whether tiles of 128×128 fit the adapter's workgroup memory: their operands take 20 KiB for each number of f16, their staged sums 8.
pub fn has_large_tiles(gpu: &Gpu) -> bool {
    let needed = if gpu.precision() == Precision::F16x3TensorCore { 48 << 10 } else { 28 << 10 };
    gpu.context.limits().max_compute_workgroup_storage_size >= needed
}

/// The adapter with guard regions and poisoned buffers, checked against the oracle.
pub fn checked() -> Option<CrossCheck<Gpu, Cpu<f64>>> {
    let mut gpu = gpu()?;
    gpu.context.set_guards(true);
    Some(CrossCheck::new(gpu, Cpu::new()))
}

/// As [`checked`], with all matrix products on tensor cores, and the name of their shader.
pub fn checked_on_tensor_cores(precision: Precision) -> Option<(CrossCheck<Gpu, Cpu<f64>>, &'static str)> {
    let mut gpu = gpu_on_tensor_cores(precision)?;
    gpu.context.set_guards(true);
    let shader = match gpu.context.cooperative_matrix().unwrap().size {
        8 => "linear/tensor_core_8",
        _ => "linear/tensor_core_16",
    };
    Some((CrossCheck::new(gpu, Cpu::new()), shader))
}

/// A device as a caller of the library may have one of their own.
pub fn callers_device(required_limits: wgpu::Limits) -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).unwrap()
}

/// Runs each named `fn name<B: Backend>(backend: &mut B)` on the GPU and on both CPU backends.
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod gpu { $(#[test] fn $name() { if let Some(mut backend) = $crate::common::gpu() { super::$name(&mut backend) } })+ }
        mod cpu_f32 { $(#[test] fn $name() { super::$name(&mut ppo_kernels::backend::Cpu::<f32>::new()) })+ }
        mod cpu_f64 { $(#[test] fn $name() { super::$name(&mut ppo_kernels::backend::Cpu::<f64>::new()) })+ }
    };
}

/// The mismatch that a planted fault has to cause.
#[track_caller]
pub fn expect_mismatch(result: ppo_kernels::Result<()>) -> Mismatch {
    match result {
        Err(Error::Mismatch(mismatch)) => *mismatch,
        other => panic!("a planted fault went unnoticed: {other:?}"),
    }
}

/// The text of a kernel's shader, with what it shares with others.
#[track_caller]
pub fn shader(name: &str) -> &'static str {
    let info = ppo_kernels::kernels::shaders().into_iter().find(|info| info.shader.name == name);
    info.unwrap_or_else(|| panic!("no shader {name}")).shader.source
}

/// `text` with `from` replaced, which has to be there: a planted fault must not silently plant nothing.
#[track_caller]
pub fn plant(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} to replace");
    text.replace(from, to)
}

/// Plants a fault in a shader, and in those of its forms that have the text.
#[track_caller]
pub fn plant_fault(gpu: &mut Gpu, name: &'static str, from: &str, to: &str) {
    gpu.context.replace_shader(name, plant(shader(name), from, to));
    let forms = ppo_kernels::kernels::shaders().into_iter().map(|info| info.shader);
    for form in forms.filter(|form| form.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))) {
        gpu.context.replace_shader(form.name, form.source.replace(from, to));
    }
}

/// Seeded random inputs.
pub struct Draw(ChaCha8Rng);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Standard normal numbers times `scale`.
    pub fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        use rand_distr::{Distribution, StandardNormal};
        (0..n).map(|_| scale * Distribution::<f32>::sample(&StandardNormal, &mut self.0)).collect()
    }

    /// Integers in 0..below.
    pub fn words(&mut self, n: usize, below: u32) -> Vec<u32> {
        (0..n).map(|_| self.0.random_range(0..below)).collect()
    }

    /// Flags that are 1 with the given probability.
    pub fn flags(&mut self, n: usize, probability: f64) -> Vec<u32> {
        (0..n).map(|_| u32::from(self.0.random_bool(probability))).collect()
    }

    /// One size in a range.
    pub fn size(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        self.0.random_range(range)
    }
}

/// ‖x − reference‖ / ‖reference‖.
pub fn relative_error(x: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(x.len(), reference.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|d| d * d).sum::<f64>().sqrt();
    norm(&mut x.iter().zip(reference).map(|(a, b)| a - b)) / norm(&mut reference.iter().copied())
}

/// Compares an analytic gradient with central differences of `loss` in every element of `x`; collects all failures before it asserts.
#[track_caller]
pub fn check_gradient(name: &str, x: &[f64], gradient: &[f64], step: f64, tolerance: f64, mut loss: impl FnMut(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len(), "{name}");
    let scale = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs())).max(1e-3);
    let mut failures = Vec::new();
    for i in 0..x.len() {
        let mut moved = x.to_vec();
        moved[i] = x[i] + step;
        let above = loss(&moved);
        moved[i] = x[i] - step;
        let numeric = (above - loss(&moved)) / (2.0 * step);
        let difference = (numeric - gradient[i]).abs();
        if !(difference <= tolerance * scale) {
            failures.push(format!("{name}[{i}]: analytic {:e}, numeric {numeric:e}", gradient[i]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
