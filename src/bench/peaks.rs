//! Peaks of a device, measured: copying, and arithmetic.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::inputs::Inputs;
use super::measure::{Clocks, Effort, Samples, Timed};
use super::{Finding, Record, Report, Work, record};
use crate::backend::{Cpu, LinearOps, Memory, MemoryPlanner, Precision};
use crate::error::{Error, Result};
use crate::kernels::linear::{Activation, ForwardOperands, Linear};
use crate::operations::Step;

const MIB: usize = 1 << 20;
/// Bytes of the source: one fits a last-level cache, one rarely does.
const COPIES: [(&str, usize); 2] = [("limits/copy_16MiB", 16 * MIB), ("limits/copy_128MiB", 128 * MIB)];
const ARITHMETIC: &str = "limits/arithmetic";
const TENSOR_CORE: &str = "limits/tensor_core";
/// Kernel variants on tensor cores: operands rounded to f16, or as two f16 numbers each.
pub const TENSOR_CORES: [&str; 2] = ["f16_tensor_core", "f16x3_tensor_core"];
/// Names of the peaks that every backend has.
pub(super) const NAMES: [&str; 3] = [COPIES[0].0, COPIES[1].0, ARITHMETIC];

/// Speed of a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Bytes read and written by the copy.
    pub bytes: f64,
    /// Gigabytes per second, read and written.
    pub gbps: f64,
}

/// The adapter's best speeds in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// 10⁹ floating-point operations per second in f32.
    pub gflops: f64,
    /// The tensor cores' 10⁹ operations per second, if large matrix products run there.
    pub tensor_gflops: Option<f64>,
    /// Copies, the small one first.
    pub copies: [Bandwidth; 2],
}

impl Peaks {
    /// The peaks in a run's findings, each by its fastest sample; None before all are known.
    pub fn among(findings: &[Finding]) -> Option<Self> {
        let record = |name: &str| {
            findings.iter().find_map(|finding| match finding {
                Finding::Timed(record) if record.bench == name => Some(&**record),
                _ => None,
            })
        };
        let gflops = |name| record(name).map(|record| record.flops / record.min_s / 1e9);
        let copy = |name| record(name).map(|record| Bandwidth { bytes: record.bytes, gbps: record.bytes / record.min_s / 1e9 });
        let [(small, _), (large, _)] = COPIES;
        let copies = [copy(small)?, copy(large)?];
        Some(Self { gflops: gflops(ARITHMETIC)?, tensor_gflops: gflops(TENSOR_CORE), copies })
    }

    /// The peaks for a variant: on [`TENSOR_CORES`], theirs divided by the products that make up
    /// one.
    pub fn of(&self, variant: &str) -> Self {
        let [once, thrice] = TENSOR_CORES;
        let products = [(once, 1.0), (thrice, 3.0)].into_iter().find(|(of, _)| *of == variant);
        let on_tensor_cores = products.and_then(|(_, products)| Some(self.tensor_gflops? / products));
        Self { gflops: on_tensor_cores.unwrap_or(self.gflops), ..*self }
    }

    /// Bandwidth of the copy of that size: data in the cache are not compared with main memory.
    fn bandwidth(&self, bytes: f64) -> f64 {
        let [small, large] = self.copies;
        if bytes <= small.bytes { small.gbps } else { large.gbps }
    }

    /// Least seconds for `flops` and `bytes` by these peaks (the roofline).
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.gflops).max(bytes / self.bandwidth(bytes)) / 1e9
    }
}

pub(super) fn variant(precision: Precision) -> &'static str {
    let [once, thrice] = TENSOR_CORES;
    match precision {
        Precision::F32 => "default",
        Precision::F16TensorCore => once,
        Precision::F16x3TensorCore => thrice,
    }
}

/// Arithmetic units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Units for f32.
    F32,
    /// Units that multiply matrices of f16.
    TensorCores,
}

