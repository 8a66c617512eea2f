//! Room for what an operation needs only while it runs. It is kept from call to call, so that a warm update allocates nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use rayon::prelude::*;

/// What nobody uses at the moment: shared by all threads, because each call may come on another one. In `f64`, in which every type that
/// operations need is aligned.
static SHELF: Mutex<Vec<Vec<f64>>> = Mutex::new(Vec::new());

fn shelf() -> MutexGuard<'static, Vec<Vec<f64>>> {
    SHELF.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` with room for `len` elements, which hold anything.
pub(crate) fn with_room<E: Pod, R>(len: usize, body: impl FnOnce(&mut [E]) -> R) -> R {
    let needed = (len * size_of::<E>()).div_ceil(size_of::<f64>());
    let mut room = take(needed);
    if room.len() < needed {
        room.resize(needed, 0.0);
    }
    let result = body(&mut bytemuck::cast_slice_mut(&mut room[..needed])[..len]);
    shelf().push(room);
    result
}

/// The smallest that is large enough, or else the largest.
fn take(needed: usize) -> Vec<f64> {
    let mut shelf = shelf();
    let best = (0..shelf.len()).min_by_key(|&i| (shelf[i].len() < needed, shelf[i].len().abs_diff(needed)));
    best.map_or_else(Vec::new, |i| shelf.swap_remove(i))
}

/// What `finish` makes of `part` of 0, 1, …, `count` − 1. Parts are made on all threads and kept in order: to add them up while they are made
/// would have no fixed order.
pub(crate) fn in_parts<E: Pod + Send, R>(count: usize, part: impl Fn(usize) -> E + Sync, finish: impl FnOnce(&[E]) -> R) -> R {
    with_room(count, |parts: &mut [E]| {
        parts.par_iter_mut().enumerate().for_each(|(i, place)| *place = part(i));
        finish(parts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_that_are_in_use_together_are_not_the_same() {
        with_room(3, |outer: &mut [f32]| {
            outer.fill(1.0);
            with_room(5, |inner: &mut [u64]| inner.fill(u64::MAX));
            assert_eq!(outer, [1.0; 3]);
        });
        with_room(1, |wide: &mut [[f64; 7]]| assert_eq!(wide.len(), 1));
        with_room(0, |nothing: &mut [f32]| assert!(nothing.is_empty()));
    }

    #[test]
    fn parts_are_in_order() {
        assert!(in_parts(1000, |i| i as u64, |parts| parts.iter().copied().eq(0..1000)));
    }
}
