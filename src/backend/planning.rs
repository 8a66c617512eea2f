//! How much memory something will take, before any of it is allocated.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Backend, Cpu, Length, Memory};
use crate::error::Result;
use crate::real::Real;

/// Work whose memory is asked for before it is done.
pub trait Rehearsal {
    /// Allocates the buffers that the work keeps.
    ///
    /// # Errors
    /// Those of the allocations.
    fn allocate<M: Memory>(&self, memory: &mut M) -> Result<()>;

    /// Allocates the same, and does the work. Every number read back is 0.
    ///
    /// # Errors
    /// Those of the backend.
    fn run<B: Backend>(&self, backend: &mut B) -> Result<()>;
}

/// Backends that can say what memory some work will take on them. A cross-check cannot: it has two memories.
pub trait PlanMemory: Backend {
    /// Bytes. Nothing is computed, and no memory of that size allocated.
    ///
    /// On a GPU, everything from the first allocation of `work` to the end of its last submission, in multiples of 64 bytes: buffers, what
    /// operations keep from one dispatch to the next, uniforms, copies to and from the host. The work is recorded as it always is, on a
    /// context that only counts. On the CPU, buffers; what an operation allocates and frees before it returns is not counted, nor
    /// what the pool's threads keep for all.
    ///
    /// # Errors
    /// Those of the work: sizes out of range, a buffer beyond the adapter's limits.
    fn memory_bytes(&self, work: &impl Rehearsal) -> Result<u64>;
}

impl<T: Real> PlanMemory for Cpu<T>
where
    Self: Backend,
{
    fn memory_bytes(&self, work: &impl Rehearsal) -> Result<u64> {
        let mut ledger = Ledger { bytes_a_float: size_of::<T>(), bytes: 0 };
        work.allocate(&mut ledger)?;
        Ok(ledger.bytes)
    }
}

#[cfg(feature = "gpu")]
impl PlanMemory for Gpu {
    fn memory_bytes(&self, work: &impl Rehearsal) -> Result<u64> {
        let mut planner = Self {
            variant: self.variant,
            product: self.product,
            fused_form: self.fused_form,
            tensor_cores: self.tensor_cores,
            ..Self::on(self.context.planner())
        };
        work.run(&mut planner)?;
        Ok(planner.context.planned_bytes())
    }
}

/// Adds up what it is asked for. Its buffers hold nothing: zeros are read from them, and writing to them does nothing.
struct Ledger {
    bytes_a_float: usize,
    bytes: u64,
}

impl Ledger {
    fn buffer(&mut self, len: usize, bytes_an_element: usize) -> Counted {
        self.bytes = self.bytes.saturating_add((len as u64).saturating_mul(bytes_an_element as u64));
        Counted { len }
    }
}

/// A buffer's length.
#[derive(Debug)]
struct Counted {
    len: usize,
}

impl Length for Counted {
    fn len(&self) -> usize {
        self.len
    }
}

impl Memory for Ledger {
    type Floats = Counted;
    type Words = Counted;

    fn describe(&self) -> String {
        "a count of bytes".to_owned()
    }

    fn alloc_floats(&mut self, len: usize) -> Result<Counted> {
        Ok(self.buffer(len, self.bytes_a_float))
    }

    fn alloc_words(&mut self, len: usize) -> Result<Counted> {
        Ok(self.buffer(len, size_of::<u32>()))
    }

    fn write_floats(&mut self, _: &mut Counted, _: usize, _: &[f32]) -> Result<()> {
        Ok(())
    }

    fn write_f64(&mut self, _: &mut Counted, _: usize, _: &[f64]) -> Result<()> {
        Ok(())
    }

    fn write_words(&mut self, _: &mut Counted, _: usize, _: &[u32]) -> Result<()> {
        Ok(())
    }

    fn copy_floats(&mut self, _: &Counted, _: usize, _: &mut Counted, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn read_floats(&mut self, _: &Counted, _: usize, len: usize) -> Result<Vec<f32>> {
        Ok(vec![0.0; len])
    }

    fn read_f64(&mut self, _: &Counted, _: usize, len: usize) -> Result<Vec<f64>> {
        Ok(vec![0.0; len])
    }

    fn read_words(&mut self, _: &Counted, _: usize, len: usize) -> Result<Vec<u32>> {
        Ok(vec![0; len])
    }
}
