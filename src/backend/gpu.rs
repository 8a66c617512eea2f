//! The wgpu backend.

use super::Memory;
use super::tensor_core::self_test;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Context, OpenOptions, Selection};
use crate::kernels::actor_critic::Form;
use crate::kernels::linear::{Linear, Precision, Product, TensorCores, Ways};
use crate::layout::Variant;

/// Runs every operation as WGSL compute shaders. Operations are recorded; nothing is submitted before a read-back or a flush.
#[derive(Debug)]
pub struct Gpu {
    /// The device and what is recorded on it.
    pub context: Context,
    /// Which variant of each kernel to run.
    pub variant: Variant,
    /// How every matrix product of [`LinearOps`](super::LinearOps) is shared among invocations, where it is not the variant that says so. All ways
    /// compute the same bits.
    pub product: Option<Product>,
    /// How a minibatch step shares work, where neither sizes nor adapter are to say so. Networks that do not fit the form asked for are composed of single
    /// operations.
    pub fused_form: Option<Form>,
    /// What multiplies large matrices, where that is not an f32 kernel.
    pub(super) tensor_cores: Option<TensorCores>,
    /// What it has multiplied them in since somebody asked.
    pub(crate) used_precision: Precision,
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// Those of [`Context::open`].
    pub fn open(selection: &Selection) -> Result<Self> {
        Ok(Self::on(Context::open(selection)?))
    }

    /// Opens an adapter for matrix products in `precision`. Where it has no tensor cores, or they fail a self-test, products stay in f32: one warning
    /// in the log says why, and [`precision`](Self::precision) which it is.
    ///
    /// # Errors
    /// Those of [`Context::open_with`].
    pub fn open_with_precision(selection: &Selection, precision: Precision) -> Result<Self> {
        Self::open_with(selection, precision, OpenOptions::default().bounds_checks)
    }

    /// As [`open_with_precision`](Self::open_with_precision), with [bounds checks](OpenOptions::bounds_checks) whatever the build: for finding faults.
    ///
    /// # Errors
    /// Those of [`Context::open_with`].
    pub fn open_checked(selection: &Selection, precision: Precision) -> Result<Self> {
        Self::open_with(selection, precision, true)
    }

    fn open_with(selection: &Selection, precision: Precision, bounds_checks: bool) -> Result<Self> {
        let tensor_cores = precision != Precision::F32;
        let gpu = Self::on(Context::open_with(selection, OpenOptions { tensor_cores, bounds_checks })?);
        Ok(gpu.with_precision(precision))
    }

    /// From now on products are in `precision`: on tensor cores, which have to be [asked for](OpenOptions::tensor_cores), after a self-test of theirs; where
    /// that cannot be, in f32, with a warning that says why.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.tensor_cores = None;
        if precision == Precision::F32 {
            return self;
        }
        let mut outcome = TensorCores::of(&self.context, precision).map(|cores| self.tensor_cores = Some(cores));
        if outcome.is_ok() {
            (self, outcome) = self_test(self);
        }
        if let Err(reason) = outcome {
            log::warn!("matrix products stay in f32: {reason}");
            self.tensor_cores = None;
        }
        self
    }

    /// What products were recorded in since the last call, if any of them on tensor cores.
    pub fn take_used_precision(&mut self) -> Precision {
        std::mem::take(&mut self.used_precision)
    }

    /// What large matrix products are computed in.
    pub fn precision(&self) -> Precision {
        self.tensor_cores.map_or(Precision::F32, TensorCores::precision)
    }

    /// Works on a context, for instance one on a caller's own device.
    pub fn on(context: Context) -> Self {
        Self {
            context,
            variant: Variant::Auto,
            product: None,
            fused_form: None,
            tensor_cores: None,
            used_precision: Precision::F32,
        }
    }

    /// How to make the products of a layer.
    pub(super) fn ways(&mut self, layer: &Linear) -> Ways {
        let tensor_cores = self.use_tensor_cores(layer);
        Ways { variant: self.variant, product: self.product, tensor_cores }
    }

    fn check_guards<T>(&mut self, buffer: &Buffer<T>) -> Result<()> {
        match self.context.check_guards(buffer)? {
            None => Ok(()),
            Some(at) => Err(Error::Device(format!("a kernel wrote element {at} of a buffer of {} elements", buffer.len()))),
        }
    }
}

impl Memory for Gpu {
    type Floats = Buffer<f32>;
    type Words = Buffer<u32>;

    fn describe(&self) -> String {
        let products = match self.precision() {
            Precision::F32 => "",
            Precision::F16TensorCore => ", f16 tensor cores",
            Precision::F16x3TensorCore => ", f16x3 tensor cores",
        };
        format!("GPU ({}{products})", self.context.name())
    }

    fn alloc_floats(&mut self, len: usize) -> Result<Buffer<f32>> {
        self.context.alloc(len)
    }

    fn alloc_words(&mut self, len: usize) -> Result<Buffer<u32>> {
        self.context.alloc(len)
    }

    fn write_floats(&mut self, target: &mut Buffer<f32>, offset: usize, data: &[f32]) -> Result<()> {
        self.context.write(target, offset, data)
    }

    fn write_f64(&mut self, target: &mut Buffer<f32>, offset: usize, data: &[f64]) -> Result<()> {
        let data: Vec<f32> = data.iter().map(|&x| x as f32).collect();
        self.context.write(target, offset, &data)
    }

    fn write_words(&mut self, target: &mut Buffer<u32>, offset: usize, data: &[u32]) -> Result<()> {
        self.context.write(target, offset, data)
    }

    fn copy_floats(
        &mut self,
        source: &Buffer<f32>,
        source_offset: usize,
        target: &mut Buffer<f32>,
        target_offset: usize,
        len: usize,
    ) -> Result<()> {
        self.context.copy(source, source_offset, target, target_offset, len)
    }

    fn read_floats(&mut self, source: &Buffer<f32>, offset: usize, len: usize) -> Result<Vec<f32>> {
        self.context.read(source, offset, len)
    }

    fn read_f64(&mut self, source: &Buffer<f32>, offset: usize, len: usize) -> Result<Vec<f64>> {
        Ok(self.context.read(source, offset, len)?.into_iter().map(f64::from).collect())
    }

    fn read_words(&mut self, source: &Buffer<u32>, offset: usize, len: usize) -> Result<Vec<u32>> {
        self.context.read(source, offset, len)
    }

    fn read_both(&mut self, words: &Buffer<u32>, floats: &Buffer<f32>) -> Result<(Vec<u32>, Vec<f64>)> {
        let (words, floats) = self.context.read_both(words, floats)?;
        Ok((words, floats.into_iter().map(f64::from).collect()))
    }

    fn flush(&mut self) -> Result<()> {
        self.context.flush()
    }

    fn submit_ahead(&mut self) -> Result<()> {
        if self.context.is_software() { Ok(()) } else { self.context.flush() }
    }

    fn check_float_guards(&mut self, buffer: &Buffer<f32>) -> Result<()> {
        self.check_guards(buffer)
    }

    fn check_word_guards(&mut self, buffer: &Buffer<u32>) -> Result<()> {
        self.check_guards(buffer)
    }
}
