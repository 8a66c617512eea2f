//! Finding NaN: whole chunks first, without a branch an element, on all threads.

use rayon::prelude::*;

use crate::elementary::vectorised;
use crate::layout::{control, stop};

/// Elements a thread takes at once.
const CHUNK: usize = 1 << 16;

/// Reports the first element of `x` that is NaN or infinite, unless something has stopped already.
pub fn find_nonfinite(tensor: u32, x: &[f32], control: &mut [u32]) {
    if control[control::STOP] != stop::NONE {
        return;
    }
    // Whole chunks first, without a branch an element: nearly always there is nothing to find.
    let is_bad = |chunk: &&[f32]| !vectorised!(chunk.iter().fold(true, |finite, x| finite & x.is_finite()));
    let bad_chunk =
        if x.len() <= CHUNK { is_bad(&x).then_some(0) } else { x.par_chunks(CHUNK).position_first(|chunk| is_bad(&chunk)) };
    let first = bad_chunk.and_then(|chunk| {
        let start = chunk * CHUNK;
        x[start..].iter().position(|x| !x.is_finite()).map(|i| start + i)
    });
    report(tensor, first, control);
}

/// As [`find_nonfinite`], without the elements for which `unless` says so.
pub fn find_nonfinite_unless(tensor: u32, x: &[f32], unless: impl Fn(usize) -> bool, control: &mut [u32]) {
    if control[control::STOP] == stop::NONE {
        report(tensor, (0..x.len()).find(|&i| !x[i].is_finite() && !unless(i)), control);
    }
}

fn report(tensor: u32, first: Option<usize>, control: &mut [u32]) {
    if let Some(first) = first {
        control[control::STOP] = stop::NON_FINITE;
        control[control::BAD_TENSOR] = tensor;
        control[control::BAD_ELEMENT] = first as u32;
    }
}