/// A backend with measurable peaks.
pub trait Benchmarked: MemoryPlanner<Floats: 'static, Words: 'static> + 'static {
    /// Whether the backend uses them: all use f32, and large matrix products perhaps tensor cores.
    fn has(&self, units: Units) -> bool {
        units == Units::F32
    }
    /// The precision of matrix products since the last call: of tensor cores if any ran there.
    fn take_used_precision(&mut self) -> Precision {
        Precision::F32
    }
    /// Floating-point operations of one call of [`arithmetic`](Self::arithmetic).
    fn arithmetic_flops(&self, units: Units) -> f64;
    /// Copies `source` to `target` as fast as possible.
    ///
    /// # Errors
    /// Those of the backend.
    fn copy_fast(&mut self, source: &Self::Floats, target: &mut Self::Floats) -> Result<()>;
    /// Saturates `units` with arithmetic on the [`operands`](Self::operands).
    ///
    /// # Errors
    /// Those of the backend.
    fn arithmetic(&mut self, units: Units, operands: &mut [Self::Floats; 3]) -> Result<()>;
    /// Allocates two inputs and a result.
    ///
    /// # Errors
    /// Those of the backend.
    fn operands(&mut self, units: Units) -> Result<[Self::Floats; 3]>;
    /// Relative deviation of the result from double precision.
    ///
    /// # Errors
    /// Those of the backend.
    fn deviation(&mut self, units: Units, operands: &[Self::Floats; 3]) -> Result<f64>;
    /// Frees the backend's caches.
    fn release(&mut self) {}
    /// Starts or stops the backend's own clocks, if it has any.
    fn set_timing(&mut self, _timing: bool) {}
    /// Reads and restarts those clocks. Waits for all submissions.
    ///
    /// # Errors
    /// Those of the backend.
    fn take_clocks(&mut self) -> Result<Clocks> {
        Ok(Clocks::default())
    }
}

struct Repeated<'a, B: Benchmarked> {
    backend: &'a mut B,
    step: Step<B>,
    /// A read-back of it waits for all recorded calls.
    waited_for: B::Words,
}

impl<B: Benchmarked> Timed for Repeated<'_, B> {
    const REPEATABLE: bool = true;

    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        (self.step)(self.backend)
    }

    fn wait(&mut self) -> Result<()> {
        self.backend.read_words(&self.waited_for, 0, 1).map(drop)
    }

    fn take_clocks(&mut self) -> Result<Clocks> {
        self.backend.take_clocks()
    }
}

/// Times repeated calls of `step`.
pub(super) fn time<B: Benchmarked>(backend: &mut B, step: Step<B>, effort: Effort) -> Result<Samples> {
    let waited_for = backend.alloc_words(1)?;
    Samples::collect(effort, &mut Repeated { backend, step, waited_for })
}

fn copying<B: Benchmarked>(backend: &mut B, name: &str, bytes: usize, effort: Effort) -> Result<Record> {
    // A sixteenth is drawn and repeated: drawing 32 million numbers takes too long.
    let len = bytes / 4;
    let drawn = Inputs::new().floats(len / 16, 1.0);
    let data: Vec<f32> = drawn.iter().copied().cycle().take(len).collect();
    let (source, mut target) = (backend.upload_floats(&data)?, backend.alloc_floats(len)?);
    backend.copy_fast(&source, &mut target)?;
    if backend.read_floats(&target, 0, len)? != data {
        return Err(Error::value(name, "an exact copy", "another"));
    }
    let samples = time(backend, Box::new(move |backend: &mut B| backend.copy_fast(&source, &mut target)), effort)?;
    let work = Work { flops: 0.0, bytes: 2.0 * bytes as f64, items: None };
    Ok(record(name, backend, &samples, work, None, BTreeMap::from([("target".to_owned(), 0.0)])))
}

fn computing<B: Benchmarked>(backend: &mut B, units: Units, effort: Effort) -> Result<Record> {
    let name = if units == Units::F32 { ARITHMETIC } else { TENSOR_CORE };
    let mut operands = backend.operands(units)?;
    backend.arithmetic(units, &mut operands)?;
    let deviation = backend.deviation(units, &operands)?;
    if !(deviation <= 1e-4) {
        return Err(Error::value(name, "at most 1e-4 from double precision", deviation));
    }
    let samples = time(backend, Box::new(move |backend: &mut B| backend.arithmetic(units, &mut operands)), effort)?;
    let work = Work { flops: backend.arithmetic_flops(units), bytes: 0.0, items: None };
    let check = BTreeMap::from([("result".to_owned(), deviation)]);
    Ok(record(name, backend, &samples, work, None, check))
}

/// Measures all peaks; None if `report` breaks first.
pub(super) fn measure<B: Benchmarked>(backend: &mut B, effort: Effort, report: &mut Report<'_>) -> Result<Option<Peaks>> {
    let mut findings = Vec::new();
    let mut goes_on = |backend: &mut B, record: Record| {
        backend.release();
        let finding = Finding::Timed(Box::new(record));
        findings.push(finding.clone());
        report(finding).is_continue()
    };
    for (name, bytes) in COPIES {
        let record = copying(backend, name, bytes, effort)?;
        if !goes_on(backend, record) {
            return Ok(None);
        }
    }
    for units in [Units::F32, Units::TensorCores] {
        if !backend.has(units) {
            continue;
        }
        let record = computing(backend, units, effort)?;
        if !goes_on(backend, record) {
            return Ok(None);
        }
    }
    Ok(Peaks::among(&findings))
}

/// Side of the square matrices whose product measures a CPU's arithmetic.
const SIDE: usize = 2048;
/// Elements that a thread copies at once.
const CHUNK: usize = MIB / 4;

