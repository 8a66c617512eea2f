//! The program, run twice: a backend under test beside a reference, compared after every operation.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Memory, Pair, Position};
use crate::error::{Error, Mismatch, Result};
use crate::tolerance::Tolerance;

/// The element that came closest to its tolerance, or went furthest beyond it, over all comparisons of one tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Worst {
    /// |value − reference|.
    pub error: f64,
    /// What was allowed there.
    pub allowed: f64,
    /// Elements compared so far.
    pub compared: u64,
}

impl Worst {
    /// `error / allowed`; at most 1 where everything passed.
    pub fn ratio(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.allowed }
    }
}

/// Runs every operation on `A` and on `B`, compares every output by the kernel's own tolerance, and fails with
/// [`Error::Mismatch`] at the first element beyond it. After each operation `B` continues from `A`'s numbers, so errors of
/// successive operations do not pile up.
#[derive(Debug)]
pub struct CrossCheck<A, B> {
    /// The backend under test.
    pub a: A,
    /// The reference.
    pub b: B,
    position: Position,
    worst: BTreeMap<(&'static str, &'static str), Worst>,
}

impl<A: Memory, B: Memory> CrossCheck<A, B> {
    /// Checks `a` against `b`.
    pub fn new(a: A, b: B) -> Self {
        Self { a, b, position: Position::default(), worst: BTreeMap::new() }
    }

    /// The worst element of every (operation, tensor) compared so far.
    pub fn worst(&self) -> &BTreeMap<(&'static str, &'static str), Worst> {
        &self.worst
    }

    /// Compares elements `range` of an output, then gives `B` the values of `A`.
    pub(crate) fn compare(
        &mut self,
        operation: &'static str,
        tensor: &'static str,
        output: &mut Pair<A::Floats, B::Floats>,
        range: Range<usize>,
        tolerance: &Tolerance,
    ) -> Result<()> {
        let values = self.a.read_f64(&output.a, range.start, range.len())?;
        let references = self.b.read_f64(&output.b, range.start, range.len())?;
        self.judge(operation, tensor, range.start, &values, &references, tolerance)?;
        self.b.write_f64(&mut output.b, range.start, &values)
    }

    /// As [`compare`](Self::compare) for integers, which have to be equal.
    pub(crate) fn compare_words(
        &mut self,
        operation: &'static str,
        tensor: &'static str,
        output: &mut Pair<A::Words, B::Words>,
        range: Range<usize>,
    ) -> Result<()> {
        let values = self.a.read_words(&output.a, range.start, range.len())?;
        let references = self.b.read_words(&output.b, range.start, range.len())?;
        let wide = |words: &[u32]| words.iter().map(|&w| f64::from(w)).collect::<Vec<_>>();
        self.judge(operation, tensor, range.start, &wide(&values), &wide(&references), &Tolerance::Exact)?;
        self.b.write_words(&mut output.b, range.start, &values)
    }

    /// Judges `values` against `references`, the elements of an output from index `first` on.
    pub(crate) fn judge(
        &mut self,
        operation: &'static str,
        tensor: &'static str,
        first: usize,
        values: &[f64],
        references: &[f64],
        tolerance: &Tolerance,
    ) -> Result<()> {
        let worst = self.worst.entry((operation, tensor)).or_default();
        worst.compared += values.len() as u64;
        for (i, (&value, &reference)) in values.iter().zip(references).enumerate() {
            let (error, allowed) = ((value - reference).abs(), tolerance.allowed(i, reference));
            // Written so that a NaN on one side fails; equal infinities pass, and NaN on both: who looks for NaN is to find where it came from.
            let passes = error <= allowed || value == reference || (value.is_nan() && reference.is_nan());
            // What nothing bounds says nothing.
            if passes
                && error > 0.0
                && allowed.is_finite()
                && (worst.error == 0.0 || error * worst.allowed > worst.error * allowed)
            {
                (worst.error, worst.allowed) = (error, allowed);
            }
            if !passes {
                (worst.error, worst.allowed) = (error, allowed);
                return Err(Error::Mismatch(Box::new(Mismatch {
                    operation,
                    tensor,
                    element: first + i,
                    value,
                    reference,
                    allowed,
                    update: self.position.update,
                    minibatch: self.position.minibatch,
                    backends: (self.a.describe(), self.b.describe()),
                })));
            }
        }
        Ok(())
    }
}

impl<A: Memory, B: Memory> Memory for CrossCheck<A, B> {
    type Floats = Pair<A::Floats, B::Floats>;
    type Words = Pair<A::Words, B::Words>;

    fn describe(&self) -> String {
        format!("{} checked against {}", self.a.describe(), self.b.describe())
    }

    fn alloc_floats(&mut self, len: usize) -> Result<Self::Floats> {
        Ok(Pair { a: self.a.alloc_floats(len)?, b: self.b.alloc_floats(len)? })
    }

    fn alloc_words(&mut self, len: usize) -> Result<Self::Words> {
        Ok(Pair { a: self.a.alloc_words(len)?, b: self.b.alloc_words(len)? })
    }

    fn write_floats(&mut self, target: &mut Self::Floats, offset: usize, data: &[f32]) -> Result<()> {
        self.a.write_floats(&mut target.a, offset, data)?;
        self.b.write_floats(&mut target.b, offset, data)
    }

    fn write_f64(&mut self, target: &mut Self::Floats, offset: usize, data: &[f64]) -> Result<()> {
        self.a.write_f64(&mut target.a, offset, data)?;
        self.b.write_f64(&mut target.b, offset, data)
    }

    fn write_words(&mut self, target: &mut Self::Words, offset: usize, data: &[u32]) -> Result<()> {
        self.a.write_words(&mut target.a, offset, data)?;
        self.b.write_words(&mut target.b, offset, data)
    }

    fn copy_floats(
        &mut self,
        source: &Self::Floats,
        source_offset: usize,
        target: &mut Self::Floats,
        target_offset: usize,
        len: usize,
    ) -> Result<()> {
        self.a.copy_floats(&source.a, source_offset, &mut target.a, target_offset, len)?;
        self.b.copy_floats(&source.b, source_offset, &mut target.b, target_offset, len)
    }

    fn read_f64(&mut self, source: &Self::Floats, offset: usize, len: usize) -> Result<Vec<f64>> {
        self.a.read_f64(&source.a, offset, len)
    }

    fn read_words(&mut self, source: &Self::Words, offset: usize, len: usize) -> Result<Vec<u32>> {
        self.a.read_words(&source.a, offset, len)
    }

    fn flush(&mut self) -> Result<()> {
        self.a.flush()?;
        self.b.flush()
    }

    fn set_position(&mut self, position: Position) {
        self.position = position;
        self.a.set_position(position);
        self.b.set_position(position);
    }
}
