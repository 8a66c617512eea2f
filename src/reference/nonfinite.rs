//! Twin of `shaders/nonfinite.wgsl`.

use rayon::prelude::*;

use crate::elementary::vectorised;
use crate::layout::{control, stop};
use crate::real::Real;

/// Elements a thread takes at once.
const CHUNK: usize = 1 << 16;

/// Reports the first element of `x` that is NaN or infinite, unless a tensor has been reported already.
pub fn find_nonfinite<T: Real>(tensor: u32, x: &[T], control: &mut [u32]) {
    if control[control::BAD_TENSOR] != 0 {
        return;
    }
    // Whole chunks first, without a branch an element: nearly always there is nothing to find.
    let is_bad = |chunk: &&[T]| !vectorised!(chunk.iter().fold(true, |finite, x| finite & x.is_finite()));
    let bad_chunk =
        if x.len() <= CHUNK { is_bad(&x).then_some(0) } else { x.par_chunks(CHUNK).position_first(|chunk| is_bad(&chunk)) };
    let first = bad_chunk.and_then(|chunk| {
        let start = chunk * CHUNK;
        x[start..].iter().position(|x| !x.is_finite()).map(|i| start + i)
    });
    if let Some(first) = first {
        control[control::STOP] = stop::NON_FINITE;
        control[control::BAD_TENSOR] = tensor;
        control[control::BAD_ELEMENT] = first as u32;
    }
}
