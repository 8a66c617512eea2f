//! Scratch buffers of operations, in a pool, so that a warm update allocates nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use rayon::prelude::*;

/// The unused buffers, shared by all threads. `f64` aligns every type that operations need.
static POOL: Mutex<Vec<Vec<f64>>> = Mutex::new(Vec::new());

fn pool() -> MutexGuard<'static, Vec<Vec<f64>>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` with a scratch buffer of `len` elements of unspecified contents.
pub(crate) fn with_scratch<E: Pod, R>(len: usize, body: impl FnOnce(&mut [E]) -> R) -> R {
    let needed = (len * size_of::<E>()).div_ceil(size_of::<f64>());
    let mut buffer = take(needed);
    if buffer.len() < needed {
        buffer.resize(needed, 0.0);
    }
    let result = body(&mut bytemuck::cast_slice_mut(&mut buffer[..needed])[..len]);
    pool().push(buffer);
    result
}

/// The smallest buffer that is large enough, or else the largest.
fn take(needed: usize) -> Vec<f64> {
    let mut pool = pool();
    let best = (0..pool.len()).min_by_key(|&i| (pool[i].len() < needed, pool[i].len().abs_diff(needed)));
    best.map_or_else(Vec::new, |i| pool.swap_remove(i))
}

/// Computes `part` of 0, 1, …, `count` − 1 on all threads and passes the results to `finish` in
/// order. Sums on the fly would have no fixed order.
pub(crate) fn in_parts<E: Pod + Send, R>(count: usize, part: impl Fn(usize) -> E + Sync, finish: impl FnOnce(&[E]) -> R) -> R {
    with_scratch(count, |parts: &mut [E]| {
        parts.par_iter_mut().enumerate().for_each(|(i, place)| *place = part(i));
        finish(parts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_are_in_use_together_are_not_the_same() {
        with_scratch(3, |outer: &mut [f32]| {
            outer.fill(1.0);
            with_scratch(5, |inner: &mut [u64]| inner.fill(u64::MAX));
            assert_eq!(outer, [1.0; 3]);
        });
        with_scratch(1, |wide: &mut [[f64; 7]]| assert_eq!(wide.len(), 1));
        with_scratch(0, |nothing: &mut [f32]| assert!(nothing.is_empty()));
    }

    #[test]
    fn parts_are_in_order() {
        assert!(in_parts(1000, |i| i as u64, |parts| parts.iter().copied().eq(0..1000)));
    }
}
