//! The native backend: the reference twins themselves, at `f32` or (the oracle) `f64`.

use std::marker::PhantomData;

use super::Memory;
use crate::error::{Error, Result};
use crate::real::Real;
use crate::shape::defaults;

/// Runs every operation natively in `T`: `Cpu<f32>` where there is no GPU, `Cpu<f64>` as the oracle.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cpu<T: Real>(PhantomData<T>);

impl<T: Real> Cpu<T> {
    /// The backend; it holds nothing.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

fn range<'a, T>(name: &str, buffer: &'a [T], offset: usize, len: usize) -> Result<&'a [T]> {
    let end = offset.checked_add(len).filter(|&end| end <= buffer.len() && len > 0);
    end.map(|end| &buffer[offset..end]).ok_or_else(|| {
        Error::shape(name, format!("a non-empty range within {} elements", buffer.len()), format!("{len} from {offset}"))
    })
}

fn range_mut<'a, T>(name: &str, buffer: &'a mut [T], offset: usize, len: usize) -> Result<&'a mut [T]> {
    range(name, buffer, offset, len)?;
    Ok(&mut buffer[offset..offset + len])
}

fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    if len == 0 {
        return Err(Error::shape("len", "at least 1 element", len));
    }
    defaults("buffer", len)
}

impl<T: Real> Memory for Cpu<T> {
    type Floats = Vec<T>;
    type Words = Vec<u32>;

    fn run_together<R: Send>(&mut self, operations: impl FnOnce(&mut Self) -> R + Send) -> R {
        rayon::scope(|_| operations(self))
    }

    fn describe(&self) -> String {
        format!("CPU ({})", T::NAME)
    }

    fn alloc_floats(&mut self, len: usize) -> Result<Vec<T>> {
        zeros(len)
    }

    fn alloc_words(&mut self, len: usize) -> Result<Vec<u32>> {
        zeros(len)
    }

    fn write_floats(&mut self, target: &mut Vec<T>, offset: usize, data: &[f32]) -> Result<()> {
        let target = range_mut("write_floats", target, offset, data.len())?;
        target.iter_mut().zip(data).for_each(|(t, &x)| *t = T::of(f64::from(x)));
        Ok(())
    }

    fn write_f64(&mut self, target: &mut Vec<T>, offset: usize, data: &[f64]) -> Result<()> {
        let target = range_mut("write_f64", target, offset, data.len())?;
        target.iter_mut().zip(data).for_each(|(t, &x)| *t = T::of(x));
        Ok(())
    }

    fn write_words(&mut self, target: &mut Vec<u32>, offset: usize, data: &[u32]) -> Result<()> {
        range_mut("write_words", target, offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn copy_floats(
        &mut self,
        source: &Vec<T>,
        source_offset: usize,
        target: &mut Vec<T>,
        target_offset: usize,
        len: usize,
    ) -> Result<()> {
        let source = range("source", source, source_offset, len)?;
        range_mut("target", target, target_offset, len)?.copy_from_slice(source);
        Ok(())
    }

    fn read_f64(&mut self, source: &Vec<T>, offset: usize, len: usize) -> Result<Vec<f64>> {
        Ok(range("read_f64", source, offset, len)?.iter().map(|x| x.f64()).collect())
    }

    fn read_words(&mut self, source: &Vec<u32>, offset: usize, len: usize) -> Result<Vec<u32>> {
        Ok(range("read_words", source, offset, len)?.to_vec())
    }
}
