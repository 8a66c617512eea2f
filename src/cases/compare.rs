//! The comparison of a computed tensor with the file's.

use super::file::{CaseFile, Tensor, Values};
use crate::error::Result;

/// Largest errors of a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Relative error in the norm that is always allowed; a tenth for an absolute error.
    pub relative: f64,
    /// Factor on PyTorch's error in single precision, if the file names it.
    pub yardsticks: f64,
}

impl Allowance {
    /// For single precision.
    pub const SINGLE: Self = Self { relative: 1e-5, yardsticks: 10.0 };
    /// For f64: the optimiser's schedule is f32, and PyTorch loses digits in small entropies.
    pub const DOUBLE: Self = Self { relative: 1e-6, yardsticks: 0.0 };

    fn absolute(&self) -> f64 {
        self.relative / 10.0
    }
}

/// The comparison of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Its name in the case file.
    pub name: String,
    /// ‖x − ref‖/‖ref‖ or max|x − ref|; NaN for a NaN, infinite without a comparison.
    pub error: f64,
    /// The error allowed.
    pub allowed: f64,
    /// Whether it was computed and its error is allowed.
    pub passed: bool,
    /// The reason without a comparison.
    pub missing: Option<String>,
    /// Index of the first element with an error above the allowed one, which a relative error
    /// scales by the file's largest element.
    pub first: Option<Vec<usize>>,
    /// The element with the largest error.
    pub furthest: Option<Element>,
}

/// An element of a tensor, computed and expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Its index in each dimension; empty for a scalar.
    pub index: Vec<usize>,
    /// By the backend.
    pub computed: f64,
    /// In the file.
    pub expected: f64,
}

impl TensorReport {
    /// Error as a multiple of the allowed one; infinite for NaN.
    pub fn badness(&self) -> f64 {
        let badness = self.error / self.allowed;
        if badness.is_nan() { f64::INFINITY } else { badness }
    }
}

/// Compares the computed values of `name`, if any, with the file's.
///
/// The relative error in the norm may be max(10·f32err, 1e-5) in single precision. For a reference
/// of zeros or integers, or with f32abs and without f32err, the largest absolute error may be
/// max(10·f32abs, 1e-6). NaN, infinities and another number of elements never pass.
///
/// # Errors
/// A yardstick that is not a number.
pub(super) fn compare(
    file: &CaseFile,
    name: &str,
    expected: &Tensor,
    computed: Option<&[f64]>,
    allowance: &Allowance,
) -> Result<TensorReport> {
    let reference = expected.values.to_f64();
    let (of_norm, of_largest) = (file.yardstick("f32err", name)?, file.yardstick("f32abs", name)?);
    let is_relative = reference.iter().any(|&r| r != 0.0)
        && !matches!(expected.values, Values::I64(_) | Values::U8(_))
        && (of_norm.is_some() || of_largest.is_none());
    let (yardstick, least) = if is_relative { (of_norm, allowance.relative) } else { (of_largest, allowance.absolute()) };
    let allowed = (allowance.yardsticks * yardstick.unwrap_or(0.0)).max(least);
    let mut report = TensorReport {
        name: name.to_owned(),
        error: f64::INFINITY,
        allowed,
        passed: false,
        missing: None,
        first: None,
        furthest: None,
    };
    let Some(computed) = computed else {
        report.missing = Some(format!("no result of kind {} has this name", file.kind()));
        return Ok(report);
    };
    if computed.len() != reference.len() {
        report.missing = Some(format!("{} elements computed, the file has {:?}", computed.len(), expected.shape));
        return Ok(report);
    }
    let differences = || computed.iter().zip(&reference).map(|(x, r)| x - r);
    let scale = largest(reference.iter().copied());
    report.error = if is_relative {
        // The common scale prevents underflow of tiny squared moments.
        norm(differences(), scale) / norm(reference.iter().copied(), scale)
    } else {
        largest(differences())
    };
    report.passed = report.error <= allowed;
    let distance = |difference: f64| if difference.is_nan() { f64::INFINITY } else { difference.abs() };
    let limit = allowed * if is_relative { scale } else { 1.0 };
    report.first = differences().position(|d| !(d.abs() <= limit)).map(|i| index_in(&expected.shape, i));
    let furthest = differences().enumerate().max_by(|(_, a), (_, b)| distance(*a).total_cmp(&distance(*b)));
    report.furthest =
        furthest.map(|(i, _)| Element { index: index_in(&expected.shape, i), computed: computed[i], expected: reference[i] });
    Ok(report)
}

/// The index in each dimension of an element of the flat tensor.
fn index_in(shape: &[usize], place: usize) -> Vec<usize> {
    let mut rest = place;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let i = rest % size;
            rest /= size;
            i
        })
        .collect();
    index.reverse();
    index
}

/// ‖values‖/scale.
fn norm(values: impl Iterator<Item = f64>, scale: f64) -> f64 {
    values.map(|value| (value / scale).powi(2)).sum::<f64>().sqrt()
}

/// The largest magnitude, or NaN if there is one, which `f64::max` drops.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, |most: f64, value| if most.is_nan() || value <= most { most } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_found_in_every_dimension() {
        assert_eq!(index_in(&[3, 4, 5], 2 * 20 + 3 * 5 + 1), [2, 3, 1]);
        assert_eq!(index_in(&[7], 6), [6]);
        assert!(index_in(&[], 0).is_empty());
    }

    #[test]
    fn the_largest_magnitude_of_numbers_with_a_nan_is_nan() {
        assert_eq!(largest([1.0, -3.0, 2.0].into_iter()), 3.0);
        assert!(largest([1.0, f64::NAN].into_iter()).is_nan());
        assert!(largest([f64::NAN, 1.0].into_iter()).is_nan());
    }
}
