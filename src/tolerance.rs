//! Tolerances between two results of one operation.
//!
//! Each kernel's contract derives its tolerances. Tests, `verify`,
//! [`CrossCheck`](crate::backend::CrossCheck) and the documentation use them.

/// Unit roundoff of `f32`, 2⁻²⁴, the unit of the kernels' tolerances.
pub const F32_ROUNDOFF: f64 = 5.960_464_477_539_063e-8;

/// The largest |value − reference| allowed in one output.
#[derive(Debug, Clone, PartialEq)]
pub enum Tolerance {
    /// Bit-identical (integers, copies).
    Exact,
    /// `abs + rel·|reference|` for each element.
    Uniform {
        /// Absolute part.
        abs: f64,
        /// Part relative to |reference|.
        rel: f64,
    },
    /// An absolute bound for each element, from a forward error analysis.
    PerElement(Vec<f64>),
}

impl Tolerance {
    /// The largest |value − `reference`| allowed at `index`.
    pub fn allowed(&self, index: usize, reference: f64) -> f64 {
        match self {
            Tolerance::Exact => 0.0,
            Tolerance::Uniform { abs, rel } => abs + rel * reference.abs(),
            Tolerance::PerElement(bounds) => bounds.get(index).copied().unwrap_or(0.0),
        }
    }
}
