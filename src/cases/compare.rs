//! When a computed tensor passes.

use super::file::{CaseFile, Tensor};
use crate::error::Result;

/// PyTorch's own error in single precision may be exceeded this many times.
const YARDSTICKS: f64 = 10.0;
/// Always allowed, of a relative error in the norm.
const RELATIVE: f64 = 1e-5;
/// Always allowed, of the largest absolute error.
const ABSOLUTE: f64 = 1e-6;

/// What came of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Its name in the case file.
    pub name: String,
    /// ‖x − ref‖/‖ref‖ or max|x − ref|; NaN where something is not a number, infinite where the tensor was not computed.
    pub error: f64,
    /// What that may be.
    pub allowed: f64,
    /// Computed, and within what is allowed.
    pub passed: bool,
}

impl TensorReport {
    /// Error in units of what is allowed; a NaN is worse than everything.
    pub fn badness(&self) -> f64 {
        let badness = self.error / self.allowed;
        if badness.is_nan() { f64::INFINITY } else { badness }
    }
}

/// Compares what was computed for `name`, if it was, with what the file says.
///
/// The relative error in the norm may be max(10·f32err, 1e-5). Where the reference is all zero, or the file has no f32err, the largest
/// absolute error may be max(10·f32abs, 1e-6). NaN never passes, nor does another number of elements.
///
/// # Errors
/// A yardstick in the file that is not a number.
pub(super) fn compare(file: &CaseFile, name: &str, expected: &Tensor, computed: Option<&[f64]>) -> Result<TensorReport> {
    let reference = expected.values.to_f64();
    let of_norm = file.yardstick("f32err", name)?;
    let of_largest = file.yardstick("f32abs", name)?.unwrap_or(0.0);
    let relative = of_norm.filter(|_| reference.iter().any(|&r| r != 0.0));
    let allowed = match relative {
        Some(f32err) => (YARDSTICKS * f32err).max(RELATIVE),
        None => (YARDSTICKS * of_largest).max(ABSOLUTE),
    };
    let error = match computed.filter(|computed| computed.len() == reference.len()) {
        None => f64::INFINITY,
        Some(computed) => {
            let differences = || computed.iter().zip(&reference).map(|(x, r)| x - r);
            match relative {
                // The common scale keeps the squares of tiny second moments away from underflow.
                Some(_) => {
                    let scale = largest(reference.iter().copied());
                    norm(differences(), scale) / norm(reference.iter().copied(), scale)
                }
                None => largest(differences()),
            }
        }
    };
    Ok(TensorReport { name: name.to_owned(), error, allowed, passed: error <= allowed })
}

/// ‖values‖/scale.
fn norm(values: impl Iterator<Item = f64>, scale: f64) -> f64 {
    values.map(|value| (value / scale).powi(2)).sum::<f64>().sqrt()
}

/// The largest magnitude, NaN if there is one (which `f64::max` would lose).
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, |most: f64, value| if most.is_nan() || value <= most { most } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_of_numbers_with_a_nan_is_nan() {
        assert_eq!(largest([1.0, -3.0, 2.0].into_iter()), 3.0);
        assert!(largest([1.0, f64::NAN].into_iter()).is_nan());
        assert!(largest([f64::NAN, 1.0].into_iter()).is_nan());
    }
}
