//! Twin of `shaders/nonfinite.wgsl`.

use crate::layout::{control, stop};
use crate::real::Real;

/// Reports the first element of `x` that is NaN or infinite, unless something has stopped already.
pub fn find_nonfinite<T: Real>(tensor: u32, x: &[T], control: &mut [u32]) {
    find_nonfinite_unless(tensor, x, |_| false, control);
}

/// As [`find_nonfinite`], without the elements for which `unless` says so.
pub fn find_nonfinite_unless<T: Real>(tensor: u32, x: &[T], unless: impl Fn(usize) -> bool, control: &mut [u32]) {
    if control[control::STOP] != stop::NONE {
        return;
    }
    if let Some(first) = (0..x.len()).find(|&i| !x[i].is_finite() && !unless(i)) {
        control[control::STOP] = stop::NON_FINITE;
        control[control::BAD_TENSOR] = tensor;
        control[control::BAD_ELEMENT] = first as u32;
    }
}
