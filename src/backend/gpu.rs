//! The wgpu backend.

use super::Memory;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Context, Selection};
use crate::kernels::linear::{Product, Ways};

/// Which variant of a kernel to run, where it has several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Variant {
    /// By shape and adapter.
    #[default]
    Auto,
    /// The plain one that the others are checked against.
    Plain,
    /// The faster one: register tiles, parallel scan, fused.
    Fast,
}

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
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// Those of [`Context::open`].
    pub fn open(selection: &Selection) -> Result<Self> {
        Ok(Self::on(Context::open(selection)?))
    }

    /// Works on a context, for instance one on a caller's own device.
    pub fn on(context: Context) -> Self {
        Self { context, variant: Variant::Auto, product: None }
    }

    pub(super) fn ways(&self) -> Ways {
        Ways { variant: self.variant, product: self.product }
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
        format!("GPU ({})", self.context.name())
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

    fn flush(&mut self) -> Result<()> {
        self.context.flush()
    }

    fn check_float_guards(&mut self, buffer: &Buffer<f32>) -> Result<()> {
        self.check_guards(buffer)
    }

    fn check_word_guards(&mut self, buffer: &Buffer<u32>) -> Result<()> {
        self.check_guards(buffer)
    }
}