impl Benchmarked for Cpu<f32> {
    fn arithmetic_flops(&self, _: Units) -> f64 {
        2.0 * (SIDE as f64).powi(3)
    }

    fn copy_fast(&mut self, source: &Vec<f32>, target: &mut Vec<f32>) -> Result<()> {
        target.par_chunks_mut(CHUNK).zip(source.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    }

    fn arithmetic(&mut self, _: Units, [x, params, y]: &mut [Vec<f32>; 3]) -> Result<()> {
        let layer = Linear { batch: SIDE, in_features: SIDE, out_features: SIDE, weight_offset: 0, bias_offset: SIDE * SIDE };
        self.linear_forward(&layer, Activation::Identity, ForwardOperands { x, x_offset: 0, params, pre: None, y, y_offset: 0 })
    }

    fn operands(&mut self, _: Units) -> Result<[Vec<f32>; 3]> {
        let mut inputs = Inputs::new();
        let (x, params) = (inputs.floats(SIDE * SIDE, 1.0), inputs.floats(SIDE * (SIDE + 1), 1.0));
        Ok([x, params, self.alloc_floats(SIDE * SIDE)?])
    }

    /// Checks one row in 64, relative to the rows' length.
    fn deviation(&mut self, _: Units, [x, params, y]: &[Vec<f32>; 3]) -> Result<f64> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let mut sums = (0.0, 0.0);
        for row in (0..SIDE).step_by(64) {
            for column in 0..SIDE {
                let expected = dot(&x[row * SIDE..][..SIDE], &params[column * SIDE..][..SIDE]);
                let expected = expected + f64::from(params[SIDE * SIDE + column]);
                sums.0 += (f64::from(y[row * SIDE + column]) - expected).powi(2);
                sums.1 += expected.powi(2);
            }
        }
        Ok((sums.0 / sums.1).sqrt())
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::{Benchmarked, Clocks, Memory, Units};
    use crate::backend::{Gpu, Precision};
    use crate::error::{Error, Result};
    use crate::gpu::{Buffer, CooperativeMatrix, Grid, Indices, Shader, bind, shader_params};
    use crate::shape::require_len;

    const SHADER: Shader = Shader { name: "peaks", source: include_str!("peaks.wgsl"), indices: Indices::Proven };
    const WORKGROUP_SIZE: usize = 256;
    /// Vectors of four numbers that one invocation copies.
    const COPIED: usize = 8;
    /// Numbers that one invocation multiplies in turn.
    const CHAINS: usize = 12;
    const MULTIPLIER: f32 = 0.998;
    const ADDEND: f32 = 0.5;

    shader_params! {
        struct PeakParams {
            len: u32,
            rounds: u32,
            multiplier: f32,
            addend: f32,
        }
    }

    macro_rules! tensor_shader {
        ($size:literal) => {
            Shader {
                name: concat!("tensor_core_peak_", $size),
                source: concat!(
                    include_str!(concat!("../../shaders/linear/tensor_core_", $size, ".wgsl")),
                    include_str!("tensor_core_peak.wgsl")
                ),
                indices: Indices::Proven,
            }
        };
    }
    const MATRICES_OF_8: Shader = tensor_shader!("8");
    const MATRICES_OF_16: Shader = tensor_shader!("16");
    /// Sum matrices of a subgroup.
    const SUMS: usize = 4;
    /// Elements of a workgroup's matrices.
    const MATRIX_ELEMENTS: usize = 1024;
    /// Constant matrix elements whose products have exact sums.
    const ELEMENTS: (f32, f32) = (1.0, 1.0 / 16.0);

    /// Workgroups and rounds on tensor cores.
    fn tensor_size(gpu: &Gpu) -> (usize, usize) {
        if gpu.context.is_software() { (64, 64) } else { (8192, 4096) }
    }

    /// The adapter's matrix size, and the workgroup size with as many subgroups as linear's.
    fn matrices(gpu: &Gpu) -> Result<(usize, usize)> {
        let CooperativeMatrix { size, subgroup_size } =
            gpu.context.cooperative_matrix().map_err(|reason| Error::value("units", "those of the adapter", reason))?;
        let size = size as usize;
        Ok((size, MATRIX_ELEMENTS / (size * size) * subgroup_size as usize))
    }

    /// Workgroups and rounds: milliseconds for a large GPU, less for a software adapter.
    fn size(gpu: &Gpu) -> (usize, usize) {
        if gpu.context.is_software() { (64, 4096) } else { (8192, 4096) }
    }

    fn multiply_matrices(gpu: &mut Gpu, result: &Buffer<f32>) -> Result<()> {
        let ((workgroups, rounds), (size, workgroup_size)) = (tensor_size(gpu), matrices(gpu)?);
        let len = workgroups * workgroup_size;
        require_len("result", result.len(), len)?;
        let params = PeakParams { len: len as u32, rounds: rounds as u32, multiplier: ELEMENTS.0, addend: ELEMENTS.1 };
        let shader = if size == 16 { MATRICES_OF_16 } else { MATRICES_OF_8 };
        let constants = [("WORKGROUP_SIZE", workgroup_size as f64)];
        gpu.used_precision = Precision::F16TensorCore;
        gpu.context.dispatch(
            shader,
            "multiply_matrices",
            &constants,
            &params,
            &[bind("result", result)],
            Grid::Linear(workgroups),
        )
    }

    impl Benchmarked for Gpu {
        fn has(&self, units: Units) -> bool {
            units == Units::F32 || self.precision() != Precision::F32
        }

        fn take_used_precision(&mut self) -> Precision {
            Gpu::take_used_precision(self)
        }

        fn arithmetic_flops(&self, units: Units) -> f64 {
            if units == Units::TensorCores {
                let ((workgroups, rounds), size) = (tensor_size(self), matrices(self).map_or(0, |(size, _)| size));
                return (2 * MATRIX_ELEMENTS * size * SUMS * rounds * workgroups) as f64;
            }
            let (workgroups, rounds) = size(self);
            (2 * CHAINS * rounds * workgroups * WORKGROUP_SIZE) as f64
        }

        fn copy_fast(&mut self, source: &Buffer<f32>, target: &mut Buffer<f32>) -> Result<()> {
            require_len("target", target.len(), source.len())?;
            let len = source.len() / 4;
            let params = PeakParams { len: len as u32, rounds: 0, multiplier: 0.0, addend: 0.0 };
            let buffers = [bind("source", source), bind("result", target)];
            self.context.dispatch(SHADER, "copy", &[], &params, &buffers, Grid::covering(len, COPIED * WORKGROUP_SIZE))
        }

        fn arithmetic(&mut self, units: Units, [_, _, result]: &mut [Buffer<f32>; 3]) -> Result<()> {
            if units == Units::TensorCores {
                return multiply_matrices(self, result);
            }
            let (workgroups, rounds) = size(self);
            let len = workgroups * WORKGROUP_SIZE;
            require_len("result", result.len(), 4 * len)?;
            let params = PeakParams { len: len as u32, rounds: rounds as u32, multiplier: MULTIPLIER, addend: ADDEND };
            self.context.dispatch(SHADER, "multiply_add", &[], &params, &[bind("result", result)], Grid::Linear(workgroups))
        }

        /// The kernels have no inputs.
        fn operands(&mut self, units: Units) -> Result<[Buffer<f32>; 3]> {
            let len = match units {
                Units::F32 => 4 * size(self).0 * WORKGROUP_SIZE,
                Units::TensorCores => tensor_size(self).0 * matrices(self)?.1,
            };
            Ok([self.alloc_floats(1)?, self.alloc_floats(1)?, self.alloc_floats(len)?])
        }

        fn deviation(&mut self, units: Units, [_, _, result]: &[Buffer<f32>; 3]) -> Result<f64> {
            if units == Units::TensorCores {
                let ((_, rounds), (size, _)) = (tensor_size(self), matrices(self)?);
                // (1 + 2)·(1 + 2) times a product of constant matrices.
                let expected = 9.0 * (size * rounds) as f64 * f64::from(ELEMENTS.0 * ELEMENTS.1);
                let values = self.read_f64(result, 0, result.len())?;
                return Ok(values.iter().map(|value| (value / expected - 1.0).abs()).fold(0.0, f64::max));
            }
            let rounds = size(self).1 as i32;
            let (multiplier, addend) = (f64::from(MULTIPLIER), f64::from(ADDEND));
            // x after n rounds is mⁿ·x₀ + addend·(1 − mⁿ)/(1 − m).
            let power = multiplier.powi(rounds);
            let end = |start: f64| power * start + addend * (1.0 - power) / (1.0 - multiplier);
            let values = self.read_f64(result, 0, result.len())?;
            let expected = |i: usize| {
                let start = (i % 4 + i / 4 % WORKGROUP_SIZE) as f64;
                end(start) + end(start + 4.0) + end(start + 8.0)
            };
            Ok(values.iter().enumerate().map(|(i, value)| (value / expected(i) - 1.0).abs()).fold(0.0, f64::max))
        }

        fn release(&mut self) {
            self.context.release();
        }

        fn set_timing(&mut self, timing: bool) {
            self.context.set_timing(timing);
        }

        fn take_clocks(&mut self) -> Result<Clocks> {
            let gpu_s = self.context.take_gpu_seconds()?;
            // Last, because it restarts the host's clock.
            Ok(Clocks { gpu_s, encode_s: self.context.take_encode_seconds() })
        }
    }
}
